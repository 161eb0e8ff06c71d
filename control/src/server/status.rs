//! `/ready`, `/live` and `/metrics`: for probes and scrapers, readable by anyone who reaches the listener.

use std::fmt::{Display, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;

use super::Control;
use super::answer::{Answer, Denied, typed};
use super::measured::{BUCKETS, OPERATIONS};
use crate::api::types::FleetStatus;
use crate::orchestrator::Counts;
use pilotfish_config::wire::Status;

/// What the server itself counts.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// Answers by the hundreds of their status, from 200.
    answers: [AtomicU64; 4],
    /// Sidecars that joined.
    pub(super) joined: AtomicU64,
    /// Joins that were refused.
    pub(super) join_refused: AtomicU64,
    /// Certificates renewed.
    pub(super) renewed: AtomicU64,
    /// Renewals that were refused.
    pub(super) renew_refused: AtomicU64,
    /// Streams opened.
    pub(super) streams: AtomicU64,
    /// Connections closed at once for want of a place.
    pub(super) turned_away: AtomicU64,
    /// TLS handshakes that failed.
    pub(super) handshakes_failed: AtomicU64,
}

impl Metrics {
    /// Counts an answer.
    pub(super) fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(2);
        if let Some(counter) = self.answers.get(class) {
            count(counter);
        }
    }
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Answers one request.
pub(super) fn answer(control: &Arc<Control>, request: &Request<Incoming>) -> Answer {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Denied::method("GET, HEAD").answer();
    }
    let text = |status, text: &'static str| typed(status, "text/plain; charset=utf-8", text);
    match request.uri().path() {
        "/live" => text(StatusCode::OK, "live\n"),
        "/ready" if *control.closing.borrow() => text(StatusCode::SERVICE_UNAVAILABLE, "closing\n"),
        "/ready" => text(StatusCode::OK, "ready\n"),
        "/metrics" => typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", render(control)),
        _ => Denied::not_found("/ready /live /metrics").answer(),
    }
}

/// The text as it grows.
#[derive(Debug, Default)]
struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, suffix: &str, labels: &str, value: impl Display) {
        let name = self.name;
        let _ = match labels {
            "" => writeln!(self.text, "{name}{suffix} {value}"),
            labels => writeln!(self.text, "{name}{suffix}{{{labels}}} {value}"),
        };
    }

    fn single(&mut self, name: &'static str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample("", "", value);
    }
}

fn render(control: &Control) -> String {
    let mut page = Page::default();
    page.family("pilotfish_control_build_info", "gauge", "The program's version.");
    page.sample("", concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1);
    sidecars(&mut page, &control.fleet.status());
    requests(&mut page, &control.metrics);
    placement(&mut page, &control.orchestrator.counts());
    store(&mut page, control);
    traces(&mut page, control);
    authority(&mut page, control);
    process(&mut page);
    page.text
}

fn sidecars(page: &mut Page, fleet: &FleetStatus) {
    let count = |fits: &dyn Fn(&crate::api::types::SidecarStatus) -> bool| {
        fleet.sidecars.iter().filter(|s| fits(s)).count()
    };
    page.single(
        "pilotfish_control_documents_version",
        "gauge",
        "Newest version of the documents.",
        fleet.documents,
    );
    page.single(
        "pilotfish_control_state_version",
        "gauge",
        "Newest version of the whole state.",
        fleet.version,
    );
    page.single("pilotfish_control_leases", "gauge", "Registrations that hold.", fleet.sidecars.len());
    page.single(
        "pilotfish_control_sidecars_connected",
        "gauge",
        "Sidecars whose stream is open here.",
        count(&|s| s.connected),
    );
    page.single(
        "pilotfish_control_sidecars_behind",
        "gauge",
        "Connected sidecars that do not serve the newest documents.",
        count(&|s| s.connected && s.serving < fleet.documents),
    );
    page.single(
        "pilotfish_control_sidecars_refusing",
        "gauge",
        "Sidecars that refuse a version.",
        count(&|s| s.refused.is_some()),
    );
    page.family("pilotfish_control_agents", "gauge", "Registered agents by status.");
    for status in
        [Status::Initializing, Status::Ready, Status::Degraded, Status::Draining, Status::Quarantined]
    {
        page.sample("", &format!("status=\"{}\"", status.word()), count(&|s| s.status == status));
    }
}

fn requests(page: &mut Page, metrics: &Metrics) {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    page.family("pilotfish_control_requests_total", "counter", "Requests of the API by status class.");
    for (class, counter) in ["2xx", "3xx", "4xx", "5xx"].iter().zip(&metrics.answers) {
        page.sample("", &format!("class=\"{class}\""), read(counter));
    }
    let pairs: [(&'static str, &str, &AtomicU64, &AtomicU64); 2] = [
        ("pilotfish_control_joins_total", "Joins of sidecars.", &metrics.joined, &metrics.join_refused),
        (
            "pilotfish_control_renewals_total",
            "Renewals of certificates.",
            &metrics.renewed,
            &metrics.renew_refused,
        ),
    ];
    for (name, help, done, refused) in pairs {
        page.family(name, "counter", help);
        page.sample("", "result=\"done\"", read(done));
        page.sample("", "result=\"refused\"", read(refused));
    }
    page.single(
        "pilotfish_control_streams_total",
        "counter",
        "Streams of sidecars opened.",
        read(&metrics.streams),
    );
    let help = "Connections closed at once for want of a place.";
    page.single("pilotfish_control_connections_refused_total", "counter", help, read(&metrics.turned_away));
    let help = "TLS handshakes that failed.";
    page.single(
        "pilotfish_control_handshakes_failed_total",
        "counter",
        help,
        read(&metrics.handshakes_failed),
    );
}

fn placement(page: &mut Page, counts: &Counts) {
    let help = "1 while this control plane leads placement.";
    page.single("pilotfish_control_placement_leader", "gauge", help, u64::from(counts.leads));
    page.family("pilotfish_control_nodes", "gauge", "Nodes by status, as the leader knows them.");
    for (status, count) in &counts.nodes {
        page.sample("", &format!("status=\"{status}\""), count);
    }
    page.family("pilotfish_control_replicas", "gauge", "Replicas by status, as the leader knows them.");
    for (status, count) in &counts.replicas {
        page.sample("", &format!("status=\"{status}\""), count);
    }
    let help = "Replicas that have no place.";
    page.single("pilotfish_control_replicas_unplaced", "gauge", help, counts.unplaced);
    let help = "How long decisions of placement took.";
    page.family("pilotfish_control_placement_duration_seconds", "summary", help);
    page.sample("_sum", "", counts.deciding_seconds);
    page.sample("_count", "", counts.decisions);
    let help = "How long the last decision of placement took.";
    page.single("pilotfish_control_placement_last_seconds", "gauge", help, counts.last_seconds);
}

fn store(page: &mut Page, control: &Control) {
    page.family("pilotfish_control_store_duration_seconds", "histogram", "How long the store took.");
    for (operation, calls) in OPERATIONS.iter().zip(control.store_calls.iter()) {
        let mut below = 0;
        let buckets = calls.buckets();
        for (count, bound) in buckets.iter().zip(BUCKETS) {
            below += count;
            let labels = format!("operation=\"{operation}\",le=\"{}\"", bound as f64 / 1e6);
            page.sample("_bucket", &labels, below);
        }
        let all: u64 = buckets.iter().sum();
        page.sample("_bucket", &format!("operation=\"{operation}\",le=\"+Inf\""), all);
        page.sample("_sum", &format!("operation=\"{operation}\""), calls.seconds());
        page.sample("_count", &format!("operation=\"{operation}\""), all);
    }
    page.family("pilotfish_control_store_errors_total", "counter", "Calls that found the store unavailable.");
    for (operation, calls) in OPERATIONS.iter().zip(control.store_calls.iter()) {
        page.sample("", &format!("operation=\"{operation}\""), calls.errors());
    }
}

fn traces(page: &mut Page, control: &Control) {
    let stats = control.traces.stats();
    let mut single = |name, kind, help, value: u64| page.single(name, kind, help, value);
    single(
        "pilotfish_control_trace_spans_total",
        "counter",
        "Spans taken into the trace store.",
        stats.spans,
    );
    let help = "Bytes of OTLP taken into the trace store.";
    single("pilotfish_control_trace_bytes_total", "counter", help, stats.bytes);
    single("pilotfish_control_traces", "gauge", "Traces in the window.", stats.traces as u64);
    single("pilotfish_control_trace_segments", "gauge", "Segments of the window.", stats.segments as u64);
    single("pilotfish_control_trace_disk_bytes", "gauge", "Disk that the window takes.", stats.disk);
    single(
        "pilotfish_control_trace_index_bytes",
        "gauge",
        "Memory that the window's index takes, about.",
        stats.index as u64,
    );
    let help = "How long ago the oldest segment of the window was begun.";
    single("pilotfish_control_trace_window_seconds", "gauge", help, stats.age.as_secs());
    let help = "1 while the disk takes no more spans.";
    single("pilotfish_control_trace_disk_full", "gauge", help, u64::from(stats.full));
    let help = "Spans refused, by reason.";
    page.family("pilotfish_control_trace_spans_refused_total", "counter", help);
    let refused = stats.refused;
    for (reason, count) in
        [("ids", refused.ids), ("time", refused.time), ("large", refused.large), ("trace", refused.trace)]
    {
        page.sample("", &format!("reason=\"{reason}\""), count);
    }
    let help = "Batches of spans refused, by reason.";
    page.family("pilotfish_control_trace_batches_refused_total", "counter", help);
    for (reason, count) in ["malformed", "busy", "disk"].iter().zip(stats.batches_refused) {
        page.sample("", &format!("reason=\"{reason}\""), count);
    }
}

fn process(page: &mut Page) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = resident.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    page.single("process_resident_memory_bytes", "gauge", "Resident memory.", kib * 1024);
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
    page.single("process_cpu_seconds_total", "counter", "Processor time used.", seconds);
}

fn authority(page: &mut Page, control: &Control) {
    let help = "When the certificate of the authority that signs here ends, seconds since 1970.";
    let expires = control.authority.ends().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    page.single("pilotfish_control_issuer_expires_seconds", "gauge", help, expires);
}
