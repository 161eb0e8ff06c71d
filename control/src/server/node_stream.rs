//! One node's stream: frames in both directions, as a sidecar's.

use std::sync::Arc;

use http::request::Parts;
use hyper::body::Incoming;
use pilotfish_config::wire::node::{FromNode, LONGEST_FROM_NODE, ToNode};
use pilotfish_identity::Peer as Identified;
use tokio::sync::mpsc;

use super::Control;
use super::answer::{Answer, Denied};
use super::connection::Activity;
use super::status::count;
use super::stream::{WAITING, frames_of, needs_http2, read, run};

/// Opens the stream.
///
/// # Errors
/// 403 for an identity that is no node's of this mesh, 426 over HTTP/1.1.
pub(super) fn open(
    control: &Arc<Control>,
    peer: &Arc<Identified>,
    head: &Parts,
    body: Incoming,
    activity: &Arc<Activity>,
) -> Result<Answer, Denied> {
    needs_http2(head)?;
    let node = peer.id.as_node().filter(|_| peer.id.trust_domain() == &control.trust_domain);
    let Some(node) = node.map(str::to_owned) else {
        return Err(Denied::forbidden(format!("{} is no node's identity of this mesh", peer.id)));
    };
    count(&control.metrics.streams);
    let (outgoing, frames) = mpsc::channel(1);
    let (messages, incoming) = mpsc::channel(WAITING);
    let (own, last_word) = (control.clone(), outgoing.clone());
    let serving = async move { own.orchestrator.serve(&node, incoming, outgoing).await };
    let reading = read::<FromNode>(body, messages, LONGEST_FROM_NODE, peer.clone());
    tokio::spawn(run(control.clone(), peer.clone(), serving, reading, last_word, ToNode::Refused));
    Ok(frames_of(frames, activity))
}
