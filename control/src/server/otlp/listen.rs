//! The listeners of OTLP: gRPC and HTTP for programs on this machine, and one for others, who prove who they are.
//!
//! Programs of this machine are not known, so what they send is only ever added, within limits of its own. The listener
//! for others takes a certificate of the mesh, whose agent is then the one who speaks, or a bearer token.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use pilotfish_identity::tls::peer_of;
use pilotfish_identity::{Peer as Identified, Usage};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::super::Control;
use super::super::answer::{Answer, Denied};
use super::super::auth;
use super::super::connection::{self, Activity, Protocol};
use super::super::listen::accept;
use super::super::places::Places;
use super::super::status::count;
use super::body::Room;
use super::{grpc, http as plain};
use crate::traces::batch::Speaker;

/// Connections at a time of each listener.
const CONNECTIONS: usize = 256;
/// How long one may be silent: exporters keep theirs open between batches.
const IDLE: Duration = Duration::from_secs(300);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Takes OTLP of programs on this machine, for ever.
pub(in crate::server) async fn local(listener: TcpListener, protocol: Protocol, control: Arc<Control>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let (stream, _) = accept(&listener).await;
        let Ok(place) = places.clone().try_acquire_owned() else {
            count(&control.metrics.turned_away);
            continue;
        };
        let (closing, control) = (control.closing.subscribe(), control.clone());
        tokio::spawn(async move {
            let answer = move |request, activity: Arc<Activity>| {
                let control = control.clone();
                async move { answered(&control, &control.otlp.local, None, request, &activity).await }
            };
            connection::serve(stream, protocol, IDLE, closing, answer).await;
            drop(place);
        });
    }
}

/// Takes OTLP over TLS of those who prove who they are, for ever.
pub(in crate::server) async fn others(listener: TcpListener, tls: TlsAcceptor, control: Arc<Control>) {
    let (places, strangers) = (Arc::new(Semaphore::new(CONNECTIONS)), Places::new());
    loop {
        let (stream, address) = accept(&listener).await;
        // One address cannot keep the others out.
        let stranger = strangers.stranger(address.ip());
        let (Some(stranger), Ok(place)) = (stranger, places.clone().try_acquire_owned()) else {
            count(&control.metrics.turned_away);
            continue;
        };
        let (tls, control) = (tls.clone(), control.clone());
        tokio::spawn(async move {
            other(stream, address, tls, control).await;
            drop((place, stranger));
        });
    }
}

async fn other(stream: TcpStream, address: SocketAddr, tls: TlsAcceptor, control: Arc<Control>) {
    let closing = control.closing.subscribe();
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await else {
        count(&control.metrics.handshakes_failed);
        return;
    };
    let session = stream.get_ref().1;
    let peer = peer_of(session.peer_certificates(), &control.live, Usage::Client).ok().map(Arc::new);
    let asked = control.clone();
    let answer = move |request: Request<Incoming>, activity: Arc<Activity>| {
        let (control, peer) = (asked.clone(), peer.clone());
        async move {
            match speaker(&control, address, peer.as_deref(), &request) {
                Ok(speaker) => {
                    answered(&control, &control.otlp.others, speaker.as_ref(), request, &activity).await
                }
                Err(denied) if grpc::is(request.headers()) => grpc::refused(&denied),
                Err(denied) => denied.answer(),
            }
        }
    };
    connection::serve(stream, Protocol::Either, IDLE, closing, answer).await;
}

/// Who sends: the agent of a certificate, or nobody in particular with the token.
fn speaker(
    control: &Control,
    address: SocketAddr,
    peer: Option<&Identified>,
    request: &Request<Incoming>,
) -> Result<Option<Speaker>, Denied> {
    if let Some(peer) = peer {
        control.still_trusted(peer)?;
        let (namespace, agent) = peer.id.as_agent().ok_or_else(|| {
            Denied::forbidden("spans are taken from agents: this certificate is no agent's")
        })?;
        return Ok(Some(Speaker { namespace: namespace.into(), agent: agent.into() }));
    }
    let Some(wanted) = &control.otlp.token else {
        return Err(Denied::forbidden("this needs an agent's certificate of the mesh"));
    };
    control.guard.may_try(address.ip())?;
    if auth::bearer(request.headers()).is_some_and(|token| wanted.is(token)) {
        return Ok(None);
    }
    control.guard.failed(address.ip());
    Err(Denied::unproven("send `Authorization: Bearer TOKEN` (--otlp-token-file), or an agent's certificate"))
}

async fn answered(
    control: &Control,
    room: &Arc<Room>,
    speaker: Option<&Speaker>,
    request: Request<Incoming>,
    activity: &Activity,
) -> Answer {
    let (head, incoming) = request.into_parts();
    if grpc::is(&head.headers) {
        return grpc::answer(control, room, speaker, &head, incoming, activity).await;
    }
    let answered = plain::answer(control, room, speaker, &head, incoming, activity).await;
    answered.unwrap_or_else(Denied::answer)
}
