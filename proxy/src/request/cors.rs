//! cors: preflights are answered here; other answers, the sidecar's own refusals included, get the headers with which a browser lets
//! its scripts read them.

use http::StatusCode;
use pilotfish_filters::cors::Kind;
use pilotfish_filters::plan::Rule;

use crate::http::{Headers, Known, RequestHead, ResponseHead};
use crate::request::ctx::Ctx;

/// Looks where a call comes from, once its rule is known. The answer when it is a preflight.
pub fn enter(ctx: &mut Ctx<'_>, rule: &Rule, head: &RequestHead) -> Option<ResponseHead> {
    let cors = rule.resilience.cors.as_deref()?;
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
    let Some(cors) = ctx.rule.and_then(|rule| rule.resilience.cors.as_deref()) else { return };
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
