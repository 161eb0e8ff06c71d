//! The node's stream to the leading control plane: found, held, found again. What runs goes on meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pilotfish_client::{Address, Backoff, Cut, Messages, Problem, Proof};
use pilotfish_config::wire::Versions;
use pilotfish_config::wire::node::{
    FromNode, Inventory, LONGEST_TO_NODE, Lines, NeedToken, NodeBeat, NodeHello, NodeWelcome, ReplicaSet,
    ReplicaStates, Stale, Tail, ToNode,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::connect::connect;
use super::disk::Term;
use super::identity::Member;
use super::replicas::Replicas;
use crate::log;

/// Between two rounds of tries: a new leader is found within a lease.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How long the first answer may take.
const WELCOME: Duration = Duration::from_secs(5);
/// How long a word that ends a stream may take to get away.
const LAST_WORD: Duration = Duration::from_millis(500);
/// A token that did not come is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How often a node that finds no leader says so.
const SAY_EVERY: Duration = Duration::from_secs(30);
/// So many pointers to another control plane are followed without a pause.
const HOPS: u32 = 4;
/// Replicas in one report.
const MOST_STATES: usize = 1000;

/// What a stream needs.
#[derive(Debug)]
pub(super) struct Node {
    /// Who it is.
    pub(super) member: Arc<Member>,
    /// Where control planes are.
    pub(super) controls: Vec<Address>,
    /// The highest term.
    pub(super) term: Mutex<Term>,
    /// What runs.
    pub(super) replicas: Arc<Replicas>,
    /// What there is.
    pub(super) inventory: watch::Receiver<Arc<Inventory>>,
    /// This process: 32 hexadecimal digits.
    pub(super) instance: String,
}

/// How a stream ended.
enum End {
    /// Another control plane leads.
    Elsewhere(Option<Address>),
    /// It broke, or made no sense. Whether it was welcomed before.
    Lost(String, bool),
}

fn lost(why: impl std::fmt::Display) -> End {
    End::Lost(why.to_string(), false)
}

impl Node {
    /// Follows the leader for the life of the process.
    pub(super) async fn follow(self: Arc<Node>) {
        let (mut rng, mut backoff) = (fastrand::Rng::new(), Backoff::new(AGAIN.0, AGAIN.1));
        let mut said: Option<Instant> = None;
        let mut next = 0;
        let mut pointed: Option<Address> = None;
        let mut hops = 0;
        loop {
            let address = pointed.take().unwrap_or_else(|| {
                let address = self.controls[next].clone();
                next = (next + 1) % self.controls.len();
                address
            });
            let why = match self.session(&address).await {
                End::Elsewhere(Some(other)) if other != address && hops < HOPS => {
                    hops += 1;
                    pointed = Some(other);
                    continue;
                }
                End::Elsewhere(_) => "it does not lead".to_owned(),
                End::Lost(why, welcomed) => {
                    if welcomed {
                        backoff.reset();
                        said = None;
                    }
                    why
                }
            };
            hops = 0;
            if said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
                said = Some(Instant::now());
                log::warn!(
                    "no leading control plane, trying on; what runs goes on",
                    control = address,
                    why = why
                );
            }
            // All of them are asked before a longer pause.
            let pause = if next == 0 { backoff.next(&mut rng) } else { AGAIN.0 };
            sleep(pause).await;
        }
    }

    async fn session(&self, address: &Address) -> End {
        let proof = Proof::Live(self.member.live.clone());
        let mut connection = match connect(address, &proof).await {
            Ok(connection) => connection,
            Err(why) => return lost(why),
        };
        let inventory = self.inventory.clone();
        let changes = self.replicas.states().changes();
        let (states, told) = self.replicas.states().all();
        let hello = NodeHello {
            versions: Versions::own(),
            node: self.member.name.clone(),
            instance: self.instance.clone(),
            term: self.seen(),
            inventory: (**inventory.borrow()).clone(),
            replicas: states,
        };
        let hello = FromNode::Hello(Box::new(hello));
        let opened = timeout(WELCOME, connection.messages("/v1/nodes/stream", &hello, LONGEST_TO_NODE)).await;
        let mut stream = match opened.unwrap_or_else(|_| Err(Problem::Away("it does not answer".into()))) {
            Ok(stream) => stream,
            Err(Problem::Refused(why)) => return lost(format!("it refuses: {why}")),
            Err(why) => return lost(why),
        };
        let first = timeout(WELCOME, stream.next()).await;
        let welcome = match first.unwrap_or_else(|_| Err(Cut::Away("it does not answer".into()))) {
            Ok(ToNode::Welcome(welcome)) => welcome,
            Ok(ToNode::Elsewhere(elsewhere)) => {
                return End::Elsewhere(elsewhere.address.and_then(|at| at.parse().ok()));
            }
            Ok(ToNode::Refused(refused)) => return lost(format!("it refuses: {}", refused.reason)),
            Ok(_) => return lost("it does not begin with a welcome"),
            Err(why) => return lost(why),
        };
        if welcome.term < self.seen() {
            self.stale(stream, welcome.term).await;
            return lost("it has led before, and does not know that it was followed");
        }
        log::info!("following", control = address, leader = welcome.control, term = welcome.term);
        let mut session = Session { node: self, stream, told, asked: HashMap::new(), changes, inventory };
        let why = session.serve(&welcome).await;
        match why {
            Why::Broken(why) => End::Lost(why, true),
            Why::Stale(term) => {
                self.stale(session.stream, term).await;
                lost("its term is over")
            }
            Why::Elsewhere(address) => End::Elsewhere(address),
        }
    }

    /// Tells an old leader that it is none any more.
    async fn stale(&self, mut stream: Messages<ToNode>, term: u64) {
        let seen = self.seen();
        log::warn!("a control plane that does not lead any more was refused", term = term, seen = seen);
        let _ = stream.say(&FromNode::Stale(Stale { term, seen }), LAST_WORD).await;
        stream.finish(LAST_WORD).await;
    }

    fn seen(&self) -> u64 {
        self.term.lock().unwrap_or_else(PoisonError::into_inner).seen()
    }

    /// Keeps a term before anything of it is done. Whether it may be.
    ///
    /// # Errors
    /// The disk's.
    fn take(&self, term: u64) -> std::io::Result<bool> {
        let mut kept = self.term.lock().unwrap_or_else(PoisonError::into_inner);
        if term < kept.seen() {
            return Ok(false);
        }
        // The disk may be slow: the other tasks of this thread go elsewhere.
        tokio::task::block_in_place(|| kept.keep(term))?;
        Ok(true)
    }
}

/// Why a stream that was welcomed ended.
enum Why {
    Broken(String),
    Stale(u64),
    Elsewhere(Option<Address>),
}

/// A stream that was welcomed.
struct Session<'n> {
    node: &'n Node,
    stream: Messages<ToNode>,
    /// States are told up to this count.
    told: u64,
    /// Since when tokens are asked for.
    asked: HashMap<String, Instant>,
    changes: watch::Receiver<u64>,
    inventory: watch::Receiver<Arc<Inventory>>,
}

impl Session<'_> {
    async fn serve(&mut self, welcome: &NodeWelcome) -> Why {
        let lease = Duration::from_millis(welcome.lease_ms.clamp(100, 60_000));
        let mut beats = interval(Duration::from_millis(welcome.beat_ms.clamp(20, 20_000)));
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (lines, mut answers) = mpsc::channel::<Lines>(4);
        let mut heard = Instant::now();
        let mut number = 0;
        loop {
            let step = tokio::select! {
                biased;
                message = self.stream.next() => match message {
                    Ok(ToNode::Beat(_)) => {
                        heard = Instant::now();
                        Ok(())
                    }
                    Ok(ToNode::Set(set)) => match self.set(*set) {
                        Ok(()) => Ok(()),
                        Err(why) => return why,
                    },
                    Ok(ToNode::Token(token)) => {
                        self.asked.remove(&token.replica);
                        self.node.replicas.token(&token.replica, token.token);
                        Ok(())
                    }
                    Ok(ToNode::Tail(tail)) => {
                        self.tail(tail, lines.clone());
                        Ok(())
                    }
                    Ok(ToNode::Elsewhere(elsewhere)) => {
                        return Why::Elsewhere(elsewhere.address.and_then(|at| at.parse().ok()));
                    }
                    Ok(ToNode::Refused(refused)) => {
                        return Why::Broken(format!("it refuses: {}", refused.reason));
                    }
                    Ok(ToNode::Welcome(_) | ToNode::Unknown) => Ok(()),
                    Err(why) => Err(why),
                },
                _ = beats.tick() => {
                    if heard.elapsed() > lease {
                        return Why::Broken(format!("it did not answer for {lease:?}"));
                    }
                    number += 1;
                    let beat = self.stream.say(&FromNode::Beat(NodeBeat { number }), lease).await;
                    if beat.is_ok() { self.ask(lease).await } else { beat }
                }
                Ok(()) = self.changes.changed() => self.tell(lease).await,
                Ok(()) = self.inventory.changed() => {
                    let inventory = (**self.inventory.borrow_and_update()).clone();
                    self.stream.say(&FromNode::Inventory(inventory), lease).await
                }
                Some(lines) = answers.recv() => self.stream.say(&FromNode::Lines(lines), lease).await,
            };
            if let Err(why) = step {
                return Why::Broken(why.to_string());
            }
        }
    }

    /// Makes a set so, once its term is on the disk.
    fn set(&self, set: ReplicaSet) -> Result<(), Why> {
        match self.node.take(set.term) {
            Ok(true) => {
                self.node.replicas.apply(set.replicas);
                Ok(())
            }
            Ok(false) => Err(Why::Stale(set.term)),
            Err(error) => Err(Why::Broken(format!("its term cannot be kept: {error}"))),
        }
    }

    /// Tells what changed, and asks for what is needed.
    async fn tell(&mut self, lease: Duration) -> Result<(), Cut> {
        self.changes.borrow_and_update();
        let (states, told) = self.node.replicas.states().since(self.told);
        self.told = told;
        for some in states.chunks(MOST_STATES) {
            let states = ReplicaStates { replicas: some.to_vec() };
            self.stream.say(&FromNode::Replicas(states), lease).await?;
        }
        self.ask(lease).await
    }

    /// Asks for identities that were not asked for, or did not come.
    async fn ask(&mut self, lease: Duration) -> Result<(), Cut> {
        let needing = self.node.replicas.states().needing();
        self.asked.retain(|id, since| needing.contains(id) && since.elapsed() < ASK_AGAIN);
        for replica in needing {
            if self.asked.contains_key(&replica) {
                continue;
            }
            self.asked.insert(replica.clone(), Instant::now());
            self.stream.say(&FromNode::NeedToken(NeedToken { replica }), lease).await?;
        }
        Ok(())
    }

    /// Reads lines beside the stream: the disk may be slow.
    fn tail(&self, asked: Tail, answers: mpsc::Sender<Lines>) {
        let replicas = self.node.replicas.clone();
        tokio::task::spawn_blocking(move || {
            let many = usize::try_from(asked.lines).unwrap_or(usize::MAX);
            let lines = Lines { number: asked.number, lines: replicas.tail(&asked.replica, many) };
            let _ = answers.blocking_send(lines);
        });
    }
}
