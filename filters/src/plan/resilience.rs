//! What a rule does about failure, load and time. One field for each policy; each has its own file in this crate.

use std::sync::Arc;

use super::Plan;
use crate::budget::RetryPermit;
use crate::call_path::PathPolicy;
use crate::clock::Micros;
use crate::cluster::Cluster;
use crate::cors::Cors;
use crate::deadline::Timeouts;
use crate::endpoint::Endpoint;
use crate::fault::Fault;
use crate::hedge::Hedge;
use crate::mirror::Mirror;
use crate::rate_limit::RuleLimits;
use crate::retry::RetryPolicy;

/// The policies of a rule. The default is what holds when the YAML is silent.
#[derive(Debug, Clone, Default)]
pub struct Resilience {
    /// When to try again.
    pub retry: Arc<RetryPolicy>,
    /// Whether a slow call is tried a second time at once.
    pub hedge: Option<Hedge>,
    /// Times besides the rule's timeout.
    pub timeouts: Timeouts,
    /// Faults to inject.
    pub fault: Option<Box<Fault>>,
    /// Where copies go.
    pub mirrors: Box<[Mirror]>,
    /// Cross-origin rules.
    pub cors: Option<Arc<Cors>>,
    /// How often it may be called.
    pub limits: RuleLimits,
    /// Depth, cycles, fan-out.
    pub path: PathPolicy,
}

impl Plan {
    /// A place in the retry budget for one more try of a call that `endpoint` failed; `None` when it is exhausted. `cluster` says
    /// how large the budget is; whose calls count is the cluster that the endpoint belongs to, which is another one for a call
    /// by capability.
    pub fn retry_permit(&self, cluster: &Cluster, endpoint: &Endpoint, now: Micros) -> Option<RetryPermit> {
        let is_home = |cluster: &&Cluster| Arc::ptr_eq(&cluster.limits, endpoint.stats.home());
        let home = Some(cluster)
            .filter(is_home)
            .or_else(|| self.clusters.iter().map(|cluster| &**cluster).find(is_home))
            .unwrap_or(cluster);
        RetryPermit::try_acquire(&home.limits, &cluster.settings.retry_budget, now, || home.in_flight())
    }
}
