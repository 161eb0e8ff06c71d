//! A place among the calls that the local agent serves at once; when there is none, the call waits by its priority, or is refused.
//! The places are for the whole process; below the limit one costs an atomic addition.

use std::future::poll_fn;

use pilotfish_filters::shed::{self, Entered, Overloaded, Priority, Waiter};
use pilotfish_filters::verdict::{Deny, Reason};

use super::Asked;
use crate::request::ctx::Ctx;
use crate::request::route::Way;
use crate::worker::Worker;

/// What a caller is told to wait, in seconds.
const RETRY_AFTER: &str = "1";

/// A place that is given back when it is dropped.
pub type Place = shed::Place;

/// Takes a place, perhaps after waiting for one, and whether it did; none is needed where nothing limits.
///
/// # Errors
/// `overloaded`.
pub async fn place(worker: &Worker, ctx: &Ctx<'_>, asked: &Asked<'_>) -> Result<(Option<Place>, bool), Deny> {
    if !matches!(asked.way, Way::Agent) {
        return Ok((None, false));
    }
    let Some(gate) = asked.snapshot.plan.inbound_gate() else { return Ok((None, false)) };
    match gate.enter(worker.shared.clock.now(), ctx.priority) {
        Ok(Entered::Now(place)) => Ok((Some(place), false)),
        // On the heap: most calls never wait.
        Ok(Entered::Later(waiter)) => {
            Box::pin(wait(worker, waiter, ctx.priority)).await.map(|place| (Some(place), true))
        }
        Err(Overloaded) => Err(overloaded(ctx.priority)),
    }
}

/// Waits for what a line gives: until it is the call's turn, or its priority has waited long enough. A deadline that comes, or a
/// caller that goes away, drops this, which leaves the line.
///
/// # Errors
/// `overloaded`.
pub async fn wait<T>(worker: &Worker, mut waiter: Waiter<T>, priority: Priority) -> Result<T, Deny> {
    let left = waiter.until().since(worker.shared.clock.now());
    let given = tokio::select! {
        biased;
        given = poll_fn(|cx| waiter.poll(cx)) => given,
        () = tokio::time::sleep(left) => waiter.give_up(),
    };
    given.map_err(|Overloaded| overloaded(priority))
}

/// What the caller of a call is told that is not served.
pub fn overloaded(priority: Priority) -> Deny {
    let detail = format!("too many calls at once; this one has the priority {}", priority.word());
    Deny::with(Reason::Overloaded, detail).and_header("retry-after", RETRY_AFTER)
}
