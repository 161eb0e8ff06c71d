//! guard: may the call go on at all: hops, the agents on its path, its deadline. What only sidecars may write of it.

use std::time::Duration;

use pilotfish_filters::call::Call;
use pilotfish_filters::call_path::{
    Agents, CALL_ID, CALL_PATH, CallPath, Cycles, HIGHEST_MAX_HOPS, MAX_HOPS, PathPolicy,
};
use pilotfish_filters::correlate::{Correlation, Inherited, Keys};
use pilotfish_filters::plan::Plan;
use pilotfish_filters::shed::Priority;
use pilotfish_filters::verdict::{Deny, Reason};

use crate::http::{Known, RequestHead};
use crate::listen::Direction;
use crate::request::ctx::Ctx;
use crate::request::route::Way;
use crate::request::{explain, time, trace};
use crate::snapshot::Snapshot;
use crate::telemetry::call::Acted;
use crate::telemetry::log;
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

/// Where a call stands in its chain, and what holds for it there.
#[derive(Debug, Default)]
pub struct Standing {
    /// How many calls of agents it hangs on.
    pub hops: u8,
    /// Who made them; the last is the caller, for an inbound call.
    pub agents: Agents,
    /// The inbound call that it belongs to, for an outbound call.
    pub belongs: Option<Correlation>,
    /// How long nothing may move on it, when its caller's sidecar says so.
    pub silence: Option<Option<Duration>>,
    /// What its rule and the Sidecar document say.
    policy: PathPolicy,
    /// Whether a policy on its way forbids circles.
    deny_cycles: bool,
}

/// Reads what the call brings along, and refuses what has come too far, in a circle, or too late.
///
/// # Errors
/// `too-many-hops`, `call-cycle`, `deadline-exceeded`, `bad-request`.
pub fn enter(
    worker: &Worker,
    snapshot: &Snapshot,
    ctx: &mut Ctx<'_>,
    call: &Call,
    head: &mut RequestHead,
) -> Result<(), Deny> {
    let plan = &snapshot.plan;
    time::read(ctx, head)?;
    let most = match ctx.direction {
        Direction::Inbound => arrive(worker, plan, ctx, head)?,
        Direction::Outbound => depart(worker, plan, ctx, call),
    };
    // A word that is none says nothing.
    let asked = head.headers.known(Known::AgentPriority).next();
    let asked = asked.map(|word| Priority::parse(word).unwrap_or_default());
    let wanted = asked.unwrap_or(ctx.priority);
    ctx.priority = wanted.min(most);
    if ctx.priority != wanted {
        ctx.call.acted.add(Acted::PRIORITY);
    }
    time::check(worker, ctx)
}

/// Whether sidecars can prove to one another who they are: without that a path proves nothing.
fn in_mesh(worker: &Worker) -> bool {
    worker.shared.tls.has_identity()
}

/// An inbound call; the highest priority that it may have.
fn arrive(worker: &Worker, plan: &Plan, ctx: &mut Ctx<'_>, head: &mut RequestHead) -> Result<Priority, Deny> {
    let own = &plan.own().path;
    let most = own.max_priority.unwrap_or(Priority::Critical);
    let Some(peer) = ctx.mesh else {
        // Where sidecars can prove what they are, whoever does not is no more important than others.
        return Ok(if in_mesh(worker) { most.min(Priority::Default) } else { most });
    };
    let told = head.headers.known(Known::CallPath).next().and_then(CallPath::parse);
    // The peer's certificate says who made this call: a path that ends elsewhere is not about it.
    let fits =
        |path: &CallPath| peer.agent.is_none() || path.agents.iter().next_back() == peer.agent.as_deref();
    let path =
        told.filter(fits).unwrap_or_else(|| CallPath::first(peer.agent.as_deref().unwrap_or_default()));
    // The agent is told an id instead, which it cannot change into another history.
    if head.headers.may_have(Known::CallPath.bit() | Known::CallId.bit()) {
        head.headers.remove(CALL_PATH);
        head.headers.remove(CALL_ID);
    }
    // Its caller's sidecar held it to the caller's limit, which may be higher than the usual one.
    let limit = own.max_hops.unwrap_or(HIGHEST_MAX_HOPS);
    if path.hops > limit {
        return Err(too_many_hops(path.hops, limit));
    }
    if let Some(mut cycle) = path.agents.cycle(worker.shared.serving.own()) {
        cycle.push(worker.shared.serving.own());
        judge_cycle(worker, &cycle, path.deny_cycles || own.cycles == Some(Cycles::Deny))?;
    }
    ctx.priority = path.priority.min(most);
    ctx.standing.hops = path.hops;
    ctx.standing.deny_cycles = path.deny_cycles;
    ctx.standing.silence = path.silence;
    ctx.standing.agents = path.agents;
    Ok(most.min(path.priority))
}

/// An outbound call inherits from the inbound call that it belongs to; the highest priority that it may have.
fn depart(worker: &Worker, plan: &Plan, ctx: &mut Ctx<'_>, call: &Call) -> Priority {
    let most = plan.own().path.max_priority.unwrap_or(Priority::Critical);
    let in_mesh = in_mesh(worker);
    if !worker.shared.serving.has_agent() || !(in_mesh || plan.credentials().exchanges()) {
        return most;
    }
    let belongs = worker.shared.serving.find(ctx.said, &Keys::of(call));
    if !in_mesh {
        // Of its history only the token is proven: by its issuer.
        ctx.standing.belongs = Some(belongs);
        return most;
    }
    let (hops, agents, highest) = belongs.inherited();
    (ctx.standing.hops, ctx.standing.agents) = (hops, agents);
    if let Some(served) = belongs.served() {
        let inherited = &served.inherited;
        if let Some(at) = inherited.deadline {
            ctx.shrink(at, Reason::DeadlineExceeded);
        }
        ctx.priority = inherited.priority;
        ctx.standing.deny_cycles = inherited.deny_cycles;
    }
    ctx.standing.belongs = Some(belongs);
    most.min(highest)
}

/// Remembers an inbound call for those that the agent makes for it, once its trace is known. Outside of a mesh only the trace and a valid
/// token are handed down: nothing else of it is proven.
pub fn remember(worker: &Worker, ctx: &mut Ctx<'_>, call: &Call, head: &RequestHead) {
    let serving = &worker.shared.serving;
    let exchanges = ctx.snapshot.plan.credentials().exchanges();
    let wanted = serving.has_agent() && (in_mesh(worker) || serving.joins_traces() || exchanges);
    if ctx.direction != Direction::Inbound || !wanted {
        return;
    }
    let inherited = Inherited {
        hops: ctx.standing.hops,
        agents: ctx.standing.agents.clone(),
        priority: ctx.priority,
        deadline: ctx.deadline,
        deny_cycles: ctx.standing.deny_cycles,
        trace: trace::handed(ctx),
        tracestate: trace::state(head),
        token: ctx.proven.token.take(),
        delegated: ctx.proven.delegated.clone(),
    };
    let nonce = worker.with_rng(|rng| rng.u64(..));
    ctx.serving = Some(serving.begin(inherited, Keys::of(call), nonce));
}

fn too_many_hops(hops: u8, limit: u8) -> Deny {
    Deny::with(Reason::TooManyHops, format!("{hops} calls of agents hang on one another, {limit} may"))
}

fn judge_cycle(worker: &Worker, cycle: &[&str], deny: bool) -> Result<(), Deny> {
    if !deny {
        worker.metrics.call_cycles.add(1);
        if worker.shared.serving.may_warn(worker.shared.clock.now()) {
            log::warn!("a call came back to its agent", cycle = cycle.join(" -> "));
        }
        return Ok(());
    }
    let mut deny = Deny::with(Reason::CallCycle, format!("the call comes back: {}", cycle.join(" -> ")));
    deny.extra = Some(serde_json::json!({ "cycle": cycle }).to_string().into());
    Err(deny)
}

/// What the rule adds, once it is known.
///
/// # Errors
/// `fan-out`: the inbound call that it belongs to has made as many calls as it may.
pub fn by_rule(plan: &Plan, ctx: &mut Ctx<'_>, way: &Way<'_>) -> Result<(), Deny> {
    let own = plan.own().path;
    ctx.standing.policy = own;
    if let Way::Rule(matched) = way {
        if let Some(limit) = matched.rule.timeout {
            ctx.shrink(ctx.started.after(limit), Reason::Timeout);
        }
        ctx.standing.policy = matched.rule.resilience.path.or(&own);
        if let Some(most) = ctx.standing.policy.max_priority {
            ctx.priority = ctx.priority.min(most);
        }
    }
    ctx.standing.deny_cycles |= ctx.standing.policy.cycles == Some(Cycles::Deny);
    if let Some(served) = ctx.standing.belongs.as_ref().and_then(Correlation::served) {
        let made = served.count();
        if let Some(limit) = ctx.standing.policy.fan_out.filter(|limit| made > *limit) {
            let detail = format!("the call that is being served has made {limit} calls, as many as it may");
            return Err(Deny::with(Reason::FanOut, detail));
        }
    }
    Ok(())
}

/// Writes what the next hop is told of the call, for one try that is about to be sent.
///
/// # Errors
/// `deadline-exceeded`, `timeout`: there is no time left for it. `too-many-hops`.
pub fn leave(worker: &Worker, ctx: &Ctx<'_>, head: &mut RequestHead, to: Hop) -> Result<(), Deny> {
    time::tell(worker, ctx, head, to)?;
    let given = head.headers.may_have(Known::AgentPriority.bit());
    if given || (ctx.priority != Priority::Default && to != Hop::Outside) {
        head.headers.set("agent-priority", ctx.priority.word().as_bytes());
    }
    explain::leave(ctx, head, to);
    match to {
        Hop::Mesh => {
            let path = onward(worker, ctx)?;
            head.headers.set(CALL_PATH, path.print().as_bytes());
        }
        Hop::Agent => {
            if let Some(served) = ctx.serving.as_ref().and_then(|begun| begun.served())
                && (in_mesh(worker) || ctx.snapshot.plan.credentials().exchanges())
            {
                head.headers.set(CALL_ID, served.id.to_string().as_bytes());
            }
        }
        Hop::Outside => {}
    }
    Ok(())
}

/// The path with this agent's own call.
fn onward(worker: &Worker, ctx: &Ctx<'_>) -> Result<CallPath, Deny> {
    let standing = &ctx.standing;
    let hops = standing.hops.saturating_add(1);
    let limit = standing.policy.max_hops.unwrap_or(MAX_HOPS);
    if hops > limit {
        return Err(too_many_hops(hops, limit));
    }
    let silence = ctx.rule.map(|rule| rule.resilience.timeouts.stream_idle);
    Ok(CallPath {
        hops,
        agents: standing.agents.and(worker.shared.serving.own()),
        priority: ctx.priority,
        deny_cycles: standing.deny_cycles,
        silence: silence.filter(|silence| *silence != Some(pilotfish_filters::deadline::STREAM_IDLE)),
    })
}
