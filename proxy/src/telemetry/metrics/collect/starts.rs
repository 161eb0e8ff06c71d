//! Calls that wait for agents that are started on demand.

use crate::server::Shared;
use crate::telemetry::metrics::family::{Families, Kind};

pub(super) fn collect(page: &mut Families, shared: &Shared) {
    let waiting = shared.starts.waiting();
    if waiting.is_empty() && shared.snapshots.newest().plan.on_demand().is_empty() {
        return;
    }
    let help = "Calls that wait until an agent is started.";
    page.family("pilotfish_calls_waiting_for_start", Kind::Gauge, help);
    for (agent, calls) in waiting {
        page.sample(vec![("agent", agent.to_string().into())], u64::from(calls));
    }
}
