//! Traces: what sidecars send, searches, one trace.

use super::Asked;
use crate::server::Control;
use crate::server::answer::{Answer, Denied, json};
use crate::traces::store::Search;

/// Takes spans of a sidecar.
pub(super) async fn take(_control: &Control, _asked: &Asked) -> Result<Answer, Denied> {
    Err(Denied::not_found("not built yet"))
}

/// Traces that a search finds.
pub(super) async fn search(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    asked.query(&[])?;
    let found = control.traces.search(&Search { limit: 20, ..Search::default() });
    json(&found.map_err(|error| Denied::failed(error.to_string()))?)
}

/// One trace as OTLP JSON.
pub(super) async fn one(_control: &Control, _asked: &Asked) -> Result<Answer, Denied> {
    Err(Denied::not_found("not built yet"))
}
