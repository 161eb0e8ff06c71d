//! The audit log: what was decided, and whether the log is whole.

use std::sync::Arc;

use super::Asked;
use crate::server::Control;
use crate::server::answer::{Answer, Denied};

pub(super) async fn list(_control: &Arc<Control>, _asked: &Asked) -> Result<Answer, Denied> {
    Err(Denied::not_found("not there yet"))
}

pub(super) async fn verify(_control: &Arc<Control>, _asked: &Asked) -> Result<Answer, Denied> {
    Err(Denied::not_found("not there yet"))
}
