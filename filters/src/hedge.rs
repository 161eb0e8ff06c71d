//! Hedging: one more try for a safe call that takes long, to another endpoint; the first answer wins.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// When one more try is sent (`pilotfish.dev/hedge`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hedge {
    /// After so long.
    After(Duration),
    /// After the time within which 95 of 100 calls to the destination have the head of their answer.
    P95,
}

impl Hedge {
    /// How long the first try is waited for; `None`: too little is known of the destination.
    pub fn delay(self, times: &Times) -> Option<Duration> {
        match self {
            Hedge::After(delay) => Some(delay),
            Hedge::P95 => times.p95(),
        }
    }
}

impl fmt::Display for Hedge {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hedge::After(delay) => write!(out, "{delay:?}"),
            Hedge::P95 => out.write_str("p95"),
        }
    }
}

/// Buckets for each doubling of the time.
const PER_DOUBLING: u32 = 4;
/// Everything faster counts as this many microseconds: 2^6.
const FASTEST: u32 = 6;
/// Doublings that are told apart: up to 2^32 us, more than an hour.
const DOUBLINGS: u32 = 26;
/// Fewer calls than this say nothing about their slowest twentieth.
const ENOUGH: u32 = 20;
/// With so many all counts are halved, so that the past fades.
const MANY: u32 = 1000;

/// How long calls to one destination wait for the head of their answer: counts by time, in steps of a fifth. Shared by all
/// workers; what gets lost when two halve at once does not matter.
#[derive(Debug)]
pub struct Times {
    counts: [AtomicU32; (PER_DOUBLING * DOUBLINGS) as usize],
    total: AtomicU32,
}

impl Default for Times {
    fn default() -> Self {
        Times { counts: std::array::from_fn(|_| AtomicU32::new(0)), total: AtomicU32::new(0) }
    }
}

impl Times {
    /// Counts one call.
    pub fn record(&self, took: Duration) {
        if let Some(count) = self.counts.get(bucket(took)) {
            count.fetch_add(1, Relaxed);
        }
        if self.total.fetch_add(1, Relaxed) + 1 == MANY {
            let halve = |count: &AtomicU32| {
                let left = count.load(Relaxed) / 2;
                count.store(left, Relaxed);
                left
            };
            self.total.store(self.counts.iter().map(halve).sum(), Relaxed);
        }
    }

    /// The time within which 95 of 100 of the last calls had the head of their answer, up to a fifth too long.
    pub fn p95(&self) -> Option<Duration> {
        let total = self.total.load(Relaxed);
        if total < ENOUGH {
            return None;
        }
        let mut beyond = total / 20;
        for (at, count) in self.counts.iter().enumerate().rev() {
            match beyond.checked_sub(count.load(Relaxed)) {
                Some(left) => beyond = left,
                None => return Some(upper_bound(at)),
            }
        }
        Some(upper_bound(0))
    }
}

fn bucket(took: Duration) -> usize {
    let micros = took.as_micros().max(1 << FASTEST) as f64;
    let at = (micros.log2() - f64::from(FASTEST)) * f64::from(PER_DOUBLING);
    (at as usize).min((PER_DOUBLING * DOUBLINGS) as usize - 1)
}

fn upper_bound(bucket: usize) -> Duration {
    let doublings = f64::from(FASTEST) + (bucket + 1) as f64 / f64::from(PER_DOUBLING);
    Duration::from_micros(doublings.exp2() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn p95_is_near_the_truth_and_needs_enough_calls() {
        let times = Times::default();
        for n in 0..19 {
            assert_eq!(times.p95(), None, "{n}");
            times.record(MILLI);
        }
        times.record(MILLI);
        assert_eq!(Hedge::After(MILLI).delay(&times), Some(MILLI));
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let times = Times::default();
            let mut all: Vec<Duration> = (0..900).map(|_| MILLI.mul_f64(rng.f64() * 100.0 + 0.5)).collect();
            all.iter().for_each(|took| times.record(*took));
            all.sort_unstable();
            let (truth, told) = (all[855], Hedge::P95.delay(&times).unwrap());
            assert!(
                told >= truth.mul_f64(0.98) && told <= truth.mul_f64(1.25),
                "seed {seed}: {told:?} for {truth:?}"
            );
        }
    }

    #[test]
    fn what_was_slow_once_fades() {
        let times = Times::default();
        for _ in 0..500 {
            times.record(1000 * MILLI);
        }
        assert!(times.p95().unwrap() >= 1000 * MILLI);
        for _ in 0..10_000 {
            times.record(MILLI);
        }
        assert!(times.p95().unwrap() < 2 * MILLI, "{:?}", times.p95());
    }

    #[test]
    fn extreme_times_are_counted() {
        let times = Times::default();
        for took in [Duration::ZERO, Duration::MAX, Duration::from_nanos(1), Duration::from_secs(1 << 40)] {
            times.record(took);
        }
        assert_eq!(times.total.load(Relaxed), 4);
    }
}
