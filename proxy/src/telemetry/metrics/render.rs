//! The counters as Prometheus reads them, text format 0.0.4, merged over all workers.

mod endpoints;
mod overload;

use std::fmt::{Display, Write as _};
use std::sync::Arc;

use pilotfish_filters::rate_limit::WHOLE;
use pilotfish_filters::verdict::Reason;

use super::{BUCKETS, CLASSES, Counter, DirectionMetrics, HANDSHAKE_REASONS, MirrorMetrics, WorkerMetrics};
use crate::listen::Direction;
use crate::memory;
use crate::server::Shared;
use crate::shutdown::Phase;
use crate::telemetry::series::SLOTS;

/// The media type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that the sidecar counts.
pub fn render(shared: &Shared) -> String {
    let mut page = Page::default();
    traffic(&mut page, &shared.metrics);
    by_policy(&mut page, &shared.metrics);
    handshakes(&mut page, shared);
    by_rule(&mut page, &shared.metrics, &shared.rules.list());
    by_cluster(&mut page, &shared.metrics, &shared.clusters.list());
    deduplication(&mut page, shared);
    rate_limits(&mut page, shared);
    overload::render(&mut page, shared);
    endpoints::render(&mut page, shared);
    configuration(&mut page, shared);
    process(&mut page);
    page.text
}

/// The text as it grows.
#[derive(Debug, Default)]
struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    /// Starts a family of samples: its name, its type and what it means.
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One sample of the family; `labels` is what stands between the braces.
    fn sample(&mut self, labels: &str, value: impl Display) {
        self.suffixed("", labels, value);
    }

    fn suffixed(&mut self, suffix: &str, labels: &str, value: impl Display) {
        let name = self.name;
        let _ = match labels {
            "" => writeln!(self.text, "{name}{suffix} {value}"),
            labels => writeln!(self.text, "{name}{suffix}{{{labels}}} {value}"),
        };
    }

    /// A family with one sample.
    fn single(&mut self, name: &'static str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample("", value);
    }
}

/// The sum of one counter over all workers.
fn sum(workers: &[Arc<WorkerMetrics>], counter: impl Fn(&WorkerMetrics) -> &Counter) -> u64 {
    workers.iter().map(|worker| counter(worker).get()).fold(0, u64::wrapping_add)
}

fn traffic(page: &mut Page, workers: &[Arc<WorkerMetrics>]) {
    requests(page, workers);
    durations(page, workers);
    type ByDirection = (&'static str, &'static str, &'static str, fn(&DirectionMetrics) -> &Counter);
    let by_direction: [ByDirection; 5] = [
        ("pilotfish_requests_active", "gauge", "Requests being served.", |m| &m.active_requests),
        ("pilotfish_connections_active", "gauge", "Downstream connections open.", |m| &m.active_connections),
        ("pilotfish_connections_total", "counter", "Downstream connections accepted.", |m| &m.connections),
        ("pilotfish_request_bytes_total", "counter", "Bytes of bodies that went upstream.", |m| {
            &m.request_bytes
        }),
        ("pilotfish_response_bytes_total", "counter", "Bytes of bodies that went downstream.", |m| {
            &m.response_bytes
        }),
    ];
    for (name, kind, help, counter) in by_direction {
        page.family(name, kind, help);
        for direction in Direction::ALL {
            let labels = format!("direction=\"{}\"", direction.word());
            page.sample(&labels, sum(workers, |worker| counter(worker.direction(direction))));
        }
    }
    page.family(
        "pilotfish_refusals_total",
        "counter",
        "Requests that the sidecar itself refused or gave up, by reason.",
    );
    for reason in Reason::ALL {
        let labels = format!("reason=\"{}\"", reason.word());
        page.sample(&labels, sum(workers, |worker| &worker.refusals[*reason as usize]));
    }
    type Upstream = (&'static str, &'static str, &'static str, fn(&WorkerMetrics) -> &Counter);
    let upstream: [Upstream; 3] = [
        ("pilotfish_upstream_connects_total", "counter", "Upstream connections made.", |m| {
            &m.upstream_connects
        }),
        (
            "pilotfish_upstream_connect_failures_total",
            "counter",
            "Upstream connections that could not be made.",
            |m| &m.upstream_connect_failures,
        ),
        ("pilotfish_upstream_reuses_total", "counter", "Requests sent on a kept upstream connection.", |m| {
            &m.upstream_reuses
        }),
    ];
    for (name, kind, help, counter) in upstream {
        page.single(name, kind, help, sum(workers, counter));
    }
    let help = "Inbound calls that came back to an agent on their path and were let through.";
    page.single("pilotfish_call_cycles_total", "counter", help, sum(workers, |m| &m.call_cycles));
}

fn requests(page: &mut Page, workers: &[Arc<WorkerMetrics>]) {
    page.family(
        "pilotfish_requests_total",
        "counter",
        "Finished requests; status none means the client left first.",
    );
    for direction in Direction::ALL {
        for (class, status) in CLASSES.iter().enumerate() {
            let labels = format!("direction=\"{}\",status=\"{status}\"", direction.word());
            page.sample(&labels, sum(workers, |worker| &worker.direction(direction).requests[class]));
        }
    }
}

/// A counter, and the word by which it is told from others of its family.
type ByResult = (&'static str, fn(&WorkerMetrics) -> &Counter);

/// What rules did to calls besides sending them on.
fn by_policy(page: &mut Page, workers: &[Arc<WorkerMetrics>]) {
    page.family("pilotfish_faults_total", "counter", "Requests that met a fault of their rule.");
    page.sample("fault=\"delay\"", sum(workers, |m| &m.faults_delayed));
    page.sample("fault=\"abort\"", sum(workers, |m| &m.faults_aborted));
    let help = "Preflights of browsers that were answered here.";
    page.single("pilotfish_cors_preflights_total", "counter", help, sum(workers, |m| &m.preflights));
    let help = "Members of baggage that did not go on, because there was too much of it.";
    page.single("pilotfish_baggage_dropped_total", "counter", help, sum(workers, |m| &m.baggage_dropped));
    page.family("pilotfish_mirrors_total", "counter", "Copies of requests, by what became of them.");
    type ByEnd = (&'static str, fn(&MirrorMetrics) -> &Counter);
    let ends: [ByEnd; 5] = [
        ("answered", |m| &m.answered),
        ("failed", |m| &m.failed),
        ("dropped", |m| &m.dropped),
        ("without-body", |m| &m.without_body),
        ("no-endpoint", |m| &m.no_endpoint),
    ];
    for (end, counter) in ends {
        page.sample(&format!("result=\"{end}\""), sum(workers, |m| counter(&m.mirrors)));
    }
    page.family("pilotfish_retries_total", "counter", "Tries after the first, by what became of them.");
    let retries: [ByResult; 5] = [
        ("answered", |m| &m.retries.answered),
        ("failed", |m| &m.retries.failed),
        ("over-budget", |m| &m.retries.over_budget),
        ("no-time", |m| &m.retries.no_time),
        ("without-body", |m| &m.retries.without_body),
    ];
    for (end, counter) in retries {
        page.sample(&format!("result=\"{end}\""), sum(workers, counter));
    }
    page.family("pilotfish_hedges_total", "counter", "Tries beside the first, by what became of them.");
    let hedges: [ByResult; 3] = [
        ("sent", |m| &m.hedges.sent),
        ("won", |m| &m.hedges.won),
        ("over-budget", |m| &m.hedges.over_budget),
    ];
    for (end, counter) in hedges {
        page.sample(&format!("result=\"{end}\""), sum(workers, counter));
    }
}

/// Reasons are told once they occurred: most never do.
fn handshakes(page: &mut Page, shared: &Shared) {
    let workers = &shared.metrics;
    let help = "TLS handshakes by direction and result: ok, or why not.";
    page.family("pilotfish_tls_handshakes_total", "counter", help);
    for direction in Direction::ALL {
        let (word, number) = (direction.word(), direction as usize);
        let good = sum(workers, |worker| &worker.handshakes[number].good);
        page.sample(&format!("direction=\"{word}\",result=\"ok\""), good);
        for (reason, result) in HANDSHAKE_REASONS.iter().enumerate() {
            let count = sum(workers, |worker| &worker.handshakes[number].failed[reason]);
            if count > 0 {
                page.sample(&format!("direction=\"{word}\",result=\"{result}\""), count);
            }
        }
    }
    if let Some(own) = shared.tls.own() {
        let left = own.not_after.duration_since(shared.tls.live.now()).unwrap_or_default();
        let help = "Seconds until the sidecar's own certificate ends.";
        page.single("pilotfish_certificate_expires_seconds", "gauge", help, left.as_secs());
    }
}

/// Series by name are told only when they were counted: most rules and clusters see one or two status classes.
fn by_rule(page: &mut Page, workers: &[Arc<WorkerMetrics>], names: &[Box<str>]) {
    let help =
        "Finished requests by the rule that matched; rules without a place of their own are \"other\".";
    page.family("pilotfish_rule_requests_total", "counter", help);
    for (slot, name) in names.iter().enumerate() {
        for (class, status) in CLASSES.iter().enumerate() {
            let count = sum(workers, |worker| &worker.rules[slot][class]);
            if count > 0 {
                page.sample(&format!("rule=\"{}\",status=\"{status}\"", escape(name)), count);
            }
        }
    }
}

fn by_cluster(page: &mut Page, workers: &[Arc<WorkerMetrics>], names: &[Box<str>]) {
    page.family(
        "pilotfish_cluster_requests_total",
        "counter",
        "Finished requests by the cluster that they went to.",
    );
    for (slot, name) in names.iter().enumerate() {
        for (class, status) in CLASSES.iter().enumerate() {
            let count = sum(workers, |worker| &worker.clusters[slot].requests[class]);
            if count > 0 {
                page.sample(&format!("cluster=\"{}\",status=\"{status}\"", escape(name)), count);
            }
        }
    }
    page.family(
        "pilotfish_cluster_seconds_total",
        "counter",
        "Seconds that requests to the cluster took, summed.",
    );
    for (slot, name) in names.iter().enumerate() {
        let micros = sum(workers, |worker| &worker.clusters[slot].sum_micros);
        if micros > 0 {
            page.sample(&format!("cluster=\"{}\"", escape(name)), seconds(micros));
        }
    }
    let help = "Connections to the cluster's endpoints that could not be made.";
    page.family("pilotfish_cluster_connect_failures_total", "counter", help);
    for (slot, name) in names.iter().enumerate() {
        let count = sum(workers, |worker| &worker.clusters[slot].connect_failures);
        if count > 0 {
            page.sample(&format!("cluster=\"{}\"", escape(name)), count);
        }
    }
}

/// Of each RateLimit that the newest configuration has, up to as many as other names get.
fn rate_limits(page: &mut Page, shared: &Shared) {
    let newest = shared.snapshots.newest();
    let limits = &newest.plan.rate_limits()[..newest.plan.rate_limits().len().min(SLOTS)];
    if limits.is_empty() {
        return;
    }
    let help = "Calls by RateLimit and result: allowed, limited (429), would-limit (a dry run).";
    page.family("pilotfish_rate_limit_total", "counter", help);
    for limit in limits {
        let (name, counts) = (escape(&limit.name), limit.state.counts());
        let refused = if limit.dry_run { "would-limit" } else { "limited" };
        page.sample(&format!("limit=\"{name}\",result=\"allowed\""), counts.allowed);
        page.sample(&format!("limit=\"{name}\",result=\"{refused}\""), counts.limited);
    }
    let help = "Buckets by key that are kept, of those RateLimits that have some.";
    page.family("pilotfish_rate_limit_keys", "gauge", help);
    for limit in limits.iter().filter(|limit| limit.state.keys() > 0) {
        page.sample(&format!("limit=\"{}\"", escape(&limit.name)), limit.state.keys());
    }
    let help = "This sidecar's part of a RateLimit of the whole fleet, 0 to 1.";
    page.family("pilotfish_rate_limit_share", "gauge", help);
    for limit in limits.iter().filter(|limit| limit.fleet) {
        let share = f64::from(limit.state.share()) / f64::from(WHOLE);
        page.sample(&format!("limit=\"{}\"", escape(&limit.name)), share);
    }
}

/// A label's value: backslash, quote and line feed are escaped, as the format demands.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn durations(page: &mut Page, workers: &[Arc<WorkerMetrics>]) {
    let help = "Seconds from a request's head to the end of its answer.";
    page.family("pilotfish_request_duration_seconds", "histogram", help);
    for direction in Direction::ALL {
        let word = direction.word();
        let mut below = 0;
        for bucket in 0..=BUCKETS.len() {
            below += sum(workers, |worker| &worker.direction(direction).duration.buckets[bucket]);
            let bound = BUCKETS.get(bucket).map_or_else(|| "+Inf".to_owned(), |b| seconds(*b));
            page.suffixed("_bucket", &format!("direction=\"{word}\",le=\"{bound}\""), below);
        }
        let total = sum(workers, |worker| &worker.direction(direction).duration.sum_micros);
        let labels = format!("direction=\"{word}\"");
        page.suffixed("_sum", &labels, seconds(total));
        page.suffixed("_count", &labels, below);
    }
}

/// Microseconds as seconds, without a float's noise.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What is refused is among the refusals by reason.
fn deduplication(page: &mut Page, shared: &Shared) {
    let window = &shared.dedup.window;
    page.single("pilotfish_dedup_keys", "gauge", "Keys of calls that are remembered.", window.keys());
    let help = "Bytes of answers that are kept for repeats.";
    page.single("pilotfish_dedup_answer_bytes", "gauge", help, window.bytes());
    let help = "Repeats of calls with a key that got the first's answer: kept, or waited for.";
    page.family("pilotfish_dedup_repeats_total", "counter", help);
    page.sample("from=\"kept\"", sum(&shared.metrics, |worker| &worker.dedup_answered));
    page.sample("from=\"running\"", sum(&shared.metrics, |worker| &worker.dedup_joined));
}

fn configuration(page: &mut Page, shared: &Shared) {
    let config = &shared.config;
    let newest = shared.snapshots.newest();
    let open: u64 =
        newest.plan.clusters().iter().map(|cluster| u64::from(cluster.limits.connections())).sum();
    let help = "Connections to endpoints that are open, kept ones included.";
    page.single("pilotfish_upstream_connections_active", "gauge", help, open);
    let version = shared.snapshots.version();
    page.single("pilotfish_snapshot_version", "gauge", "Version of the configuration that serves.", version);
    let help = "Configurations that were taken.";
    page.single("pilotfish_config_accepted_total", "counter", help, config.accepted());
    let help = "Configurations that were refused; the last good one went on serving.";
    page.single("pilotfish_config_rejected_total", "counter", help, config.rejected());
    let help = "1 when the last configuration was taken, 0 when it was refused.";
    page.single("pilotfish_config_last_reload_success", "gauge", help, u8::from(config.last_accepted()));
    let draining = u8::from(shared.drain.phase() > Phase::Serving);
    page.single("pilotfish_draining", "gauge", "1 from the start of the drain.", draining);
    if let Some(log) = &shared.access_log {
        let help = "Access log lines that were dropped because the reader was too slow.";
        page.single("pilotfish_access_log_dropped_total", "counter", help, log.dropped());
    }
    page.family("pilotfish_build_info", "gauge", "The release, as a label.");
    page.sample(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1);
}

/// What Prometheus' client libraries tell of every process.
fn process(page: &mut Page) {
    if let Some(bytes) = memory::resident() {
        page.single("process_resident_memory_bytes", "gauge", "Resident memory.", bytes);
    }
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu = format!("{}.{:09}", cpu.tv_sec, cpu.tv_nsec);
    page.single("process_cpu_seconds_total", "counter", "Processor time, user and system.", cpu);
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        page.single(
            "process_open_fds",
            "gauge",
            "Open file descriptors.",
            descriptors.count().saturating_sub(1),
        );
    }
}

#[cfg(test)]
mod tests;
