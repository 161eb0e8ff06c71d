//! select: one endpoint for one try, counted while the try lasts.

pub mod room;

use std::net::SocketAddr;
use std::sync::Arc;

use pilotfish_filters::balance::Pick;
use pilotfish_filters::balance::compared::Compared;
use pilotfish_filters::call::{Call, Caller};
use pilotfish_filters::clock::Micros;
use pilotfish_filters::cluster::{Cluster, Kind, Lease};
use pilotfish_filters::endpoint::Endpoint;
use pilotfish_filters::plan::{CapabilityTarget, Plan, Target};
use pilotfish_filters::verdict::{Deny, Reason};

use crate::telemetry::call::Try;
use crate::worker::Worker;

/// Endpoints of a cluster of which those that are well are counted for a call's record.
const COUNTED: usize = 16;

/// How often another candidate is chosen because the breaker of the chosen one let another call pass first.
const CLAIMS: u32 = 8;

/// What is known when an endpoint has to be chosen.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// Where the rule sends the call.
    pub target: &'a Target,
    /// What the call is.
    pub call: &'a Call,
    /// Who sends it.
    pub caller: &'a Caller,
    /// The conversation's key.
    pub key: Option<u64>,
    /// Endpoints that earlier tries of this call failed on.
    pub tried: &'a [SocketAddr],
    /// Whether another try may go to other localities and priorities before it goes to those once more.
    pub remote: bool,
    /// Where what is weighed is noted, if anybody wants to know.
    pub compared: Option<&'a Compared>,
}

/// Where one try goes.
#[derive(Debug)]
pub enum Selected<'p> {
    /// An endpoint that the balancer chose.
    Endpoint(&'p Cluster, Lease),
    /// The host that the request itself names, with a cluster's settings (resolution NONE).
    Original(&'p Cluster),
}

/// Chooses.
///
/// # Errors
/// `no-cluster`, `no-healthy-endpoint`, `nobody-qualifies`, `bad-constraint`, `connection-pool-overflow`, `breaker-open`,
/// `overloaded`.
pub fn select<'p>(worker: &Worker, plan: &'p Plan, wish: &Wish<'_>) -> Result<Selected<'p>, Deny> {
    let Some(id) = wish.target.cluster(wish.caller.port)? else {
        return match wish.target {
            Target::Capability(wanted) => by_capability(worker, plan, wanted, wish),
            _ => Err(Reason::NoCluster.into()),
        };
    };
    let cluster = plan.cluster(id);
    if cluster.kind == Kind::Original {
        return Ok(Selected::Original(cluster));
    }
    let pick = Pick {
        key: wish.key,
        now: worker.shared.clock.now(),
        tried: wish.tried,
        remote: wish.remote,
        compared: wish.compared,
    };
    let lease = worker.with_rng(|rng| cluster.pick(&pick, rng))?;
    Ok(Selected::Endpoint(cluster, lease))
}

/// Notes what the choice of a try's endpoint weighed: how many there were, and what the balancer compared.
pub fn weighed(
    attempt: &mut Try,
    plan: &Plan,
    target: &Target,
    (cluster, chosen): (&Cluster, &Endpoint),
    (compared, now): (&Compared, Micros),
) {
    let (all, able) = match target {
        Target::Capability(_) => (plan.catalogue().all().len(), compared.able()),
        _ => {
            let all = cluster.endpoints();
            let good = |endpoint: &&Arc<Endpoint>| !endpoint.stats.is_out(now);
            // Of many nobody counts on the way of a call how many are well.
            (all.len(), if all.len() <= COUNTED { all.iter().filter(good).count() } else { 0 })
        }
    };
    let short = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    attempt.candidates = (short(all), short(able));
    if let Some((cost, other)) = compared.seen_from(chosen.addr) {
        (attempt.cost, attempt.runner_up) = (cost, Some(other));
    }
}

/// One endpoint, whatever the balancer thinks of it: the call may be there already. `None`: it is not among those of the target.
pub fn only<'p>(
    worker: &Worker,
    plan: &'p Plan,
    wish: &Wish<'_>,
    endpoint: SocketAddr,
) -> Option<Result<Selected<'p>, Deny>> {
    let (cluster, endpoint) = self::endpoint(plan, wish.target, wish.caller, endpoint)?;
    let now = worker.shared.clock.now();
    let lease = worker.with_rng(|rng| cluster.lease(endpoint, now, rng));
    Some(lease.map(|lease| Selected::Endpoint(cluster, lease)))
}

/// The endpoint of a target that has this address, and the cluster whose settings hold for it.
pub fn endpoint<'p>(
    plan: &'p Plan,
    target: &Target,
    caller: &Caller,
    address: SocketAddr,
) -> Option<(&'p Cluster, &'p Arc<Endpoint>)> {
    if let Target::Capability(target) = target {
        let mut all = plan.catalogue().all().iter();
        let found = all.find(|candidate| candidate.endpoint.addr == address)?;
        return Some((plan.cluster(target.settings.unwrap_or(found.cluster)), &found.endpoint));
    }
    let cluster = plan.cluster(target.cluster(caller.port).ok()??);
    Some((cluster, cluster.endpoints().iter().find(|endpoint| endpoint.addr == address)?))
}

/// Among those who are able: by the conversation's key, else two at random, of which the cheaper wins.
fn by_capability<'p>(
    worker: &Worker,
    plan: &'p Plan,
    target: &CapabilityTarget,
    wish: &Wish<'_>,
) -> Result<Selected<'p>, Deny> {
    let now = worker.shared.clock.now();
    let demand = target.demand(wish.call)?;
    let pick = Pick { key: wish.key, now, tried: wish.tried, remote: wish.remote, compared: wish.compared };
    let mut left = CLAIMS;
    loop {
        let candidate = worker.with_rng(|rng| plan.catalogue().choose(&demand, &pick, rng))?;
        let cluster = plan.cluster(target.settings.unwrap_or(candidate.cluster));
        left -= 1;
        match worker.with_rng(|rng| cluster.lease(&candidate.endpoint, now, rng)) {
            Err(deny) if deny.reason == Reason::BreakerOpen && left > 0 => {}
            leased => return Ok(Selected::Endpoint(cluster, leased?)),
        }
    }
}
