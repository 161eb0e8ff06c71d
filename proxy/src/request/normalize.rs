//! normalize: the path as everything after it sees it, and as it is sent upstream.

use std::borrow::Cow;

use pilotfish_filters::normalize;
use pilotfish_filters::verdict::{Deny, Reason};

use crate::http::RequestHead;
use crate::worker::Worker;

/// Rewrites the head's path to its normal form.
///
/// # Errors
/// `bad-request`: the path has no normal form.
pub fn normalize(worker: &Worker, head: &mut RequestHead) -> Result<(), Deny> {
    let how = worker.shared.settings.reading.path_normalization.into();
    let target = match normalize::normalize(head.path(), how) {
        Ok(Cow::Borrowed(_)) => return Ok(()),
        Ok(Cow::Owned(mut path)) => {
            if let Some(query) = head.query() {
                path.push('?');
                path.push_str(query);
            }
            path
        }
        Err(why) => return Err(Deny::with(Reason::BadRequest, why)),
    };
    if head.set_path_and_query(&target) {
        return Ok(());
    }
    Err(Deny::with(Reason::BadRequest, "the path has no normal form"))
}
