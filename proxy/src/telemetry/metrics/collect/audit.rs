//! What became of records of the audit log.

use std::sync::atomic::Ordering::Relaxed;

use crate::server::Shared;
use crate::telemetry::metrics::family::{Families, Kind};

pub(super) fn collect(page: &mut Families, shared: &Shared) {
    let state = &shared.audit.state;
    let mut single = |name, kind, help, value| page.single(name, kind, help, value);
    let help = "Records of the audit log that were made.";
    single("pilotfish_audit_records_total", Kind::Counter, help, state.records.load(Relaxed));
    let help = "Records of the audit log that could not be kept; a gap record says so.";
    single("pilotfish_audit_lost_total", Kind::Counter, help, state.lost_total.load(Relaxed));
    let help = "1 while records of the audit log cannot be kept.";
    single("pilotfish_audit_unavailable", Kind::Gauge, help, u64::from(state.broken.load(Relaxed)));
    let help = "Times that a caller behaved unusually (alert_on_anomalies).";
    single("pilotfish_audit_anomalies_total", Kind::Counter, help, state.anomalies.load(Relaxed));
    let help = "Records that the control plane has not taken yet.";
    let waiting = state.durable.borrow().saturating_sub(state.acked.load(Relaxed));
    let waiting = if shared.settings.control.addresses.is_empty() { 0 } else { waiting };
    single("pilotfish_audit_waiting", Kind::Gauge, help, waiting);
}
