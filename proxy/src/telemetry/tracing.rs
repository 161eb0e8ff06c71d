//! What the process's settings say of traces.

use std::time::Duration;

use pilotfish_filters::sampling::Sampler;
use pilotfish_filters::trace::Propagators;

use super::log;
use crate::bootstrap::{Slow, TelemetrySettings};

/// Which traces are kept, and how their context is written.
#[derive(Debug)]
pub struct Tracing {
    /// Decides at the head of a trace.
    pub sampler: Sampler,
    /// The formats in which the context goes on.
    pub propagators: Propagators,
    /// From when on a call is slow.
    pub slow: Option<Duration>,
}

impl Tracing {
    /// By the settings. What OpenTelemetry's variables say and nobody here knows is logged; the default holds then, as
    /// OpenTelemetry's specification has it.
    pub fn new(settings: &TelemetrySettings) -> Tracing {
        let Slow(slow) = settings.slow;
        Tracing {
            sampler: Sampler::new(known(settings.sampling())),
            propagators: known(settings.propagators()),
            slow,
        }
    }
}

fn known<T: Default>(read: Result<T, String>) -> T {
    read.unwrap_or_else(|why| {
        log::warn!("a variable is not understood, the default holds", why = why);
        T::default()
    })
}
