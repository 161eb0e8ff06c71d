//! Slow start (`warmup`): an endpoint that just appeared gets a share that grows over a window.
//!
//! Envoy's formula: weight x max(minimum, (time / window) ^ (1 / aggression)). Instead of new weights at every moment,
//! a choice of such an endpoint is passed over with the complementary probability, which gives the same share.
//! Used, as in Istio, by ROUND_ROBIN and LEAST_REQUEST, and by peak-EWMA.

use std::time::Duration;

use crate::clock::Micros;
use crate::endpoint::EndpointStats;

/// `warmup` of a load balancer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Warmup {
    /// The window.
    pub duration: Duration,
    /// The share at the start, percent (Istio's default 10).
    pub minimum_percent: f64,
    /// How the share grows: 1 is linear (the default), more is faster at the start.
    pub aggression: f64,
}

/// A warm-up as a cluster uses it.
#[derive(Debug)]
pub(crate) struct SlowStart {
    warmup: Warmup,
    /// When the youngest endpoint has warmed up; after it nothing is to be done.
    until: Micros,
}

impl SlowStart {
    pub(crate) fn new(warmup: Warmup, first_seen: impl Iterator<Item = Micros>) -> Option<SlowStart> {
        let until = first_seen.max()?.after(warmup.duration);
        Some(SlowStart { warmup, until })
    }

    pub(crate) fn is_running(&self, now: Micros) -> bool {
        now < self.until
    }

    /// The part of its full share that an endpoint of that age gets, at most 1.
    pub(crate) fn factor(&self, age: Duration) -> f64 {
        let Warmup { duration, minimum_percent, aggression } = self.warmup;
        if age >= duration {
            return 1.0;
        }
        let time = age.as_secs_f64().max(1e-6) / duration.as_secs_f64();
        let risen = if aggression == 1.0 { time } else { time.powf(1.0 / aggression) };
        risen.max(minimum_percent / 100.0).min(1.0)
    }

    /// Whether a choice of this endpoint stands.
    pub(super) fn passes(&self, stats: &EndpointStats, now: Micros, rng: &mut fastrand::Rng) -> bool {
        let factor = self.factor(now.since(stats.first_seen()));
        factor >= 1.0 || rng.f64() < factor
    }
}

#[cfg(test)]
mod tests;
