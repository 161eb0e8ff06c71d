//! Who calls whom.

use super::Asked;
use crate::server::Control;
use crate::server::answer::{Answer, Denied};

/// Agents and the calls between them.
pub(super) fn graph(_control: &Control, _asked: &Asked) -> Result<Answer, Denied> {
    Err(Denied::not_found("not built yet"))
}
