//! Alerts.

use super::Asked;
use crate::server::Control;
use crate::server::answer::{Answer, Denied, json};

/// Every rule with its alerts.
pub(super) fn list(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    asked.query(&[])?;
    json(&control.alerts.list(&control.id))
}
