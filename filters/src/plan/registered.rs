//! Registered agents by the control plane's id: where reports of others go in, and where one's own come from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Plan;
use crate::clock::Micros;
use crate::cluster::Clusters;
use crate::endpoint::{Endpoint, Health};

/// The endpoints of each registration: one in each cluster that it serves.
#[derive(Debug, Default)]
pub(crate) struct Registered(BTreeMap<Arc<str>, Vec<Arc<Endpoint>>>);

/// What this sidecar measured of one registration, over all clusters.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured<'p> {
    /// The control plane's id.
    pub id: &'p str,
    /// Peak-EWMA latency, each cluster's weighed by its calls; others' reports are not in it.
    pub latency: Duration,
    /// Recent share of calls that succeeded, 0 to 1, likewise.
    pub success: f32,
    /// Calls in flight.
    pub in_flight: u32,
    /// Calls since the endpoint appeared (saturating): what came since the last report is the difference.
    pub calls: u32,
    /// How it is in the worst of the clusters, when it is out in one.
    pub health: Option<Health>,
}

impl Registered {
    pub(crate) fn new(clusters: &Clusters) -> Registered {
        let mut all: BTreeMap<Arc<str>, Vec<Arc<Endpoint>>> = BTreeMap::new();
        for endpoint in clusters.iter().flat_map(|(_, cluster)| cluster.endpoints()) {
            let Some(id) = &endpoint.id else { continue };
            match all.get_mut(id) {
                Some(known) => known.push(Arc::clone(endpoint)),
                None => drop(all.insert(Arc::clone(id), vec![Arc::clone(endpoint)])),
            }
        }
        Registered(all)
    }
}

impl Plan {
    /// The endpoints of a registration, one in each cluster that it serves; empty when this plan has none.
    pub fn endpoint_by_id(&self, id: &str) -> &[Arc<Endpoint>] {
        self.registered.0.get(id).map(Vec::as_slice).unwrap_or_default()
    }

    /// Takes in what all sidecars together measured of a registration; its own measurements outweigh it.
    pub fn merge_report(&self, now: Micros, id: &str, latency: Duration, success: f32) {
        for endpoint in self.endpoint_by_id(id) {
            endpoint.stats.merge_report(now, latency, success);
        }
    }

    /// What was measured of each registration that was called at least once or is out, by id.
    pub fn measured(&self, now: Micros) -> impl Iterator<Item = Measured<'_>> {
        self.registered.0.iter().filter_map(move |(id, endpoints)| measured(id, endpoints, now))
    }
}

fn measured<'p>(id: &'p str, endpoints: &[Arc<Endpoint>], now: Micros) -> Option<Measured<'p>> {
    let (mut latency, mut success, mut in_flight, mut calls) = (0.0, 0.0, 0, 0_u32);
    for stats in endpoints.iter().map(|endpoint| &endpoint.stats) {
        let (own_latency, own_success) = stats.own(now);
        let weight = f64::from(stats.calls());
        latency += own_latency.as_secs_f64() * weight;
        success += f64::from(own_success) * weight;
        in_flight += stats.in_flight();
        calls = calls.saturating_add(stats.calls());
    }
    let health = endpoints.iter().filter_map(|endpoint| endpoint.stats.health_if_out(now));
    let health = health.max_by_key(|health| health.state);
    if calls == 0 {
        return (in_flight > 0 || health.is_some()).then_some(Measured {
            id,
            latency: Duration::ZERO,
            success: 1.0,
            in_flight,
            calls,
            health,
        });
    }
    let sum: f64 = endpoints.iter().map(|endpoint| f64::from(endpoint.stats.calls())).sum();
    Some(Measured {
        id,
        latency: Duration::from_secs_f64(latency / sum),
        success: (success / sum) as f32,
        in_flight,
        calls,
        health,
    })
}
