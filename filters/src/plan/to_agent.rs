//! Calls to the local agent: how many are served at once, who waits, and the limits of connections.

use std::sync::Arc;

use super::Plan;
use crate::cluster::Cluster;
use crate::shed::Gate;

/// What the Sidecar document says of calls to the agent beside it.
#[derive(Debug, Default)]
pub(crate) struct ToAgent {
    /// `max-concurrency` or `adaptive-concurrency`.
    pub(crate) gate: Option<Arc<Gate>>,
    /// `inboundConnectionPool`, as the settings of a cluster whose address is the agent's.
    pub(crate) pool: Option<Arc<Cluster>>,
}

impl Plan {
    /// The places for inbound calls; `None`: nothing limits them.
    pub fn inbound_gate(&self) -> Option<&Arc<Gate>> {
        self.to_agent.gate.as_ref()
    }

    /// The limits of connections to the agent (`inboundConnectionPool`); `None`: there are none.
    pub fn inbound_pool(&self) -> Option<&Arc<Cluster>> {
        self.to_agent.pool.as_ref()
    }
}
