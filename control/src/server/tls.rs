//! The TLS listener: who is at the other end, which protocol they speak, and when their connection has to end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_config::wire::Refused;
use pilotfish_identity::tls::{ClientAuth, peer_of, server_config};
use pilotfish_identity::{Peer as Identified, Usage};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;

use super::auth::Peer;
use super::connection::{self, Protocol};
use super::listen;
use super::places::{Places, Stranger};
use super::status::count;
use super::{Control, Failure, handle};
use crate::log;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may be silent: of a peer with a certificate, and of any other.
const IDLE: Duration = Duration::from_secs(120);
const IDLE_STRANGER: Duration = Duration::from_secs(15);
/// How long a connection may outlive its peer's certificate.
const GRACE: Duration = Duration::from_secs(300);
/// How long a stream has to say why it ends, before its connection is cut.
const LAST_WORD: Duration = Duration::from_millis(200);

/// What accepts handshakes: TLS 1.3, with a certificate or without.
///
/// # Errors
/// The cryptography cannot do it.
pub(super) fn acceptor(control: &Control) -> Result<TlsAcceptor, Failure> {
    let config = server_config(control.live.clone(), ClientAuth::Optional, &[b"h2", b"http/1.1"]);
    config.map(TlsAcceptor::from).map_err(|error| Failure(format!("cannot set TLS up: {error}")))
}

/// Accepts for ever.
pub(super) async fn accept(listener: TcpListener, tls: TlsAcceptor, control: Arc<Control>) {
    let places = Places::new();
    loop {
        let (stream, address) = listen::accept(&listener).await;
        match places.stranger(address.ip()) {
            Some(stranger) => {
                tokio::spawn(serve(stream, address, tls.clone(), control.clone(), places.clone(), stranger));
            }
            // Closed at once, so that those who take every place cannot make others wait.
            None => count(&control.metrics.turned_away),
        }
    }
}

/// Serves one connection: handshake, then requests.
async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    tls: TlsAcceptor,
    control: Arc<Control>,
    places: Arc<Places>,
    stranger: Stranger,
) {
    let closing = control.closing.subscribe();
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await else {
        count(&control.metrics.handshakes_failed);
        return;
    };
    let session = stream.get_ref().1;
    let protocol = if session.alpn_protocol() == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
    let identified = peer_of(session.peer_certificates(), &control.live, Usage::Client).ok().map(Arc::new);
    let member = identified.as_ref().map(|_| places.member());
    // Without a certificate it stays a stranger; with one it gives that place back.
    let (_place, idle) = match member {
        None => (Place::Stranger(stranger), IDLE_STRANGER),
        Some(Some(member)) => {
            drop(stranger);
            (Place::Member(member), IDLE)
        }
        Some(None) => {
            count(&control.metrics.turned_away);
            return;
        }
    };
    let (peer, asked) = (Peer::Network(address, identified.clone()), control.clone());
    let answer = move |request, activity| handle::answer(asked.clone(), peer.clone(), request, activity);
    let served = connection::serve(stream, protocol, idle, closing, answer);
    tokio::select! {
        () = served => {}
        () = to_be_cut(&control, identified.as_deref()) => {}
    }
}

/// What a connection holds for as long as it lives.
#[derive(Debug)]
enum Place {
    Stranger(#[allow(dead_code, reason = "held, not read")] Stranger),
    Member(#[allow(dead_code, reason = "held, not read")] OwnedSemaphorePermit),
}

/// Waits until a peer that was taken would not be taken any more: revoked, its root removed, its certificate over. One
/// with a newer certificate may come again at once.
pub(super) async fn distrusted(control: &Control, peer: &Identified) -> Refused {
    let mut changes = control.trust_changes.subscribe();
    loop {
        if let Err(refused) = control.live.still_trusted(peer) {
            return Refused { reason: refused.to_string(), retry: false };
        }
        let now = control.live.now();
        let left = (peer.not_after + GRACE).duration_since(now).unwrap_or_default();
        if left.is_zero() {
            return Refused { reason: "the connection has outlived its certificate".into(), retry: true };
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(left) => {}
        }
    }
}

/// Waits until a connection has to be cut, and a little longer, for what streams still have to say.
async fn to_be_cut(control: &Control, peer: Option<&Identified>) {
    let Some(peer) = peer else { return std::future::pending().await };
    let refused = distrusted(control, peer).await;
    log::warn!("a connection is closed", peer = peer.id, why = refused.reason);
    tokio::time::sleep(LAST_WORD).await;
}
