//! Settings of telemetry: which traces are kept, where they go, what of calls is remembered.

use clap::Args;

/// What the sidecar tells of its calls.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Telemetry")]
pub struct TelemetrySettings {
    /// Calls that each worker remembers, for `/why?request=ID` and for traces of calls that fail: about 1.2 KiB each, taken
    /// as calls come.
    #[arg(long = "call-ring", env = "PILOTFISH_CALL_RING", value_name = "N", default_value_t = 2048, value_parser = ring)]
    pub ring: usize,
}

fn ring(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 16..=1_000_000) => Ok(n),
        _ => Err("expected 16 to 1000000".into()),
    }
}
