//! Rate limits of the call's rule, capability and caller.

use pilotfish_filters::verdict::Deny;

use super::Asked;
use crate::request::ctx::Ctx;
use crate::worker::Worker;

/// Takes a token from every limit that concerns the call.
///
/// # Errors
/// `rate-limited`, with `retry-after`.
pub fn check(_worker: &Worker, _ctx: &Ctx<'_>, _asked: &Asked<'_>) -> Result<(), Deny> {
    Ok(())
}
