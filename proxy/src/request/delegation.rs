//! delegation: the chain of who asked whom, signed by each sidecar on the way.

use std::sync::Arc;

use pilotfish_filters::authz::Chain;
use pilotfish_filters::correlate::Correlation;
use pilotfish_filters::delegation::Delegated;
use pilotfish_filters::verdict::{Deny, Reason};

use crate::bootstrap::MissingChain;
use crate::delegation::{DELEGATION, link};
use crate::http::{Known, RequestHead};
use crate::listen::Direction;
use crate::request::ctx::Ctx;
use crate::tls::MeshPeer;
use crate::worker::Worker;

/// Reads and verifies the chain of an inbound call; what an outbound call brings was taken away with everything that only sidecars write.
///
/// # Errors
/// `bad-delegation`, `delegation-required`.
pub fn enter(worker: &Worker, ctx: &mut Ctx<'_>, head: &mut RequestHead) -> Result<(), Deny> {
    if ctx.direction == Direction::Outbound {
        ctx.call.chain =
            acting(ctx).filter(|acting| acting.is_somebody()).map(|acting| Arc::clone(acting.kept()));
        return Ok(());
    }
    if let Some(peer) = ctx.mesh {
        let delegated = match head.headers.may_have(Known::Delegation.bit()) {
            true => read(worker, ctx, peer, head)?,
            false if is_required(worker, ctx) => return Err(required(peer)),
            // An older sidecar: nobody but the caller is known, and of that only this sidecar can tell.
            false => Arc::new(Delegated {
                agents: vec![peer.principal.clone()],
                uncertain: true,
                ..Delegated::default()
            }),
        };
        ctx.proven.delegated = Some(delegated);
    }
    // Where a chain begins at a token, its principal is the origin.
    let begins = ctx.proven.delegated.as_ref().is_none_or(|own| own.origin.is_empty() && !own.uncertain);
    if let Some(claims) = ctx.proven.claims.as_ref().filter(|_| begins) {
        ctx.proven.delegated = Some(worker.delegations.begin(claims, ctx.proven.delegated.as_ref()));
    }
    Ok(())
}

/// Whether a call of the mesh has to say for whom it is.
fn is_required(worker: &Worker, ctx: &Ctx<'_>) -> bool {
    let by_flag = worker.shared.settings.access.delegation == MissingChain::Require;
    by_flag || ctx.snapshot.plan.governance().chain_required
}

#[cold]
fn required(peer: &MeshPeer) -> Deny {
    let caller = peer.agent.as_deref().unwrap_or(&peer.principal.id);
    let detail = format!(
        "the sidecar of {caller} does not say for whom this call is ({DELEGATION}): it is older than delegation, it is none, or \
         its agent goes past it through a CONNECT tunnel; renew it, or take calls without a chain (--delegation accept, \
         authentication.delegation_required: false)"
    );
    Deny::with(Reason::DelegationRequired, detail)
}

fn read(
    worker: &Worker,
    ctx: &mut Ctx<'_>,
    peer: &MeshPeer,
    head: &mut RequestHead,
) -> Result<Arc<Delegated>, Deny> {
    let bad = |why: &str| Deny::with(Reason::BadDelegation, format!("{DELEGATION}: {why}"));
    let tls = &worker.shared.tls;
    let own = tls.own().ok_or_else(|| bad("this sidecar has no identity"))?;
    let verified = {
        let mut all = head.headers.known(Known::Delegation);
        let (Some(text), None) = (all.next(), all.next()) else { return Err(bad("there are several")) };
        worker.delegations.verify(text, peer, &own, &tls.live).map_err(|why| bad(&why))?
    };
    // What the agent has nothing to do with it does not see.
    head.headers.remove_known(Known::Delegation.bit());
    ctx.call.chain = verified.chain.as_ref().map(Chain::kept);
    ctx.proven.chain = verified.chain;
    Ok(verified.onward)
}

/// For whom an outbound call is.
pub fn acting<'c>(ctx: &'c Ctx<'_>) -> Option<&'c Arc<Delegated>> {
    ctx.standing.belongs.as_ref().and_then(Correlation::delegated)
}

/// Writes the chain with this agent's own link, for a try that is about to be sent to `to`; `None`: that is no sidecar.
pub fn leave(
    worker: &Worker,
    acting: Option<&Arc<Delegated>>,
    head: &mut RequestHead,
    to: Option<&MeshPeer>,
) {
    // An earlier try may have gone to a sidecar.
    head.headers.remove_known(Known::Delegation.bit());
    let tls = &worker.shared.tls;
    let (Some(peer), Some(own)) = (to, tls.own()) else { return };
    let Some(text) = worker.delegations.sign(&own, peer, acting, &tls.live) else { return };
    if std::ptr::eq(peer.shown.as_ptr(), Arc::as_ptr(&own)) {
        head.headers.set(DELEGATION, text.as_bytes());
    } else {
        // The connection is from before a new certificate.
        let mut text = text.to_string();
        link::add_certificates(&mut text, &own.chain);
        head.headers.set(DELEGATION, text.as_bytes());
    }
}
