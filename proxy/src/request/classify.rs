//! classify: an answer is of a class, and whoever gets it has to be cleared for it. Decided on the head, before anything of the answer
//! goes on: by the sidecar that answers, for its caller and everybody for whom that acts; and by the caller's own, for its agent.

use pilotfish_filters::authz::governance::{CLASS_HEADER, Governance};
use pilotfish_filters::verdict::{Deny, Reason};

use crate::http::ResponseHead;
use crate::listen::Direction;
use crate::request::ctx::Ctx;
use crate::request::delegation;

/// Checks the class of an answer as the upstream gave it. One without a class is of its route's, and is told so to whoever gets it.
///
/// # Errors
/// `classified`: it must not be passed on.
pub fn check(ctx: &Ctx<'_>, head: &mut ResponseHead) -> Result<(), Deny> {
    let governance = ctx.snapshot.plan.governance();
    if governance.levels.is_empty() {
        return Ok(());
    }
    let inbound = ctx.direction == Direction::Inbound;
    let class = match said(governance, head) {
        Some(class) => class,
        None => {
            let Some(class) = ctx.due.class.filter(|_| inbound) else { return Ok(()) };
            head.headers.set(CLASS_HEADER, governance.level_name(class).as_bytes());
            class
        }
    };
    let clearance = match inbound {
        true => ctx.due.clearance.unwrap_or(0),
        false => own_clearance(governance, ctx),
    };
    if class <= clearance {
        return Ok(());
    }
    let who = if inbound {
        "its caller, or somebody for whom that acts,"
    } else {
        "this agent, or somebody for whom it acts,"
    };
    let detail = format!(
        "the answer is {}, and {who} may get what is {} at most; it was dropped",
        governance.level_name(class),
        governance.level_name(clearance)
    );
    Err(Deny::with(Reason::Classified, detail))
}

/// The highest of the classes that an answer says; one that nobody knows counts as the highest of all.
fn said(governance: &Governance, head: &ResponseHead) -> Option<usize> {
    let values = head.headers.get_all(CLASS_HEADER).flat_map(|value| value.split(|byte| *byte == b','));
    // An empty value says nothing that anybody knows either.
    values.map(|value| governance.level(std::str::from_utf8(value.trim_ascii()).unwrap_or_default())).max()
}

/// What the sidecar's own agent may get in this call: no more than those for whom it acts.
fn own_clearance(governance: &Governance, ctx: &Ctx<'_>) -> usize {
    let own = governance.own_clearance.unwrap_or(0);
    let acting = delegation::acting(ctx).into_iter().flat_map(|acting| &acting.agents);
    acting.map(|agent| governance.clearance_of(agent)).fold(own, usize::min)
}
