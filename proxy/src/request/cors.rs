//! cors: preflights are answered here; other answers, the sidecar's own refusals included, get the headers with which a browser lets
//! its scripts read them.

use http::StatusCode;
use pilotfish_filters::call::Caller;
use pilotfish_filters::cors::{Cors, Kind};
use pilotfish_filters::plan::{Plan, Rule};

use crate::http::{Headers, Known, RequestHead, ResponseHead};
use crate::listen::Direction;
use crate::request::ctx::Ctx;

/// Looks where an inbound call comes from that no sidecar sends, so that no sidecar's outbound rules were for it: what the workload's own
/// rules say. The answer when it is a preflight, which brings neither token nor certificate (Fetch, "CORS-preflight fetch"): it is given
/// before anybody asks for them, and the agent gets nothing of it. That is Envoy's order too.
pub fn arrive<'p>(
    ctx: &mut Ctx<'p>,
    plan: &'p Plan,
    head: &RequestHead,
    caller: &Caller,
) -> Option<ResponseHead> {
    if ctx.direction == Direction::Outbound || ctx.mesh.is_some() {
        return None;
    }
    let cors = plan.inbound_cors(head, caller)?;
    look(ctx, cors, head)
}

/// Looks where a call comes from, once its rule is known. The answer when it is a preflight.
pub fn enter<'p>(ctx: &mut Ctx<'p>, rule: &'p Rule, head: &RequestHead) -> Option<ResponseHead> {
    look(ctx, rule.resilience.cors.as_deref()?, head)
}

fn look<'p>(ctx: &mut Ctx<'p>, cors: &'p Cors, head: &RequestHead) -> Option<ResponseHead> {
    ctx.cors = Some(cors);
    if !head.headers.may_have(Known::Origin.bit()) {
        return None;
    }
    let origin = head.headers.joined("origin");
    match cors.kind(head, origin.as_deref()) {
        Kind::Other => None,
        Kind::Allowed => {
            ctx.origin = origin.map(|origin| origin.into_owned().into());
            None
        }
        Kind::Preflight { allowed } => {
            // 200 with nothing in it, as Envoy: some old browsers take no 204.
            let mut answer = ResponseHead::new(StatusCode::OK);
            if let Some(origin) = origin.filter(|_| allowed) {
                cors.permit(&origin, &mut answer.headers);
            }
            Some(answer)
        }
    }
}

/// Writes what the rule says about origins into an answer, after all edits.
pub fn finish(ctx: &Ctx<'_>, head: &mut ResponseHead) {
    let Some(cors) = ctx.cors else { return };
    if let Some(origin) = &ctx.origin {
        cors.expose(origin, &mut head.headers);
    }
    // Also on answers without the permission: a cache must not give them to scripts that would have it (Fetch, "CORS protocol and
    // HTTP caches").
    if !varies_by_origin(&head.headers) {
        head.headers.append("vary", b"Origin");
    }
}

fn varies_by_origin(headers: &Headers) -> bool {
    let names = headers.get_all("vary").flat_map(|value| value.split(|b| *b == b','));
    names.map(<[u8]>::trim_ascii).any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
}
