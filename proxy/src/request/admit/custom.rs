//! CUSTOM: an external authorizer is asked, by Envoy's ext_authz protocol.

use std::borrow::Cow;

use pilotfish_filters::authorizer::Authorizer;
use pilotfish_filters::authz::policies::Custom;
use pilotfish_filters::authz::{Asking, Judgement, Who};
use pilotfish_filters::verdict::{Deny, Foreign, Reason};

use super::Asked;
use crate::authorizers::{self, Allowed, Answer, Check, Edit, How, Refused};
use crate::http::RequestHead;
use crate::request::ctx::Ctx;
use crate::request::query;
use crate::worker::Worker;

/// Asks, and takes over what its answer adds to the request and to the answer. `Some`: the policy that is a dry run, and would have
/// refused.
///
/// # Errors
/// The refusal: what it answers, or `authorizer-unavailable`.
pub async fn ask<'p>(
    worker: &Worker,
    ctx: &mut Ctx<'_>,
    asked: &Asked<'_>,
    asking: &Asking<'_>,
    wanted: Custom<'p>,
) -> Result<Option<Cow<'p, str>>, Judgement<'p>> {
    let answer = match asked.snapshot.plan.authorizers().get(wanted.provider) {
        Some(authorizer) => of(worker, ctx, asked.head, asking, authorizer).await,
        None => Err(unavailable(wanted.provider, 403, "no AuthorizationProvider has this name")),
    };
    match answer {
        Ok(_) if wanted.dry_run => Ok(None),
        Err(_) if wanted.dry_run => Ok(Some(Cow::Borrowed(wanted.by))),
        Ok(Some(allowed)) => {
            ctx.due.target = target(&allowed, asked.head).map(Into::into);
            ctx.due.remove_upstream = allowed.remove;
            ctx.due.to_upstream = edits(allowed.to_upstream, asked.head, &mut ctx.due.remove_upstream);
            ctx.due.to_downstream = allowed.to_downstream;
            ctx.due.metadata = allowed.metadata;
            Ok(None)
        }
        Ok(None) => Ok(None),
        Err(deny) => {
            Err(Judgement { deny: Some(deny), by: Cow::Borrowed(wanted.by), ..Judgement::default() })
        }
    }
}

/// What an authorizer says of the call; `None`: it cannot be asked, and calls go on then.
async fn of(
    worker: &Worker,
    ctx: &Ctx<'_>,
    head: &RequestHead,
    asking: &Asking<'_>,
    authorizer: &Authorizer,
) -> Result<Option<Allowed>, Deny> {
    let shared = &worker.shared;
    let body = body(ctx, authorizer)?;
    let key = key(head, asking, authorizer);
    let kept = key.as_ref().and_then(|key| shared.authorizers.kept(key, shared.clock.now()));
    let answer = match kept {
        Some(answer) => Ok(answer),
        None => {
            let own = shared.tls.own();
            let principal = ctx.mesh.map(|peer| peer.peer.id.as_str());
            let check = Check {
                head,
                body,
                source: ctx.peer,
                principal,
                destination: asking.who.destination,
                own: own.as_ref().map(|own| own.id.as_str()),
                sni: asking.who.sni,
                id: head.headers.get("x-request-id").and_then(|id| std::str::from_utf8(id).ok()),
            };
            let answer = authorizers::ask(shared, authorizer, &check).await;
            if let (Some(key), Ok(answer), Some(cache)) = (key, &answer, &authorizer.cache) {
                shared.authorizers.keep(key, answer, shared.clock.now().after(cache.ttl));
            }
            answer
        }
    };
    match answer {
        Ok(Answer::Allowed(allowed)) => Ok(Some(allowed)),
        Ok(Answer::Refused(refused)) => Err(denied(authorizer, refused)),
        Err(why) => {
            shared.authorizers.tell(authorizer, &why, shared.clock.now());
            if authorizer.fail_open {
                return Ok(None);
            }
            Err(unavailable(&authorizer.name, authorizer.status_on_error, &why))
        }
    }
}

/// The part of the body that goes along.
fn body<'a>(ctx: &'a Ctx<'_>, authorizer: &Authorizer) -> Result<&'a [u8], Deny> {
    let Some(wanted) = authorizer.body else { return Ok(b"") };
    let Some(beginning) = &ctx.beginning else { return Ok(b"") };
    match beginning.bytes.get(..wanted.max) {
        Some(part) if wanted.partial => Ok(part),
        None if wanted.partial || beginning.whole => Ok(&beginning.bytes),
        Some(part) if beginning.whole && beginning.bytes.len() == part.len() => Ok(part),
        _ => {
            let detail = format!(
                "the authorizer {} decides by the body, of at most {} bytes (`maxRequestBytes`), and this one is longer, or came \
                 too slowly",
                authorizer.name, wanted.max
            );
            // Envoy's status.
            Err(Deny::with(Reason::AccessDenied, detail).answered(Foreign::of(413)))
        }
    }
}

/// What an answer hangs on; none when it is not remembered.
fn key(head: &RequestHead, asking: &Asking<'_>, authorizer: &Authorizer) -> Option<Box<[u8]>> {
    // A body is too much to be a key.
    let cache = authorizer.cache.as_ref().filter(|_| authorizer.body.is_none())?;
    let mut key = Vec::with_capacity(256);
    let mut add = |part: Option<&[u8]>| {
        // With its length, so that no part can look like two.
        let length = part.map_or(u32::MAX, |part| part.len() as u32);
        key.extend_from_slice(&length.to_be_bytes());
        key.extend_from_slice(part.unwrap_or_default());
    };
    let Who { principal, claims, chain, .. } = *asking.who;
    add(Some(&authorizer.fingerprint.to_be_bytes()));
    add(principal.map(|own| own.id.as_bytes()));
    if principal.is_none() {
        add(Some(asking.caller.ip.to_string().as_bytes()));
    }
    add(claims.map(|claims| claims.principal.as_bytes()));
    add(chain.map(|chain| chain.origin.as_bytes()));
    for agent in chain.into_iter().flat_map(|chain| &chain.agents) {
        add(Some(agent.id.as_bytes()));
    }
    add(None);
    for part in [head.method.as_str(), head.scheme(), head.authority(), head.path_and_query()] {
        add(Some(part.as_bytes()));
    }
    for name in cache.headers.iter().map(|name| &**name).chain(["authorization"]) {
        add(head.headers.joined(name).as_deref());
    }
    Some(key.into())
}

/// The values that headers of the call get; those that it is to lose are added to `remove`.
fn edits(edits: Vec<Edit>, head: &RequestHead, remove: &mut Vec<Box<str>>) -> Vec<(Box<str>, Box<[u8]>)> {
    let mut done: Vec<(Box<str>, Box<[u8]>)> = Vec::with_capacity(edits.len());
    for Edit { name, value, how } in edits {
        let earlier = done.iter().position(|(known, _)| known.eq_ignore_ascii_case(&name));
        if how == How::Remove {
            earlier.map(|at| done.remove(at));
            remove.push(name);
            continue;
        }
        let gone = remove.iter().any(|known| known.eq_ignore_ascii_case(&name));
        let there = match earlier {
            Some(at) => Some(done[at].1.clone().into_vec()),
            None if gone => None,
            None => head.headers.joined(&name).map(|value| value.into_owned()),
        };
        let value = match (how, there) {
            (How::AddIfAbsent, Some(_)) | (How::OverwriteIfThere, None) => continue,
            (How::Append, Some(before)) => [&before, &b","[..], &value].concat().into(),
            _ => value,
        };
        match earlier {
            Some(at) => done[at].1 = value,
            None => done.push((name, value)),
        }
    }
    done
}

/// The call's target with another query: parameters are set first and taken away then, as Envoy does.
fn target(allowed: &Allowed, head: &RequestHead) -> Option<String> {
    if allowed.query_set.is_empty() && allowed.query_remove.is_empty() {
        return None;
    }
    let mut target = head.path_and_query().to_owned();
    for (name, value) in &allowed.query_set {
        target = query::set(&target, &query::written(name), &query::written(value));
    }
    for name in &allowed.query_remove {
        target = query::remove(&target, name);
    }
    Some(target)
}

fn denied(authorizer: &Authorizer, refused: Refused) -> Deny {
    let detail = format!("the authorizer {} does not allow it", authorizer.name);
    let Refused { status, headers, body } = refused;
    Deny::with(Reason::AccessDenied, detail).answered(Foreign {
        status,
        headers,
        body: Box::from(&body[..]),
        quiet: false,
    })
}

fn unavailable(name: &str, status: u16, why: &str) -> Deny {
    let detail =
        format!("the authorizer {name} cannot be asked, and its provider does not say `failOpen`: {why}");
    Deny::with(Reason::AuthorizerUnavailable, detail).answered(Foreign::of(status))
}
