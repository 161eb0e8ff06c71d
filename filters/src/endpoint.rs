//! An endpoint and what is known of it: load, latency, success, and in one word whether calls should go to it.

pub mod health;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use pilotfish_config::model::{Capability, Locality};

use crate::balance::peak_ewma::{PeakEwma, Report, SuccessRate};
use crate::clock::Micros;
use crate::concurrency::{Limit, Limiter};
use crate::grpc;
use crate::inflight::ClusterLimits;
use health::Condition;
pub use health::{Care, Health};

/// How long an endpoint is skipped after its first failed connect; doubles with each further one.
pub const FIRST_OUTAGE: Duration = Duration::from_secs(1);
/// The longest time for which a failed connect makes an endpoint be skipped.
pub const LONGEST_OUTAGE: Duration = Duration::from_secs(10);

/// One address of one agent or service, as one plan sees it; its counters outlive the plan.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where to connect. For a Unix socket a stand-in that is unique to its path (see [`Endpoint::unix`]).
    pub addr: SocketAddr,
    /// The socket to connect to in place of `addr`.
    pub unix: Option<Box<Path>>,
    /// The name that `addr` was looked up from, for endpoints given by a DNS name.
    pub hostname: Option<Box<str>>,
    /// Labels, sorted by key.
    pub labels: Labels,
    /// Where it runs.
    pub locality: Locality,
    /// Its share relative to the others; at least 1.
    pub weight: u32,
    /// The AgentCluster agent that it belongs to (`pilotfish.dev/agent`).
    pub agent: Option<Box<str>>,
    /// The namespace of the document that names it, in which `agent` is looked up.
    pub namespace: Box<str>,
    /// What that agent is able to do.
    pub capabilities: Arc<[Capability]>,
    /// Whether `addr` is its sidecar's inbound port (`pilotfish.dev/mesh: "true"`).
    pub mesh: bool,
    /// The SPIFFE ID that its certificate must have: its agent's, else its service account's, unless
    /// `subjectAltNames` name others ([`crate::cluster::ClusterSettings::subject_alt_names`]; then the first of those,
    /// or its own when it is among them). `None`: it has neither, or the sidecar has no trust domain.
    pub identity: Option<Arc<str>>,
    /// Which registration it is, by the control plane's id; `None`: a document says it.
    pub id: Option<Arc<str>>,
    /// It says that it is not well: chosen only when no other is ready.
    pub degraded: bool,
    /// Which window its sidecar's deduplication has, by the control plane ([`Endpoint::dedup_epoch`]).
    pub dedup: Option<Arc<str>>,
    /// Counters shared by all workers, which outlive the plan.
    pub stats: Arc<EndpointStats>,
    /// How it is watched, beyond whether it can be reached; `None`: not at all.
    pub care: Option<Arc<Care>>,
}

impl Endpoint {
    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key)
    }

    /// The epoch of its sidecar's window: what the sidecar said last, else what the control plane says. `None`: it does not
    /// deduplicate, as far as is known; so does a registered one whose control plane knows of none, whatever it said before.
    pub fn dedup_epoch(&self) -> Option<Arc<str>> {
        if self.id.is_some() && self.dedup.is_none() {
            return None;
        }
        self.stats.epoch().or_else(|| self.dedup.clone())
    }
}

/// A small sorted set of labels; clones share it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels(Arc<[(Box<str>, Box<str>)]>);

impl Labels {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| &**value)
    }

    /// Whether every pair of `wanted` is among these.
    pub fn contain<K: AsRef<str>, V: AsRef<str>>(&self, wanted: impl IntoIterator<Item = (K, V)>) -> bool {
        wanted.into_iter().all(|(key, value)| self.get(key.as_ref()) == Some(value.as_ref()))
    }

    /// All pairs, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Labels {
    /// A key that comes twice keeps its first value.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Labels {
        let mut pairs: Vec<(Box<str>, Box<str>)> =
            pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|later, first| later.0 == first.0);
        Labels(pairs.into())
    }
}

/// How a try ended, as far as the choice of endpoints is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered, with this HTTP status; for gRPC the one that its `grpc-status` stands for.
    Answered(u16),
    /// It broke the connection or the stream before a whole head of an answer, or sent what is no answer.
    Reset,
    /// It did not answer in the time that a try has.
    TimedOut,
    /// No connection to it could be made: a local-origin failure in Envoy's words.
    Unreachable,
}

impl Outcome {
    /// Whether it counts against the endpoint where nobody says otherwise: anything but an answer below 500.
    pub const fn is_failure(self) -> bool {
        !matches!(self, Outcome::Answered(..500))
    }

    /// An answer with this HTTP status, and in its head perhaps a `grpc-status`, which counts then.
    pub fn of_answer(status: u16, grpc_status: Option<&[u8]>) -> Outcome {
        let grpc = grpc_status.filter(|_| status == 200).map(|code| {
            // What cannot be read is UNKNOWN, which is an error of its own.
            std::str::from_utf8(code).ok().and_then(|code| code.trim().parse().ok()).unwrap_or(2)
        });
        grpc.map_or(Outcome::Answered(status), Outcome::of_grpc)
    }

    /// An answer whose `grpc-status` is known, as the HTTP status that it stands for (Envoy's mapping).
    pub const fn of_grpc(status: u32) -> Outcome {
        Outcome::Answered(grpc::http_status(status))
    }
}

/// What is known of one endpoint, shared by all workers. Own cache lines, since every worker writes to it.
#[derive(Debug)]
#[repr(align(128))]
pub struct EndpointStats {
    in_flight: AtomicU32,
    /// Calls that it may have at once; [`u32::MAX`]: as many as come.
    limit: AtomicU32,
    calls: AtomicU32,
    /// Microseconds; the endpoint is skipped until then. What all the reasons in `condition` come to, so that choosing
    /// reads one number; see [`health`].
    out_until: AtomicU64,
    /// Failed connects in a row.
    streak: AtomicU32,
    latency: PeakEwma,
    success: SuccessRate,
    report: Report,
    first_seen: Micros,
    /// What its sidecar said of its window; only calls with a key look.
    epoch: Mutex<Option<Arc<str>>>,
    /// The cluster that it belongs to.
    home: Arc<ClusterLimits>,
    condition: Condition,
    /// Finds `limit`, where that is asked for.
    limiter: OnceLock<Box<Limiter>>,
}

impl EndpointStats {
    /// Fresh counters for an endpoint that appeared `now`, of no cluster in particular.
    pub fn new(now: Micros) -> EndpointStats {
        EndpointStats::of(now, Arc::default())
    }

    /// Fresh counters for an endpoint of a cluster that appeared `now`.
    pub fn of(now: Micros, home: Arc<ClusterLimits>) -> EndpointStats {
        EndpointStats {
            in_flight: AtomicU32::new(0),
            limit: AtomicU32::new(u32::MAX),
            limiter: OnceLock::new(),
            calls: AtomicU32::new(0),
            out_until: AtomicU64::new(0),
            streak: AtomicU32::new(0),
            latency: PeakEwma::new(now),
            success: SuccessRate::new(now),
            report: Report::default(),
            first_seen: now,
            epoch: Mutex::default(),
            home,
            condition: Condition::default(),
        }
    }

    /// Counters of an endpoint that others measured: what the control plane ranks by.
    pub fn measured(
        now: Micros,
        latency: Duration,
        success: f32,
        in_flight: u32,
        calls: u32,
    ) -> EndpointStats {
        let mut stats = EndpointStats::new(now);
        stats.in_flight = in_flight.into();
        stats.calls = calls.into();
        stats.latency = PeakEwma::of(now, latency.as_secs_f32() * 1e6);
        stats.success = SuccessRate::of(now, success.clamp(0.0, 1.0));
        stats
    }

    /// Calls that have a lease on it now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Calls that it may have at once, of this process; [`u32::MAX`]: as many as come.
    pub fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

    /// Whether it may have one more call.
    pub fn has_room(&self) -> bool {
        self.in_flight() < self.limit()
    }

    /// Whether the call that just entered is within the limit. Of several that enter together none may be, never too many.
    pub(crate) fn is_within_limit(&self) -> bool {
        self.in_flight() <= self.limit()
    }

    /// How many calls it may have from now on. `seed`: for the choice of when latency is measured anew.
    pub(crate) fn set_limit(&self, limit: Limit, seed: u64) {
        let now = match limit {
            Limit::Adaptive(_) => self.limiter.get_or_init(|| Box::new(Limiter::new(seed))).configure(limit),
            Limit::Fixed(most) => most,
            Limit::None => u32::MAX,
        };
        if let (Limit::None | Limit::Fixed(_), Some(limiter)) = (limit, self.limiter.get()) {
            limiter.configure(limit);
        }
        self.limit.store(now, Relaxed);
    }

    /// The limit that follows the latency learns from a call.
    pub(crate) fn follow(&self, now: Micros, outcome: Outcome, latency: Duration, alongside: u32) {
        if self.limit() == u32::MAX {
            return;
        }
        let Some(limiter) = self.limiter.get() else { return };
        let latency = matches!(outcome, Outcome::Answered(_)).then_some(latency);
        if let Some(limit) = limiter.sample(now, latency, alongside) {
            self.limit.store(limit, Relaxed);
        }
    }

    /// Calls that were recorded so far (saturating). Below 20 it counts as not measured yet.
    pub fn calls(&self) -> u32 {
        self.calls.load(Relaxed)
    }

    /// The peak-EWMA latency. It fades while nothing is measured, so that an endpoint that was slow gets another chance.
    pub fn latency(&self, now: Micros) -> Duration {
        Duration::from_secs_f32(self.blended(now).0 / 1e6)
    }

    /// The recent share of calls that succeeded, 0 to 1; drifts back to 1 while nothing is measured.
    pub fn success(&self, now: Micros) -> f32 {
        self.blended(now).1
    }

    /// The cost of one more call: peak-EWMA latency in microseconds x (in flight + 1) / max(success, 0.05)^2.
    ///
    /// Nothing for the very first call, so that a new endpoint is measured as soon as it is drawn; while that call is under
    /// way its latency counts as the default, so a slow one is not drawn into at once by everybody.
    pub fn cost(&self, now: Micros) -> f32 {
        if self.calls() == 0 && self.in_flight() == 0 && self.report.get(now).is_none() {
            return 0.0;
        }
        let (latency, success) = self.blended(now);
        let success = success.max(0.05);
        latency * (self.in_flight() as f32 + 1.0) / (success * success)
    }

    /// When it first appeared, which is where slow start counts from.
    pub fn first_seen(&self) -> Micros {
        self.first_seen
    }

    /// The epoch that its sidecar told in an answer.
    fn epoch(&self) -> Option<Arc<str>> {
        self.epoch.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its sidecar has told the epoch of its window. False: it was known.
    pub fn learn_epoch(&self, epoch: &str) -> bool {
        let mut known = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        let new = known.as_deref() != Some(epoch);
        if new {
            *known = Some(epoch.into());
        }
        new
    }

    /// The counters of the cluster that it belongs to.
    pub fn home(&self) -> &Arc<ClusterLimits> {
        &self.home
    }

    /// Takes in what others measured: counts as 10 samples of one's own, and its weight halves every 10 s.
    pub fn merge_report(&self, now: Micros, latency: Duration, success: f32) {
        self.report.set(now, latency.as_secs_f32() * 1e6, success.clamp(0.0, 1.0));
    }

    /// What was measured here, without what others reported: latency, and the share of calls that succeeded.
    pub fn own(&self, now: Micros) -> (Duration, f32) {
        (Duration::from_secs_f32(self.latency.get(now) / 1e6), self.success.get(now))
    }

    /// Latency in microseconds and success rate, others' reports included.
    fn blended(&self, now: Micros) -> (f32, f32) {
        let own = (self.latency.get(now), self.success.get(now));
        match self.report.get(now) {
            None => own,
            Some(report) => {
                let share = report.weight / (report.weight + self.calls() as f32);
                (own.0 + (report.latency - own.0) * share, own.1 + (report.success - own.1) * share)
            }
        }
    }

    /// A call waited so long, at least.
    pub(crate) fn waited(&self, now: Micros, took: Duration) {
        self.latency.sample(now, took.as_secs_f32() * 1e6);
    }

    pub(crate) fn enter(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// Enters only while that leaves at most `slots` in flight.
    pub(crate) fn try_enter(&self, slots: u32) -> bool {
        self.in_flight.fetch_update(Relaxed, Relaxed, |now| (now < slots).then_some(now + 1)).is_ok()
    }

    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// Learns from a call, and whether it can be reached.
    pub(crate) fn record(&self, now: Micros, outcome: Outcome, latency: Duration) {
        if self.calls() < u32::MAX {
            self.calls.fetch_add(1, Relaxed);
        }
        self.latency.sample(now, latency.as_secs_f32() * 1e6);
        self.success.sample(now, !outcome.is_failure());
        if outcome == Outcome::Unreachable {
            self.connect_failed(now);
        } else if self.streak.load(Relaxed) != 0 {
            self.streak.store(0, Relaxed);
            self.reached();
        }
    }

    /// Its connection fell silent: it is out at once, as after a failed connect.
    pub fn fell_silent(&self, now: Micros) {
        self.connect_failed(now);
    }

    /// Many connects fail together when an endpoint goes away: only the first of them lengthens the outage.
    fn connect_failed(&self, now: Micros) {
        let doublings = self.streak.load(Relaxed).min(8);
        let until = now.after((FIRST_OUTAGE * (1 << doublings)).min(LONGEST_OUTAGE));
        if self.unreachable(now, until) {
            self.streak.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
