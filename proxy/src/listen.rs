//! The accept loops: one listener per worker and direction, so that a connection is accepted where it is served.

pub mod callers;
pub mod plain;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pilotfish_config::model::MtlsMode;
use pilotfish_filters::plan::Plan;
use pilotfish_filters::telemetry::TelemetryPolicy;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use callers::Caller;

use crate::http::Io;
use crate::net::Listener;
use crate::shutdown::Phase;
use crate::telemetry::log;
use crate::telemetry::metrics::WorkerMetrics;
use crate::worker::Worker;

/// Connections that the kernel keeps for each listener until they are accepted; `net.core.somaxconn` caps it.
const BACKLOG: i32 = 4096;

/// How long a listener rests after the kernel refused an accept for want of descriptors or memory (nginx: 500 ms).
const REST: Duration = Duration::from_millis(100);

/// How long the reading side is kept open after a refusal, so that it is not lost to a reset.
const LINGER: Duration = Duration::from_millis(500);

/// Refusals of one worker that are under way; further connections of a caller that has too many are closed without a word.
const REFUSING: usize = 64;

/// The whole answer to a caller that has too many connections.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\npilotfish-reason: too-many-connections\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// How often a listener that cannot accept says so.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Which way a connection's requests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the local agent into the mesh.
    Outbound,
    /// From the mesh to the local agent.
    Inbound,
}

impl Direction {
    /// Both, in the order of their numbers.
    pub const ALL: [Direction; 2] = [Direction::Outbound, Direction::Inbound];

    /// What Telemetry documents say of its calls.
    pub fn telemetry(self, plan: &Plan) -> &TelemetryPolicy {
        match self {
            Direction::Outbound => plan.client_telemetry(),
            Direction::Inbound => plan.server_telemetry(),
        }
    }

    /// The word in metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Direction::Outbound => "outbound",
            Direction::Inbound => "inbound",
        }
    }
}

/// One listener for each worker, all on `address`. With port 0 the kernel chooses once and all share its choice.
///
/// # Errors
/// The kernel's, with the address in the text; also when another process listens there already, which sharing the
/// port among our own workers would otherwise hide.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
    let shared = workers > 1;
    if shared && address.port() != 0 {
        drop(open(address, false).map_err(named)?);
    }
    let first = open(address, shared).map_err(named)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..workers {
        listeners.push(open(address, shared).map_err(named)?);
    }
    Ok(listeners)
}

fn open(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // Linux gives these two to every accepted socket, which saves two system calls for each connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(300)))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The connections that one listener has open, and how many it may have.
#[derive(Debug)]
pub struct Slots {
    direction: Direction,
    limit: usize,
    open: Cell<usize>,
    closed: Notify,
    /// Connections that are being refused.
    refusing: Cell<usize>,
    metrics: Arc<WorkerMetrics>,
}

impl Slots {
    /// No connection yet, room for `limit`.
    pub fn new(direction: Direction, limit: usize, metrics: Arc<WorkerMetrics>) -> Rc<Self> {
        Rc::new(Slots {
            direction,
            limit: limit.max(1),
            open: Cell::new(0),
            closed: Notify::new(),
            refusing: Cell::new(0),
            metrics,
        })
    }

    /// Waits until a connection may be accepted.
    async fn room(&self) {
        while self.open.get() >= self.limit {
            self.closed.notified().await;
        }
    }

    /// Waits until every connection is closed.
    pub async fn idle(&self) {
        while self.open.get() > 0 {
            self.closed.notified().await;
        }
    }

    fn take(self: &Rc<Self>) -> Slot {
        self.open.set(self.open.get() + 1);
        let metrics = self.metrics.direction(self.direction);
        metrics.connections.add(1);
        metrics.active_connections.add(1);
        Slot(self.clone())
    }
}

/// One open connection's place; dropping it gives the place back.
struct Slot(Rc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.metrics.direction(self.0.direction).active_connections.sub(1);
        self.0.closed.notify_one();
    }
}

/// Accepts until the drain closes listeners, and serves each connection in a task of its own on this thread.
/// What the kernel has already queued is accepted before the listener closes, so that no caller is reset.
pub async fn accept(worker: Rc<Worker>, listener: Listener, slots: Rc<Slots>) {
    let mut phase = worker.shared.drain.watch();
    let mut said = None;
    loop {
        tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase >= Phase::Closing) => break,
            accepted = next(&listener, &slots) => match accepted {
                Ok(io) => start(&worker, &slots, io),
                Err(error) => rest_after(&error, slots.direction, &mut said).await,
            },
        }
    }
    for io in listener.into_queued() {
        start(&worker, &slots, io);
    }
}

async fn next(listener: &Listener, slots: &Slots) -> io::Result<Io> {
    slots.room().await;
    listener.accept().await
}

fn start(worker: &Rc<Worker>, slots: &Rc<Slots>, io: Io) {
    let slot = slots.take();
    let worker = worker.clone();
    let caller = match slots.direction {
        // One agent: a limit would only keep it from itself.
        Direction::Outbound => None,
        Direction::Inbound => match io.peer_addr() {
            Err(_) => None,
            Ok(peer) => {
                let caller = worker.shared.callers.take(Caller::Address(peer.ip().to_canonical()));
                if caller.is_none() {
                    return refuse(&worker, slot, io);
                }
                caller
            }
        },
    };
    tokio::task::spawn_local(async move {
        worker.serve(io, slot.0.direction, caller).await;
        drop(slot);
    });
}

/// One connection too many of its caller: told so where HTTP is spoken without TLS, else closed. Nothing of it is read before.
fn refuse(worker: &Rc<Worker>, slot: Slot, io: Io) {
    if worker.inbound_mode() != MtlsMode::Disable || slot.0.refusing.get() >= REFUSING {
        return;
    }
    slot.0.refusing.set(slot.0.refusing.get() + 1);
    tokio::task::spawn_local(async move {
        answer_and_close(io, TOO_MANY).await;
        slot.0.refusing.set(slot.0.refusing.get() - 1);
    });
}

/// Answers without having looked at what came, and closes.
pub async fn answer_and_close(mut io: Io, answer: &[u8]) {
    if io.write_all(answer).await.is_err() || io.shutdown().await.is_err() {
        return;
    }
    let mut rest = [0; 4096];
    let drain = async { while matches!(io.read(&mut rest).await, Ok(n) if n > 0) {} };
    // Whoever goes on sending loses the answer.
    let _ = tokio::time::timeout(LINGER, drain).await;
}

/// A caller that gave up before the accept costs nothing; anything else (EMFILE, ENFILE, ENOBUFS) stays until
/// something is closed, so trying again at once would only spin.
async fn rest_after(error: &io::Error, direction: Direction, said: &mut Option<Instant>) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    if said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
        *said = Some(Instant::now());
        log::warn!("cannot accept connections", direction = direction.word(), error = error);
    }
    tokio::time::sleep(REST).await;
}

#[cfg(test)]
mod tests;
