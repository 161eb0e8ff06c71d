//! identify: who sent the request, and what of its headers is therefore not to be believed.

use pilotfish_filters::call::Caller;
use pilotfish_filters::correlate::CallId;

use crate::http::headers::alike;
use crate::http::{Known, RequestHead};
use crate::listen::Direction;
use crate::request::ctx::Ctx;

/// Whether only sidecars may write this header. To many agents `_` in a header's name is a `-`.
fn is_mesh_header(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"x-pilotfish-";
    name.get(..PREFIX.len()).is_some_and(|start| alike(start, PREFIX))
        || alike(name, b"agent-hops")
        || alike(name, b"x-forwarded-client-cert")
}

/// Establishes the caller, and strips what a caller that is not in the mesh must not say.
pub fn identify(ctx: &mut Ctx<'_>, head: &mut RequestHead) -> Caller {
    if ctx.direction == Direction::Outbound {
        // The one word of a sidecar that its own agent may give back: it names nothing but calls of this agent.
        ctx.said = head.headers.known(Known::CallId).next().and_then(CallId::parse);
    }
    match ctx.mesh {
        None => head.headers.retain(|name, _| !is_mesh_header(name)),
        // Whatever the caller says of itself, its certificate says better (Envoy's SANITIZE_SET).
        Some(peer) => {
            head.headers.remove_disguised(is_mesh_header);
            head.headers.set("x-forwarded-client-cert", peer.forwarded.as_bytes());
        }
    }
    Caller { ip: ctx.peer.ip(), port: port(head) }
}

/// The port that the caller addressed: the authority's, else the scheme's default.
fn port(head: &RequestHead) -> u16 {
    let authority = head.authority();
    let after_host = authority.rfind(']').map_or(0, |end| end + 1);
    let explicit = authority[after_host..].rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    explicit.unwrap_or(if head.scheme() == "https" { 443 } else { 80 })
}
