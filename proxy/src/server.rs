//! Builds the process from its parts and owns the order in which they start.

use std::sync::Arc;
use std::time::Instant;

use pilotfish_filters::clock::Micros;

use crate::bootstrap::Settings;
use crate::shutdown::Drain;
use crate::snapshot::Snapshots;
use crate::telemetry::metrics::WorkerMetrics;

/// What every thread of the process shares.
#[derive(Debug)]
pub struct Shared {
    /// Flags, fixed for the life of the process.
    pub settings: Settings,
    /// The configuration, replaced as a whole.
    pub snapshots: Snapshots,
    /// Each worker's counters, by worker number.
    pub metrics: Vec<Arc<WorkerMetrics>>,
    /// The one clock of the process.
    pub clock: Clock,
    /// How far the shutdown has come.
    pub drain: Drain,
}

/// The process's monotonic clock.
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
}
