//! One node's stream: frames in both directions, as a sidecar's.

use std::sync::Arc;

use http::request::Parts;
use hyper::body::Incoming;
use pilotfish_identity::Peer as Identified;

use super::Control;
use super::answer::{Answer, Denied};
use super::connection::Activity;

/// Opens the stream.
///
/// # Errors
/// 403 for an identity that is no node's, 426 over HTTP/1.1.
pub(super) fn open(
    _control: &Arc<Control>,
    peer: &Arc<Identified>,
    _head: &Parts,
    _body: Incoming,
    _activity: &Arc<Activity>,
) -> Result<Answer, Denied> {
    Err(Denied::forbidden(format!("{} is no node's identity", peer.id)))
}
