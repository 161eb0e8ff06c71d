//! The inbound port: mTLS, or plaintext as far as PeerAuthentication allows it.
//!
//! Decided by the first byte, which in TLS is 0x16. Plaintext that is not allowed is not parsed at all: it gets one fixed
//! answer. A handshake has ten seconds, and there are only so many at once: the oldest gives way.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pilotfish_config::model::MtlsMode;
use pilotfish_identity::tls::peer_of;
use pilotfish_identity::{Peer, Refused, Usage};
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;

use super::MeshPeer;
use crate::audit::turned::turned_away;
use crate::http::io::handshake::{self, Broken};
use crate::http::{Accepted, Io};
use crate::listen::answer_and_close;
#[cfg(feature = "sim")]
use crate::net::simulated;
use crate::telemetry::log;
use crate::telemetry::metrics::Handshake;
use crate::worker::Worker;

/// How long a handshake may take, the wait for its first byte included (nginx's client_header_timeout is 60 s, Envoy's
/// transport_socket_connect_timeout for downstreams 15 s in Istio).
const PATIENCE: Duration = Duration::from_secs(10);
/// Handshakes of one worker at once, some 20 KiB each.
const AT_ONCE: usize = 512;
/// The first byte of a TLS connection: a handshake record.
const HANDSHAKE: u8 = 0x16;
/// How often a worker tells of handshakes that failed.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// The whole answer to plaintext where mTLS is required.
const REFUSAL: &[u8] = b"HTTP/1.1 403 Forbidden\r\npilotfish-reason: mtls-required\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// What one worker knows of handshakes under way.
#[derive(Debug, Default)]
pub struct HalfOpen {
    waiting: RefCell<VecDeque<(u64, Rc<Notify>)>>,
    next: Cell<u64>,
    said: Cell<Option<Instant>>,
    unsaid: Cell<u64>,
}

/// One handshake's place.
struct Place<'a> {
    all: &'a HalfOpen,
    number: u64,
    give_way: Rc<Notify>,
}

impl HalfOpen {
    fn take(&self) -> Place<'_> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= AT_ONCE
            && let Some((_, oldest)) = waiting.pop_front()
        {
            oldest.notify_one();
        }
        let number = self.next.get();
        self.next.set(number + 1);
        let give_way = Rc::new(Notify::new());
        waiting.push_back((number, give_way.clone()));
        Place { all: self, number, give_way }
    }

    /// Whether this failure may be told; else it is counted, and told with the next one.
    fn may_say(&self) -> Option<u64> {
        if self.said.get().is_some_and(|said| said.elapsed() < SAY_EVERY) {
            self.unsaid.set(self.unsaid.get() + 1);
            return None;
        }
        self.said.set(Some(Instant::now()));
        Some(self.unsaid.take())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.all.waiting.borrow_mut();
        if let Ok(at) = waiting.binary_search_by_key(&self.number, |(number, _)| *number) {
            waiting.remove(at);
        }
    }
}

/// Why a connection is not served.
enum Failed {
    /// It closed before it said anything: a port that is probed.
    Nothing,
    Plaintext,
    Timeout,
    GaveWay,
    Handshake(Broken),
    Peer(Refused),
}

impl Failed {
    /// Whether it is about who calls, and not about a connection that broke or took too long.
    fn is_of_who(&self) -> bool {
        match self {
            Failed::Plaintext | Failed::Peer(_) => true,
            Failed::Handshake(Broken::Tls(_)) => !matches!(self.word(), "tls" | "refused-by-peer"),
            _ => false,
        }
    }

    /// The word in metrics and logs.
    fn word(&self) -> &'static str {
        match self {
            Failed::Nothing => "closed",
            Failed::Plaintext => "mtls-required",
            Failed::Timeout => "timeout",
            Failed::GaveWay => "too-many-handshakes",
            Failed::Handshake(broken) => super::dial::word(broken),
            Failed::Peer(refused) => refused.reason(),
        }
    }
}

/// Establishes what a connection is. `None`: it was refused, counted and closed.
pub async fn arrive(worker: &Worker, io: Io) -> Option<Accepted> {
    let mode = worker.inbound_mode();
    if mode == MtlsMode::Disable {
        return Some(io.into());
    }
    let address = io.peer_addr().ok();
    let place = worker.half_open.take();
    let result = tokio::select! {
        biased;
        () = place.give_way.notified() => Err(Failed::GaveWay),
        done = tokio::time::timeout(PATIENCE, establish(worker, io, mode)) => done.unwrap_or(Err(Failed::Timeout)),
    };
    drop(place);
    match result {
        Ok(accepted) => {
            if accepted.mesh.is_some() {
                worker.metrics.handshake(Handshake::Accepted);
            }
            Some(accepted)
        }
        Err(Failed::Nothing) => None,
        Err(failed) => {
            worker.metrics.handshake(Handshake::accept_failed(failed.word()));
            if let (true, Some(address)) = (failed.is_of_who(), address) {
                turned_away(worker, address.ip(), failed.word());
            }
            if let (Some(unsaid), Some(address)) = (worker.half_open.may_say(), address) {
                let reason = failed.word();
                log::warn!("inbound connection refused", peer = address, reason = reason, others = unsaid);
            }
            None
        }
    }
}

async fn establish(worker: &Worker, mut io: Io, mode: MtlsMode) -> Result<Accepted, Failed> {
    let mut first = BytesMut::with_capacity(4096);
    match io.read_buf(&mut first).await {
        Ok(n) if n > 0 => {}
        _ => return Err(Failed::Nothing),
    }
    if first.first() == Some(&HANDSHAKE) && worker.shared.tls.has_identity() {
        let (mut io, peer) = shake(worker, io, first).await?;
        let own = worker.shared.tls.own();
        let server_name = match &mut io {
            Io::Tls(tls) => tls.take_server_name(),
            _ => None,
        };
        let peer = Rc::new(MeshPeer { server_name, ..MeshPeer::new(peer, own.as_deref()) });
        return Ok(Accepted { mesh: Some(peer), ..Accepted::from(io) });
    }
    if mode == MtlsMode::Permissive {
        return Ok(Accepted { first, ..Accepted::from(io) });
    }
    answer_and_close(io, REFUSAL).await;
    Err(Failed::Plaintext)
}

/// The handshake of which `first` came, and who the caller is by it.
async fn shake(worker: &Worker, io: Io, first: BytesMut) -> Result<(Io, Peer), Failed> {
    let own = &worker.shared.tls;
    match io {
        Io::Tcp(stream) => {
            let tls = handshake::accept(stream, first, own.server.clone()).await;
            let tls = tls.map_err(Failed::Handshake)?;
            let peer = peer_of(tls.peer_certificates(), &own.live, Usage::Client).map_err(Failed::Peer)?;
            Ok((Io::Tls(Box::new(tls)), peer))
        }
        #[cfg(feature = "sim")]
        mut io @ Io::Simulated(_) => {
            let shown = own.own().map(|own| own.chain.clone()).unwrap_or_default();
            let chain = simulated::accept(&mut io, first, &shown).await;
            let chain = chain.map_err(|error| Failed::Handshake(Broken::Io(error)))?;
            let peer = peer_of(Some(&chain), &own.live, Usage::Client).map_err(Failed::Peer)?;
            Ok((io, peer))
        }
        _ => Err(Failed::Nothing),
    }
}
