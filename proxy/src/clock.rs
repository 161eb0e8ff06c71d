//! The one clock of the process, and what its moments are for people and collectors.

use std::time::{SystemTime, UNIX_EPOCH};

use pilotfish_filters::clock::Micros;
use tokio::time::Instant;

/// The process's monotonic clock: tokio's, which is the system's unless a test or a simulation drives it.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that reads zero now.
    pub fn start() -> Self {
        Clock(Instant::now())
    }

    /// Microseconds since the start.
    pub fn now(&self) -> Micros {
        Micros(u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Its zero by the system's clock as that is set now. Whoever tells of several moments that belong together takes it once.
    pub fn epoch(&self) -> Epoch {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
        Epoch(wall.saturating_sub(self.now().0.saturating_mul(1000)))
    }
}

/// The process's clock as UNIX time: its zero, nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(pub u64);

impl Epoch {
    /// A moment as nanoseconds since 1970.
    pub fn nanos(self, at: Micros) -> u64 {
        self.0.saturating_add(at.0.saturating_mul(1000))
    }
}
