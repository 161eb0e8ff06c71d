//! Cross-origin rules of HTTP rules.

use crate::model::{Cors, StringMatch};
use crate::raw::{CorsSpec, Text, UnmatchedPreflights, nearest};
use crate::yaml::clip_text;

use super::check::Cx;
use super::headers::is_header_name;
use super::matching::string_match;

/// Cross-origin rules.
pub(super) fn cors(cx: &mut Cx<'_>, spec: &CorsSpec<'_>) -> Cors {
    let mut allow_origins: Vec<StringMatch> = Vec::new();
    for origin in spec.allow_origins.iter().flatten() {
        let texts = [origin.exact, origin.prefix, origin.regex];
        if texts.iter().flatten().all(|text| text.value.is_empty()) {
            cx.error_hint(origin.node, "the origin is empty", "write exact, prefix or regex");
        } else if let Some(exact) = origin.exact {
            allow_origins.push(exact_origin(cx, exact));
        } else {
            allow_origins.extend(string_match(cx, origin, false));
        }
    }
    for origin in spec.allow_origin.iter().flatten() {
        if origin.value.is_empty() {
            cx.error(origin.node, "the origin is empty");
        } else {
            allow_origins.push(exact_origin(cx, *origin));
        }
    }
    let written = spec.allow_origins.iter().flatten().count() + spec.allow_origin.iter().flatten().count();
    if written == 0 {
        cx.warn(spec.node, "no origin is allowed", "write `allowOrigins`");
    }
    let anyone = allow_origins.contains(&StringMatch::Presence);
    if let Some(allow) = spec.allow_credentials.filter(|allow| allow.value && anyone) {
        let message = "scripts of every web site may act with the user's credentials";
        cx.warn(allow.node, message, "name the origins in `allowOrigins`");
    }
    if let Some(age) = spec.max_age.filter(|age| age.subsec_nanos() > 0) {
        cx.error(age.node, "`maxAge` must be in whole seconds");
    }
    Cors {
        allow_origins,
        allow_methods: methods(cx, spec.allow_methods.as_deref().unwrap_or_default()),
        allow_headers: header_names(cx, spec.allow_headers.as_deref().unwrap_or_default()),
        expose_headers: header_names(cx, spec.expose_headers.as_deref().unwrap_or_default()),
        max_age: spec.max_age.map(|age| cx.duration(age)),
        allow_credentials: spec.allow_credentials.map(|allow| allow.value),
        forward_unmatched_preflights: spec
            .unmatched_preflights
            .is_none_or(|word| word.value != UnmatchedPreflights::Ignore),
    }
}

/// One origin, or `*` for every one (as Envoy takes it).
fn exact_origin(cx: &mut Cx<'_>, origin: Text<'_>) -> StringMatch {
    let text = origin.value;
    if text == "*" {
        return StringMatch::Presence;
    }
    let host = text.split_once("://");
    let can_be = host.is_some_and(|(scheme, host)| {
        !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '*', '?', '#', '@', ' '])
    });
    if !can_be && text != "null" {
        let message = format!("no browser sends `{}` as an origin", clip_text(text));
        cx.warn(
            origin.node,
            message,
            "write `https://host`, with `:port` when it is not the scheme's, or use regex",
        );
    }
    StringMatch::Exact(text.to_owned())
}

fn methods(cx: &mut Cx<'_>, list: &[Text<'_>]) -> Vec<String> {
    const METHODS: &[&str] =
        &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];
    for method in list.iter().filter(|method| !METHODS.contains(&method.value)) {
        let hint = match nearest(method.value, METHODS.iter().copied()) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("known: {}", METHODS.join(", ")),
        };
        cx.error_hint(method.node, format!("`{}` is not a method", clip_text(method.value)), hint);
    }
    list.iter().map(|method| method.value.to_owned()).collect()
}

fn header_names(cx: &mut Cx<'_>, list: &[Text<'_>]) -> Vec<String> {
    for name in list.iter().filter(|name| !is_header_name(name.value)) {
        cx.error(name.node, format!("`{}` is not a header name", clip_text(name.value)));
    }
    list.iter().map(|name| name.value.to_ascii_lowercase()).collect()
}
