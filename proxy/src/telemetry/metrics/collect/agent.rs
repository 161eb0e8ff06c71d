//! The agent as a process, when this sidecar supervises it.

use pilotfish_config::wire::node::ReplicaPhase;

use crate::server::Shared;
use crate::telemetry::metrics::family::{Families, Kind, Value};

pub(super) fn collect(page: &mut Families, shared: &Shared) {
    let Some(known) = &shared.supervised else { return };
    let state = known.state();
    let up = u8::from(state.phase == ReplicaPhase::Running);
    page.single("pilotfish_agent_up", Kind::Gauge, "1 when the agent's process runs and was ready.", up);
    let help = "Starts of the agent's process after the first.";
    page.single("pilotfish_agent_restarts_total", Kind::Counter, help, state.restarts);
    let help = "Processor time of the agent's processes, user and system.";
    page.single("pilotfish_agent_cpu_seconds_total", Kind::Counter, help, Value::Micros(known.cpu_micros()));
    if let Some(usage) = state.usage {
        let help = "Resident memory of the agent's processes.";
        page.single("pilotfish_agent_memory_bytes", Kind::Gauge, help, usage.memory);
    }
    let help = "Lines of the agent's output that were dropped, because there were too many.";
    page.single("pilotfish_agent_log_dropped_total", Kind::Counter, help, known.dropped_lines());
}
