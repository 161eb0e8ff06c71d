//! Conditions of HTTP rules.

use crate::model::{HttpMatch, StringMatch};
use crate::raw::{HttpMatchSpec, List, Map, StringMatchSpec, Text};
use crate::yaml::clip_text;

use super::check::{Cx, fqdn, is_dns_label};
use super::headers::matched_name;

/// One block. `mesh`: the rules are for sidecars, not only for gateways.
pub(super) fn http_match(cx: &mut Cx<'_>, spec: &HttpMatchSpec<'_>, mesh: bool) -> HttpMatch {
    let one = |cx: &mut Cx<'_>, spec: &Option<StringMatchSpec<'_>>| {
        spec.as_ref().and_then(|spec| string_match(cx, spec, false))
    };
    HttpMatch {
        name: spec.name.map(|name| name.value.to_owned()),
        uri: spec.uri.as_ref().and_then(|uri| string_match(cx, uri, true)),
        scheme: one(cx, &spec.scheme),
        method: one(cx, &spec.method),
        authority: one(cx, &spec.authority),
        headers: named_matches(cx, spec.headers.as_ref(), mesh),
        without_headers: header_matches(cx, spec.without_headers.as_ref(), mesh),
        query_params: query_matches(cx, spec.query_params.as_ref()),
        port: spec.port.filter(|port| port.value != 0).and_then(|port| cx.port(port)),
        source_labels: cx.labels(spec.source_labels.as_ref()),
        source_namespace: spec.source_namespace.map(|name| cx.label(name, "namespace")),
        gateways: gateways(cx, spec.gateways.as_ref()),
        ignore_uri_case: spec.ignore_uri_case.is_some_and(|ignore| ignore.value),
        stat_prefix: spec.stat_prefix.map(|prefix| prefix.value.to_owned()),
    }
}

/// A StringMatch. An empty one is presence; an empty prefix is allowed for paths only, as in Istio.
pub(super) fn string_match(cx: &mut Cx<'_>, spec: &StringMatchSpec<'_>, uri: bool) -> Option<StringMatch> {
    if let Some(exact) = spec.exact {
        return Some(StringMatch::Exact(exact.value.to_owned()));
    }
    if let Some(prefix) = spec.prefix {
        if prefix.value.is_empty() && !uri {
            cx.error_hint(prefix.node, "the prefix is empty", "write `{}` to ask only that it is there");
        }
        return Some(StringMatch::Prefix(prefix.value.to_owned()));
    }
    match spec.regex {
        Some(regex) => cx.pattern(regex).map(StringMatch::Regex),
        None => Some(StringMatch::Presence),
    }
}

/// Conditions on headers that must be there: `name:` without a value is a mistake, `name: {}` is presence.
fn named_matches(
    cx: &mut Cx<'_>,
    map: Option<&Map<'_, StringMatchSpec<'_>>>,
    mesh: bool,
) -> Vec<(String, StringMatch)> {
    for (_, spec) in map.into_iter().flatten().filter(|(_, spec)| spec.node.is_null()) {
        cx.error_hint(spec.node, "the condition is empty", "write `{}` to ask only that the header is there");
    }
    header_matches(cx, map, mesh)
}

fn header_matches(
    cx: &mut Cx<'_>,
    map: Option<&Map<'_, StringMatchSpec<'_>>>,
    mesh: bool,
) -> Vec<(String, StringMatch)> {
    let mut matches = Vec::new();
    for (name, spec) in map.into_iter().flatten() {
        let name = matched_name(cx, *name, mesh);
        // `*` is no expression; Istio takes it for presence.
        let star = spec.regex.is_some_and(|regex| regex.value == "*");
        let matching = if star { Some(StringMatch::Presence) } else { string_match(cx, spec, false) };
        matches.extend(matching.map(|matching| (name, matching)));
    }
    matches
}

fn query_matches(cx: &mut Cx<'_>, map: Option<&Map<'_, StringMatchSpec<'_>>>) -> Vec<(String, StringMatch)> {
    let mut matches = Vec::new();
    for (name, spec) in map.into_iter().flatten() {
        if name.value.is_empty() {
            cx.diagnose.error_at_key(name.node, "a query parameter's name must not be empty".into(), None);
        }
        matches.extend(string_match(cx, spec, false).map(|matching| (name.value.to_owned(), matching)));
    }
    matches
}

/// Gateways: `mesh`, `name`, `namespace/name`, or a full name.
pub(super) fn gateways(cx: &mut Cx<'_>, list: Option<&List<Text<'_>>>) -> Vec<String> {
    let mut gateways = Vec::new();
    for name in list.into_iter().flatten() {
        let valid = match name.value.split_once('/') {
            Some((namespace, name)) => is_dns_label(namespace) && is_dns_label(name),
            None => fqdn(name.value).is_ok(),
        };
        if !valid {
            let message = format!("`{}` is not a gateway", clip_text(name.value));
            cx.error_hint(name.node, message, "write `mesh`, `name` or `namespace/name`");
        }
        gateways.push(name.value.to_owned());
    }
    gateways
}
