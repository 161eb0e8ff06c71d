//! Who may call whom, and why.

use std::sync::Arc;

use super::Asked;
use crate::server::Control;
use crate::server::answer::{Answer, Denied};

pub(super) fn explain(_control: &Arc<Control>, _asked: &Asked) -> Result<Answer, Denied> {
    Err(Denied::not_found("not there yet"))
}

pub(super) fn matrix(_control: &Arc<Control>, _asked: &Asked) -> Result<Answer, Denied> {
    Err(Denied::not_found("not there yet"))
}

pub(super) fn report(_control: &Arc<Control>, _asked: &Asked) -> Result<Answer, Denied> {
    Err(Denied::not_found("not there yet"))
}
