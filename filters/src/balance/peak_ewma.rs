//! Latency-aware choice: the cheaper of two random endpoints, where latency is a *peak* EWMA (Linkerd's scheme).
//!
//! A slower answer raises the estimate at once; it fades over [`DECAY`] down to what is measured meanwhile, and to
//! nothing while nothing is measured. That fading is the exploration: an endpoint that was `r` times slower than the others is tried
//! again `DECAY x ln r` after its last call. Linkerd's 10 s would keep one that was 20 times slower away for 30 s;
//! 2.5 s makes it 7.5 s, which is one call in 7.5 s while it stays slow and full service within 10 s of its recovery.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::{Accept, Choice, Pick, Weights};
use crate::clock::Micros;
use crate::endpoint::Endpoint;

/// How long an estimate remembers. Endpoints that need longer than twice this are remembered for half their latency,
/// up to [`LONGEST_DECAY`]: calls that take 20 s come too seldom for 2.5 s.
pub const DECAY: Duration = Duration::from_millis(2500);
/// Linkerd's default decay.
pub const LONGEST_DECAY: Duration = Duration::from_secs(10);
/// The latency that is assumed of an endpoint before its first call (Linkerd's `default_rtt`).
pub const DEFAULT_LATENCY: Duration = Duration::from_millis(30);
/// How fast a success rate drifts back to 1 while nothing is measured.
pub const FORGIVE: Duration = Duration::from_secs(10);
/// The weight of one call in the success rate.
const SUCCESS_STEP: f32 = 0.1;
/// How many samples of one's own a fresh report counts as.
const REPORT_SAMPLES: f32 = 10.0;
/// The time in which a report's weight halves.
const REPORT_HALF_LIFE: f32 = 10e3;

/// A value and when it was set, in one atomic: an `f32` and wrapping milliseconds.
#[derive(Debug)]
struct Stamped(AtomicU64);

impl Stamped {
    fn new(now: Micros, value: f32) -> Stamped {
        Stamped(AtomicU64::new(Self::pack(value, millis(now))))
    }

    fn pack(value: f32, at: u32) -> u64 {
        (u64::from(value.to_bits()) << 32) | u64::from(at)
    }

    fn unpack(packed: u64) -> (f32, u32) {
        (f32::from_bits((packed >> 32) as u32), packed as u32)
    }

    fn get(&self) -> (f32, u32) {
        Self::unpack(self.0.load(Relaxed))
    }

    /// Replaces the value by `next(value, milliseconds since it was set)`.
    fn update(&self, now: Micros, next: impl Fn(f32, f32) -> f32) {
        let at = millis(now);
        // Never gives up: the closure always answers.
        let _ = self.0.fetch_update(Relaxed, Relaxed, |packed| {
            let (value, set) = Self::unpack(packed);
            Some(Self::pack(next(value, age(at, set)), at))
        });
    }
}

fn millis(now: Micros) -> u32 {
    (now.0 / 1000) as u32
}

/// Milliseconds from `set` to `now`; clocks of different threads may differ by a little, hence never negative.
fn age(now: u32, set: u32) -> f32 {
    let age = now.wrapping_sub(set) as i32;
    age.max(0) as f32
}

fn remains(age_ms: f32, decay_ms: f32) -> f32 {
    (-age_ms / decay_ms).exp()
}

/// A latency estimate in microseconds.
#[derive(Debug)]
pub(crate) struct PeakEwma(Stamped);

impl PeakEwma {
    pub(crate) fn new(now: Micros) -> PeakEwma {
        Self::of(now, DEFAULT_LATENCY.as_micros() as f32)
    }

    pub(crate) fn of(now: Micros, micros: f32) -> PeakEwma {
        PeakEwma(Stamped::new(now, micros))
    }

    /// The estimate, faded by the time since the last sample.
    pub(crate) fn get(&self, now: Micros) -> f32 {
        let (value, set) = self.0.get();
        Self::faded(value, age(millis(now), set))
    }

    fn faded(value: f32, age_ms: f32) -> f32 {
        if age_ms == 0.0 {
            return value;
        }
        // Microseconds to milliseconds, halved.
        let decay = (value / 2000.0).clamp(DECAY.as_millis() as f32, LONGEST_DECAY.as_millis() as f32);
        value * remains(age_ms, decay)
    }

    /// A slower sample raises the estimate at once; only time lowers it.
    pub(crate) fn sample(&self, now: Micros, micros: f32) {
        self.0.update(now, |value, age| Self::faded(value, age).max(micros));
    }
}

/// The share of calls that succeeded, exponentially forgetting.
#[derive(Debug)]
pub(crate) struct SuccessRate(Stamped);

impl SuccessRate {
    pub(crate) fn new(now: Micros) -> SuccessRate {
        Self::of(now, 1.0)
    }

    pub(crate) fn of(now: Micros, share: f32) -> SuccessRate {
        SuccessRate(Stamped::new(now, share))
    }

    pub(crate) fn get(&self, now: Micros) -> f32 {
        let (value, set) = self.0.get();
        if value >= 1.0 { value } else { Self::drifted(value, age(millis(now), set)) }
    }

    fn drifted(value: f32, age_ms: f32) -> f32 {
        1.0 - (1.0 - value) * remains(age_ms, FORGIVE.as_millis() as f32)
    }

    pub(crate) fn sample(&self, now: Micros, ok: bool) {
        let (value, _) = self.0.get();
        if ok && value >= 1.0 {
            return;
        }
        let target = if ok { 1.0 } else { 0.0 };
        self.0.update(now, |value, age| {
            let value = Self::drifted(value, age);
            let next = value + (target - value) * SUCCESS_STEP;
            if next > 0.9999 { 1.0 } else { next }
        });
    }
}

/// What others measured of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Packed latency and time; 0 is none.
    latency: AtomicU64,
    success: AtomicU32,
}

/// A report as it counts now.
pub(crate) struct Reported {
    pub(crate) latency: f32,
    pub(crate) success: f32,
    /// In samples of one's own.
    pub(crate) weight: f32,
}

impl Report {
    pub(crate) fn set(&self, now: Micros, micros: f32, success: f32) {
        self.success.store(success.to_bits(), Relaxed);
        self.latency.store(Stamped::pack(micros.max(1.0), millis(now)), Relaxed);
    }

    pub(crate) fn get(&self, now: Micros) -> Option<Reported> {
        let packed = self.latency.load(Relaxed);
        if packed == 0 {
            return None;
        }
        let (latency, set) = Stamped::unpack(packed);
        let weight = REPORT_SAMPLES * (-age(millis(now), set) / REPORT_HALF_LIFE).exp2();
        (weight > 0.05).then(|| Reported {
            latency,
            success: f32::from_bits(self.success.load(Relaxed)),
            weight,
        })
    }
}

/// The cheaper of two endpoints.
pub(super) fn choose(
    choice: &Choice<'_, '_>,
    weights: &Weights,
    accept: Accept,
    rng: &mut fastrand::Rng,
) -> Option<usize> {
    choice.better_of_two(weights, accept, rng, |a, b| is_cheaper(a, b, choice.pick))
}

/// Whether the first costs no more.
fn is_cheaper(a: &Endpoint, b: &Endpoint, pick: &Pick<'_>) -> bool {
    let costs = (cost(a, pick.now), cost(b, pick.now));
    if let Some(compared) = pick.compared {
        compared.note((a.addr, costs.0), (b.addr, costs.1));
    }
    costs.0 <= costs.1
}

/// The cost of one more call, a heavier endpoint being cheaper by its weight.
fn cost(endpoint: &Endpoint, now: Micros) -> f32 {
    endpoint.stats.cost(now) / endpoint.weight as f32
}

/// The cheaper of two out of `len` candidates, drawn without replacement (capability addressing); their position.
///
/// Candidates in `pick.tried`, and those that are out because connects to them failed, are taken only when there is no
/// other.
pub fn choose_among<'e>(
    len: usize,
    candidate: impl Fn(usize) -> &'e Endpoint,
    pick: &Pick<'_>,
    rng: &mut fastrand::Rng,
) -> Option<usize> {
    let cheaper = |a, b| is_cheaper(candidate(a), candidate(b), pick);
    let draw = |rng: &mut fastrand::Rng| rng.usize(..len.max(1));
    Accept::ORDER.into_iter().find_map(|accept| {
        super::two_of(len, rng, draw, |at| at < len && accept.admits(candidate(at), pick), cheaper)
    })
}

#[cfg(test)]
mod tests;
