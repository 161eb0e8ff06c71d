//! guard: may the call go on at all: hops, the agents on its path, its deadline. What only sidecars may write of it.

use pilotfish_filters::call::Call;
use pilotfish_filters::verdict::Deny;

use crate::http::RequestHead;
use crate::request::ctx::Ctx;
use crate::snapshot::Snapshot;
use crate::worker::Worker;

/// Reads what the call brings along, and refuses what has come too far, in a circle, or too late.
///
/// # Errors
/// `too-many-hops`, `call-cycle`, `deadline-exceeded`.
pub fn enter(
    _worker: &Worker,
    _snapshot: &Snapshot,
    _ctx: &mut Ctx<'_>,
    _call: &Call,
    _head: &mut RequestHead,
) -> Result<(), Deny> {
    Ok(())
}
