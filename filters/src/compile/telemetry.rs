//! Telemetry documents to what holds for each direction.

use pilotfish_config::model::Model;

use super::CompileOptions;
use crate::telemetry::TelemetryPolicy;

/// For calls of the agent itself, and for calls to it.
pub(super) fn compile(_model: &Model, _options: &CompileOptions) -> [TelemetryPolicy; 2] {
    Default::default()
}
