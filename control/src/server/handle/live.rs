//! What sidecars are asked while somebody waits: live calls, and why one went as it did.

use super::Asked;
use crate::server::Control;
use crate::server::answer::{Answer, Denied};

/// Live calls, one JSON object a line.
pub(super) async fn tap(_control: &Control, _asked: &Asked) -> Result<Answer, Denied> {
    Err(Denied::not_found("not built yet"))
}

/// What sidecars remember of a call.
pub(super) async fn why(_control: &Control, _asked: &Asked) -> Result<Answer, Denied> {
    Err(Denied::not_found("not built yet"))
}
