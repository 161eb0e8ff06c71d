//! guard: may the call go on at all: hops, the agents on its path, its deadline. What only sidecars may write of it.

use pilotfish_filters::call::Call;
use pilotfish_filters::shed::Priority;
use pilotfish_filters::verdict::{Deny, Reason};

use crate::http::{Known, RequestHead};
use crate::listen::Direction;
use crate::request::ctx::Ctx;
use crate::request::route::Way;
use crate::request::time;
use crate::snapshot::Snapshot;
use crate::worker::Worker;

/// What is at the other end of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// Another sidecar that proved so.
    Mesh,
    /// The local agent.
    Agent,
    /// Anything else.
    Outside,
}

/// Reads what the call brings along, and refuses what has come too far, in a circle, or too late.
///
/// # Errors
/// `too-many-hops`, `call-cycle`, `deadline-exceeded`, `bad-request`.
pub fn enter(
    worker: &Worker,
    snapshot: &Snapshot,
    ctx: &mut Ctx<'_>,
    _call: &Call,
    head: &mut RequestHead,
) -> Result<(), Deny> {
    time::read(ctx, head)?;
    if let Some(asked) = head.headers.known(Known::AgentPriority).next() {
        // A word that is none says nothing.
        let asked = Priority::parse(asked).unwrap_or_default();
        let most = snapshot.plan.own().path.max_priority.unwrap_or(Priority::Critical);
        ctx.priority = asked.min(most).min(highest_believed(worker, ctx));
    }
    time::check(worker, ctx)
}

/// Whoever is not proven to be a sidecar cannot be more important than others, where sidecars can prove it.
fn highest_believed(worker: &Worker, ctx: &Ctx<'_>) -> Priority {
    let stranger = ctx.direction == Direction::Inbound && ctx.mesh.is_none();
    if stranger && worker.shared.tls.has_identity() { Priority::Default } else { Priority::Critical }
}

/// What the rule adds, once it is known.
pub fn by_rule(ctx: &mut Ctx<'_>, way: &Way<'_>) {
    let Way::Rule(matched) = way else { return };
    if let Some(limit) = matched.rule.timeout {
        ctx.shrink(ctx.started.after(limit), Reason::Timeout);
    }
    if let Some(most) = matched.rule.resilience.path.max_priority {
        ctx.priority = ctx.priority.min(most);
    }
}

/// Writes what the next hop is told of the call, for one try that is about to be sent.
///
/// # Errors
/// `deadline-exceeded`, `timeout`: there is no time left for it.
pub fn leave(worker: &Worker, ctx: &Ctx<'_>, head: &mut RequestHead, to: Hop) -> Result<(), Deny> {
    time::tell(worker, ctx, head, to)?;
    let given = head.headers.may_have(Known::AgentPriority.bit());
    if given || (ctx.priority != Priority::Default && to != Hop::Outside) {
        head.headers.set("agent-priority", ctx.priority.word().as_bytes());
    }
    Ok(())
}
