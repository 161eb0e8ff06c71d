//! Adaptive concurrency: how many calls a server takes before it slows down, found from its latency.
//!
//! Envoy's gradient: `limit x (1.25 x unloaded latency / latency now) + sqrt(limit)`. What is different, because agents answer in
//! seconds, and some serve two calls at once:
//! * A window lasts at least 100 ms as in Envoy, but also as long as a call takes, and until it has 20 samples (5 when it is 10 s
//!   overdue).
//! * Envoy lets 3 calls through at a time for 50 calls to learn the unloaded latency, which starves whoever serves 50 long ones.
//!   Here the limit is *halved* for a window: at the equilibrium of the formula half the limit is within the capacity, whatever
//!   it is. It goes on halving only while latency falls by it and is above what was known as unloaded. This happens at the
//!   start, then at most once a minute (with 15 % jitter), at most for a twentieth of the time, and only while calls are slower than unloaded.
//! * When the limit fell to half and latency did not fall with it, the server has become slower for another reason: the new latency
//!   counts as unloaded and the limit goes back.
//! * The limit grows only while it is used: an idle hour does not open the gate for a thousand calls at once.
//! * Failures (resets, timeouts) have no latency: when they are more than a tenth of a window the limit shrinks by a tenth.

mod gradient;
mod window;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::Micros;
pub use gradient::{Bounds, Gradient};
pub use window::Summary;
use window::Window;

/// The shortest window (Envoy's `concurrency_update_interval` in its examples).
pub const SHORTEST_WINDOW: Duration = Duration::from_millis(100);
/// Samples that a window has at least.
pub const SAMPLES: u32 = 20;
/// After so long fewer samples do.
pub const LONG_WINDOW: Duration = Duration::from_secs(10);
/// Samples that a long window has at least.
pub const FEW_SAMPLES: u32 = 5;

/// How many calls may be served at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Limit {
    /// As many as come.
    #[default]
    None,
    /// So many (`pilotfish.dev/max-concurrency`).
    Fixed(u32),
    /// As many as are good for the latency (`pilotfish.dev/adaptive-concurrency`).
    Adaptive(Bounds),
}

/// Finds the limit. Shared by all workers: samples are counted in atomics, and whoever ends a window reckons.
#[derive(Debug)]
pub struct Limiter {
    adaptive: AtomicBool,
    window: Window,
    /// Microseconds; before it no window ends.
    due: AtomicU64,
    gradient: Mutex<Gradient>,
}

impl Limiter {
    /// One that finds nothing until it is configured.
    pub fn new(seed: u64) -> Limiter {
        Limiter {
            adaptive: AtomicBool::new(false),
            window: Window::default(),
            due: AtomicU64::new(0),
            gradient: Mutex::new(Gradient::new(Bounds::default(), fastrand::Rng::with_seed(seed))),
        }
    }

    /// What holds from now on; gives the limit of the moment ([`u32::MAX`]: none).
    pub fn configure(&self, limit: Limit) -> u32 {
        self.adaptive.store(matches!(limit, Limit::Adaptive(_)), Relaxed);
        match limit {
            Limit::None => u32::MAX,
            Limit::Fixed(limit) => limit,
            Limit::Adaptive(bounds) => match self.gradient.lock() {
                Ok(mut gradient) => gradient.rebound(bounds),
                Err(poisoned) => poisoned.into_inner().rebound(bounds),
            },
        }
    }

    /// Whether it follows the latency.
    pub fn is_adaptive(&self) -> bool {
        self.adaptive.load(Relaxed)
    }

    /// Takes in one call: its latency (`None`: it failed), and how many were served when it began, with it. Gives the new limit
    /// when this call ended a window.
    #[inline]
    pub fn sample(&self, now: Micros, latency: Option<Duration>, alongside: u32) -> Option<u32> {
        if !self.is_adaptive() {
            return None;
        }
        self.window.add(latency, alongside);
        self.tick(now)
    }

    /// Takes in a call that ended without an answer, at a moment that nobody knows.
    pub fn abandoned(&self, alongside: u32) {
        if self.is_adaptive() {
            self.window.add(None, alongside);
        }
    }

    /// Ends the window when it is time; gives the new limit then.
    pub fn tick(&self, now: Micros) -> Option<u32> {
        if !self.is_adaptive() {
            return None;
        }
        let count = self.window.count();
        let due = self.due.load(Relaxed);
        if due == 0 {
            // The first sample begins the first window.
            let _ = self.due.compare_exchange(0, now.after(SHORTEST_WINDOW).0, Relaxed, Relaxed);
            return None;
        }
        if now.0 < due || count < FEW_SAMPLES {
            return None;
        }
        let long = now.0 >= due.saturating_add(LONG_WINDOW.as_micros() as u64);
        if count < SAMPLES && !long {
            return None;
        }
        // Somebody else reckons already.
        let Ok(mut gradient) = self.gradient.try_lock() else { return None };
        if self.due.load(Relaxed) != due {
            return None;
        }
        let summary = self.window.take();
        let limit = gradient.update(now, &summary);
        self.window.admit_up_to(limit);
        // A limit shows in the latency only when calls that began under it have ended.
        let shows = summary.median.map_or(Duration::ZERO, |micros| Duration::from_micros(micros as u64));
        self.due.store(now.after(SHORTEST_WINDOW.max(shows)).0, Relaxed);
        Some(limit)
    }
}

#[cfg(test)]
mod tests;
