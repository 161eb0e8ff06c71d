//! The control plane: the production fleet, documents and store in memory, carried by a small HTTP/2 server.
//!
//! `pilotfish serve` carries the same streams over TLS with its own limits and routes; those are not here, nor is the
//! join: identities are given. What is under the stream is all production code: registrations, leases, versions,
//! rendering, deltas, ranks, and on the sidecar's side the stream's session and what it leads to.

use std::rc::Rc;
use std::sync::Arc;

use ::h2::RecvStream;
use ::h2::server::{SendResponse, handshake};
use bytes::Bytes;
use http::{Request, Response};
use pilotfish_config::wire::{Frames, LONGEST_TO_CONTROL, ToControl, Trust, WireError};
use pilotfish_control::api::types::{File, Submission};
use pilotfish_control::fleet::{Fleet, Settings};
use pilotfish_control::resources::Resources;
use pilotfish_control::store::Store;
use pilotfish_identity::{LiveIdentity, SpiffeId, TrustDomain, Usage, tls};
use pilotfish_proxy::http::Io;
use pilotfish_proxy::net::simulated;
use tokio::sync::{mpsc, watch};

use crate::network;
use crate::sidecar::{DOMAIN, identity};
use crate::world::World;

/// Where it listens.
pub const PORT: u16 = 15012;
/// Its host.
pub const HOST: &str = "control";

/// Serves until the run ends, or its host is stopped.
///
/// # Errors
/// It cannot start.
pub async fn run(world: Rc<World>) -> turmoil::Result {
    let store: Arc<dyn Store> = world.store.clone();
    let resources = Resources::open(store.clone(), Some(DOMAIN)).await.map_err(|error| error.to_string())?;
    let trust = Trust { bundles: [(DOMAIN.to_owned(), crate::sidecar::root()?)].into(), revoked: Vec::new() };
    let (_trust, trusted) = watch::channel(Arc::new(trust));
    let (_actions, held) = watch::channel(Arc::default());
    let settings = Settings::new("control", TrustDomain::parse(DOMAIN)?);
    let fleet = Fleet::start(store, &resources, trusted, held, settings).await;
    let fleet = fleet.map_err(|error| error.to_string())?;
    let listener = network::Port::bind(PORT).await?;
    let live = LiveIdentity::new(identity(HOST)?);
    world.note(format_args!("control plane listens"));
    tokio::task::spawn_local(publish(world.clone(), resources));
    loop {
        let io = simulated::Listen::accept(&listener).await?;
        tokio::task::spawn_local(connection(io, live.clone(), fleet.clone()));
    }
}

/// Applies the documents of the moment whenever there are others.
async fn publish(world: Rc<World>, resources: Arc<Resources>) {
    loop {
        let text = world.documents.borrow().clone();
        let file = File { name: "sim.yaml".to_owned(), text: text.clone() };
        let submission = Submission { files: vec![file], prune: true, ..Submission::default() };
        match resources.apply(&submission, "sim").await {
            Ok(applied) => {
                world.note(format_args!("control plane: documents of version {}", applied.version))
            }
            Err(refused) => {
                return world.wrong(format!("the control plane refuses its documents: {refused:?}"));
            }
        }
        while *world.documents.borrow() == text {
            world.changed.notified().await;
        }
    }
}

async fn connection(mut io: Io, live: Arc<LiveIdentity>, fleet: Arc<Fleet>) {
    let own = live.load().credentials.as_ref().map(|own| own.chain.clone()).unwrap_or_default();
    let Ok(chain) = simulated::accept(&mut io, bytes::BytesMut::new(), &own).await else { return };
    let Ok(peer) = tls::peer_of(Some(&chain), &live, Usage::Client) else { return };
    let Ok(mut conn) = handshake(io).await else { return };
    while let Some(Ok((request, respond))) = conn.accept().await {
        tokio::task::spawn_local(stream(request, respond, peer.id.clone(), fleet.clone()));
    }
}

/// One sidecar's stream: frames of its request's body to the fleet, and the fleet's as the answer's body.
async fn stream(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    peer: SpiffeId,
    fleet: Arc<Fleet>,
) {
    let Ok(mut answer) = respond.send_response(Response::new(()), false) else { return };
    let (messages, incoming) = mpsc::channel(1);
    let (outgoing, mut frames) = mpsc::channel::<Bytes>(1);
    tokio::task::spawn_local(read(request.into_body(), messages));
    let serving = tokio::task::spawn_local(async move { fleet.serve(peer, incoming, outgoing).await });
    while let Some(frame) = frames.recv().await {
        if answer.send_data(frame, false).is_err() {
            break;
        }
    }
    // What the fleet still waits for ends with the stream.
    drop(frames);
    let _ = serving.await;
    let _ = answer.send_data(Bytes::new(), true);
}

async fn read(mut body: RecvStream, messages: mpsc::Sender<Result<ToControl, WireError>>) {
    let mut frames = Frames::new(LONGEST_TO_CONTROL);
    loop {
        while let Ok(Some(message)) = frames.next() {
            if messages.send(Ok(message)).await.is_err() {
                return;
            }
        }
        let Some(Ok(data)) = body.data().await else { return };
        let _ = body.flow_control().release_capacity(data.len());
        frames.push(&data);
    }
}
