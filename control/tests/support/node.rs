//! A node that does what it is told and starts nothing: it speaks the protocol, and its replicas are streams of sidecars.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_config::wire::node::{
    FromNode, GpuState, Inventory, Lines, NeedToken, NodeBeat, NodeHello, ReplicaOrder, ReplicaPhase,
    ReplicaSet, ReplicaState, ReplicaStates, Stale, ToNode,
};
use pilotfish_config::wire::{Heartbeat, Join, Joined, Status, ToControl, Versions};
use pilotfish_control::api::types::{NewToken, Token};
use pilotfish_testkit::ca::Issued;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout};

use super::sidecar::{hello, join_at, request};
use super::{Http, Serve, Stream};

/// Longer than anything takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// What a node saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The term of each welcome.
    pub welcomes: Vec<u64>,
    /// Each set that was taken.
    pub sets: Vec<ReplicaSet>,
    /// Each set that was not, by its term.
    pub stale: Vec<u64>,
    /// Where it was sent.
    pub elsewhere: Option<Option<String>>,
    /// Why it was refused.
    pub refused: Option<String>,
    /// Replicas whose sidecars are registered.
    pub registered: Vec<String>,
    /// Why a token was not given.
    pub no_token: Vec<String>,
    /// When it said last that it lives.
    pub beat: Option<Instant>,
    /// The stream has ended.
    pub ended: bool,
}

impl Seen {
    /// What it should have, by id.
    pub fn replicas(&self) -> Vec<ReplicaOrder> {
        let mut replicas = self.sets.last().map(|set| set.replicas.clone()).unwrap_or_default();
        replicas.sort_by(|a, b| a.id.cmp(&b.id));
        replicas
    }
}

/// How a node behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its replicas become ready.
    pub ready: bool,
    /// Every replica is reported as this, with this reason.
    pub phase: ReplicaPhase,
    /// A replica ends when this has a permit; at once without.
    pub ends: Option<Arc<Semaphore>>,
    pub inventory: Inventory,
    pub instance: String,
    /// The highest term that it has seen.
    pub term: u64,
    /// What runs there already.
    pub replicas: Vec<ReplicaState>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            ready: true,
            phase: ReplicaPhase::Running,
            ends: None,
            inventory: inventory(0),
            instance: "00000000000000000000000000000001".into(),
            term: 0,
            replicas: Vec::new(),
        }
    }
}

/// What a machine with so many cards has.
pub fn inventory(gpus: usize) -> Inventory {
    let gpu = |number: usize| GpuState {
        id: format!("GPU-{number}"),
        model: "NVIDIA A100-SXM4-80GB".into(),
        memory: 80 << 30,
        failed: None,
        driver: None,
        slices: Vec::new(),
        used: 0,
        busy_percent: 0,
    };
    Inventory {
        locality: Some("eu/a".into()),
        cpu_milli: 16_000,
        memory: 64 << 30,
        gpus: (0..gpus).map(gpu).collect(),
        most_replicas: 100,
        ..Inventory::default()
    }
}

/// What it is made to do.
enum Act {
    /// Says nothing any more, but does not hang up; or speaks again.
    Mute(bool),
    Say(Box<FromNode>),
}

/// A connected node; dropping it hangs up.
pub struct Node {
    pub name: String,
    seen: watch::Receiver<Seen>,
    acts: mpsc::UnboundedSender<Act>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A node's identity.
pub async fn joined(serve: &Serve, name: &str) -> Issued {
    let wanted =
        NewToken { agent: name.into(), namespace: String::new(), ttl_seconds: 60, uses: 1, node: true };
    let token = Http::socket(serve).await.post("/v1/tokens", &wanted).await.ok::<Token>().token;
    let own = request("of", "the-key");
    let join =
        Join { token, agent: name.into(), namespace: String::new(), csr: own.csr_pem.clone(), node: true };
    let joined: Joined = Http::tls(serve, None).await.post("/v1/join", &join).await.ok();
    Issued { chain: joined.chain, key: own.key_pem.to_string() }
}

impl Node {
    /// A new node of this name, with its usual behaviour.
    pub async fn start(serve: &Serve, name: &str) -> Node {
        let own = joined(serve, name).await;
        Node::connect(serve, name, &own, Options::default()).await
    }

    /// Connects with an identity.
    pub async fn connect(serve: &Serve, name: &str, own: &Issued, options: Options) -> Node {
        let mut stream: Stream<ToNode> =
            Stream::open_at(Http::tls(serve, Some(own)).await, "/v1/nodes/stream").await;
        let hello = NodeHello {
            versions: Versions::own(),
            node: name.into(),
            instance: options.instance.clone(),
            term: options.term,
            inventory: options.inventory.clone(),
            replicas: options.replicas.clone(),
        };
        stream.say(&FromNode::Hello(Box::new(hello))).await;
        let (seen_in, seen) = watch::channel(Seen::default());
        let (acts, given) = mpsc::unbounded_channel();
        let running =
            Running { stream, seen: seen_in, options, listen: serve.listen, replicas: BTreeMap::new() };
        let task = tokio::spawn(running.run(given));
        Node { name: name.into(), seen, acts, task }
    }

    /// What it saw so far.
    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until it saw what fits.
    pub async fn until(&self, what: &str, fits: impl Fn(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.clone();
        let found = timeout(LONG, seen.wait_for(|seen| fits(seen))).await;
        if let Ok(Ok(seen)) = found {
            return seen.clone();
        }
        panic!("{}: never {what}: {:#?}", self.name, self.seen())
    }

    /// Waits until its set has so many replicas.
    pub async fn until_has(&self, count: usize) -> Vec<ReplicaOrder> {
        let has = |seen: &Seen| seen.sets.last().is_some_and(|set| set.replicas.len() == count);
        self.until(&format!("{count} replicas"), has).await.replicas()
    }

    /// It says nothing any more, as if its network was cut.
    pub fn mute(&self) {
        let _ = self.acts.send(Act::Mute(true));
    }

    /// It speaks again.
    pub fn speak(&self) {
        let _ = self.acts.send(Act::Mute(false));
    }

    /// It says this.
    pub fn say(&self, message: FromNode) {
        let _ = self.acts.send(Act::Say(Box::new(message)));
    }
}

/// The node's side of its stream.
struct Running {
    stream: Stream<ToNode>,
    seen: watch::Sender<Seen>,
    options: Options,
    listen: std::net::SocketAddr,
    /// Sidecars by replica; dropping one hangs up.
    replicas: BTreeMap<String, Option<tokio::task::JoinHandle<()>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.replicas.values().flatten().for_each(tokio::task::JoinHandle::abort);
        self.seen.send_modify(|seen| seen.ended = true);
    }
}

impl Running {
    async fn run(mut self, mut acts: mpsc::UnboundedReceiver<Act>) {
        let (mut mute, mut number, mut next) = (false, 0, Instant::now());
        loop {
            tokio::select! {
                biased;
                act = acts.recv() => match act {
                    Some(Act::Mute(now)) => mute = now,
                    Some(Act::Say(message)) => self.stream.say(&*message).await,
                    None => return,
                },
                message = self.stream.patient(), if !mute => match message {
                    Some(message) => self.message(message).await,
                    None => return,
                },
                () = tokio::time::sleep_until(next) => {
                    next = Instant::now() + Duration::from_millis(300);
                    number += 1;
                    if !mute {
                        self.seen.send_modify(|seen| seen.beat = Some(Instant::now()));
                        self.stream.say(&FromNode::Beat(NodeBeat { number })).await;
                    }
                }
            }
        }
    }

    async fn message(&mut self, message: ToNode) {
        match message {
            ToNode::Welcome(welcome) => self.seen.send_modify(|seen| seen.welcomes.push(welcome.term)),
            ToNode::Elsewhere(other) => {
                self.seen.send_modify(|seen| seen.elsewhere = Some(other.address));
            }
            ToNode::Refused(refused) => self.seen.send_modify(|seen| seen.refused = Some(refused.reason)),
            ToNode::Set(set) if set.term < self.options.term => {
                let stale = Stale { term: set.term, seen: self.options.term };
                self.stream.say(&FromNode::Stale(stale)).await;
                self.seen.send_modify(|seen| seen.stale.push(set.term));
            }
            ToNode::Set(set) => self.take(*set).await,
            ToNode::Token(token) => match token.token {
                Ok(secret) => self.register(token.replica, secret),
                Err(why) => self.seen.send_modify(|seen| seen.no_token.push(why)),
            },
            ToNode::Tail(tail) => {
                let lines = Ok(vec![format!("the last line of {}", tail.replica)]);
                self.stream.say(&FromNode::Lines(Lines { number: tail.number, lines })).await;
            }
            ToNode::Beat(_) | ToNode::Unknown => {}
        }
    }

    /// It beats on while its replicas take their time.
    async fn wait_for_the_end(&mut self) {
        let Some(ends) = self.options.ends.clone() else { return };
        while tokio::time::timeout(Duration::from_millis(300), ends.acquire()).await.is_err() {
            self.stream.say(&FromNode::Beat(NodeBeat { number: 0 })).await;
        }
    }

    async fn take(&mut self, set: ReplicaSet) {
        self.options.term = set.term;
        let state = |id: &str, generation: &str, phase| ReplicaState {
            id: id.into(),
            generation: generation.into(),
            phase,
            reason: (phase == ReplicaPhase::Failed).then(|| "no such command".into()),
            restarts: 0,
            sidecar_restarts: 0,
            pid: None,
            since_ms: 0,
            usage: None,
        };
        let mut states = Vec::new();
        let gone: Vec<String> =
            self.replicas.keys().filter(|id| !set.replicas.iter().any(|r| r.id == **id)).cloned().collect();
        if !gone.is_empty() {
            self.wait_for_the_end().await;
        }
        for id in gone {
            if let Some(Some(sidecar)) = self.replicas.remove(&id) {
                sidecar.abort();
            }
            states.push(state(&id, "", ReplicaPhase::Gone));
            self.seen.send_modify(|seen| seen.registered.retain(|registered| *registered != id));
        }
        for order in &set.replicas {
            if !self.replicas.contains_key(&order.id) {
                self.replicas.insert(order.id.clone(), None);
                states.push(state(&order.id, &order.generation, self.options.phase));
                if self.options.ready {
                    let need = NeedToken { replica: order.id.clone() };
                    self.stream.say(&FromNode::NeedToken(need)).await;
                }
            }
        }
        self.stream.say(&FromNode::Replicas(ReplicaStates { replicas: states })).await;
        self.seen.send_modify(|seen| seen.sets.push(set));
    }

    /// A replica's sidecar joins by its token, registers and stays.
    fn register(&mut self, replica: String, secret: String) {
        let replicas = self.seen.borrow().replicas();
        let Some(order) = replicas.into_iter().find(|order| order.id == replica) else { return };
        let sidecar = tokio::spawn(sidecar(self.listen, order, secret, self.seen.clone()));
        self.replicas.insert(replica, Some(sidecar));
    }
}

/// The sidecar of a replica, until it is dropped.
async fn sidecar(
    listen: std::net::SocketAddr,
    order: ReplicaOrder,
    secret: String,
    seen: watch::Sender<Seen>,
) {
    let (reply, issued) = join_at(listen, &secret, &order.namespace, &order.agent).await;
    let issued = issued.unwrap_or_else(|| panic!("the replica's token is not good: {}", reply.text()));
    let mut own = hello(&order.namespace, &order.agent);
    own.instance = format!("{:032x}", fastrand::u128(..));
    own.address = Some(([127, 0, 0, 1], fastrand::u16(20_000..60_000)).into());
    own.labels = order.labels.clone();
    let http = Http::try_tls(listen, Some(&issued)).await.unwrap();
    let mut stream: Stream = Stream::open_at(http, "/v1/stream").await;
    stream.say(&ToControl::Hello(Box::new(own))).await;
    seen.send_modify(|seen| seen.registered.push(order.id.clone()));
    let mut beats = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            message = stream.patient() => if message.is_none() { return },
            _ = beats.tick() => {
                let beat = Heartbeat { status: Status::Ready, ..Heartbeat::default() };
                stream.say(&ToControl::Heartbeat(beat)).await;
            }
        }
    }
}
