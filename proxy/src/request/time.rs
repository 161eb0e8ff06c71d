//! The time that a call has: read from its caller, shortened by its rule, enforced once around everything that follows, and told
//! to the upstream with each try.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use pilotfish_filters::clock::Micros;
use pilotfish_filters::deadline::{self, AGENT_DEADLINE, GRPC_TIMEOUT, Timeouts};
use pilotfish_filters::plan::Plan;
use pilotfish_filters::verdict::{Deny, Reason};

use crate::http::{Known, RequestHead};
use crate::listen::Direction;
use crate::request::answer;
use crate::request::ctx::Ctx;
use crate::request::guard::Hop;
use crate::request::respond::Failed;
use crate::worker::Worker;

/// How much longer than the deadline a call from another sidecar is held, which ends it before that.
const SLACK: Duration = Duration::from_millis(100);

/// How much longer a call is held than its time: the try that it runs out on ends first, and is remembered of its endpoint.
const AFTER_A_TRY: Duration = Duration::from_millis(3);

/// Takes the deadline that the caller gives.
///
/// # Errors
/// `bad-request` for an `agent-deadline-ms` that is no number; a bad `grpc-timeout` is ignored, as by Envoy.
pub fn read(ctx: &mut Ctx<'_>, head: &RequestHead) -> Result<(), Deny> {
    const GIVEN: u32 = Known::AgentDeadline.bit() | Known::GrpcTimeout.bit();
    if !head.headers.may_have(GIVEN) {
        return Ok(());
    }
    for value in head.headers.known(Known::AgentDeadline) {
        let left = deadline::parse_millis(value).ok_or_else(|| {
            Deny::with(Reason::BadRequest, format!("{AGENT_DEADLINE} is not a number of milliseconds"))
        })?;
        ctx.shrink(ctx.started.after(left), Reason::DeadlineExceeded);
    }
    if answer::is_grpc(head) {
        for left in head.headers.known(Known::GrpcTimeout).filter_map(deadline::parse_grpc) {
            ctx.shrink(ctx.started.after(left), Reason::DeadlineExceeded);
        }
    }
    Ok(())
}

/// Refuses a call that is over already: nothing of it is sent.
///
/// # Errors
/// `deadline-exceeded`, `timeout`.
pub fn check(worker: &Worker, ctx: &Ctx<'_>) -> Result<(), Deny> {
    match ctx.deadline {
        Some(at) if at <= worker.shared.clock.now() => Err(overdue(ctx.overdue, at.since(ctx.started))),
        _ => Ok(()),
    }
}

/// Says in the head what is left, for one try that is about to be sent.
///
/// # Errors
/// Less than a millisecond is left.
pub fn tell(worker: &Worker, ctx: &Ctx<'_>, head: &mut RequestHead, to: Hop) -> Result<(), Deny> {
    let Some(at) = ctx.deadline else { return Ok(()) };
    let left = at.since(worker.shared.clock.now());
    let Some(millis) = deadline::print_millis(left) else {
        return Err(overdue(ctx.overdue, at.since(ctx.started)));
    };
    // A host outside learns of it only what the agent itself tells.
    let may = |given: Known| to != Hop::Outside || head.headers.may_have(given.bit());
    let (say_agent, say_grpc) = (may(Known::AgentDeadline), may(Known::GrpcTimeout) && answer::is_grpc(head));
    if say_agent {
        head.headers.set(AGENT_DEADLINE, millis.as_bytes());
    }
    if say_grpc {
        head.headers.set(GRPC_TIMEOUT, deadline::print_grpc(left).as_bytes());
    }
    Ok(())
}

/// How long one try may still wait for the head of its answer by what the rule says of the whole call: what is left, of what, and
/// the reason to give it up then. A caller's own deadline is not among it: an endpoint cannot help that its caller is impatient.
pub fn left_to_try(worker: &Worker, ctx: &Ctx<'_>) -> Option<(Duration, Duration, Reason)> {
    let rule = ctx.rule?;
    let whole = rule.timeout.map(|limit| (limit, Reason::Timeout));
    let head = rule.resilience.timeouts.response_header.map(|limit| (limit, Reason::TryTimeout));
    let (limit, reason) = [whole, head].into_iter().flatten().min_by_key(|(limit, _)| *limit)?;
    let left = ctx.started.after(limit).since(worker.shared.clock.now());
    Some((left, limit, reason))
}

/// How long nothing may move on the call: what its rule says; of an inbound call what its caller's sidecar says, else the own.
pub fn silence(plan: &Plan, ctx: &Ctx<'_>) -> Option<Duration> {
    match ctx.rule {
        Some(rule) => rule.resilience.timeouts.stream_idle,
        None => ctx.standing.silence.unwrap_or(plan.own().stream_idle),
    }
}

/// The limits of one call.
#[derive(Debug)]
pub struct Limits {
    whole: Option<(Micros, Reason)>,
    head: Option<(Micros, Rc<Cell<bool>>)>,
    started: Micros,
}

impl Limits {
    /// Those that hold once the rule is known.
    pub fn of(ctx: &mut Ctx<'_>) -> Limits {
        let timeouts = ctx.rule.map(|rule| &rule.resilience.timeouts);
        let head = timeouts.and_then(|Timeouts { response_header, .. }| *response_header).map(|limit| {
            let seen = ctx.answered.insert(Rc::default());
            (ctx.started.after(limit + AFTER_A_TRY), seen.clone())
        });
        // The sidecar that told the deadline ends the call itself, and knows why; this one stands behind it.
        let slack = if ctx.direction == Direction::Inbound { SLACK } else { AFTER_A_TRY };
        Limits { whole: ctx.deadline.map(|at| (at.after(slack), ctx.overdue)), head, started: ctx.started }
    }

    /// Runs the rest of a call within its limits. What is over is dropped where it stands: its upstream sees the stream reset,
    /// or the connection closed.
    ///
    /// # Errors
    /// Its own, `timeout`, `deadline-exceeded`, `try-timeout`.
    pub async fn hold<T>(
        self,
        worker: &Worker,
        mut rest: Pin<&mut impl Future<Output = Result<T, Failed>>>,
    ) -> Result<T, Failed> {
        if self.whole.is_none() && self.head.is_none() {
            return rest.await;
        }
        let clock = worker.shared.clock;
        let mut timer = worker.timers.take();
        let mut armed = None;
        poll_fn(|cx: &mut Context<'_>| {
            if let Poll::Ready(done) = rest.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            let whole = self.whole;
            let head = self.head.as_ref().filter(|(_, seen)| !seen.get());
            let head = head.map(|(at, _)| (*at, Reason::TryTimeout));
            let Some((at, reason)) = [whole, head].into_iter().flatten().min_by_key(|(at, _)| *at) else {
                return Poll::Pending;
            };
            if armed != Some(at) {
                armed = Some(at);
                timer.set(at.since(clock.now()));
            }
            timer.poll_expired(cx).map(|()| Err(overdue(reason, at.since(self.started)).into()))
        })
        .await
    }
}

/// The refusal of a call that took longer than `limit`.
pub fn overdue(reason: Reason, limit: Duration) -> Deny {
    Deny::with(reason, format!("no answer within {limit:?}"))
}
