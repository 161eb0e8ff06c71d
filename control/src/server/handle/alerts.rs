//! Alerts.

use super::Asked;
use crate::server::Control;
use crate::server::answer::{Answer, Denied};

/// Every rule with its alerts.
pub(super) fn list(_control: &Control, _asked: &Asked) -> Result<Answer, Denied> {
    Err(Denied::not_found("not built yet"))
}
