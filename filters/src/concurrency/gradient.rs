//! The algorithm: from one window to the next. Pure: the time is a parameter, and its randomness is its own.

use std::time::Duration;

use super::Summary;
use crate::clock::Micros;

/// Latency may be so much above the unloaded one (Envoy's `buffer`, 25 %).
const BUFFER: f64 = 1.25;
/// How far the limit changes in a window, at most (Envoy's).
const STEEPEST: (f64, f64) = (0.5, 2.0);
/// The limit at the start: Netflix's 20, since an unknown agent should not refuse its first callers.
const START: f64 = 20.0;
/// The unloaded latency is measured anew that often (Envoy's `min_rtt_calc_params.interval`).
const MEASURE_EVERY: Duration = Duration::from_secs(60);
/// Plus so much of it by chance, so that the sidecars of a service do not measure together (Envoy's `jitter`).
const JITTER: f64 = 0.15;
/// Measuring takes at most this part of the time.
const MEASURE_PART: u32 = 20;
/// With so few at once a server is taken to be unloaded (Envoy's `min_concurrency`).
const QUIET: u32 = 3;
/// Half the limit "helped" when latency fell below this part of it.
const HELPED: f64 = 0.8;
/// What is measured below this part of what was taken for unloaded shows that it was not.
const STILL: f64 = 0.9;
/// A failure rate above this shrinks the limit.
const MANY_FAILURES: u32 = 10;

/// Between which numbers the limit is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// At least. 2: an agent that serves two calls at once is common, and it must not be starved by a wrong guess.
    pub min: u32,
    /// At most. 1000, Envoy's default.
    pub max: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { min: 2, max: 1000 }
    }
}

/// The state from one window to the next.
#[derive(Debug)]
pub struct Gradient {
    bounds: Bounds,
    limit: f64,
    /// The median latency while there is no load, microseconds.
    unloaded: Option<f64>,
    /// Whether a first window has passed.
    settled: bool,
    phase: Phase,
    /// Where latency began to grow: the limit and the latency there.
    reference: Option<(f64, f64)>,
    measure_at: Micros,
    rng: fastrand::Rng,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Follow,
    /// The limit is lowered to see whether latency falls: it was `above`, and `back` is where the limit goes if it does not.
    Measure {
        began: Micros,
        back: f64,
        above: f64,
    },
}

impl Gradient {
    /// At the start nothing is known.
    pub fn new(bounds: Bounds, rng: fastrand::Rng) -> Gradient {
        let mut gradient = Gradient {
            bounds,
            limit: START,
            unloaded: None,
            settled: false,
            phase: Phase::Follow,
            reference: None,
            measure_at: Micros::default(),
            rng,
        };
        gradient.rebound(bounds);
        gradient
    }

    /// Other bounds; gives the limit.
    pub fn rebound(&mut self, bounds: Bounds) -> u32 {
        self.bounds = bounds;
        self.set(self.limit)
    }

    /// The unloaded latency, as far as it is known.
    pub fn unloaded(&self) -> Option<Duration> {
        self.unloaded.map(|micros| Duration::from_micros(micros as u64))
    }

    fn rounded(&self) -> u32 {
        (self.limit as u32).clamp(self.bounds.min, self.bounds.max)
    }

    fn set(&mut self, limit: f64) -> u32 {
        self.limit = limit.clamp(f64::from(self.bounds.min), f64::from(self.bounds.max));
        self.rounded()
    }

    /// Takes in a window that ended `now`; gives the limit for the next.
    pub fn update(&mut self, now: Micros, window: &Summary) -> u32 {
        let limit = match (self.phase, window.median) {
            (_, None) => self.limit * 0.9,
            (Phase::Measure { began, back, above }, Some(median)) => {
                self.measured(now, median, began, back, above)
            }
            (Phase::Follow, Some(median)) => self.follow(now, median, window),
        };
        self.set(limit)
    }

    fn follow(&mut self, now: Micros, median: f64, window: &Summary) -> f64 {
        let Some(unloaded) = self.unloaded else {
            if window.most <= QUIET {
                self.unloaded = Some(median);
                return self.limit;
            }
            // The first calls of a burst find a server that is not busy yet: they say too little.
            if !std::mem::replace(&mut self.settled, true) {
                return self.limit;
            }
            self.unloaded = Some(median);
            let used = f64::from(window.most).min(self.limit);
            return self.measure(now, self.limit, used / 2.0, median);
        };
        if window.failed * MANY_FAILURES > window.failed + window.answered {
            return self.limit * 0.9;
        }
        if median < unloaded {
            self.unloaded = Some(unloaded + (median - unloaded) * 0.1);
        }
        let slowed = BUFFER * unloaded / median;
        if slowed >= 1.0 {
            self.reference = None;
        } else {
            match self.reference {
                None => self.reference = Some((self.limit, median)),
                Some((limit, before)) if self.limit <= limit / 2.0 => {
                    self.reference = None;
                    if median > before * HELPED {
                        self.unloaded = Some(median);
                        return limit;
                    }
                }
                Some(_) => {}
            }
        }
        let scaled = self.limit * slowed.clamp(STEEPEST.0, STEEPEST.1);
        let next = scaled + scaled.sqrt();
        // Only what is used grows.
        let next = if f64::from(window.most) * 2.0 < self.limit { next.min(self.limit) } else { next };
        if slowed < 1.0 && now >= self.measure_at {
            return self.measure(now, next, next / 2.0, median);
        }
        next
    }

    /// Lowers the limit to see what that does to a latency of `above`.
    fn measure(&mut self, now: Micros, back: f64, limit: f64, above: f64) -> f64 {
        self.reference = None;
        self.phase = Phase::Measure { began: now, back, above };
        limit
    }

    fn measured(&mut self, now: Micros, median: f64, began: Micros, back: f64, above: f64) -> f64 {
        let known = self.unloaded.filter(|unloaded| *unloaded < above);
        let helped = median < above * HELPED;
        let as_known = known.is_some_and(|unloaded| (unloaded * STILL..=unloaded * BUFFER).contains(&median));
        if helped && !as_known && self.limit > f64::from(self.bounds.min) {
            self.unloaded = Some(median);
            self.phase = Phase::Measure { began, back: self.limit, above: median };
            return self.limit / 2.0;
        }
        self.phase = Phase::Follow;
        let pause = MEASURE_EVERY.max(now.since(began) * MEASURE_PART);
        self.measure_at = now.after(pause.mul_f64(1.0 + JITTER * self.rng.f64()));
        self.unloaded = Some(match known {
            Some(unloaded) if as_known => unloaded + (median - unloaded) * 0.5,
            _ => median,
        });
        back
    }
}
