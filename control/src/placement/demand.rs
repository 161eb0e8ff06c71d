//! Documents to what is wanted: groups of replicas, pools, and what keeps an agent from being started.

use pilotfish_config::model::{Deployment, Model};

use super::world::{Group, Machine, Pool};

/// What documents ask for.
#[derive(Debug, Clone, Default)]
pub struct Demand {
    /// Groups, with the numbers that documents say: all of them for a deployment on demand too.
    pub groups: Vec<Wanted>,
    /// Pools.
    pub pools: Vec<Pool>,
    /// Machines that documents declare (for `placement plan`; a declared machine's labels, taints and `unschedulable` are added to
    /// those of the node of that name that reports).
    pub machines: Vec<Machine>,
    /// What should be looked at: `production/customer-service-global: 10000 replicas, but the regions add up to 8005`.
    pub notes: Vec<String>,
}

/// A group, and when its replicas run.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its replicas.
    pub group: Group,
    /// When they run.
    pub deployment: Deployment,
    /// Calls that each takes at a time; 0: no limit.
    pub capacity: u32,
    /// Why it cannot be started on process nodes (`no command`, `image needs the Kubernetes executor`). It is placed and reserved all
    /// the same.
    pub waiting: Option<String>,
    /// What the AgentCluster's levels switch off, by the words of `responsibilities`.
    pub without: Vec<String>,
}

/// Reads what a model asks for. `scale` gives the number of an agent (`namespace/agent`) that `pilotfish scale` set.
pub fn demand(model: &Model, scale: &dyn Fn(&str) -> Option<u32>) -> Demand {
    let _ = (model, scale);
    Demand::default()
}
