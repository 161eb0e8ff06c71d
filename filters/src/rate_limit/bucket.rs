//! Token buckets (GCRA) whose rate may change under way: one 64-bit number each, taken from with one compare-and-swap.
//!
//! All buckets of a limit share a [`Pace`]: a line that rises by one [`GRAIN`] for each call that the rate allows. A
//! bucket is the height up to which tokens were spent; what lies between it and the line is left, `depth` at most. So
//! a rate changes for ten thousand buckets by bending one line, and none loses or wins what it has.

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pilotfish_config::model::LimitAmount;

use crate::clock::Micros;

/// One token. Finer than a token, so that slow rates rise steadily.
pub(super) const GRAIN: u64 = 1 << 16;
/// Where lines start: above any depth, so that a bucket that was never used (0) is full.
const START: u64 = 1 << 50;
/// Grains per microsecond are kept with this many binary places.
const PLACES: u32 = 47;
/// A share of the whole amount.
pub const WHOLE: u32 = 1_000_000;

/// What changes a pace. Shares are parts of [`WHOLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) amount: LimitAmount,
    pub(super) share: u32,
    pub(super) fleet: bool,
}

impl Terms {
    /// Grains that fit into a bucket. One token always does, or a small slice would never let anything through.
    fn depth(&self) -> u64 {
        let whole = u128::from(self.amount.burst) * u128::from(GRAIN);
        narrow(whole * u128::from(self.share) / u128::from(WHOLE)).max(GRAIN)
    }

    /// Grains per microsecond, with [`PLACES`]. Rounded down: never more than the rate.
    fn step(&self) -> u64 {
        let grains = u128::from(self.amount.requests) * u128::from(GRAIN) * u128::from(self.share);
        narrow((grains << PLACES) / (self.amount.per.as_micros().max(1) * u128::from(WHOLE))).max(1)
    }
}

fn narrow(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// The line that buckets are measured by. Read by every worker without a lock (a sequence number tells a reader that
/// the terms changed while it read), changed by whoever applies configuration or slices.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Pace {
    /// Odd while it changes.
    sequence: AtomicU64,
    /// The line's height at `since`.
    base: AtomicU64,
    /// Microseconds.
    since: AtomicU64,
    step: AtomicU64,
    depth: AtomicU64,
    terms: Mutex<Terms>,
}

/// The line at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) line: u64,
    pub(super) depth: u64,
    step: u64,
}

impl Moment {
    /// The height of a bucket that is full.
    pub(super) fn full(&self) -> u64 {
        self.line.saturating_sub(self.depth)
    }

    /// Where a bucket at height `at` is after one more token, or how many grains are missing.
    pub(super) fn next(&self, at: u64) -> Result<u64, u64> {
        let next = at.max(self.full()) + GRAIN;
        if next <= self.line { Ok(next) } else { Err(next - self.line) }
    }

    /// How long it takes until so many grains have come.
    pub(super) fn wait(&self, grains: u64) -> Duration {
        Duration::from_micros(narrow((u128::from(grains) << PLACES).div_ceil(u128::from(self.step))))
    }
}

impl Pace {
    pub(super) fn new(now: Micros, terms: Terms) -> Pace {
        Pace {
            sequence: AtomicU64::new(0),
            base: AtomicU64::new(START),
            since: AtomicU64::new(now.0),
            step: AtomicU64::new(terms.step()),
            depth: AtomicU64::new(terms.depth()),
            terms: Mutex::new(terms),
        }
    }

    /// The line at `now`.
    pub(super) fn at(&self, now: Micros) -> Moment {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let (base, since) = (self.base.load(Ordering::Relaxed), self.since.load(Ordering::Relaxed));
            let (step, depth) = (self.step.load(Ordering::Relaxed), self.depth.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before {
                let passed = now.0.saturating_sub(since);
                let risen = narrow((u128::from(passed) * u128::from(step)) >> PLACES);
                return Moment { line: base.saturating_add(risen), depth, step };
            }
            std::hint::spin_loop();
        }
    }

    /// The terms now.
    pub(super) fn terms(&self) -> Terms {
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another slice: what is left in each bucket stays, so that tokens never multiply by moving between sidecars.
    pub(super) fn share(&self, now: Micros, share: u32) {
        let mut terms = self.terms.lock().unwrap_or_else(PoisonError::into_inner);
        let line = self.at(now).line;
        terms.share = share.clamp(1, WHOLE);
        self.bend(now, line, &terms);
    }

    /// Another amount: what was spent of each bucket stays spent. Gives the new line, above which no bucket may be, when
    /// anything changed.
    pub(super) fn settle(&self, now: Micros, new: impl FnOnce(Terms) -> Terms) -> Option<u64> {
        let mut terms = self.terms.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = new(*terms);
        if wanted == *terms {
            return None;
        }
        let (line, before, after) = (self.at(now).line, terms.depth(), wanted.depth());
        *terms = wanted;
        let line = line.saturating_add(after).saturating_sub(before);
        self.bend(now, line, &wanted);
        Some(line)
    }

    /// Only under the lock of `terms`.
    fn bend(&self, now: Micros, line: u64, terms: &Terms) {
        self.sequence.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.base.store(line, Ordering::Relaxed);
        // A worker whose clock was read earlier sees the line a little lower: it refuses rather than admits.
        self.since.fetch_max(now.0, Ordering::Relaxed);
        self.step.store(terms.step(), Ordering::Relaxed);
        self.depth.store(terms.depth(), Ordering::Relaxed);
        self.sequence.fetch_add(1, Ordering::Release);
    }
}

/// One bucket that all workers share.
#[derive(Debug, Default)]
pub(super) struct Bucket(AtomicU64);

impl Bucket {
    /// How many grains are missing for a token, without taking one.
    pub(super) fn missing(&self, moment: &Moment) -> Option<u64> {
        moment.next(self.0.load(Ordering::Relaxed)).err()
    }

    /// Takes a token.
    ///
    /// # Errors
    /// How many grains are missing.
    pub(super) fn take(&self, moment: &Moment) -> Result<(), u64> {
        let mut at = self.0.load(Ordering::Relaxed);
        loop {
            let next = moment.next(at)?;
            match self.0.compare_exchange_weak(at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(newer) => at = newer,
            }
        }
    }

    /// Gives a token back that was taken a moment ago.
    pub(super) fn give_back(&self) {
        self.0.fetch_sub(GRAIN, Ordering::Relaxed);
    }

    /// What was spent beyond the line is forgiven.
    pub(super) fn forgive(&self, line: u64) {
        self.0.fetch_min(line, Ordering::Relaxed);
    }
}
