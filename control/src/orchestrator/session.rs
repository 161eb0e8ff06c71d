//! One node's stream: the hello, then what it says and what it is told, each at its own pace.
//!
//! What waits to be told is bounded: of sets only the newest counts, of echoes the last. A sign of life is one number that is
//! written; a node that says nothing else wakes nobody.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use pilotfish_config::wire::node::{
    Elsewhere, FromNode, Lines, NodeBeat, NodeHello, NodeWelcome, ReplicaToken, Tail, ToNode,
};
use pilotfish_config::wire::{MAJOR, MINOR, Refused, Versions, WireError, frame};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Duration, Instant, sleep, sleep_until, timeout};

use super::board::Board;
use super::{NODE_LEASE, Shared};
use crate::api::types::NewToken;
use crate::log;

/// A hello has to come within this time.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// How long a hello waits until it is known who leads: the first moments of a process.
const LEADER_WITHIN: Duration = Duration::from_secs(2);
/// A stream that says nothing for this many leases has no node at its end any more.
const SILENT_LEASES: u32 = 5;
/// A last word waits this long for a reader.
const LAST_WORD_WITHIN: Duration = Duration::from_secs(1);
/// At most this many messages within a second: a start of many replicas needs a token for each.
const MOST_MESSAGES: u32 = 500;
/// Tokens that are being made for one node, questions for lines that wait for its answer.
const MOST_TOKENS: usize = 256;
const MOST_TAILS: usize = 16;
/// How long a node may take to answer with lines.
const TAIL_WITHIN: Duration = Duration::from_secs(5);
/// Lines and bytes of them that a node may answer with.
const MOST_LINES: usize = 10_000;
const MOST_LINE_BYTES: usize = 2 << 20;
/// A join token of a replica is good for this long, seconds.
const TOKEN_SECONDS: u64 = 60;

/// What [`serve`] is given.
type Incoming = mpsc::Receiver<Result<FromNode, WireError>>;

/// An open stream.
#[derive(Debug)]
pub struct Session {
    /// Unique in this process.
    pub number: u64,
    /// The node's name.
    pub node: String,
    /// The node's process.
    pub instance: String,
    opened: Instant,
    /// Milliseconds after `opened`: the newest sign of life.
    heard: AtomicU64,
    wake: Notify,
    outbox: Mutex<Outbox>,
}

/// What is to be told.
#[derive(Debug, Default)]
struct Outbox {
    welcome: Option<NodeWelcome>,
    echo: Option<u64>,
    set: Option<Bytes>,
    tokens: VecDeque<ReplicaToken>,
    /// Tokens that are being made.
    making: usize,
    tails: VecDeque<Tail>,
    waiting: BTreeMap<u64, oneshot::Sender<Result<Vec<String>, String>>>,
    last_tail: u64,
    ending: Option<ToNode>,
}

impl Session {
    fn new(number: u64, hello: &NodeHello, welcome: NodeWelcome) -> Session {
        Session {
            number,
            node: hello.node.clone(),
            instance: hello.instance.clone(),
            opened: Instant::now(),
            heard: AtomicU64::new(0),
            wake: Notify::new(),
            outbox: Mutex::new(Outbox { welcome: Some(welcome), ..Outbox::default() }),
        }
    }

    /// When it was last heard.
    pub fn heard(&self) -> Instant {
        self.opened + Duration::from_millis(self.heard.load(Relaxed))
    }

    /// Tells the whole set, in the place of one that was not told yet.
    pub fn set(&self, frame: Bytes) {
        self.outbox().set = Some(frame);
        self.wake.notify_one();
    }

    /// Ends it with a last word.
    pub fn end(&self, word: ToNode) {
        self.outbox().ending = Some(word);
        self.wake.notify_one();
    }

    /// Asks for the last lines of a replica's output.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn tail(&self, replica: &str, lines: u32) -> Result<Vec<String>, String> {
        let (answer, answered) = oneshot::channel();
        let number = {
            let mut outbox = self.outbox();
            if outbox.waiting.len() >= MOST_TAILS {
                return Err("too many ask its node for lines at the same time".into());
            }
            outbox.last_tail += 1;
            let number = outbox.last_tail;
            outbox.tails.push_back(Tail { number, replica: replica.to_owned(), lines });
            outbox.waiting.insert(number, answer);
            number
        };
        self.wake.notify_one();
        let answered = timeout(TAIL_WITHIN, answered).await;
        self.outbox().waiting.remove(&number);
        match answered {
            Ok(Ok(lines)) => lines,
            Ok(Err(_)) => Err("its node went away".into()),
            Err(_) => Err("its node did not answer within 5 s".into()),
        }
    }

    fn hear(&self) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.fetch_max(now, Relaxed);
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes next.
    fn next_frame(&self) -> Option<Bytes> {
        let mut outbox = self.outbox();
        if let Some(welcome) = outbox.welcome.take() {
            return framed(&ToNode::Welcome(welcome));
        }
        if let Some(number) = outbox.echo.take() {
            return framed(&ToNode::Beat(NodeBeat { number }));
        }
        if let Some(set) = outbox.set.take() {
            return Some(set);
        }
        if let Some(token) = outbox.tokens.pop_front() {
            return framed(&ToNode::Token(token));
        }
        outbox.tails.pop_front().and_then(|tail| framed(&ToNode::Tail(tail)))
    }

    fn answered(&self, lines: Lines) {
        let Some(asked) = self.outbox().waiting.remove(&lines.number) else { return };
        let bounded = lines.lines.map(|lines| {
            let mut bytes = 0;
            let fits = |line: &String| {
                bytes += line.len();
                bytes <= MOST_LINE_BYTES
            };
            lines.into_iter().take(MOST_LINES).take_while(fits).collect()
        });
        let _ = asked.send(bounded);
    }
}

/// A message as a frame.
pub fn framed(message: &ToNode) -> Option<Bytes> {
    frame(message)
        .inspect_err(|error| log::error!("a message cannot be sent", why = error))
        .ok()
        .map(Bytes::from)
}

/// Serves one node's stream to its end: `node` is who its certificate says it is, `outgoing` has room for one frame.
pub async fn serve(shared: &Arc<Shared>, node: &str, mut incoming: Incoming, outgoing: mpsc::Sender<Bytes>) {
    let arrived = match first(&mut incoming).await {
        Ok(Some(hello)) => join(shared, node, *hello).await,
        Ok(None) => return,
        Err(refused) => Err(ToNode::Refused(refused)),
    };
    match arrived {
        Ok(session) => {
            let open = Open { shared: shared.clone(), session, messages: (Instant::now(), 0) };
            open.run(incoming, outgoing).await;
        }
        Err(word) => {
            if let ToNode::Refused(refused) = &word {
                log::warn!("a node's stream is refused", node = node, why = refused.reason);
            }
            last_word(&outgoing, &word).await;
        }
    }
}

async fn last_word(outgoing: &mpsc::Sender<Bytes>, word: &ToNode) {
    if let Some(frame) = framed(word) {
        let _ = timeout(LAST_WORD_WITHIN, outgoing.send(frame)).await;
    }
}

/// The hello; nothing when the stream ended before it.
async fn first(incoming: &mut Incoming) -> Result<Option<Box<NodeHello>>, Refused> {
    let no = |reason: String, retry| Err(Refused { reason, retry });
    match timeout(HELLO_WITHIN, incoming.recv()).await {
        Err(_) => no("no hello came within 10 s".into(), true),
        Ok(None) => Ok(None),
        Ok(Some(Err(error))) => no(format!("the first message cannot be read: {error}"), false),
        Ok(Some(Ok(FromNode::Hello(hello)))) => Ok(Some(hello)),
        Ok(Some(Ok(_))) => no("the first message has to be a hello".into(), false),
    }
}

fn check(node: &str, hello: &NodeHello) -> Result<(), ToNode> {
    let no = |reason: String| Err(ToNode::Refused(Refused { reason, retry: false }));
    if hello.node != node {
        return no(format!(
            "the certificate is of the node {node}, not of {}",
            super::inventory::clip(&hello.node, 80)
        ));
    }
    if hello.instance.len() != 32 || !hello.instance.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return no("`instance` has to be 32 hexadecimal digits".into());
    }
    if hello.replicas.len() > super::inventory::MOST_REPLICAS {
        return no(format!("more than {} replicas", super::inventory::MOST_REPLICAS));
    }
    if hello.versions.major != MAJOR {
        let (theirs, minor) = (hello.versions.major, hello.versions.minor);
        return no(format!(
            "the node speaks version {theirs}.{minor} of the protocol, this control plane {MAJOR}.{MINOR}: update the older of the two"
        ));
    }
    Ok(())
}

/// Takes a node in that says hello.
async fn join(shared: &Arc<Shared>, node: &str, hello: NodeHello) -> Result<Arc<Session>, ToNode> {
    check(node, &hello)?;
    let end = Instant::now() + LEADER_WITHIN;
    while shared.is_about_to_lead() && Instant::now() < end {
        sleep(Duration::from_millis(10)).await;
    }
    let mut board = shared.board();
    let Some(board) = board.as_mut().filter(|_| shared.leads().is_some()) else {
        return Err(ToNode::Elsewhere(shared.elsewhere()));
    };
    if hello.term > board.term {
        // Either this one was overtaken and does not know it yet, or the store is older than the node.
        shared.look.notify_one();
        board.trouble(
            node,
            format!("it has taken orders of the term {}, this leader's is {}", hello.term, board.term),
        );
        return Err(ToNode::Elsewhere(Elsewhere { control: None, address: None }));
    }
    let welcome = NodeWelcome {
        versions: Versions::own(),
        control: shared.settings.id.clone(),
        term: board.term,
        lease_ms: NODE_LEASE.as_millis() as u64,
        beat_ms: NODE_LEASE.as_millis() as u64 / 3,
    };
    let session = Arc::new(Session::new(shared.next_session(), &hello, welcome));
    board.arrive(&session, hello).map_err(ToNode::Refused)?;
    shared.fleet.silence(node, false);
    log::info!("a node is connected", node = node);
    shared.wake.notify_one();
    Ok(session)
}

/// A stream while it is served; dropping it, as whoever carries the stream may do at any time, closes it.
struct Open {
    shared: Arc<Shared>,
    session: Arc<Session>,
    /// Since when messages are counted, and how many came.
    messages: (Instant, u32),
}

impl Drop for Open {
    fn drop(&mut self) {
        self.with_board(|board, session| board.left(session));
        log::info!("a node's stream ended", node = self.session.node);
    }
}

impl Open {
    async fn run(mut self, mut incoming: Incoming, outgoing: mpsc::Sender<Bytes>) {
        let silence = NODE_LEASE * SILENT_LEASES;
        let mut more = true;
        let word = loop {
            let deadline = self.session.heard() + silence;
            tokio::select! {
                biased;
                message = incoming.recv() => {
                    match self.message(message) {
                        ControlFlow::Continue(()) => {}
                        ControlFlow::Break(word) => break word,
                    }
                }
                room = outgoing.reserve(), if more => {
                    let Ok(room) = room else { break None };
                    match self.session.next_frame() {
                        Some(frame) => room.send(frame),
                        None => more = false,
                    }
                }
                () = self.session.wake.notified() => {
                    more = true;
                    let ending = self.session.outbox().ending.take();
                    if ending.is_some() {
                        break ending;
                    }
                }
                () = sleep_until(deadline) => break None,
            }
        };
        if let Some(word) = word {
            if let ToNode::Refused(refused) = &word {
                log::warn!("a node's stream is ended", node = self.session.node, why = refused.reason);
            }
            last_word(&outgoing, &word).await;
        }
    }

    /// Takes a message in.
    fn message(&mut self, message: Option<Result<FromNode, WireError>>) -> ControlFlow<Option<ToNode>> {
        let no = |reason: String| ControlFlow::Break(Some(ToNode::Refused(Refused { reason, retry: true })));
        let now = Instant::now();
        if now.saturating_duration_since(self.messages.0) >= Duration::from_secs(1) {
            self.messages = (now, 0);
        }
        self.messages.1 += 1;
        if self.messages.1 > MOST_MESSAGES {
            return no(format!("more than {MOST_MESSAGES} messages within a second"));
        }
        let message = match message {
            None => return ControlFlow::Break(None),
            Some(Err(error)) => return no(format!("a message cannot be read: {error}")),
            Some(Ok(message)) => message,
        };
        self.session.hear();
        match message {
            FromNode::Hello(_) => return no("a second hello".into()),
            FromNode::Beat(beat) => {
                self.session.outbox().echo = Some(beat.number);
                self.session.wake.notify_one();
            }
            FromNode::Inventory(inventory) => {
                self.with_board(|board, session| board.inventory(&session.node, inventory));
            }
            FromNode::Replicas(states) if states.replicas.len() > super::inventory::MOST_REPLICAS => {
                return no(format!("more than {} replicas", super::inventory::MOST_REPLICAS));
            }
            FromNode::Replicas(states) => {
                self.with_board(|board, session| board.states(&session.node, states.replicas));
            }
            FromNode::NeedToken(need) => self.token(need.replica),
            FromNode::Stale(stale) => {
                log::warn!(
                    "a node refuses a set",
                    node = self.session.node,
                    term = stale.term,
                    seen = stale.seen
                );
                self.shared.look.notify_one();
                self.with_board(|board, session| {
                    let trouble =
                        format!("it refuses orders of the term {}: it has seen {}", stale.term, stale.seen);
                    board.trouble(&session.node, trouble);
                    false
                });
            }
            FromNode::Lines(lines) => self.session.answered(lines),
            FromNode::Unknown => {}
        }
        ControlFlow::Continue(())
    }

    /// Does something with the leader's board, as long as this session is the node's; what is given back is whether to look again.
    fn with_board(&self, change: impl FnOnce(&mut Board, &Arc<Session>) -> bool) {
        let mut board = self.shared.board();
        let Some(board) = board.as_mut().filter(|board| board.is_of(&self.session)) else { return };
        if change(board, &self.session) {
            self.shared.wake.notify_one();
        }
    }

    /// Makes a token for a replica, if it is this node's now. It is made beside the stream: the store may take a while.
    fn token(&self, replica: String) {
        let mut agent = None;
        self.with_board(|board, session| {
            agent = board.agent_of(&session.node, &replica);
            false
        });
        let (shared, session) = (self.shared.clone(), self.session.clone());
        let mut outbox = session.outbox();
        if outbox.making >= MOST_TOKENS || outbox.tokens.len() >= MOST_TOKENS {
            return;
        }
        outbox.making += 1;
        drop(outbox);
        tokio::spawn(async move {
            let token = match agent {
                None => Err("the replica is not this node's".to_owned()),
                Some((namespace, agent)) => {
                    let wanted =
                        NewToken { agent, namespace, ttl_seconds: TOKEN_SECONDS, uses: 1, node: false };
                    let made = shared.settings.tokens.create(&wanted).await;
                    made.map(|token| token.token).map_err(|error| error.to_string())
                }
            };
            let mut outbox = session.outbox();
            outbox.making -= 1;
            outbox.tokens.push_back(ReplicaToken { replica, token });
            drop(outbox);
            session.wake.notify_one();
        });
    }
}
