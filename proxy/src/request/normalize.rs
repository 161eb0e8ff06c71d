//! normalize: the path as everything after it sees it, and as it is sent upstream.

use pilotfish_filters::verdict::Deny;

use crate::http::RequestHead;
use crate::worker::Worker;

/// Rewrites the head's path to its normal form.
///
/// # Errors
/// `bad-request`: the path has no normal form.
pub fn normalize(_worker: &Worker, _head: &mut RequestHead) -> Result<(), Deny> {
    Ok(())
}
