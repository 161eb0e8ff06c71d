//! What happened to endpoints: ejections, breakers, checks, and how many are out now.

use pilotfish_filters::breaker::Step;
use pilotfish_filters::endpoint::health::HealthState;
use pilotfish_filters::outlier::Cause;

use crate::server::Shared;
use crate::telemetry::metrics::family::{Families, Kind};

pub(super) fn collect(page: &mut Families, shared: &Shared) {
    let tally = shared.state.tally();
    let help = "Endpoints that outlier detection put aside, by cause.";
    page.family("pilotfish_endpoint_ejections_total", Kind::Counter, help);
    for cause in Cause::ALL {
        page.by("cause", cause.word(), tally.ejections(cause));
    }
    let help = "Ejections that maxEjectionPercent forbade.";
    let forbidden = tally.ejections_forbidden();
    page.single("pilotfish_endpoint_ejections_forbidden_total", Kind::Counter, help, forbidden);
    let help = "Steps of endpoints' breakers, by what they came to.";
    page.family("pilotfish_endpoint_breaker_steps_total", Kind::Counter, help);
    for (word, step) in [("open", Step::Opened), ("probing", Step::Probing), ("closed", Step::Closed)] {
        page.by("to", word, tally.breaker(step));
    }
    let help = "Active checks of endpoints, by result.";
    page.family("pilotfish_endpoint_checks_total", Kind::Counter, help);
    for (word, good) in [("ok", true), ("failed", false)] {
        page.by("result", word, tally.checks(good));
    }
    let now = shared.clock.now();
    let newest = shared.snapshots.newest();
    let mut out = [0_u64; HealthState::ALL.len()];
    for endpoint in newest.plan.clusters().iter().flat_map(|cluster| cluster.endpoints()) {
        if let Some(health) = endpoint.stats.health_if_out(now) {
            out[health.state as usize] += 1;
        }
    }
    let help = "Endpoints that get no calls now, by state; one of several clusters counts in each.";
    page.family("pilotfish_endpoints_out", Kind::Gauge, help);
    for state in HealthState::ALL.into_iter().filter(|state| *state != HealthState::Healthy) {
        page.by("state", state.word(), out[state as usize]);
    }
}
