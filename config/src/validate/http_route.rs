//! Rules for HTTP: what is done with a request.

use crate::model::{
    Action, Destination, DirectResponse, HeaderOps, HttpRoute, PathRewrite, Redirect, RedirectPort, Rewrite,
    RouteDestination, UriRegexRewrite,
};
use crate::raw::{
    DelegateSpec, DerivePort, DestinationSpec, DirectResponseSpec, HttpDestinationSpec, HttpRouteSpec,
    RedirectSpec, RegexRewriteSpec, RewriteSpec, Signed,
};
use crate::yaml::Node;

use super::check::Cx;
use super::{cors, fault, headers, matching, mirrors, retry};

/// A rule, perhaps one that goes on in a delegate.
pub(super) struct Draft<'n> {
    /// The rule; its action is an empty `Route` while `delegate` is set.
    pub route: HttpRoute,
    /// Where it goes on.
    pub delegate: Option<Delegate<'n>>,
}

/// Where a rule goes on.
pub(super) struct Delegate<'n> {
    pub namespace: String,
    pub name: String,
    pub node: Node<'n>,
}

/// A destination that a rule names, for checks across documents.
pub(super) struct Mention<'n> {
    pub destination: Destination,
    pub node: Node<'n>,
}

/// A rule. `in_delegate`: it is in a VirtualService without hosts.
pub(super) fn http_route<'n>(
    cx: &mut Cx<'_>,
    spec: &HttpRouteSpec<'n>,
    mesh: bool,
    in_delegate: bool,
    mentions: &mut Vec<Mention<'n>>,
) -> Draft<'n> {
    exclusive(cx, spec, in_delegate);
    let edits = headers::edits(cx, spec.headers.as_deref());
    let rewrite = spec.rewrite.as_ref().map(|rewrite| self::rewrite(cx, rewrite));
    one_authority(cx, spec.node, rewrite.as_ref(), &edits.request);
    let matches = spec.matches.as_deref().unwrap_or_default().iter();
    let matches: Vec<_> = matches.map(|m| matching::http_match(cx, m, mesh)).collect();
    let action = if let Some(redirect) = &spec.redirect {
        Action::Redirect(self::redirect(cx, redirect, spec))
    } else if let Some(response) = &spec.direct_response {
        Action::DirectResponse(direct_response(cx, response))
    } else {
        Action::Route(destinations(cx, spec, mentions))
    };
    let timeout = spec.timeout.map(|timeout| cx.duration(timeout));
    let route = HttpRoute {
        name: spec.name.map(|name| name.value.to_owned()),
        matches,
        action,
        rewrite,
        timeout,
        headers: edits,
        retries: spec.retries.as_ref().map(|retries| retry::retry(cx, retries, timeout)),
        fault: spec.fault.as_ref().map(|fault| fault::fault(cx, fault, spec)),
        mirrors: mirrors::mirrors(cx, spec),
        cors: spec.cors_policy.as_ref().map(|cors| cors::cors(cx, cors)),
        source: spec.node.source(),
    };
    let delegate = spec.delegate.as_ref().and_then(|delegate| self::delegate(cx, delegate));
    Draft { route, delegate }
}

/// What excludes what, as Istio says.
fn exclusive(cx: &mut Cx<'_>, spec: &HttpRouteSpec<'_>, in_delegate: bool) {
    let both = |cx: &mut Cx<'_>, a: &str, b: &str| {
        let at = spec.node.get(b).unwrap_or(spec.node);
        let message = format!("`{a}` and `{b}` exclude each other in a rule");
        cx.diagnose.error_at_key(at, message, Some("keep one of them".into()));
    };
    let (redirect, response) = (spec.redirect.is_some(), spec.direct_response.is_some());
    let routes = spec.route.as_ref().is_some_and(|route| !route.is_empty());
    if routes && !redirect && !response && spec.delegate.is_none() && spec.mirror.is_none() {
        return;
    }
    let has = |name: &str| spec.node.get(name).is_some();
    if spec.delegate.is_some() {
        for other in ["redirect", "route"].into_iter().filter(|other| has(other)) {
            both(cx, "delegate", other);
        }
        if in_delegate {
            let at = spec.node.get("delegate").unwrap_or(spec.node);
            cx.error(at, "a delegate cannot go on in another delegate");
        }
        return;
    }
    for (own, others) in [
        ("redirect", ["route", "fault", "rewrite", "directResponse"]),
        ("directResponse", ["route", "fault", "rewrite", ""]),
    ] {
        if has(own) {
            for other in others.into_iter().filter(|other| has(other)) {
                both(cx, own, other);
            }
        }
    }
    if has("mirror") && has("mirrors") {
        both(cx, "mirror", "mirrors");
    }
    if !routes && !redirect && !response {
        let hint = "write one of route, redirect, directResponse, delegate";
        cx.error_hint(spec.node, "the rule does nothing", hint);
    }
}

/// The authority may be set in one place only.
fn one_authority(cx: &mut Cx<'_>, node: Node<'_>, rewrite: Option<&Rewrite>, request: &HeaderOps) {
    let rewrites = usize::from(rewrite.is_some_and(|rewrite| rewrite.authority.is_some()));
    let edits = request.set.iter().chain(&request.add).filter(|(name, _)| name == ":authority").count();
    if rewrites + edits > 1 {
        let at = node.get("headers").unwrap_or(node);
        cx.error_hint(
            at,
            "the authority is set more than once",
            "keep either rewrite.authority or one header",
        );
    }
}

fn delegate<'n>(cx: &mut Cx<'_>, spec: &DelegateSpec<'n>) -> Option<Delegate<'n>> {
    let name = cx.not_empty(spec.name?);
    let namespace = spec.namespace.map_or_else(|| cx.namespace.to_string(), |name| name.value.to_owned());
    Some(Delegate { namespace, name, node: spec.node })
}

fn destinations<'n>(
    cx: &mut Cx<'_>,
    spec: &HttpRouteSpec<'n>,
    mentions: &mut Vec<Mention<'n>>,
) -> Vec<RouteDestination> {
    let list = spec.route.as_deref().unwrap_or_default();
    let mut route = Vec::with_capacity(list.len());
    for entry in list {
        route.extend(http_destination(cx, entry, list.len() == 1, mentions));
    }
    if list.len() > 1 {
        no_weight(cx, spec.node.get("route").unwrap_or(spec.node), &route);
    }
    route
}

/// Several destinations need a weight somewhere.
pub(super) fn no_weight(cx: &mut Cx<'_>, node: Node<'_>, route: &[RouteDestination]) {
    if !route.is_empty() && route.iter().all(|entry| entry.weight == 0) {
        cx.error_hint(
            node,
            "the weights of the destinations add up to 0",
            "give each destination a `weight`",
        );
    }
}

fn http_destination<'n>(
    cx: &mut Cx<'_>,
    spec: &HttpDestinationSpec<'n>,
    single: bool,
    mentions: &mut Vec<Mention<'n>>,
) -> Option<RouteDestination> {
    let headers = headers::edits(cx, spec.headers.as_deref());
    let weight = weight(cx, spec.weight, single);
    let destination = mentioned(cx, spec.destination.as_ref()?, mentions)?;
    Some(RouteDestination { destination, weight, headers })
}

/// A weight; a single destination needs none.
pub(super) fn weight(cx: &mut Cx<'_>, weight: Option<Signed<'_>>, single: bool) -> u32 {
    let weight = weight.map_or(0, |weight| cx.not_negative(weight));
    if single { weight.max(1) } else { weight }
}

/// A destination, noted for checks across documents.
pub(super) fn mentioned<'n>(
    cx: &mut Cx<'_>,
    spec: &DestinationSpec<'n>,
    mentions: &mut Vec<Mention<'n>>,
) -> Option<Destination> {
    let destination = destination(cx, spec)?;
    mentions.push(Mention { destination: destination.clone(), node: spec.node });
    Some(destination)
}

/// A destination.
pub(super) fn destination(cx: &mut Cx<'_>, spec: &DestinationSpec<'_>) -> Option<Destination> {
    let host = spec.host?;
    if host.value == "*" {
        cx.error(host.node, "`*` is not a destination");
        return None;
    }
    let port = spec.port.as_ref().and_then(|port| port.number).and_then(|number| cx.port(number));
    let subset = spec.subset.filter(|subset| !subset.value.is_empty());
    let subset = subset.map(|subset| cx.label(subset, "subset name"));
    Some(Destination { host: cx.host(host), subset, port })
}

fn redirect(cx: &mut Cx<'_>, spec: &RedirectSpec<'_>, rule: &HttpRouteSpec<'_>) -> Redirect {
    let filled = |text: Option<crate::raw::Text<'_>>| {
        text.filter(|text| !text.value.is_empty()).map(|text| text.value.to_owned())
    };
    let (uri, prefix) = (filled(spec.uri), filled(spec.prefix_rewrite));
    if prefix.is_some() {
        let uris = rule.matches.iter().flatten().filter_map(|m| m.uri.as_ref());
        for uri in uris.filter(|uri| uri.prefix.is_none()) {
            cx.error(uri.node, "`prefixRewrite` needs prefix matches of the path");
        }
    }
    let path = uri.map(PathRewrite::Whole).or(prefix.map(PathRewrite::Prefix));
    let (authority, scheme) = (filled(spec.authority), filled(spec.scheme));
    let port = match (spec.port, spec.derive_port) {
        (Some(port), _) => cx.port(port).map_or(RedirectPort::Unset, RedirectPort::Number),
        (None, Some(derive)) => match derive.value {
            DerivePort::FromProtocolDefault => RedirectPort::FromProtocolDefault,
            DerivePort::FromRequestPort => RedirectPort::FromRequest,
        },
        (None, None) => RedirectPort::Unset,
    };
    if path.is_none() && authority.is_none() && scheme.is_none() && port == RedirectPort::Unset {
        cx.error_hint(
            spec.node,
            "the redirect changes nothing",
            "write uri, prefixRewrite, authority, scheme or port",
        );
    }
    if let Some(scheme) = spec.scheme.filter(|scheme| !matches!(scheme.value, "" | "http" | "https")) {
        cx.error(scheme.node, "the scheme must be `http` or `https`");
    }
    let status = spec.redirect_code.map_or(301, |code| {
        if !(code.value == 0 || (300..=399).contains(&code.value)) {
            cx.error_hint(code.node, format!("{} is not a redirect", code.value), "allowed: 300 to 399");
        }
        if code.value == 0 { 301 } else { code.value }
    });
    Redirect { path, authority, port, scheme, status: u16::try_from(status).unwrap_or(301) }
}

fn direct_response(cx: &mut Cx<'_>, spec: &DirectResponseSpec<'_>) -> DirectResponse {
    let status = spec.status.map_or(200, |status| {
        if !(200..=599).contains(&status.value) {
            cx.error_hint(status.node, format!("{} is not a status", status.value), "allowed: 200 to 599");
        }
        u16::try_from(status.value).unwrap_or(500)
    });
    let body = match spec.body.as_ref() {
        Some(body) => match (body.string, body.bytes) {
            (Some(text), _) => text.value.as_bytes().to_vec(),
            (None, Some(bytes)) => super::base64::decode(bytes.value).unwrap_or_else(|| {
                cx.error(bytes.node, "not base64");
                Vec::new()
            }),
            (None, None) => Vec::new(),
        },
        None => Vec::new(),
    };
    if body.len() > 1 << 20 {
        cx.error(spec.node, "the body must be less than 1 MiB");
    }
    DirectResponse { status, body }
}

fn rewrite(cx: &mut Cx<'_>, spec: &RewriteSpec<'_>) -> Rewrite {
    let rewrite = Rewrite {
        uri: spec.uri.filter(|uri| !uri.value.is_empty()).map(|uri| uri.value.to_owned()),
        uri_regex: spec.uri_regex_rewrite.as_ref().and_then(|regex| regex_rewrite(cx, regex)),
        authority: spec.authority.filter(|a| !a.value.is_empty()).map(|a| a.value.to_owned()),
    };
    if rewrite.uri.is_none() && rewrite.authority.is_none() && spec.uri_regex_rewrite.is_none() {
        cx.error_hint(spec.node, "the rewrite changes nothing", "write uri, uriRegexRewrite or authority");
    }
    rewrite
}

fn regex_rewrite(cx: &mut Cx<'_>, spec: &RegexRewriteSpec<'_>) -> Option<UriRegexRewrite> {
    let (matching, replacement) = (spec.matching?, spec.rewrite?);
    if replacement.value.is_empty() {
        cx.error(replacement.node, "must not be empty");
    }
    // Checked by `pattern` first, for the same limits and messages; here it must not be anchored.
    cx.pattern(matching)?;
    let pattern = regex::Regex::new(matching.value).ok()?;
    match rust_replacement(replacement.value, pattern.captures_len()) {
        Ok(replacement) => Some(UriRegexRewrite { pattern, replacement }),
        Err(why) => {
            cx.error(replacement.node, why);
            None
        }
    }
}

/// RE2's `\1` as the regex crate's `${1}`.
fn rust_replacement(text: &str, groups: usize) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => match chars.next() {
                Some('\\') => out.push('\\'),
                Some(digit) if digit.is_ascii_digit() => {
                    if digit.to_digit(10).is_some_and(|group| group as usize >= groups) {
                        return Err(format!("the expression has no group {digit}"));
                    }
                    out.push_str(&format!("${{{digit}}}"));
                }
                _ => return Err("`\\` must be followed by a group's number or `\\`".into()),
            },
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::rust_replacement;

    #[test]
    fn replacements_are_translated_and_their_groups_checked() {
        assert_eq!(rust_replacement(r"/a/\2/\1$", 3).as_deref(), Ok("/a/${2}/${1}$$"));
        assert_eq!(rust_replacement(r"\\0", 1).as_deref(), Ok(r"\0"));
        assert!(rust_replacement(r"\3", 3).is_err());
        assert!(rust_replacement(r"\x", 3).is_err());
    }
}
