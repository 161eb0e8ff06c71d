//! One sidecar's stream: frames of its request's body in, frames of its answer's body out, both at once. Nodes' streams are alike.
//!
//! At most one frame is held in each direction: a sidecar that does not read is slowed by HTTP/2's flow control, and one
//! that sends too much by this side not reading on.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use pilotfish_config::wire::{Frames, LONGEST_TO_CONTROL, Refused, ToControl, ToSidecar, WireError, frame};
use pilotfish_identity::Peer as Identified;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::answer::{Answer, Denied, typed};
use super::body::Pieces;
use super::connection::Activity;
use super::status::count;
use super::{Control, tls};
use crate::log;

/// Messages that wait for the registry.
pub(super) const WAITING: usize = 1;

/// Opens the stream: 200 at once, then frames.
///
/// # Errors
/// 403 for an identity that is no agent's, 426 over HTTP/1.1, whose answers cannot begin before the request ended.
pub(super) fn open(
    control: &Arc<Control>,
    peer: &Arc<Identified>,
    head: &Parts,
    body: Incoming,
    activity: &Arc<Activity>,
) -> Result<Answer, Denied> {
    needs_http2(head)?;
    if peer.id.as_agent().is_none() {
        return Err(Denied::forbidden(format!("{} is no agent's identity", peer.id)));
    }
    count(&control.metrics.streams);
    let (outgoing, frames) = mpsc::channel(1);
    let (messages, incoming) = mpsc::channel(WAITING);
    let (own, id, last_word) = (control.clone(), peer.id.clone(), outgoing.clone());
    let serving = async move { own.fleet.serve(id, incoming, outgoing).await };
    let reading = read::<ToControl>(body, messages, LONGEST_TO_CONTROL, peer.clone());
    tokio::spawn(run(control.clone(), peer.clone(), serving, reading, last_word, ToSidecar::Refused));
    Ok(frames_of(frames, activity))
}

/// # Errors
/// 426 over HTTP/1.1.
pub(super) fn needs_http2(head: &Parts) -> Result<(), Denied> {
    if head.version != Version::HTTP_2 {
        return Err(Denied::new(StatusCode::UPGRADE_REQUIRED, "a stream needs HTTP/2"));
    }
    Ok(())
}

/// An answer that goes on with frames.
pub(super) fn frames_of(frames: mpsc::Receiver<Bytes>, activity: &Arc<Activity>) -> Answer {
    let body = Pieces::of(frames, activity).boxed_unsync();
    let head = typed(StatusCode::OK, "application/vnd.pilotfish.frames", "").into_parts().0;
    Response::from_parts(head, body)
}

/// Reads and serves until either ends, the peer is not trusted any more, or the process is about to end.
pub(super) async fn run<M: Serialize>(
    control: Arc<Control>,
    peer: Arc<Identified>,
    serving: impl Future<Output = ()>,
    reading: impl Future<Output = ()>,
    last_word: mpsc::Sender<Bytes>,
    refused_as: impl Fn(Refused) -> M,
) {
    let mut closing = control.closing.subscribe();
    let served = async {
        let mut serving = pin!(serving);
        tokio::select! {
            () = serving.as_mut() => return,
            () = reading => {}
        }
        serving.await;
    };
    tokio::select! {
        () = served => {}
        _ = closing.wait_for(|closing| *closing) => {}
        refused = tls::distrusted(&control, &peer) => {
            // Nothing is lost when it cannot be said: the connection is about to be cut.
            let _ = frame(&refused_as(refused)).map(|frame| last_word.try_send(frame.into()));
        }
    }
}

/// Hands on each message of a body; ends with the body, or with the first thing that is none.
pub(super) async fn read<M: DeserializeOwned>(
    mut body: Incoming,
    messages: mpsc::Sender<Result<M, WireError>>,
    longest: usize,
    peer: Arc<Identified>,
) {
    let mut frames = Frames::new(longest);
    let wrong = loop {
        match frames.next() {
            Ok(Some(message)) => {
                if messages.send(Ok(message)).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => break error,
        }
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    frames.push(&data);
                }
            }
            // A connection that broke is no message that is wrong.
            Some(Err(_)) => return,
            None => match frames.end() {
                Ok(()) => return,
                Err(error) => break error,
            },
        }
    };
    log::warn!("a stream was ended: what came is no message", peer = peer.id, why = wrong);
    let _ = messages.send(Err(wrong)).await;
}
