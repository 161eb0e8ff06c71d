//! delegation: the chain of who asked whom, signed by each sidecar on the way.

use pilotfish_filters::verdict::Deny;

use crate::http::RequestHead;
use crate::request::ctx::Ctx;
use crate::request::guard::Hop;
use crate::worker::Worker;

/// Reads and verifies the chain of an inbound call; finds that of an outbound call, which acts for the call that it belongs to.
///
/// # Errors
/// `bad-delegation`.
pub fn enter(_worker: &Worker, _ctx: &mut Ctx<'_>, _head: &mut RequestHead) -> Result<(), Deny> {
    Ok(())
}

/// Writes the chain with this agent's own link, for a try that is about to be sent.
///
/// # Errors
/// `bad-delegation`: the chain is too long.
pub fn leave(_worker: &Worker, _ctx: &Ctx<'_>, _head: &mut RequestHead, _to: Hop) -> Result<(), Deny> {
    Ok(())
}
