//! Counters of the request path, one set per worker so that no cache line is shared, merged when they are read.

pub mod agentic;
mod collect;
pub mod edges;
pub mod family;
mod http;
pub mod otlp;
mod requests;
mod table;
mod text;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

pub use collect::collect;
pub use http::Places;
pub use text::{Format, render};

use pilotfish_filters::verdict::Reason;

use super::call::{Acted, CallRecord};
use super::series::{SLOTS, Slot};
use crate::listen::Direction;
use crate::tokens::verify::Refusal;
use family::{Distribution, Unit};
use table::Table;

/// Upper bounds of the duration buckets, in microseconds: OpenTelemetry's for `http.server.request.duration`.
pub const BUCKETS: [u64; 14] = [
    5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000, 1_000_000, 2_500_000,
    5_000_000, 7_500_000, 10_000_000,
];

/// A number that one thread changes and others read. A plain load and store: cheaper than an atomic addition, and
/// exact because there is one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the thread that owns the counter may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Subtracts `n`, for gauges. Only the thread that owns the counter may call this.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How long requests took: cumulative when rendered, separate here.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS.len() + 1],
    sum_micros: Counter,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|bound| micros <= *bound).unwrap_or(BUCKETS.len());
        self.buckets[bucket].add(1);
        self.sum_micros.add(micros);
    }

    fn read(&self) -> Distribution {
        let mut values = Distribution::new(Unit::Micros, &BUCKETS);
        values.counts = self.buckets.iter().map(Counter::get).collect();
        values.sum = self.sum_micros.get();
        values
    }
}

/// What is counted for each direction.
#[derive(Debug, Default)]
pub struct DirectionMetrics {
    requests: ByClass,
    /// Time from the request's head to the end of its answer.
    pub duration: Histogram,
    /// Requests being served now.
    pub active_requests: Counter,
    /// Downstream connections open now.
    pub active_connections: Counter,
    /// Downstream connections accepted.
    pub connections: Counter,
    /// Bytes of request bodies and upgraded streams that went upstream.
    pub request_bytes: Counter,
    /// Bytes of response bodies and upgraded streams that went downstream.
    pub response_bytes: Counter,
}

impl DirectionMetrics {
    /// Requests that have ended.
    pub fn ended(&self) -> u64 {
        self.requests.iter().fold(0, |sum, class| sum.wrapping_add(class.get()))
    }
}

/// Finished requests by status class; see [`class_of`].
type ByClass = [Counter; CLASSES.len()];

/// The status classes as labels; the last is "no status was sent", because the client left first.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

fn class_of(status: Option<u16>) -> usize {
    match status {
        Some(status @ 100..=599) => usize::from(status / 100 - 1),
        _ => CLASSES.len() - 1,
    }
}

/// What is counted for each cluster.
#[derive(Debug, Default)]
pub struct ClusterMetrics {
    requests: ByClass,
    /// Time that requests took, in microseconds.
    sum_micros: Counter,
    /// Connections that could not be made.
    pub connect_failures: Counter,
}

/// How a TLS handshake ended. Reasons that have no word of their own count as `tls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// A caller was verified.
    Accepted,
    /// An upstream was verified.
    Dialled,
    /// A caller was refused; the number of its reason.
    AcceptFailed(usize),
    /// An upstream was not used; the number of its reason.
    DialFailed(usize),
}

/// Why handshakes fail, as labels; the last is for everything else.
const HANDSHAKE_REASONS: [&str; 20] = [
    "mtls-required",
    "timeout",
    "too-many-handshakes",
    "closed",
    "too-long",
    "refused-by-peer",
    "no-certificate",
    "chain-too-long",
    "certificate-unreadable",
    "no-spiffe-id",
    "several-uri-names",
    "unknown-trust-domain",
    "untrusted",
    "expired",
    "not-yet-valid",
    "leaf-is-authority",
    "wrong-usage",
    "revoked",
    "wrong-identity",
    "tls",
];

impl Handshake {
    /// A caller was refused for this reason.
    pub fn accept_failed(word: &str) -> Handshake {
        Handshake::AcceptFailed(reason_number(word))
    }

    /// An upstream was not used for this reason.
    pub fn dial_failed(word: &str) -> Handshake {
        Handshake::DialFailed(reason_number(word))
    }
}

fn reason_number(word: &str) -> usize {
    HANDSHAKE_REASONS.iter().position(|known| *known == word).unwrap_or(HANDSHAKE_REASONS.len() - 1)
}

/// Handshakes of one direction by their end.
#[derive(Debug, Default)]
struct Handshakes {
    good: Counter,
    failed: [Counter; HANDSHAKE_REASONS.len()],
}

/// One worker's counters. Only that worker writes, and no other worker's counters are on its cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerMetrics {
    directions: [DirectionMetrics; 2],
    /// Calls and their tries, as OpenTelemetry tells of them.
    http: Table,
    /// Calls of models and tools.
    agentic: Table,
    /// Calls to other agents.
    edges: Table,
    refusals: [Counter; Reason::ALL.len()],
    /// By [`Direction`].
    handshakes: [Handshakes; 2],
    rules: Box<[ByClass]>,
    clusters: Box<[ClusterMetrics]>,
    /// Calls that waited for a place at the agent and got it.
    waited: Counter,
    /// How long, together.
    waited_micros: Counter,
    /// Calls with a key that were done before and got the kept answer.
    pub dedup_answered: Counter,
    /// Calls with a key that waited for the first to end and got its answer.
    pub dedup_joined: Counter,
    /// Upstream connections made.
    pub upstream_connects: Counter,
    /// Upstream connections that failed or were too slow to be made.
    pub upstream_connect_failures: Counter,
    /// Requests that went out on a kept connection.
    pub upstream_reuses: Counter,
    /// Inbound calls that came back to an agent on their path and were let through.
    pub call_cycles: Counter,
    /// Requests that a rule's fault delayed.
    pub faults_delayed: Counter,
    /// Requests that a rule's fault aborted.
    pub faults_aborted: Counter,
    /// Preflights of browsers that were answered here.
    pub preflights: Counter,
    /// Members of baggage that did not go on, because there was too much of it.
    pub baggage_dropped: Counter,
    /// Copies of requests by what became of them.
    pub mirrors: MirrorMetrics,
    /// Tries after the first by what became of them.
    pub retries: RetryMetrics,
    /// Tries beside the first.
    pub hedges: HedgeMetrics,
    /// Tokens of callers.
    pub tokens: TokenMetrics,
}

/// Tries after the first, by what became of them.
#[derive(Debug, Default)]
pub struct RetryMetrics {
    /// Were sent, and got an answer that was passed on.
    pub answered: Counter,
    /// Were sent, and failed as well.
    pub failed: Counter,
    /// Were not sent: the cluster's retry budget is exhausted, or `maxRetries` reached.
    pub over_budget: Counter,
    /// Were not sent: the call would have been over before.
    pub no_time: Counter,
    /// Were not sent: more of the body had gone than is kept.
    pub without_body: Counter,
}

/// Tries beside the first.
#[derive(Debug, Default)]
pub struct HedgeMetrics {
    /// Were sent.
    pub sent: Counter,
    /// Were answered before the first.
    pub won: Counter,
    /// Were not sent: the cluster's retry budget is exhausted.
    pub over_budget: Counter,
}

/// Tokens of callers.
#[derive(Debug, Default)]
pub struct TokenMetrics {
    /// Were valid.
    pub good: Counter,
    /// Had not been seen lately, so that a signature was checked.
    pub looked_at: Counter,
    /// Were refused, or were missing.
    refused: [Counter; Refusal::ALL.len()],
}

impl TokenMetrics {
    /// Counts a call that is refused for its token.
    pub fn refused(&self, why: Refusal) {
        self.refused[why as usize].add(1);
    }
}

/// Copies of requests, by what became of them.
#[derive(Debug, Default)]
pub struct MirrorMetrics {
    /// Got an answer, whatever it said.
    pub answered: Counter,
    /// Were sent, or tried to be, and got none.
    pub failed: Counter,
    /// Were not sent: this worker has as many under way as it may.
    pub dropped: Counter,
    /// Were not sent: the body is larger than what is kept of it, or never came to its end.
    pub without_body: Counter,
    /// Were not sent: nobody knows the destination, or it has no endpoint that takes calls.
    pub no_endpoint: Counter,
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        WorkerMetrics {
            directions: Default::default(),
            http: Table::new(http::MOST),
            agentic: Table::new(agentic::MOST),
            edges: Table::new(edges::MOST),
            refusals: std::array::from_fn(|_| Counter::default()),
            handshakes: Default::default(),
            rules: (0..SLOTS).map(|_| ByClass::default()).collect(),
            clusters: (0..SLOTS).map(|_| ClusterMetrics::default()).collect(),
            waited: Counter::default(),
            waited_micros: Counter::default(),
            dedup_answered: Counter::default(),
            dedup_joined: Counter::default(),
            upstream_connects: Counter::default(),
            upstream_connect_failures: Counter::default(),
            upstream_reuses: Counter::default(),
            call_cycles: Counter::default(),
            faults_delayed: Counter::default(),
            faults_aborted: Counter::default(),
            preflights: Counter::default(),
            baggage_dropped: Counter::default(),
            mirrors: MirrorMetrics::default(),
            retries: RetryMetrics::default(),
            hedges: HedgeMetrics::default(),
            tokens: TokenMetrics::default(),
        }
    }
}

impl WorkerMetrics {
    /// The counters of one direction.
    pub fn direction(&self, direction: Direction) -> &DirectionMetrics {
        &self.directions[direction as usize]
    }

    /// Counts a refusal by the proxy itself.
    pub fn refused(&self, reason: Reason) {
        self.refusals[reason as usize].add(1);
    }

    /// Counts a TLS handshake.
    pub fn handshake(&self, end: Handshake) {
        let [outbound, inbound] = &self.handshakes;
        let counter = match end {
            Handshake::Dialled => &outbound.good,
            Handshake::Accepted => &inbound.good,
            Handshake::DialFailed(reason) => &outbound.failed[reason.min(HANDSHAKE_REASONS.len() - 1)],
            Handshake::AcceptFailed(reason) => &inbound.failed[reason.min(HANDSHAKE_REASONS.len() - 1)],
        };
        counter.add(1);
    }

    /// Counts a finished request; `status` is `None` when no head was sent.
    pub fn finished(&self, direction: Direction, status: Option<u16>, duration: Duration) {
        let metrics = self.direction(direction);
        metrics.requests[class_of(status)].add(1);
        metrics.duration.record(duration);
    }

    /// Counts a call that has ended, and its tries, once its record is complete.
    pub fn ended(&self, call: &CallRecord, places: Places) {
        if call.acted.has(Acted::QUEUE) {
            self.waited.add(1);
            self.waited_micros.add(call.stages.admitted.saturating_sub(call.stages.routed).into());
        }
        http::ended(&self.http, call, places);
    }

    /// Counts a call that was more than HTTP.
    pub fn told(
        &self,
        told: &agentic::Told<'_>,
        call: &CallRecord,
        cluster: Option<Slot>,
        names: agentic::Vocabulary<'_>,
    ) {
        agentic::ended(&self.agentic, told, call, cluster, names);
    }

    /// Counts a call of the agent to another.
    pub fn called(&self, call: &CallRecord, names: agentic::Vocabulary<'_>) {
        edges::ended(&self.edges, call, names);
    }

    /// Counts a request that could not be parsed.
    pub fn unparsed(&self, direction: Direction, h2: bool, reason: Reason) {
        http::refused(&self.http, direction, h2, reason);
    }

    /// Counts a finished request for the rule that it matched.
    pub fn finished_by_rule(&self, rule: Slot, status: Option<u16>) {
        self.rules[rule.index()][class_of(status)].add(1);
    }

    /// Counts a finished request for the cluster that it went to.
    pub fn finished_by_cluster(&self, cluster: Slot, status: Option<u16>, duration: Duration) {
        let metrics = self.cluster(cluster);
        metrics.requests[class_of(status)].add(1);
        metrics.sum_micros.add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// The counters of one cluster.
    pub fn cluster(&self, cluster: Slot) -> &ClusterMetrics {
        &self.clusters[cluster.index()]
    }
}
