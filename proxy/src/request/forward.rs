//! What changes in a head on its way through: the sidecar's own headers, and the edits of rules.
//! Hop-by-hop fields are the engine's business; it has removed them before a stage sees a head.

use std::fmt::Write as _;

use pilotfish_filters::headers::HeaderMapMut;
use pilotfish_filters::plan::{Matched, WeightedDestination};

use crate::http::{Headers, Known, RequestHead, ResponseHead};
use crate::request::ctx::Ctx;
use crate::request::request_id::RequestId;
use crate::worker::Worker;

/// `x-forwarded-for`, `x-forwarded-proto` and `x-request-id`, as a sidecar of Istio sets them.
pub fn add_own_headers(worker: &Worker, ctx: &mut Ctx<'_>, head: &mut RequestHead) {
    let mut peer = Address { text: [0; 46], len: 0 };
    // An address is always short enough; what would not fit is left out.
    let _ = write!(peer, "{}", ctx.peer.ip().to_canonical());
    match head.headers.joined("x-forwarded-for") {
        None => {
            head.headers.append("x-forwarded-for", peer.as_bytes());
        }
        Some(before) => {
            let chain = [before.as_ref(), b", ", peer.as_bytes()].concat();
            head.headers.set("x-forwarded-for", &chain);
        }
    }
    if ctx.mesh.is_none() || !head.headers.contains("x-forwarded-proto") {
        let scheme = head.scheme();
        head.headers.set("x-forwarded-proto", scheme.as_bytes());
    }
    if head.headers.known(Known::RequestId).next().is_none() {
        let id = worker.with_rng(RequestId::new);
        head.headers.append("x-request-id", id.as_bytes());
        ctx.call.request_id.set(id.as_str());
    }
}

/// The rule's rewrite and edits, and those of the destination, in Envoy's order: the destination's first.
pub fn edit_request(matched: &Matched<'_>, destination: &WeightedDestination, head: &mut RequestHead) {
    if let Some(authority) = matched.rewritten_authority() {
        head.set_authority(authority);
    }
    if let Some(path) = matched.rewritten_path(head.path()) {
        let whole = match head.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        head.set_path_and_query(&whole);
    }
    destination.edits.request.apply(&mut RequestEdit(head));
    matched.rule.edits.request.apply(&mut RequestEdit(head));
}

/// The response's edits, and the cookie of an affinity that was just begun.
pub fn edit_response(
    matched: &Matched<'_>,
    destination: Option<&WeightedDestination>,
    cookie: Option<&str>,
    head: &mut ResponseHead,
) {
    if let Some(destination) = destination {
        destination.edits.response.apply(&mut head.headers);
    }
    matched.rule.edits.response.apply(&mut head.headers);
    if let Some(cookie) = cookie {
        head.headers.append("set-cookie", cookie.as_bytes());
    }
}

/// Edits of a request; what is said of `host` or `:authority` changes the authority (as in Istio).
struct RequestEdit<'a>(&'a mut RequestHead);

fn is_authority(name: &str) -> bool {
    name == "host" || name == ":authority"
}

impl HeaderMapMut for RequestEdit<'_> {
    fn set(&mut self, name: &str, value: &[u8]) {
        if !is_authority(name) {
            self.0.headers.set(name, value);
        } else if let Ok(authority) = std::str::from_utf8(value) {
            self.0.set_authority(authority);
        }
    }
    fn append(&mut self, name: &str, value: &[u8]) {
        // A second Host would be read differently by different parsers.
        if !is_authority(name) {
            self.0.headers.append(name, value);
        }
    }
    fn remove(&mut self, name: &str) {
        if !is_authority(name) {
            self.0.headers.remove(name);
        }
    }
}

impl HeaderMapMut for Headers {
    fn set(&mut self, name: &str, value: &[u8]) {
        Headers::set(self, name, value);
    }
    fn append(&mut self, name: &str, value: &[u8]) {
        Headers::append(self, name, value);
    }
    fn remove(&mut self, name: &str) {
        Headers::remove(self, name);
    }
}

/// An IP address as text, on the stack.
struct Address {
    text: [u8; 46],
    len: usize,
}

impl Address {
    fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

impl std::fmt::Write for Address {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        let end = self.len + part.len();
        self.text.get_mut(self.len..end).ok_or(std::fmt::Error)?.copy_from_slice(part.as_bytes());
        self.len = end;
        Ok(())
    }
}
