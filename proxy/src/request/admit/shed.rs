//! A place among the calls that are served at once; when there is none, the important ones wait, the others are refused.

use pilotfish_filters::verdict::Deny;

use super::Asked;
use crate::request::ctx::Ctx;
use crate::worker::Worker;

/// A place that is given back when it is dropped.
#[derive(Debug)]
pub struct Place {}

/// Takes a place, perhaps after waiting for one; none is needed where nothing limits.
///
/// # Errors
/// `overloaded`, `memory-pressure`, `deadline-exceeded`.
pub async fn place(_worker: &Worker, _ctx: &Ctx<'_>, _asked: &Asked<'_>) -> Result<Option<Place>, Deny> {
    Ok(None)
}
