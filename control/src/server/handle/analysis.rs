//! What traces say.

use super::Asked;
use crate::server::Control;
use crate::server::answer::{Answer, Denied};

/// Of a trace, or of all traces of a workflow.
pub(super) async fn analysis(_control: &Control, _asked: &Asked) -> Result<Answer, Denied> {
    Err(Denied::not_found("not built yet"))
}

/// Since another time.
pub(super) async fn changes(_control: &Control, _asked: &Asked) -> Result<Answer, Denied> {
    Err(Denied::not_found("not built yet"))
}
