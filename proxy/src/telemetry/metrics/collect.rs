//! Everything that the sidecar counts, merged over all workers, as families.

mod agent;
mod audit;
mod clusters;
mod endpoints;
mod export;
mod overload;
mod starts;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use pilotfish_filters::rate_limit::WHOLE;
use pilotfish_filters::verdict::Reason;

use super::family::{Distribution, Families, Family, Kind, Label, Unit, Value};
use super::{BUCKETS, CLASSES, Counter, DirectionMetrics, HANDSHAKE_REASONS, MirrorMetrics, WorkerMetrics};
use super::{agentic, requests};
use crate::credentials;
use crate::listen::Direction;
use crate::memory;
use crate::server::Shared;
use crate::shutdown::Phase;
use crate::telemetry::series::SLOTS;

/// Everything that the sidecar counts, as it is now. For any thread but a worker's.
pub fn collect(shared: &Shared) -> Vec<Family> {
    let mut page = Families::default();
    let since = Duration::from_nanos(shared.clock.epoch().0);
    requests::collect(&mut page, shared, since);
    let tables = shared.metrics.iter().map(|worker| &worker.agentic);
    agentic::collect(&mut page, tables, &shared.words, &shared.clusters, since);
    traffic(&mut page, &shared.metrics);
    by_policy(&mut page, &shared.metrics);
    handshakes(&mut page, shared);
    by_rule(&mut page, &shared.metrics, &shared.rules.list());
    by_cluster(&mut page, &shared.metrics, &shared.clusters.list());
    clusters::collect(&mut page, shared);
    deduplication(&mut page, shared);
    rate_limits(&mut page, shared);
    tokens::collect(&mut page, shared);
    overload::collect(&mut page, shared);
    starts::collect(&mut page, shared);
    credentials::collect(&mut page, shared);
    endpoints::collect(&mut page, shared);
    export::collect(&mut page, shared);
    audit::collect(&mut page, shared);
    configuration(&mut page, shared);
    agent::collect(&mut page, shared);
    process(&mut page);
    let newest = shared.snapshots.newest();
    let policies = [newest.plan.client_telemetry(), newest.plan.server_telemetry()];
    requests::obey(page.take(), policies.map(|policy| &policy.metrics))
}

/// The sum of one counter over all workers.
fn sum(workers: &[Arc<WorkerMetrics>], counter: impl Fn(&WorkerMetrics) -> &Counter) -> u64 {
    workers.iter().map(|worker| counter(worker).get()).fold(0, u64::wrapping_add)
}

fn traffic(page: &mut Families, workers: &[Arc<WorkerMetrics>]) {
    requests(page, workers);
    durations(page, workers);
    type ByDirection = (&'static str, Kind, &'static str, fn(&DirectionMetrics) -> &Counter);
    let by_direction: [ByDirection; 5] = [
        ("pilotfish_requests_active", Kind::Gauge, "Requests being served.", |m| &m.active_requests),
        ("pilotfish_connections_active", Kind::Gauge, "Downstream connections open.", |m| {
            &m.active_connections
        }),
        ("pilotfish_connections_total", Kind::Counter, "Downstream connections accepted.", |m| {
            &m.connections
        }),
        ("pilotfish_request_bytes_total", Kind::Counter, "Bytes of bodies that went upstream.", |m| {
            &m.request_bytes
        }),
        ("pilotfish_response_bytes_total", Kind::Counter, "Bytes of bodies that went downstream.", |m| {
            &m.response_bytes
        }),
    ];
    for (name, kind, help, counter) in by_direction {
        page.family(name, kind, help);
        for direction in Direction::ALL {
            let count = sum(workers, |worker| counter(worker.direction(direction)));
            page.by("direction", direction.word(), count);
        }
    }
    page.family(
        "pilotfish_refusals_total",
        Kind::Counter,
        "Requests that the sidecar itself refused or gave up, by reason.",
    );
    for reason in Reason::ALL {
        page.by("reason", reason.word(), sum(workers, |worker| &worker.refusals[*reason as usize]));
    }
    type Upstream = (&'static str, Kind, &'static str, fn(&WorkerMetrics) -> &Counter);
    let upstream: [Upstream; 3] = [
        ("pilotfish_upstream_connects_total", Kind::Counter, "Upstream connections made.", |m| {
            &m.upstream_connects
        }),
        (
            "pilotfish_upstream_connect_failures_total",
            Kind::Counter,
            "Upstream connections that could not be made.",
            |m| &m.upstream_connect_failures,
        ),
        (
            "pilotfish_upstream_reuses_total",
            Kind::Counter,
            "Requests sent on a kept upstream connection.",
            |m| &m.upstream_reuses,
        ),
    ];
    for (name, kind, help, counter) in upstream {
        page.single(name, kind, help, sum(workers, counter));
    }
    let help = "Inbound calls that came back to an agent on their path and were let through.";
    page.single("pilotfish_call_cycles_total", Kind::Counter, help, sum(workers, |m| &m.call_cycles));
}

fn requests(page: &mut Families, workers: &[Arc<WorkerMetrics>]) {
    page.family(
        "pilotfish_requests_total",
        Kind::Counter,
        "Finished requests; status none means the client left first.",
    );
    for direction in Direction::ALL {
        for (class, status) in CLASSES.iter().enumerate() {
            let labels = vec![("direction", direction.word().into()), ("status", (*status).into())];
            page.sample(labels, sum(workers, |worker| &worker.direction(direction).requests[class]));
        }
    }
}

/// A counter, and the word by which it is told from others of its family.
type ByResult = (&'static str, fn(&WorkerMetrics) -> &Counter);

/// What rules did to calls besides sending them on.
fn by_policy(page: &mut Families, workers: &[Arc<WorkerMetrics>]) {
    page.family("pilotfish_faults_total", Kind::Counter, "Requests that met a fault of their rule.");
    page.by("fault", "delay", sum(workers, |m| &m.faults_delayed));
    page.by("fault", "abort", sum(workers, |m| &m.faults_aborted));
    let help = "Preflights of browsers that were answered here.";
    page.single("pilotfish_cors_preflights_total", Kind::Counter, help, sum(workers, |m| &m.preflights));
    let help = "Members of baggage that did not go on, because there was too much of it.";
    let dropped = sum(workers, |m| &m.baggage_dropped);
    page.single("pilotfish_baggage_dropped_total", Kind::Counter, help, dropped);
    page.family("pilotfish_mirrors_total", Kind::Counter, "Copies of requests, by what became of them.");
    type ByEnd = (&'static str, fn(&MirrorMetrics) -> &Counter);
    let ends: [ByEnd; 5] = [
        ("answered", |m| &m.answered),
        ("failed", |m| &m.failed),
        ("dropped", |m| &m.dropped),
        ("without-body", |m| &m.without_body),
        ("no-endpoint", |m| &m.no_endpoint),
    ];
    for (end, counter) in ends {
        page.by("result", end, sum(workers, |m| counter(&m.mirrors)));
    }
    page.family("pilotfish_retries_total", Kind::Counter, "Tries after the first, by what became of them.");
    let retries: [ByResult; 5] = [
        ("answered", |m| &m.retries.answered),
        ("failed", |m| &m.retries.failed),
        ("over-budget", |m| &m.retries.over_budget),
        ("no-time", |m| &m.retries.no_time),
        ("without-body", |m| &m.retries.without_body),
    ];
    for (end, counter) in retries {
        page.by("result", end, sum(workers, counter));
    }
    page.family("pilotfish_hedges_total", Kind::Counter, "Tries beside the first, by what became of them.");
    let hedges: [ByResult; 3] = [
        ("sent", |m| &m.hedges.sent),
        ("won", |m| &m.hedges.won),
        ("over-budget", |m| &m.hedges.over_budget),
    ];
    for (end, counter) in hedges {
        page.by("result", end, sum(workers, counter));
    }
}

/// Reasons are told once they occurred: most never do.
fn handshakes(page: &mut Families, shared: &Shared) {
    let workers = &shared.metrics;
    let help = "TLS handshakes by direction and result: ok, or why not.";
    page.family("pilotfish_tls_handshakes_total", Kind::Counter, help);
    for direction in Direction::ALL {
        let (word, number) = (direction.word(), direction as usize);
        let good = sum(workers, |worker| &worker.handshakes[number].good);
        page.sample(vec![("direction", word.into()), ("result", "ok".into())], good);
        for (reason, result) in HANDSHAKE_REASONS.iter().enumerate() {
            let count = sum(workers, |worker| &worker.handshakes[number].failed[reason]);
            if count > 0 {
                page.sample(vec![("direction", word.into()), ("result", (*result).into())], count);
            }
        }
    }
    if let Some(own) = shared.tls.own() {
        let left = own.not_after.duration_since(shared.tls.live.now()).unwrap_or_default();
        let help = "Seconds until the sidecar's own certificate ends.";
        page.single("pilotfish_certificate_expires_seconds", Kind::Gauge, help, left.as_secs());
    }
}

/// Series by name are told only when they were counted: most rules and clusters see one or two status classes.
fn by_rule(page: &mut Families, workers: &[Arc<WorkerMetrics>], names: &[Box<str>]) {
    let help =
        "Finished requests by the rule that matched; rules without a place of their own are \"other\".";
    page.family("pilotfish_rule_requests_total", Kind::Counter, help);
    for (slot, name) in names.iter().enumerate() {
        for (class, status) in CLASSES.iter().enumerate() {
            let count = sum(workers, |worker| &worker.rules[slot][class]);
            if count > 0 {
                page.sample(vec![named("rule", name), ("status", (*status).into())], count);
            }
        }
    }
}

fn by_cluster(page: &mut Families, workers: &[Arc<WorkerMetrics>], names: &[Box<str>]) {
    page.family(
        "pilotfish_cluster_requests_total",
        Kind::Counter,
        "Finished requests by the cluster that they went to.",
    );
    for (slot, name) in names.iter().enumerate() {
        for (class, status) in CLASSES.iter().enumerate() {
            let count = sum(workers, |worker| &worker.clusters[slot].requests[class]);
            if count > 0 {
                page.sample(vec![named("cluster", name), ("status", (*status).into())], count);
            }
        }
    }
    page.family(
        "pilotfish_cluster_seconds_total",
        Kind::Counter,
        "Seconds that requests to the cluster took, summed.",
    );
    for (slot, name) in names.iter().enumerate() {
        let micros = sum(workers, |worker| &worker.clusters[slot].sum_micros);
        if micros > 0 {
            page.sample(vec![named("cluster", name)], Value::Micros(micros));
        }
    }
    let help = "Connections to the cluster's endpoints that could not be made.";
    page.family("pilotfish_cluster_connect_failures_total", Kind::Counter, help);
    for (slot, name) in names.iter().enumerate() {
        let count = sum(workers, |worker| &worker.clusters[slot].connect_failures);
        if count > 0 {
            page.sample(vec![named("cluster", name)], count);
        }
    }
}

/// Of each RateLimit that the newest configuration has, up to as many as other names get.
fn rate_limits(page: &mut Families, shared: &Shared) {
    let newest = shared.snapshots.newest();
    let limits = &newest.plan.rate_limits()[..newest.plan.rate_limits().len().min(SLOTS)];
    if limits.is_empty() {
        return;
    }
    let help = "Calls by RateLimit and result: allowed, limited (429), would-limit (a dry run).";
    page.family("pilotfish_rate_limit_total", Kind::Counter, help);
    for limit in limits {
        let counts = limit.state.counts();
        let refused = if limit.dry_run { "would-limit" } else { "limited" };
        page.sample(vec![named("limit", &limit.name), ("result", "allowed".into())], counts.allowed);
        page.sample(vec![named("limit", &limit.name), ("result", refused.into())], counts.limited);
    }
    let help = "Buckets by key that are kept, of those RateLimits that have some.";
    page.family("pilotfish_rate_limit_keys", Kind::Gauge, help);
    for limit in limits.iter().filter(|limit| limit.state.keys() > 0) {
        page.sample(vec![named("limit", &limit.name)], limit.state.keys());
    }
    let help = "This sidecar's part of a RateLimit of the whole fleet, 0 to 1.";
    page.family("pilotfish_rate_limit_share", Kind::Gauge, help);
    for limit in limits.iter().filter(|limit| limit.fleet) {
        let share = f64::from(limit.state.share()) / f64::from(WHOLE);
        page.sample(vec![named("limit", &limit.name)], share);
    }
}

/// A label whose value configuration brings.
fn named(label: &'static str, name: &str) -> Label {
    (label, name.to_owned().into())
}

fn durations(page: &mut Families, workers: &[Arc<WorkerMetrics>]) {
    let help = "Seconds from a request's head to the end of its answer.";
    page.family("pilotfish_request_duration_seconds", Kind::Histogram, help);
    for direction in Direction::ALL {
        let mut all = Distribution::new(Unit::Micros, &BUCKETS);
        for worker in workers {
            all.merge(worker.direction(direction).duration.read());
        }
        page.by("direction", direction.word(), all);
    }
}

/// What is refused is among the refusals by reason.
fn deduplication(page: &mut Families, shared: &Shared) {
    let window = &shared.dedup.window;
    page.single("pilotfish_dedup_keys", Kind::Gauge, "Keys of calls that are remembered.", window.keys());
    let help = "Bytes of answers that are kept for repeats.";
    page.single("pilotfish_dedup_answer_bytes", Kind::Gauge, help, window.bytes());
    let help = "Repeats of calls with a key that got the first's answer: kept, or waited for.";
    page.family("pilotfish_dedup_repeats_total", Kind::Counter, help);
    page.by("from", "kept", sum(&shared.metrics, |worker| &worker.dedup_answered));
    page.by("from", "running", sum(&shared.metrics, |worker| &worker.dedup_joined));
}

fn configuration(page: &mut Families, shared: &Shared) {
    let config = &shared.config;
    let newest = shared.snapshots.newest();
    let open: u64 =
        newest.plan.clusters().iter().map(|cluster| u64::from(cluster.limits.connections())).sum();
    let help = "Connections to endpoints that are open, kept ones included.";
    page.single("pilotfish_upstream_connections_active", Kind::Gauge, help, open);
    let version = shared.snapshots.version();
    page.single(
        "pilotfish_snapshot_version",
        Kind::Gauge,
        "Version of the configuration that serves.",
        version,
    );
    let help = "Configurations that were taken.";
    page.single("pilotfish_config_accepted_total", Kind::Counter, help, config.accepted());
    let help = "Configurations that were refused; the last good one went on serving.";
    page.single("pilotfish_config_rejected_total", Kind::Counter, help, config.rejected());
    let help = "1 when the last configuration was taken, 0 when it was refused.";
    page.single("pilotfish_config_last_reload_success", Kind::Gauge, help, u8::from(config.last_accepted()));
    let draining = u8::from(shared.drain.phase() > Phase::Serving);
    page.single("pilotfish_draining", Kind::Gauge, "1 from the start of the drain.", draining);
    if let Some(dropped) = shared.access_log.dropped() {
        let help = "Access log lines that were dropped because the reader was too slow.";
        page.single("pilotfish_access_log_dropped_total", Kind::Counter, help, dropped);
    }
    let help = "Calls that each worker remembers, for /why and for traces that turn out to matter.";
    page.single("pilotfish_ring_calls", Kind::Gauge, help, shared.settings.telemetry.ring);
    page.family("pilotfish_build_info", Kind::Info, "The release, as a label.");
    page.by("version", env!("CARGO_PKG_VERSION"), 1_u64);
}

/// What Prometheus' client libraries tell of every process.
fn process(page: &mut Families) {
    if let Some(bytes) = memory::resident() {
        let name = "process_resident_memory_bytes";
        page.standard("process.memory.usage", name, Kind::Gauge, "Resident memory.");
        page.sample(Vec::new(), bytes);
    }
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let help = "Processor time, user and system.";
    page.standard("process.cpu.time", "process_cpu_seconds_total", Kind::Counter, help);
    page.sample(Vec::new(), cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9);
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        let open = descriptors.count().saturating_sub(1);
        let otel = "process.unix.file_descriptor.count";
        page.standard(otel, "process_open_fds", Kind::Gauge, "Open file descriptors.");
        page.sample(Vec::new(), open);
    }
}

#[cfg(test)]
mod tests;
