//! Notices once a second which endpoints are out, and which are back: a line of the log for each, within bounds.
//!
//! It also does for endpoints without calls what calls do for others: an ejection whose time is over is given back, and
//! a breaker that the newest configuration does not ask for is closed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_filters::endpoint::health::HealthState;

use crate::server::Shared;
use crate::telemetry::log;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// At most this many lines a look.
const MOST_LINES: usize = 20;

/// Looks for the life of the process.
pub async fn run(shared: Arc<Shared>) {
    let mut out: BTreeMap<(Box<str>, SocketAddr), HealthState> = BTreeMap::new();
    loop {
        tokio::time::sleep(EVERY).await;
        look(&shared, &mut out);
    }
}

fn look(shared: &Shared, out: &mut BTreeMap<(Box<str>, SocketAddr), HealthState>) {
    let (now, snapshot) = (shared.clock.now(), shared.snapshots.newest());
    let mut lines = 0;
    let mut still = BTreeMap::new();
    for cluster in snapshot.plan.clusters() {
        for endpoint in cluster.endpoints() {
            let stats = &endpoint.stats;
            if endpoint.care.is_some() || stats.is_out(now) {
                stats.settle(now, endpoint.care.as_deref());
            }
            let health = stats.health_if_out(now);
            if health.is_none() && out.is_empty() {
                continue;
            }
            let key = (cluster.name.clone(), endpoint.addr);
            let told = out.remove(&key);
            if let Some(health) = &health {
                still.insert(key, health.state);
            }
            // A breaker that probes is no news.
            let known = |state: HealthState| {
                if state == HealthState::Probing { HealthState::BreakerOpen } else { state }
            };
            if told.map(known) == health.as_ref().map(|health| known(health.state)) {
                continue;
            }
            lines += 1;
            if lines > MOST_LINES {
                continue;
            }
            match health {
                Some(health) => log::warn!(
                    "an endpoint is out",
                    cluster = cluster.name,
                    endpoint = endpoint.addr,
                    state = health.state.word(),
                    why = health
                ),
                None => log::info!("an endpoint is back", cluster = cluster.name, endpoint = endpoint.addr),
            }
        }
    }
    if lines > MOST_LINES {
        log::warn!("more endpoints are out or back", endpoints = lines - MOST_LINES);
    }
    *out = still;
}
