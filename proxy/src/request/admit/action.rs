//! Response actions: quarantine and restriction, for the caller, for who is called, and for everybody on the chain.

use http::Method;
use pilotfish_filters::verdict::Deny;

use super::Asked;
use crate::listen::Direction;
use crate::request::ctx::Ctx;
use crate::request::delegation;
use crate::request::route::Way;
use crate::worker::Worker;

/// Refuses what an agent that is held may not do. Who is called is looked at when it has been chosen: `dial::Way::to_endpoint`.
///
/// # Errors
/// `quarantined`, `restricted`.
pub fn check(worker: &Worker, ctx: &mut Ctx<'_>, asked: &Asked<'_>) -> Result<(), Deny> {
    let Some(held) = worker.shared.actions.held() else { return Ok(()) };
    let now = worker.shared.clock.now();
    if ctx.direction == Direction::Inbound {
        let caller = ctx.mesh.map(|peer| &peer.principal);
        return held.inbound(now, caller, ctx.proven.chain.as_deref(), asked.call);
    }
    let known = matches!(asked.way, Way::Rule(_));
    let acting = delegation::acting(ctx).map(|acting| &**acting);
    let asks = held.outbound(now, acting, asked.call, known, asked.head.method == Method::CONNECT)?;
    if let Some(asks) = asks {
        // What the host alone may have said is said to the receiver too, which judges by it.
        ctx.due.to_upstream.push(("agent-capability".into(), asks));
    }
    Ok(())
}
