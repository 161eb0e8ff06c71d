//! Response actions: quarantine, restriction, and their end.

use std::sync::Arc;

use super::Asked;
use crate::server::Control;
use crate::server::answer::{Answer, Denied};

pub(super) fn list(_control: &Arc<Control>, _asked: &Asked) -> Result<Answer, Denied> {
    Err(Denied::not_found("not there yet"))
}

pub(super) async fn act(_control: &Arc<Control>, _asked: &Asked) -> Result<Answer, Denied> {
    Err(Denied::not_found("not there yet"))
}
