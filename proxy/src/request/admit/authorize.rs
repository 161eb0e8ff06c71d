//! May this caller call this? In this order: response actions, the external authorizer, AuthorizationPolicies, AgentSecurityPolicies; then
//! the record of it.

use pilotfish_filters::authz::{Asking, Judgement, Who};
use pilotfish_filters::verdict::Deny;

use super::{Asked, action, custom};
use crate::audit;
use crate::listen::Direction;
use crate::request::ctx::Ctx;
use crate::worker::Worker;

/// What a call that was allowed still owes: used by the stages after admit.
#[derive(Debug, Default)]
pub struct Due {
    /// Headers that replace those of the request before it is sent on (an external authorizer's).
    pub to_upstream: Vec<(Box<str>, Box<[u8]>)>,
    /// Headers that are added to the answer (an external authorizer's).
    pub to_downstream: Vec<(Box<str>, Box<[u8]>)>,
    /// The highest class of an answer that the caller may get.
    pub clearance: Option<usize>,
    /// The answer is a list that is narrowed to what the caller may use.
    pub narrow: bool,
}

/// Decides, and records the decision.
///
/// # Errors
/// `quarantined`, `restricted`, `access-denied`, `unauthenticated`, `not-decidable`, `authorizer-unavailable`, `audit-unavailable`.
pub async fn authorize(worker: &Worker, ctx: &mut Ctx<'_>, asked: &Asked<'_>) -> Result<(), Deny> {
    action::check(worker, ctx, asked)?;
    if ctx.direction != Direction::Inbound {
        return Ok(());
    }
    let plan = &asked.snapshot.plan;
    let claims = ctx.proven.claims.clone();
    let chain = ctx.proven.chain.clone();
    let who = Who {
        principal: ctx.mesh.map(|peer| &peer.principal),
        remote_ip: None,
        destination: asked.snapshot.agent,
        sni: None,
        claims: claims.as_ref(),
        chain: chain.as_deref(),
    };
    let asking = Asking { head: asked.head, call: asked.call, caller: asked.caller, who: &who };
    if let Some(wanted) = plan.custom(&asking) {
        custom::ask(worker, ctx, asked, wanted).await?;
    }
    let judgement: Judgement<'_> = plan.authorize(&asking);
    ctx.due.clearance = judgement.clearance;
    audit::decided(worker, ctx, asked, &asking, &judgement)?;
    match judgement.deny {
        Some(deny) => Err(deny),
        None => Ok(()),
    }
}
