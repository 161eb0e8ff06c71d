//! Waiting until an endpoint has room: those that are well have as many calls as they may (`max-concurrency` of a
//! DestinationRule).

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_filters::cluster::{Cluster, Turn};
use pilotfish_filters::plan::Plan;
use pilotfish_filters::shed::{Line, Overloaded, Priority};
use pilotfish_filters::verdict::{Deny, Reason};

use super::{Selected, Wish, select};
use crate::http::Downstream;
use crate::request::admit::shed::overloaded;
use crate::request::respond::Failed;
use crate::worker::Worker;

/// How often a waiting call looks by itself: an endpoint that is well again calls nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Chooses, perhaps after waiting for room. Calls by capability do not wait: their candidates have no line in common.
///
/// # Errors
/// Those of [`select`], `overloaded`, `client-gone`.
pub async fn select_or_wait<'p>(
    worker: &Worker,
    plan: &'p Plan,
    wish: &Wish<'_>,
    priority: Priority,
    down: &mut Downstream<'_>,
) -> Result<Selected<'p>, Failed> {
    let cluster = wish.target.cluster(wish.caller.port)?.map(|id| &**plan.cluster(id));
    // Where another instance may be started the call waits for that or for room, whichever comes first.
    let cluster = cluster.filter(|cluster| cluster.on_demand.is_none());
    let Some((cluster, line)) = cluster.and_then(|cluster| Some((cluster, cluster.line()?))) else {
        return Ok(select(worker, plan, wish)?);
    };
    // Whoever came before goes first.
    if line.is_empty()
        && let Some(selected) = unless_full(select(worker, plan, wish))?
    {
        return Ok(selected);
    }
    // On the heap: most calls never wait.
    let waiting = Box::pin(wait(worker, plan, wish, priority, (cluster, line)));
    Ok(down.unless_gone(pin!(waiting)).await??)
}

/// `None`: there is no room.
fn unless_full(selected: Result<Selected<'_>, Deny>) -> Result<Option<Selected<'_>>, Deny> {
    match selected {
        Err(deny) if deny.reason == Reason::Overloaded => Ok(None),
        other => other.map(Some),
    }
}

async fn wait<'p>(
    worker: &Worker,
    plan: &'p Plan,
    wish: &Wish<'_>,
    priority: Priority,
    (cluster, line): (&Cluster, &Arc<Line<Turn>>),
) -> Result<Selected<'p>, Deny> {
    let clock = worker.shared.clock;
    let join =
        || line.join(clock.now(), priority, cluster.places()).map_err(|Overloaded| overloaded(priority));
    let mut waiter = join()?;
    let until = waiter.until();
    // Room that came up before it was seen to wait is nobody else's.
    let mut look = line.waiting() <= 1;
    loop {
        if std::mem::take(&mut look)
            && let Some(selected) = unless_full(select(worker, plan, wish))?
        {
            return Ok(selected);
        }
        let left = until.since(clock.now());
        if left.is_zero() {
            // A turn that came just now goes to the next.
            drop(waiter.give_up());
            return Err(overloaded(priority));
        }
        tokio::select! {
            biased;
            turn = poll_fn(|cx| waiter.poll(cx)) => {
                turn.map_err(|Overloaded| overloaded(priority))?.take();
                if let Some(selected) = unless_full(select(worker, plan, wish))? {
                    return Ok(selected);
                }
                // Somebody was faster.
                waiter = join()?;
            }
            () = tokio::time::sleep(left.min(LOOK_AGAIN)) => look = true,
        }
    }
}
