//! Whether an endpoint is well: everything that speaks against it, folded into one number that choosing reads.
//!
//! | against it | until | when nobody else is left |
//! |---|---|---|
//! | connects failed | 1 s, doubling to 10 s, or an answer | it is used |
//! | ejected by outlier detection | its time is over, or an active check is good | it is used |
//! | active checks failed | they are good again | it is used |
//! | its breaker is open, or a probe is under way | the probe succeeds | it is not used: `breaker-open` |
//!
//! A step of any of these is rare; then the number is reckoned anew from all of them.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pilotfish_config::model::{CircuitBreaker, HealthCheck, OutlierDetection};

use super::{Endpoint, EndpointStats, Outcome};
use crate::breaker::{Breaker, State, Step, Ticket};
use crate::clock::Micros;
use crate::outlier::{self, Cause, Outlier};

/// Out until something happens.
const NEVER: u64 = u64::MAX;
/// Ask the breaker; this far nobody reckons.
const ASK: u64 = u64::MAX - 1;

/// How an endpoint is watched.
#[derive(Debug, Clone, Default)]
pub struct Care {
    /// `outlierDetection`.
    pub outlier: Option<Arc<OutlierCare>>,
    /// `pilotfish.dev/circuit-breaker`.
    pub breaker: Option<Arc<CircuitBreaker>>,
    /// `pilotfish.dev/health-check`.
    pub check: Option<Arc<HealthCheck>>,
}

/// Outlier detection of one cluster.
#[derive(Debug)]
pub struct OutlierCare {
    /// When an endpoint is ejected, and for how long.
    pub policy: OutlierDetection,
    /// All endpoints of the cluster.
    pub peers: Box<[Arc<EndpointStats>]>,
}

/// What speaks against an endpoint, each for itself. Written rarely; choosing does not read it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Condition {
    unreachable_until: AtomicU64,
    outlier: Outlier,
    breaker: Breaker,
    check_failed: AtomicBool,
    /// What the last active check said, for people.
    check: Mutex<Option<Arc<str>>>,
}

/// What is counted over all endpoints of the process.
#[derive(Debug, Default)]
pub struct Tally {
    ejections: [AtomicU64; Cause::ALL.len()],
    ejections_kept: AtomicU64,
    breaker_opened: AtomicU64,
    breaker_probing: AtomicU64,
    breaker_closed: AtomicU64,
    checks: [AtomicU64; 2],
}

impl Tally {
    /// Ejections by their cause.
    pub fn ejections(&self, cause: Cause) -> u64 {
        self.ejections.get(cause as usize).map_or(0, |count| count.load(Relaxed))
    }

    /// Ejections that `maxEjectionPercent` forbade.
    pub fn ejections_forbidden(&self) -> u64 {
        self.ejections_kept.load(Relaxed)
    }

    /// Steps of breakers.
    pub fn breaker(&self, step: Step) -> u64 {
        self.of(step).load(Relaxed)
    }

    /// Active checks that found an endpoint well, or not.
    pub fn checks(&self, good: bool) -> u64 {
        self.checks[usize::from(good)].load(Relaxed)
    }

    /// Counts an active check.
    pub fn checked(&self, good: bool) {
        self.checks[usize::from(good)].fetch_add(1, Relaxed);
    }

    fn of(&self, step: Step) -> &AtomicU64 {
        match step {
            Step::Opened => &self.breaker_opened,
            Step::Probing => &self.breaker_probing,
            Step::Closed => &self.breaker_closed,
        }
    }

    fn stepped(&self, step: Step) {
        self.of(step).fetch_add(1, Relaxed);
    }
}

/// Whether calls go to an endpoint, in one word; the worst when there are several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealthState {
    /// They do.
    Healthy,
    /// Connects to it failed.
    Unreachable,
    /// Outlier detection put it aside.
    Ejected,
    /// Its breaker lets one call pass, which is under way.
    Probing,
    /// Its breaker lets nobody pass.
    BreakerOpen,
    /// Active checks failed.
    CheckFailed,
}

impl HealthState {
    /// Every state, the best first.
    pub const ALL: [HealthState; 6] = [
        HealthState::Healthy,
        HealthState::Unreachable,
        HealthState::Ejected,
        HealthState::Probing,
        HealthState::BreakerOpen,
        HealthState::CheckFailed,
    ];

    /// The word in `/config`, reports and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            HealthState::Healthy => "healthy",
            HealthState::Unreachable => "unreachable",
            HealthState::Ejected => "ejected",
            HealthState::Probing => "probing",
            HealthState::BreakerOpen => "breaker-open",
            HealthState::CheckFailed => "check-failed",
        }
    }
}

/// How an endpoint is, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// In one word.
    pub state: HealthState,
    /// Why not, for people; empty when it is well.
    pub reason: String,
    /// For how long still, where that is known.
    pub left: Option<Duration>,
}

impl Health {
    /// Whether calls go to it.
    pub fn is_well(&self) -> bool {
        self.state == HealthState::Healthy
    }
}

impl fmt::Display for Health {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.left {
            _ if self.is_well() => out.write_str(self.state.word()),
            None => out.write_str(&self.reason),
            Some(left) => write!(out, "{}, {} left", self.reason, seconds(left)),
        }
    }
}

impl EndpointStats {
    /// Whether it is skipped now while there are others, for whatever reason.
    pub fn is_out(&self, now: Micros) -> bool {
        let until = self.out_until.load(Relaxed);
        until > now.0 && (until < ASK || self.is_out_after_all(until, now))
    }

    /// Whether it must not be used now, though there be no other: its breaker.
    pub fn is_shut(&self, now: Micros) -> bool {
        self.out_until.load(Relaxed) >= ASK && !self.condition.breaker.admits(now)
    }

    /// How it is now, and why.
    pub fn health(&self, now: Micros) -> Health {
        let condition = &self.condition;
        let unreachable = Micros(condition.unreachable_until.load(SeqCst));
        let (state, reason, left) = if condition.check_failed.load(Relaxed) {
            let said = condition.check.lock().unwrap_or_else(PoisonError::into_inner).clone();
            (HealthState::CheckFailed, format!("health check: {}", said.as_deref().unwrap_or("failed")), None)
        } else if condition.breaker.state() == State::Probing {
            (HealthState::Probing, "breaker open: one call probes".to_owned(), None)
        } else if condition.breaker.state() == State::Open {
            match condition.breaker.left(now) {
                Duration::ZERO => {
                    (HealthState::BreakerOpen, "breaker open: the next call probes".to_owned(), None)
                }
                left => (HealthState::BreakerOpen, "breaker open".to_owned(), Some(left)),
            }
        } else if let Some(ejected) = condition.outlier.ejected(now) {
            let reason = format!("ejected: {} {}", ejected.failures, ejected.cause.text());
            (HealthState::Ejected, reason, Some(ejected.until.since(now)))
        } else if unreachable > now {
            (
                HealthState::Unreachable,
                "unreachable: connects failed".to_owned(),
                Some(unreachable.since(now)),
            )
        } else {
            (HealthState::Healthy, String::new(), None)
        };
        Health { state, reason, left }
    }

    /// How it is, when it is skipped now or its breaker is not closed.
    pub fn health_if_out(&self, now: Micros) -> Option<Health> {
        let quiet = self.out_until.load(Relaxed) <= now.0;
        (!quiet).then(|| self.health(now)).filter(|health| !health.is_well())
    }

    /// What an active check found: that it is not well, and why; or that it is (`None`). A good one ends an ejection too
    /// (Envoy's `successful_active_health_check_uneject_host`).
    pub fn checked(&self, now: Micros, failure: Option<&str>) {
        let condition = &self.condition;
        *condition.check.lock().unwrap_or_else(PoisonError::into_inner) = failure.map(Arc::from);
        condition.check_failed.store(failure.is_some(), SeqCst);
        if failure.is_none() {
            self.take_back(now, true);
        }
        self.fold();
    }

    /// It is checked no more: what checks said is forgotten.
    pub fn unchecked(&self) {
        *self.condition.check.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.condition.check_failed.store(false, SeqCst);
        self.fold();
    }

    /// What the passing of time asks for without any call: an ejection whose time is over no longer counts among those
    /// that `maxEjectionPercent` allows. And what the newest configuration no longer asks for ends.
    pub fn settle(&self, now: Micros, care: Option<&Care>) {
        self.take_back(now, care.is_none_or(|care| care.outlier.is_none()));
        if care.is_none_or(|care| care.breaker.is_none()) {
            self.condition.breaker.reset();
        }
        if care.is_none_or(|care| care.check.is_none()) && self.condition.check_failed.load(Relaxed) {
            self.unchecked();
        }
        self.fold();
    }

    /// Takes the place of a call by the breaker. `None`: it must not go there, because another call probes.
    pub(crate) fn pass(&self, now: Micros) -> Option<Ticket> {
        let ticket = self.condition.breaker.enter(now)?;
        if ticket.probe {
            self.home.tally.stepped(Step::Probing);
        }
        Some(ticket)
    }

    /// Whether [`EndpointStats::pass`] has to be asked even if no breaker is configured any more.
    pub(crate) fn is_guarded(&self) -> bool {
        self.out_until.load(Relaxed) >= ASK
    }

    /// The breaker learns from a call.
    pub(crate) fn judge(
        &self,
        policy: &CircuitBreaker,
        ticket: Ticket,
        now: Micros,
        outcome: Outcome,
        chance: u32,
    ) {
        if let Some(step) = self.condition.breaker.record(policy, ticket, now, outcome, chance) {
            self.home.tally.stepped(step);
            self.fold();
        }
    }

    /// A call that probed ended without a result.
    pub(crate) fn abandon(&self, ticket: Ticket) {
        self.condition.breaker.abandon(ticket);
    }

    /// Outlier detection learns from a call.
    pub(crate) fn watch(&self, care: &OutlierCare, now: Micros, outcome: Outcome) {
        if self.condition.outlier.is_marked() {
            self.take_back(now, false);
        }
        let Some((cause, failures)) = self.condition.outlier.record(&care.policy, outcome) else { return };
        if self.condition.outlier.is_marked() {
            return;
        }
        for peer in &care.peers {
            peer.take_back(now, false);
        }
        if !self.home.reserve_ejection(outlier::allowed(&care.policy, care.peers.len())) {
            self.home.tally.ejections_kept.fetch_add(1, Relaxed);
            return;
        }
        if !self.condition.outlier.eject(&care.policy, now, cause, failures) {
            self.home.release_ejection();
            return;
        }
        if let Some(count) = self.home.tally.ejections.get(cause as usize) {
            count.fetch_add(1, Relaxed);
        }
        self.fold();
    }

    /// Ends an ejection whose time is over, or with `early` any.
    fn take_back(&self, now: Micros, early: bool) {
        if self.condition.outlier.take_back(now, early) {
            self.home.release_ejection();
            self.fold();
        }
    }

    /// It is out until then; `false`: it was out already.
    pub(super) fn unreachable(&self, now: Micros, until: Micros) -> bool {
        let own = &self.condition.unreachable_until;
        let before = own.load(SeqCst);
        let first = before <= now.0 && own.compare_exchange(before, until.0, SeqCst, SeqCst).is_ok();
        if first {
            self.fold();
        }
        first
    }

    /// It can be reached.
    pub(super) fn reached(&self) {
        self.condition.unreachable_until.store(0, SeqCst);
        self.fold();
    }

    /// Until when anything speaks against it whose end is known.
    fn timed(&self) -> u64 {
        self.condition.unreachable_until.load(SeqCst).max(self.condition.outlier.until().0)
    }

    fn folded(&self) -> u64 {
        if self.condition.check_failed.load(SeqCst) {
            NEVER
        } else if self.condition.breaker.state() != State::Closed {
            ASK
        } else {
            self.timed().min(ASK - 1)
        }
    }

    /// Reckons `out_until` anew. When two threads do at once, the last one to write looks once more.
    fn fold(&self) {
        loop {
            let until = self.folded();
            let before = self.out_until.swap(until, SeqCst);
            match (before >= ASK, until >= ASK) {
                (false, true) => self.home.note_indefinite(true),
                (true, false) => self.home.note_indefinite(false),
                _ => {}
            }
            if until < ASK && until != before {
                self.home.note_outage(Micros(until));
            }
            if self.folded() == until {
                return;
            }
        }
    }

    /// Whether it is out though no time says until when.
    #[cold]
    fn is_out_after_all(&self, until: u64, now: Micros) -> bool {
        until == NEVER || self.timed() > now.0 || !self.condition.breaker.admits(now)
    }
}

impl Drop for EndpointStats {
    /// Its cluster no longer counts it.
    fn drop(&mut self) {
        if self.condition.outlier.is_marked() {
            self.home.release_ejection();
        }
        if *self.out_until.get_mut() >= ASK {
            self.home.note_indefinite(false);
        }
    }
}

/// A call's part in the breaker of its endpoint.
#[derive(Debug)]
pub(crate) struct Passage {
    ticket: Ticket,
    /// Draws the jitter, so that a record needs no source of chance.
    chance: u32,
}

impl Endpoint {
    /// Whether a call may go there now; what [`Passage::end`] is told by.
    ///
    /// # Errors
    /// Another call is the probe.
    pub(crate) fn pass(&self, now: Micros, rng: &mut fastrand::Rng) -> Result<Option<Passage>, ()> {
        let asks = self.care.as_ref().is_some_and(|care| care.breaker.is_some()) || self.stats.is_guarded();
        if !asks {
            return Ok(None);
        }
        let ticket = self.stats.pass(now).ok_or(())?;
        Ok(Some(Passage { ticket, chance: rng.u32(..) }))
    }

    /// Learns from a call.
    pub(crate) fn learn(&self, passage: Option<Passage>, now: Micros, outcome: Outcome, latency: Duration) {
        self.stats.record(now, outcome, latency);
        if let Some(passage) = passage {
            let policy = self.care.as_ref().and_then(|care| care.breaker.as_deref());
            match policy {
                Some(policy) => self.stats.judge(policy, passage.ticket, now, outcome, passage.chance),
                // It is being closed.
                None => self.stats.abandon(passage.ticket),
            }
        }
        if let Some(outlier) = self.care.as_ref().and_then(|care| care.outlier.as_deref()) {
            self.stats.watch(outlier, now, outcome);
        }
    }

    /// A call ended without a result.
    pub(crate) fn give_up(&self, passage: &Passage) {
        self.stats.abandon(passage.ticket);
    }
}

fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        short if short < 10.0 => format!("{:.1} s", (short * 10.0).ceil() / 10.0),
        long => format!("{:.0} s", long.ceil()),
    }
}

#[cfg(test)]
mod tests;
