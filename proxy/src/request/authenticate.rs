//! authenticate: whose token does the call bring, and is it valid? For inbound calls, by the RequestAuthentications of the agent.

use std::sync::Arc;

use pilotfish_filters::authz::{Chain, Claims};
use pilotfish_filters::plan::Plan;
use pilotfish_filters::verdict::Deny;

use crate::http::RequestHead;
use crate::request::ctx::Ctx;
use crate::worker::Worker;

/// What is proved of who is behind a call, besides the peer's certificate.
#[derive(Debug, Default)]
pub struct Proven {
    /// authenticate: what its token says.
    pub claims: Option<Arc<Claims>>,
    /// delegation: for whom the caller acts.
    pub chain: Option<Arc<Chain>>,
}

/// Verifies the token, if there is one, and does with the head what its rule says.
///
/// # Errors
/// `unauthenticated`: a token that is not valid, or none where one is required.
pub async fn authenticate(
    _worker: &Worker,
    _plan: &Plan,
    _ctx: &mut Ctx<'_>,
    _head: &mut RequestHead,
) -> Result<(), Deny> {
    Ok(())
}
