//! Settings of telemetry: which traces are kept, where they go, what of calls is remembered.

use std::time::Duration;

use clap::{Args, ValueEnum};
use pilotfish_filters::sampling::{Sampling, Setting};
use pilotfish_filters::trace::Propagators;

use super::explain::ExplainCallers;
use super::otlp::OtlpSettings;
use super::parse_duration;

/// What the sidecar tells of its calls.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Telemetry")]
pub struct TelemetrySettings {
    /// Traces that begin here and are kept: a share (5%), so many a second (10/s), both (10/s+1%: ten a second, and one in a
    /// hundred of the others), or off. What a caller decided of its trace holds; Telemetry documents come before this. Calls
    /// that fail or are slow are told of in any case. [default: OTEL_TRACES_SAMPLER, else 10/s+1%]
    #[arg(long = "trace-sampling", env = "PILOTFISH_TRACE_SAMPLING", value_name = "WHICH")]
    pub sampling: Option<Sampling>,

    /// Calls that take longer are told of whether or not their trace is kept; for streams and tunnels the time to the head of
    /// the answer counts. off: how long a call took does not matter.
    #[arg(long = "trace-slow", env = "PILOTFISH_TRACE_SLOW", value_name = "DURATION", default_value = "1s", value_parser = slow)]
    pub slow: Slow,

    /// In which headers the trace goes on to the next hop: tracecontext, baggage, b3, b3multi, or none. All of them are read.
    /// [default: OTEL_PROPAGATORS, else tracecontext,baggage]
    #[arg(long = "trace-propagators", env = "PILOTFISH_TRACE_PROPAGATORS", value_name = "NAMES")]
    pub propagators: Option<Propagators>,

    /// Whether calls of an agent that passes no trace headers on join the trace of the call that it serves, as far as that is
    /// certain; such spans are marked `pilotfish.trace.inferred`.
    #[arg(
        long = "trace-inference",
        env = "PILOTFISH_TRACE_INFERENCE",
        value_name = "on|off",
        default_value = "on"
    )]
    pub inference: Switch,

    /// Calls that each worker remembers, for `/why?request=ID` and for traces of calls that fail: about 1.7 KiB each, taken
    /// as calls come.
    #[arg(long = "call-ring", env = "PILOTFISH_CALL_RING", value_name = "N", default_value_t = 1024, value_parser = ring)]
    pub ring: usize,

    /// Whose calls may have `agent-explain: 1`, which keeps everything that was weighed for `/why`, `pilotfish why` and the
    /// call's spans: `self` (the agent of this sidecar), NAMESPACE/AGENT as its certificate says, NAMESPACE/*, or `*` for
    /// everybody; several separated by commas, `none` for nobody. From others the header is taken away. At most 20 calls a
    /// second of each worker are explained.
    #[arg(long, env = "PILOTFISH_EXPLAIN_CALLERS", value_name = "WHO", default_value = "self")]
    pub explain_callers: ExplainCallers,

    /// Where it goes.
    #[command(flatten)]
    pub otlp: OtlpSettings,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// From when on a call is slow; `None`: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slow(pub Option<Duration>);

impl TelemetrySettings {
    /// How traces are sampled where no document says: the flag, else OpenTelemetry's variables.
    ///
    /// # Errors
    /// The variables say what nobody here knows; the default holds then.
    pub fn sampling(&self) -> Result<Setting, String> {
        if let Some(roots) = self.sampling {
            return Ok(Setting { roots, ..Setting::default() });
        }
        match variable("OTEL_TRACES_SAMPLER") {
            None => Ok(Setting::default()),
            Some(name) => Setting::from_otel(&name, variable("OTEL_TRACES_SAMPLER_ARG").as_deref()),
        }
    }

    /// In which formats the context is written: the flag, else OpenTelemetry's variable.
    ///
    /// # Errors
    /// As [`TelemetrySettings::sampling`].
    pub fn propagators(&self) -> Result<Propagators, String> {
        if let Some(propagators) = self.propagators {
            return Ok(propagators);
        }
        match variable("OTEL_PROPAGATORS") {
            None => Ok(Propagators::default()),
            Some(names) => names.parse().map_err(|why| format!("OTEL_PROPAGATORS: {why}")),
        }
    }
}

/// One of OpenTelemetry's variables; an empty one is none.
#[expect(clippy::disallowed_methods, reason = "the flags' help names these variables")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn slow(text: &str) -> Result<Slow, String> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(Slow(None));
    }
    parse_duration(text).map(|limit| Slow(Some(limit))).map_err(|why| format!("{why}, or off"))
}

fn ring(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 16..=1_000_000) => Ok(n),
        _ => Err("expected 16 to 1000000".into()),
    }
}
