//! replay: the request's body is kept while it streams, so that another try can send it again.

use crate::http::Downstream;
use crate::request::repeat::course::Course;

/// Keeps the body from here on, if some other try could need it. `refuses`: see [`Course::replay_limit`].
pub fn keep(course: &Course<'_>, refuses: bool, down: &mut Downstream<'_>) {
    if down.framing().is_empty() {
        return;
    }
    if let Some(limit) = course.replay_limit(refuses) {
        down.keep(limit);
    }
}
