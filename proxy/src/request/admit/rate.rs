//! Rate limits of the call's rule, capability and caller.

use pilotfish_filters::rate_limit::Asking;
use pilotfish_filters::verdict::Deny;

use super::Asked;
use crate::request::ctx::Ctx;
use crate::request::route::Way;
use crate::worker::Worker;

/// Takes a token from every limit that concerns the call; whether there are any.
///
/// # Errors
/// `rate-limited`, with `retry-after`.
pub fn check(worker: &Worker, ctx: &Ctx<'_>, asked: &Asked<'_>) -> Result<bool, Deny> {
    let limits = match asked.way {
        Way::Rule(matched) => &matched.rule.resilience.limits,
        Way::Agent => asked.snapshot.plan.inbound_limits(),
        Way::Unknown => return Ok(false),
    };
    if limits.is_empty() {
        return Ok(false);
    }
    let caller = ctx.mesh.map(|peer| peer.peer.id.as_str());
    limits
        .admit(worker.shared.clock.now(), &Asking { head: asked.head, call: asked.call, caller })
        .map(|()| true)
}
