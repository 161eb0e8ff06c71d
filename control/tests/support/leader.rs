//! A control plane that leads and does nothing but what a test says: nodes join it, it sends sets, it remembers what they report.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pilotfish_config::wire::node::{
    FromNode, Inventory, LONGEST_FROM_NODE, Lines, NodeHello, NodeWelcome, ReplicaOrder, ReplicaSet,
    ReplicaState, ReplicaToken, Stale, Tail, ToNode,
};
use pilotfish_config::wire::{Frames, Join, Joined, Versions, frame};
use pilotfish_identity::{JoinToken, fingerprint};
use pilotfish_testkit::ca::{Ca, Leaf};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

const DOMAIN: &str = "cluster.local";

/// A mesh's authority.
pub fn authority() -> Arc<Ca> {
    Arc::new(Ca::new(DOMAIN))
}

/// A token of that mesh; the leader takes every one.
pub fn token(ca: &Ca) -> String {
    let root = fingerprint(&ca.root_der());
    JoinToken { id: [7; 8], secret: Zeroizing::new([7; 32]), root }.to_text().to_string()
}

/// What nodes said.
#[derive(Debug, Default)]
pub struct Heard {
    pub hellos: Vec<NodeHello>,
    pub inventory: Option<Inventory>,
    /// The newest state of each.
    pub states: BTreeMap<String, ReplicaState>,
    /// All that came, in order.
    pub history: Vec<ReplicaState>,
    pub stale: Vec<Stale>,
    pub lines: Vec<Lines>,
    pub tokens: u32,
    pub beats: u64,
}

#[derive(Default)]
struct Shared {
    term: u64,
    sequence: u64,
    set: Option<Vec<ReplicaOrder>>,
    heard: Heard,
    /// Open streams.
    streams: Vec<mpsc::UnboundedSender<ToNode>>,
    /// Answers no beats any more.
    silent: bool,
}

/// It.
pub struct Leader {
    pub address: SocketAddr,
    pub ca: Arc<Ca>,
    shared: Arc<Mutex<Shared>>,
    serving: JoinHandle<()>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Leader {
    /// Serves on a port of its own.
    pub async fn start(ca: &Arc<Ca>, term: u64) -> Leader {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut own =
            ca.issue(&Leaf::of(&format!("spiffe://{DOMAIN}/ns/pilotfish-system/control/leader-{term}")));
        // A node that knows a fingerprint alone needs the root itself.
        own.chain.push_str(&ca.root_pem());
        let acceptor = TlsAcceptor::from(ca.server(&own, false, &[b"h2"]));
        let shared = Arc::new(Mutex::new(Shared { term, ..Shared::default() }));
        let connections: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let (sharing, keeping, authority) = (shared.clone(), connections.clone(), ca.clone());
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, shared, ca) = (acceptor.clone(), sharing.clone(), authority.clone());
                let connection = tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(request, shared.clone(), ca.clone()));
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
                keeping.lock().unwrap().push(connection);
            }
        });
        Leader { address, ca: ca.clone(), shared, serving, connections }
    }

    /// As `--control` has it.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Orders a set, now and whenever a node comes.
    pub fn set(&self, orders: Vec<ReplicaOrder>) {
        let mut shared = self.lock();
        shared.set = Some(orders);
        let set = next_set(&mut shared);
        shared.streams.retain(|stream| stream.send(set.clone()).is_ok());
    }

    /// Goes on in another term.
    pub fn term(&self, term: u64) {
        self.lock().term = term;
    }

    /// Answers no more beats, as one that was stopped.
    pub fn silence(&self) {
        self.lock().silent = true;
    }

    /// Asks for lines.
    pub fn tail(&self, replica: &str, lines: u32) {
        let tail = Tail { number: 1, replica: replica.into(), lines };
        self.lock().streams.retain(|stream| stream.send(ToNode::Tail(tail.clone())).is_ok());
    }

    /// Looks at what was heard.
    pub fn heard<T>(&self, look: impl FnOnce(&Heard) -> T) -> T {
        look(&self.lock().heard)
    }

    /// Waits until what was heard is as wanted.
    #[track_caller]
    pub fn until<T>(&self, what: &str, look: impl Fn(&Heard) -> Option<T>) -> impl Future<Output = T> {
        let what = what.to_owned();
        async move {
            let until = Instant::now() + Duration::from_secs(60);
            loop {
                if let Some(found) = self.heard(&look) {
                    return found;
                }
                assert!(Instant::now() < until, "{what}: {:#?}", self.lock().heard.history);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Waits for a replica's state.
    pub async fn state(&self, id: &str, fits: impl Fn(&ReplicaState) -> bool) -> ReplicaState {
        self.until(id, |heard| heard.states.get(id).filter(|state| fits(state)).cloned()).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.serving.abort();
        self.connections.lock().unwrap().iter().for_each(JoinHandle::abort);
    }
}

fn next_set(shared: &mut Shared) -> ToNode {
    shared.sequence += 1;
    let replicas = shared.set.clone().unwrap_or_default();
    ToNode::Set(Box::new(ReplicaSet { term: shared.term, sequence: shared.sequence, replicas }))
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Mutex<Shared>>,
    ca: Arc<Ca>,
) -> Result<Response<Body>, Infallible> {
    if request.uri().path() == "/v1/join" {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let join: Join = serde_json::from_slice(&body).unwrap();
        assert!(join.node && join.namespace.is_empty());
        let id = format!("spiffe://{DOMAIN}/ns/pilotfish-system/node/{}", join.agent);
        let joined = Joined {
            chain: ca.sign(&join.csr, &Leaf::of(&id)),
            bundles: [(DOMAIN.to_owned(), ca.root_pem())].into(),
            id,
            expires: 0,
        };
        return Ok(Response::new(Full::from(serde_json::to_vec(&joined).unwrap()).boxed_unsync()));
    }
    assert_eq!(request.uri().path(), "/v1/nodes/stream");
    let (sender, body) = Channel::new(64);
    tokio::spawn(stream(request.into_body(), sender, shared));
    Ok(Response::new(body.boxed_unsync()))
}

async fn stream(mut body: Incoming, mut sender: Sender<Bytes>, shared: Arc<Mutex<Shared>>) {
    let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    let mut frames = Frames::<FromNode>::new(LONGEST_FROM_NODE);
    let (outgoing, mut waiting) = mpsc::unbounded_channel();
    loop {
        tokio::select! {
            frame = body.frame() => match frame {
                Some(Ok(frame)) => frames.push(&frame.into_data().unwrap_or_default()),
                _ => return,
            },
            Some(message) = waiting.recv() => {
                let _ = sender.send_data(frame(&message).unwrap().into()).await;
                continue;
            }
        }
        while let Some(message) = frames.next().unwrap() {
            let mut shared = lock();
            match message {
                FromNode::Hello(hello) => {
                    let welcome = NodeWelcome {
                        versions: Versions::own(),
                        control: "leader".into(),
                        term: shared.term,
                        lease_ms: 3000,
                        beat_ms: 200,
                    };
                    shared.heard.inventory = Some(hello.inventory.clone());
                    heard_states(&mut shared.heard, &hello.replicas);
                    shared.heard.hellos.push(*hello);
                    let _ = outgoing.send(ToNode::Welcome(welcome));
                    if shared.set.is_some() {
                        let _ = outgoing.send(next_set(&mut shared));
                    }
                    shared.streams.push(outgoing.clone());
                }
                FromNode::Beat(beat) => {
                    shared.heard.beats += 1;
                    if !shared.silent {
                        let _ = outgoing.send(ToNode::Beat(beat));
                    }
                }
                FromNode::Inventory(inventory) => shared.heard.inventory = Some(inventory),
                FromNode::Replicas(states) => heard_states(&mut shared.heard, &states.replicas),
                FromNode::NeedToken(need) => {
                    shared.heard.tokens += 1;
                    let token = JoinToken { id: [9; 8], secret: Zeroizing::new([9; 32]), root: [9; 32] };
                    let token = Ok(token.to_text().to_string());
                    let _ = outgoing.send(ToNode::Token(ReplicaToken { replica: need.replica, token }));
                }
                FromNode::Stale(stale) => shared.heard.stale.push(stale),
                FromNode::Lines(lines) => shared.heard.lines.push(lines),
                FromNode::Unknown => panic!("what is that?"),
            }
        }
    }
}

fn heard_states(heard: &mut Heard, states: &[ReplicaState]) {
    for state in states {
        heard.states.insert(state.id.clone(), state.clone());
        heard.history.push(state.clone());
    }
}
