//! normalize: path and headers as everything after it sees them, and as they are sent upstream.

use std::borrow::Cow;

use pilotfish_filters::normalize;
use pilotfish_filters::plan::Plan;
use pilotfish_filters::verdict::{Deny, Reason};

use crate::http::headers::alike;
use crate::http::{Downstream, Framing, RequestHead};
use crate::listen::Direction;
use crate::request::ctx::Ctx;
use crate::worker::Worker;

/// Rewrites the head's path to its normal form. Takes out of an inbound call, trailers included, what an agent could take for a header
/// that decided, and that nothing here has looked at.
///
/// # Errors
/// `bad-request`: the path has no normal form.
pub fn normalize(
    worker: &Worker,
    plan: &Plan,
    ctx: &Ctx<'_>,
    head: &mut RequestHead,
    down: &mut Downstream<'_>,
) -> Result<(), Deny> {
    if ctx.direction == Direction::Inbound {
        let decisive = plan.decisive_headers();
        head.headers
            .remove_disguised(|own| frames(own) || decisive.iter().any(|name| alike(own, name.as_bytes())));
        if !decisive.is_empty() && down.framing() == Framing::Streaming {
            down.drop_trailers(decisive.clone());
        }
    }
    path(worker, head)
}

/// Whether an agent could take where the message ends from it, which decides what the next one is.
fn frames(name: &[u8]) -> bool {
    alike(name, b"content-length") || alike(name, b"transfer-encoding")
}

fn path(worker: &Worker, head: &mut RequestHead) -> Result<(), Deny> {
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
