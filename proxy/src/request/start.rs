//! start: nobody is there for a call, but an agent is started when it is asked for: the call waits for it, and goes on by the newest
//! snapshot. Nothing of the call was sent; its body is still to be read.

use std::cell::OnceCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_filters::on_demand::{OnDemand, OnDemandAgent};
use pilotfish_filters::plan::{Plan, Target};
use pilotfish_filters::verdict::{Deny, Reason};
use tokio::time::sleep;

use super::ctx::Ctx;
use super::repeat::Task;
use super::respond::Failed;
use super::select::{Selected, Wish, select};
use crate::http::Downstream;
use crate::starts::{Full, Waiter};
use crate::telemetry::call::{Acted, START_WAIT, STARTED_FOR, Value};
use crate::worker::{Pinned, Worker};

/// While those who are there are full, the first in line looks this often: room in them calls nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Snapshots that a call keeps besides its first: as often it may go on by a newer one.
const MOST_TAKEN: usize = 8;

/// Snapshots that a call took because it waited, the newest last. It keeps them to its end.
#[derive(Debug, Default)]
pub struct Later(OnceCell<Box<(Rc<Pinned>, Later)>>);

impl Later {
    /// Keeps one more, unless it is the newest already; `None`: it is one too many.
    fn take(&self, newer: Rc<Pinned>) -> Option<&Pinned> {
        let mut last = self;
        for _ in 0..MOST_TAKEN {
            let (pinned, next) = &**last.0.get_or_init(|| Box::new((newer.clone(), Later::default())));
            if pinned.version == newer.version {
                return Some(pinned);
            }
            last = next;
        }
        None
    }
}

/// Where a call goes on that waited.
pub struct Started<'p> {
    /// By which snapshot.
    pub snapshot: &'p Pinned,
    /// The same destination there.
    pub target: Target,
    /// The endpoint that was chosen.
    pub selected: Selected<'p>,
}

/// Waits for an agent that is started for this call, if there is one; else the call fails as it did.
///
/// # Errors
/// What it failed with; `starting-queue-full`, `not-started`, `not-started-in-time`, `client-gone`.
pub async fn wait<'p>(
    worker: &Worker,
    ctx: &mut Ctx<'p>,
    task: &Task<'p, '_>,
    wish: &Wish<'_>,
    failed: Failed,
    down: &mut Downstream<'_>,
) -> Result<Started<'p>, Failed> {
    let Failed::Refused(deny) = failed else { return Err(failed) };
    // Without a control plane nobody starts anything.
    if task.plan.on_demand().is_empty() || worker.shared.settings.control.addresses.is_empty() {
        return Err(deny.into());
    }
    let Some(agent) = who(worker, task.plan, wish, &deny) else { return Err(deny.into()) };
    ctx.call.acted.add(Acted::STARTED);
    let began = worker.shared.clock.now();
    let later = ctx.later;
    let done = match worker.shared.starts.join(&agent) {
        Err(Full) => Err(full(&agent).into()),
        Ok(waiter) => {
            let turns = Turns { worker, task, wish, agent: &agent, later };
            down.unless_gone(pin!(turns.wait(waiter, deny))).await.map_err(Failed::from).flatten()
        }
    };
    let waited = worker.shared.clock.now().since(began).as_millis();
    ctx.call.extra().attributes.extend([
        (STARTED_FOR, Value::Text((*agent.id).into())),
        (START_WAIT, Value::Number(i64::try_from(waited).unwrap_or(i64::MAX))),
    ]);
    done
}

/// One call in the line of an agent.
struct Turns<'a, 'p, 't> {
    worker: &'a Worker,
    task: &'a Task<'p, 't>,
    wish: &'a Wish<'a>,
    agent: &'a Arc<OnDemandAgent>,
    later: &'p Later,
}

impl<'p> Turns<'_, 'p, '_> {
    async fn wait(&self, waiter: Waiter<'_>, mut deny: Deny) -> Result<Started<'p>, Failed> {
        let clock = self.worker.shared.clock;
        let until = clock.now().after(self.agent.wait);
        loop {
            if let Some(why) = waiter.refused() {
                return Err(Deny::with(
                    Reason::NotStarted,
                    format!("{} is not started: {why}", self.agent.id),
                )
                .into());
            }
            if waiter.is_first() {
                match self.look() {
                    Ok(started) => return Ok(started),
                    Err((other, true)) => deny = other,
                    // Somebody came, but none for this call: it would wait in vain.
                    Err((other, false)) => return Err(other.into()),
                }
            }
            let left = until.since(clock.now());
            if left.is_zero() {
                return Err(late(self.agent, &deny).into());
            }
            let look = if deny.reason == Reason::Overloaded { left.min(LOOK_AGAIN) } else { left };
            tokio::select! {
                biased;
                () = waiter.called() => {}
                () = sleep(look) => {}
            }
        }
    }

    /// Chooses by the newest snapshot, which is kept only if somebody was chosen. Else what it is refused with, and whether it is of
    /// use to wait on.
    fn look(&self) -> Result<Started<'p>, (Deny, bool)> {
        let Turns { worker, task, wish, later, .. } = self;
        let newest = worker.pin();
        let Some(target) = task.plan.same_target(wish.target, wish.caller.port, &newest.plan) else {
            return Err((Deny::with(Reason::NoCluster, "the destination is gone"), false));
        };
        let wish = Wish { target: &target, ..**wish };
        let (at, lease) = match select(worker, &newest.plan, &wish) {
            Ok(Selected::Endpoint(cluster, lease)) => {
                let mut clusters = newest.plan.clusters().iter();
                (clusters.position(|own| std::ptr::eq(&**own, cluster)), Some(lease))
            }
            Ok(Selected::Original(_)) => (None, None),
            Err(deny) => {
                let waits = who(worker, &newest.plan, &wish, &deny).is_some();
                return Err((deny, waits));
            }
        };
        let snapshot = later.take(newest);
        let chosen =
            snapshot.zip(at).and_then(|(kept, at)| Some((kept, kept.plan.clusters().get(at)?, lease?)));
        let (snapshot, cluster, lease) = chosen.ok_or_else(|| (Reason::NoEndpoint.into(), false))?;
        Ok(Started { snapshot, target, selected: Selected::Endpoint(cluster, lease) })
    }
}

/// The agent to be started for a call that was refused with `deny`.
fn who(worker: &Worker, plan: &Plan, wish: &Wish<'_>, deny: &Deny) -> Option<Arc<OnDemandAgent>> {
    match wish.target {
        Target::Capability(target) => {
            let demand = target.demand(wish.call).ok()?;
            let now = worker.shared.clock.now();
            plan.on_demand().for_demand(&demand, deny, now).next().cloned()
        }
        target => {
            let cluster = plan.cluster(target.cluster(wish.caller.port).ok()??);
            OnDemand::for_cluster(cluster, deny).cloned()
        }
    }
}

fn full(agent: &OnDemandAgent) -> Deny {
    let detail = format!("{} calls wait already until {} is started", agent.most_waiting, agent.id);
    Deny::with(Reason::StartingFull, detail).and_header("retry-after", "1")
}

fn late(agent: &OnDemandAgent, last: &Deny) -> Deny {
    let why = last.detail.as_deref().unwrap_or_default();
    let detail = format!("{} was not started within {:?}: {why}", agent.id, agent.wait);
    Deny::with(Reason::NotStartedInTime, detail)
}
