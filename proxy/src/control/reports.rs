//! What this sidecar measured of other agents, in small deltas.

use std::collections::HashMap;
use std::time::Duration;

use pilotfish_config::wire::{EndpointHealth, Report};
use pilotfish_filters::clock::Micros;
use pilotfish_filters::endpoint::health::HealthState;
use pilotfish_filters::plan::Plan;
use tokio::time::Instant;

/// Between two reports at least.
const EVERY: Duration = Duration::from_secs(1);
/// An endpoint that is out is told again this often: a control plane forgets it otherwise.
const REMIND: Duration = Duration::from_secs(5);
/// Endpoints in one report; the others follow with the next.
const MOST: usize = 500;

/// What was reported of each endpoint last.
#[derive(Debug, Default)]
pub struct Reports {
    told: HashMap<String, Told>,
    last: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    calls: u32,
    in_flight: u32,
    /// How it is when it is out, and which time that is told.
    out: Option<(HealthState, u64)>,
}

impl Reports {
    /// What changed since the last report; empty when that was less than a second ago.
    pub fn collect(&mut self, plan: &Plan, clock: Micros, now: Instant) -> Vec<Report> {
        if self.last.is_some_and(|last| now.duration_since(last) < EVERY) {
            return Vec::new();
        }
        let mut known = 0;
        let turn = clock.0 / u64::try_from(REMIND.as_micros()).unwrap_or(u64::MAX);
        let mut reports = Vec::new();
        for measured in plan.measured(clock) {
            known += 1;
            let told = self.told.get(measured.id).copied();
            let out = measured.health.as_ref().map(|health| (health.state, turn));
            let new = Told { calls: measured.calls, in_flight: measured.in_flight, out };
            if told == Some(new) || reports.len() >= MOST {
                continue;
            }
            let before = told.map_or(0, |told| told.calls);
            reports.push(Report {
                endpoint: measured.id.to_owned(),
                latency_us: u64::try_from(measured.latency.as_micros()).unwrap_or(u64::MAX),
                success: measured.success,
                in_flight: measured.in_flight,
                // Fewer than before: the endpoint went and came again.
                calls: measured.calls.checked_sub(before).unwrap_or(measured.calls),
                health: measured.health.map(|health| EndpointHealth {
                    state: health.state.word().to_owned(),
                    reason: health.reason,
                }),
            });
            self.told.insert(measured.id.to_owned(), new);
        }
        if self.told.len() > 2 * known + MOST {
            self.told.retain(|id, _| !plan.endpoint_by_id(id).is_empty());
        }
        if !reports.is_empty() {
            self.last = Some(now);
        }
        reports
    }
}
