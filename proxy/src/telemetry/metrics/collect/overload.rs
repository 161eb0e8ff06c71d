//! Calls at once and those that wait, memory, connections that were refused.

use pilotfish_filters::shed::Priority;

use super::sum;
use crate::server::Shared;
use crate::telemetry::metrics::family::{Families, Kind, Value};

pub(super) fn collect(page: &mut Families, shared: &Shared) {
    if let Some(limit) = shared.memory.limit() {
        let help = "Resident memory that the process may use.";
        page.single("pilotfish_memory_limit_bytes", Kind::Gauge, help, limit);
        let help = "0: fine; 1: sheddable calls are refused; 2: all new calls are.";
        page.single("pilotfish_memory_pressure", Kind::Gauge, help, shared.memory.level() as u8);
    }
    let help = "Inbound connections that were one more than their caller may have.";
    page.single("pilotfish_connections_refused_total", Kind::Counter, help, shared.callers.refused());
    let newest = shared.snapshots.newest();
    if let Some(gate) = newest.plan.inbound_gate() {
        let help = "Calls that the local agent serves at once at most; it follows the latency when that is asked for.";
        page.single("pilotfish_inbound_concurrency_limit", Kind::Gauge, help, gate.limit());
        let help = "Calls that the local agent serves now.";
        page.single("pilotfish_inbound_in_service", Kind::Gauge, help, gate.in_service());
        let help = "Calls that wait for a place at the local agent.";
        page.single("pilotfish_inbound_waiting", Kind::Gauge, help, gate.line().waiting());
        let help = "Calls that waited for a place at the local agent and got it.";
        let waited = sum(&shared.metrics, |worker| &worker.waited);
        page.single("pilotfish_inbound_waited_total", Kind::Counter, help, waited);
        let help = "Seconds that calls waited for their place at the local agent, summed.";
        page.family("pilotfish_inbound_wait_seconds_total", Kind::Counter, help);
        let micros = sum(&shared.metrics, |worker| &worker.waited_micros);
        page.sample(Vec::new(), Value::Micros(micros));
        let help = "Calls that found no place at the local agent in time, by agent-priority.";
        page.family("pilotfish_inbound_shed_total", Kind::Counter, help);
        for priority in Priority::ALL {
            page.by("priority", priority.word(), gate.line().refused(priority));
        }
    }
}
