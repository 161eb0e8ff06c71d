//! Time as a parameter: every decision that depends on time takes a [`Micros`].

use std::time::Duration;

/// A point in time: microseconds since an arbitrary start of the process (monotonic).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Micros(pub u64);

impl Micros {
    /// The time that passed since `earlier`; zero when `earlier` is later.
    pub fn since(self, earlier: Micros) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// This point plus `duration`, saturating.
    pub fn after(self, duration: Duration) -> Micros {
        Micros(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}
