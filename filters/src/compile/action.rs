//! What a rule does besides choosing a destination: redirects, fixed answers, rewrites, header edits, affinity.

use pilotfish_config::model::{self, HashKey};

use crate::affinity::{CookiePolicy, HashPolicy};
use crate::headers::{HeaderEdit, HeaderEdits, HeaderEditsPair};
use crate::plan::FixedResponse;
use crate::rewrite::{PathRewrite, Redirect, RedirectPath, RedirectPort, RegexRewrite, Rewrite};

/// `redirect`.
pub(super) fn redirect(from: &model::Redirect) -> Redirect {
    let text = |text: &Option<String>| text.as_deref().map(Box::from);
    Redirect {
        status: from.status,
        scheme: text(&from.scheme),
        authority: text(&from.authority),
        port: match from.port {
            // Envoy's default already is the scheme's port, by dropping one that no longer fits.
            model::RedirectPort::Unset | model::RedirectPort::FromProtocolDefault => RedirectPort::Keep,
            model::RedirectPort::Number(port) => RedirectPort::Number(port),
            model::RedirectPort::FromRequest => RedirectPort::Request,
        },
        path: match &from.path {
            None => RedirectPath::Keep,
            Some(model::PathRewrite::Whole(path)) => RedirectPath::Whole(path.as_str().into()),
            Some(model::PathRewrite::Prefix(path)) => RedirectPath::Matched(path.as_str().into()),
        },
    }
}

/// `directResponse`.
pub(super) fn respond(from: &model::DirectResponse) -> FixedResponse {
    FixedResponse { status: from.status, body: from.body.as_slice().into() }
}

/// `rewrite`.
pub(super) fn rewrite(from: &model::Rewrite) -> Rewrite {
    let path = match (&from.uri, &from.uri_regex) {
        (Some(uri), _) => PathRewrite::Matched(uri.as_str().into()),
        (None, Some(regex)) => PathRewrite::Regex(Box::new(RegexRewrite {
            pattern: regex.pattern.clone(),
            replacement: regex.replacement.as_str().into(),
        })),
        (None, None) => PathRewrite::Keep,
    };
    Rewrite { path, authority: from.authority.as_deref().map(Box::from) }
}

/// `headers` of a rule or a destination.
pub(super) fn edits(from: &model::HeaderEdits) -> HeaderEditsPair {
    HeaderEditsPair { request: ops(&from.request), response: ops(&from.response) }
}

fn ops(from: &model::HeaderOps) -> HeaderEdits {
    let removes = from.remove.iter().map(|name| HeaderEdit::Remove(name.as_str().into()));
    let pair = |(name, value): &(String, String)| (name.as_str().into(), value.as_bytes().into());
    let sets = from.set.iter().map(pair).map(|(name, value)| HeaderEdit::Set(name, value));
    let adds = from.add.iter().map(pair).map(|(name, value)| HeaderEdit::Add(name, value));
    removes.chain(sets).chain(adds).collect()
}

/// What is hashed; `own` stands for a loopback source address.
pub(super) fn hash_policy(from: &HashKey, own: u64) -> HashPolicy {
    match from {
        HashKey::Header(name) => HashPolicy::Header(name.as_str().into()),
        HashKey::Cookie(cookie) => HashPolicy::Cookie(CookiePolicy {
            name: cookie.name.as_str().into(),
            path: cookie.path.as_deref().map(Box::from),
            ttl: cookie.ttl,
            attributes: cookie
                .attributes
                .iter()
                .map(|(name, value)| (name.as_str().into(), value.as_deref().map(Box::from)))
                .collect(),
        }),
        HashKey::SourceIp => HashPolicy::SourceIp { own },
        HashKey::QueryParameter(name) => HashPolicy::QueryParameter(name.as_str().into()),
        HashKey::Affinity(model::Affinity::ContextId) => HashPolicy::ContextId,
        HashKey::Affinity(model::Affinity::Session) => HashPolicy::Session,
        HashKey::Affinity(model::Affinity::User) => HashPolicy::User,
    }
}
