//! OpenTelemetry's HTTP metrics out of the workers' tables; and what Telemetry documents leave out of all metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotfish_filters::telemetry::{MetricSet, MetricsPolicy};

use super::WorkerMetrics;
use super::family::{Distribution, Families, Family, Kind, Label, Sample, Value};
use super::http::{Naming, Side, labels};
use super::table::{Key, Table};
use crate::listen::Direction;
use crate::server::Shared;

pub(super) fn collect(page: &mut Families, shared: &Shared, since: Duration) {
    let (rules, clusters) = (shared.rules.list(), shared.clusters.list());
    let names = Naming { rules: &rules, clusters: &clusters };
    let tables = shared.metrics.iter().map(|worker| &worker.http);
    let [mut server, mut client] = [Vec::new(), Vec::new()];
    for ((shared, key), values) in merged(tables, since) {
        let (side, _, labels) = labels(key, shared, &names);
        let sample = Sample { labels, value: values.into() };
        if side == Side::Server { server.push(sample) } else { client.push(sample) }
    }
    let help = "Seconds that calls took, from the head to the end of the answer.";
    let (otel, name) = ("http.server.request.duration", "http_server_request_duration_seconds");
    page.standard(otel, name, Kind::Histogram, help);
    server.into_iter().for_each(|Sample { labels, value }| page.sample(labels, value));
    let help =
        "Seconds that each try of a call took; of the one whose answer was passed on to the end of that.";
    let (otel, name) = ("http.client.request.duration", "http_client_request_duration_seconds");
    page.standard(otel, name, Kind::Histogram, help);
    client.into_iter().for_each(|Sample { labels, value }| page.sample(labels, value));
    page.standard(
        "http.server.active_requests",
        "http_server_active_requests",
        Kind::Gauge,
        "Calls that are being served.",
    );
    for direction in Direction::ALL {
        let active =
            |worker: &std::sync::Arc<WorkerMetrics>| worker.direction(direction).active_requests.get();
        let count = shared.metrics.iter().map(active).fold(0, u64::wrapping_add);
        page.by("pilotfish.direction", direction.word(), count);
    }
}

/// All workers' distributions, those of the same added up; in a lasting order.
pub(super) fn merged<'t>(
    tables: impl Iterator<Item = &'t Table>,
    since: Duration,
) -> BTreeMap<(bool, Key), Distribution> {
    let mut all = BTreeMap::new();
    for table in tables {
        table.each(since, |key, shared, values| match all.entry((shared, key)) {
            std::collections::btree_map::Entry::Vacant(place) => drop(place.insert(values)),
            std::collections::btree_map::Entry::Occupied(mut place) => place.get_mut().merge(values),
        });
    }
    all
}

/// Which of Istio's metrics each family is, as far as it is one.
const ISTIO: [(&str, MetricSet); 9] = [
    ("http_server_request_duration_seconds", MetricSet::REQUEST_DURATION),
    ("http_client_request_duration_seconds", MetricSet::REQUEST_DURATION),
    ("pilotfish_request_duration_seconds", MetricSet::REQUEST_DURATION),
    ("pilotfish_requests_total", MetricSet::REQUEST_COUNT),
    ("pilotfish_rule_requests_total", MetricSet::REQUEST_COUNT),
    ("pilotfish_cluster_requests_total", MetricSet::REQUEST_COUNT),
    ("pilotfish_request_bytes_total", MetricSet::REQUEST_SIZE),
    ("pilotfish_response_bytes_total", MetricSet::RESPONSE_SIZE),
    ("pilotfish_connections_total", MetricSet::TCP_OPENED_CONNECTIONS),
];

/// Leaves out what Telemetry documents leave out, by direction. Samples that are the same then are added up.
pub(super) fn obey(mut families: Vec<Family>, policies: [&MetricsPolicy; 2]) -> Vec<Family> {
    if policies.iter().all(|policy| **policy == MetricsPolicy::default()) {
        return families;
    }
    for family in &mut families {
        let Some((_, metric)) = ISTIO.iter().find(|(name, _)| *name == family.name) else { continue };
        let of =
            |labels: &[Label]| direction(family.name, labels).map(|direction| policies[direction as usize]);
        // What has no direction goes when no direction wants it.
        let disabled = |labels: &[Label]| match of(labels) {
            Some(policy) => policy.disabled.has(*metric),
            None => policies.iter().all(|policy| policy.disabled.has(*metric)),
        };
        family.samples.retain(|sample| !disabled(&sample.labels));
        let mut kept: Vec<Sample> = Vec::with_capacity(family.samples.len());
        for mut sample in std::mem::take(&mut family.samples) {
            if let Some(policy) = of(&sample.labels) {
                let removed =
                    |name: &str| policy.removed.iter().any(|(set, label)| set.has(*metric) && *label == name);
                sample.labels.retain(|(name, _)| !removed(name));
            }
            match kept.iter_mut().find(|known| known.labels == sample.labels) {
                Some(known) => add(&mut known.value, sample.value),
                None => kept.push(sample),
            }
        }
        family.samples = kept;
    }
    families.retain(|family| !family.samples.is_empty());
    families
}

/// Which way the calls went. Rules and clusters are those of the agent's own calls.
fn direction(family: &str, labels: &[Label]) -> Option<Direction> {
    let said = labels.iter().find(|(name, _)| matches!(*name, "direction" | "pilotfish.direction"));
    match said {
        Some((_, word)) => Direction::ALL.into_iter().find(|direction| direction.word() == word),
        None if family.contains("_rule_") || family.contains("_cluster_") => Some(Direction::Outbound),
        None => None,
    }
}

fn add(to: &mut Value, more: Value) {
    match (to, more) {
        (Value::Whole(to), Value::Whole(more)) | (Value::Micros(to), Value::Micros(more)) => {
            *to = to.wrapping_add(more);
        }
        (Value::Number(to), Value::Number(more)) => *to += more,
        (Value::Distribution(to), Value::Distribution(more)) => to.merge(*more),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn families() -> Vec<Family> {
        let mut page = Families::default();
        page.family("pilotfish_requests_total", Kind::Counter, "h");
        page.by("direction", "outbound", 1_u64);
        page.by("direction", "inbound", 2_u64);
        page.standard("x", "http_server_request_duration_seconds", Kind::Histogram, "h");
        for (method, direction, count) in
            [("GET", "outbound", 3), ("PUT", "outbound", 4), ("GET", "inbound", 5)]
        {
            let mut values = Distribution::new(super::super::family::Unit::Micros, &[10]);
            values.counts[0] = count;
            page.sample(
                vec![("http.request.method", method.into()), ("pilotfish.direction", direction.into())],
                values,
            );
        }
        page.take()
    }

    fn told(families: &[Family]) -> Vec<String> {
        let value = |value: &Value| match value {
            Value::Distribution(values) => values.count(),
            Value::Whole(value) => *value,
            _ => 0,
        };
        let samples = families.iter().flat_map(|family| family.samples.iter().map(move |s| (family.name, s)));
        samples
            .map(|(name, sample)| {
                let labels: Vec<&str> = sample.labels.iter().map(|(_, value)| &**value).collect();
                format!("{} {} {}", &name[..8], labels.join(" "), value(&sample.value))
            })
            .collect()
    }

    #[test]
    fn a_document_takes_out_metrics_and_labels_of_one_direction() {
        let none = MetricsPolicy::default();
        assert_eq!(told(&obey(families(), [&none, &none])).len(), 5);
        let client = MetricsPolicy {
            disabled: MetricSet::REQUEST_COUNT,
            removed: [(MetricSet::ALL, "http.request.method")].into(),
        };
        assert_eq!(
            told(&obey(families(), [&client, &none])),
            ["pilotfis inbound 2", "http_ser outbound 7", "http_ser GET inbound 5"]
        );
        let all = MetricsPolicy { disabled: MetricSet::ALL, ..none.clone() };
        assert_eq!(told(&obey(families(), [&all, &all])), [""; 0]);
    }
}
