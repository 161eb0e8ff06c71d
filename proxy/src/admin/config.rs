//! `/config`: what serves now, what the last attempt to change it came to, and where requests can go.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pilotfish_filters::clock::Micros;
use pilotfish_filters::cluster::Cluster;
use pilotfish_filters::endpoint::Endpoint;
use serde_json::{Value, json};

use crate::credentials;
use crate::server::Shared;
use crate::telemetry::text::push_time;

/// The whole document, indented.
pub(super) fn render(shared: &Shared) -> String {
    let snapshot = shared.snapshots.newest();
    let mut plan = snapshot.plan.describe();
    let clusters: Vec<Value> =
        snapshot.plan.clusters().iter().map(|c| cluster(c, shared.clock.now())).collect();
    plan["clusters"] = Value::Array(clusters);
    let value = json!({
        "agent": shared.settings.agent,
        "namespace": shared.settings.namespace,
        "release": env!("CARGO_PKG_VERSION"),
        "snapshot": {
            "version": snapshot.version,
            "published": time(snapshot.published),
            "documents": snapshot.resources,
        },
        "identity": identity(shared),
        "issuers": shared.tokens.describe(shared.clock.epoch()),
        "last_reload": last_reload(shared),
        "credentials": credentials::render(shared),
        "plan": plan,
    });
    format!("{value:#}\n")
}

/// Who the sidecar is and whom it trusts; never a key.
fn identity(shared: &Shared) -> Value {
    let live = shared.tls.live.load();
    let own = live.credentials.as_ref();
    json!({
        "id": own.map(|own| own.id.to_string()),
        "expires": own.map(|own| time(own.not_after)),
        "trust_domains": live.bundles.domains().map(ToString::to_string).collect::<Vec<_>>(),
        "revoked": live.revoked.len(),
    })
}

/// One cluster as it is now: its load, and what is known of each endpoint.
pub(super) fn cluster(cluster: &Cluster, now: Micros) -> Value {
    let endpoint = |endpoint: &Arc<Endpoint>| {
        let stats = &endpoint.stats;
        let labels: serde_json::Map<String, Value> =
            endpoint.labels.iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
        let health = stats.health(now);
        json!({
            "address": endpoint.addr.to_string(),
            "name": endpoint.hostname,
            "agent": endpoint.agent,
            "labels": labels,
            "weight": endpoint.weight,
            "in_flight": stats.in_flight(),
            "calls": stats.calls(),
            "latency_ms": stats.latency(now).as_secs_f64() * 1e3,
            "success": stats.success(now),
            "skipped": stats.is_out(now),
            "health": health.state.word(),
            "dedup_epoch": endpoint.dedup_epoch().as_deref(),
            "reason": (!health.is_well()).then(|| health.to_string()),
        })
    };
    json!({
        "name": cluster.name,
        "requests": cluster.limits.requests(),
        "connections": cluster.limits.connections(),
        "pending": cluster.limits.pending(),
        "endpoints": cluster.endpoints().iter().map(endpoint).collect::<Vec<_>>(),
    })
}

fn last_reload(shared: &Shared) -> Value {
    let last = shared.config.last();
    let reasons = last.refused.as_ref().map(|refused| refused.lines.clone()).unwrap_or_default();
    let warnings: Vec<String> = last
        .report
        .diagnostics
        .iter()
        .filter(|d| d.severity == pilotfish_config::Severity::Warning)
        .map(ToString::to_string)
        .collect();
    json!({
        "at": last.at.map(time),
        "accepted": last.refused.is_none(),
        "reasons": reasons,
        "warnings": warnings,
        "milliseconds": last.took.as_secs_f64() * 1e3,
        "accepted_total": shared.config.accepted(),
        "rejected_total": shared.config.rejected(),
    })
}

fn time(at: SystemTime) -> String {
    let mut text = String::new();
    push_time(&mut text, at.duration_since(UNIX_EPOCH).unwrap_or_default());
    text
}
