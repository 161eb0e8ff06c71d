//! Values that no call has, and values that exclude each other.

use crate::raw::{AuthorizationPolicySpec, List, OperationSpec, RuleSpec, SourceSpec, Text};
use crate::yaml::clip_text;

use crate::validate::check::Cx;

type Texts<'s, 'n> = Option<&'s List<Text<'n>>>;

/// Looks at each value of a policy.
pub(super) fn check(cx: &mut Cx<'_>, spec: &AuthorizationPolicySpec<'_>) {
    for rule in spec.rules.iter().flatten() {
        for from in rule.from.iter().flatten() {
            if let Some(own) = &from.source {
                source(cx, own);
            }
        }
        for to in rule.to.iter().flatten() {
            if let Some(own) = &to.operation {
                operation(cx, own);
            }
        }
        conditions(cx, rule);
    }
}

fn source(cx: &mut Cx<'_>, spec: &SourceSpec<'_>) {
    let pairs = [
        (&spec.principals, &spec.not_principals, "notPrincipals"),
        (&spec.request_principals, &spec.not_request_principals, "notRequestPrincipals"),
        (&spec.namespaces, &spec.not_namespaces, "notNamespaces"),
        (&spec.service_accounts, &spec.not_service_accounts, "notServiceAccounts"),
        (&spec.ip_blocks, &spec.not_ip_blocks, "notIpBlocks"),
        (&spec.remote_ip_blocks, &spec.not_remote_ip_blocks, "notRemoteIpBlocks"),
        (&spec.trust_domains, &spec.not_trust_domains, "notTrustDomains"),
    ];
    for (any_of, none_of, name) in pairs {
        excluded(cx, any_of.as_ref(), none_of.as_ref(), name);
    }
    each(&spec.principals, &spec.not_principals, |text| principal(cx, text));
    each(&spec.request_principals, &spec.not_request_principals, |text| request_principal(cx, text));
    each(&spec.principals, &spec.not_principals, |text| stars(cx, text));
    each(&spec.request_principals, &spec.not_request_principals, |text| stars(cx, text));
}

fn operation(cx: &mut Cx<'_>, spec: &OperationSpec<'_>) {
    let pairs = [
        (&spec.hosts, &spec.not_hosts, "notHosts"),
        (&spec.ports, &spec.not_ports, "notPorts"),
        (&spec.methods, &spec.not_methods, "notMethods"),
        (&spec.paths, &spec.not_paths, "notPaths"),
    ];
    for (any_of, none_of, name) in pairs {
        excluded(cx, any_of.as_ref(), none_of.as_ref(), name);
    }
    each(&spec.methods, &spec.not_methods, |text| method(cx, text));
    each(&spec.hosts, &spec.not_hosts, |text| host(cx, text));
    each(&spec.paths, &spec.not_paths, |text| path(cx, text));
    for (any_of, none_of) in [(&spec.hosts, &spec.not_hosts), (&spec.paths, &spec.not_paths)] {
        each(any_of, none_of, |text| stars(cx, text));
    }
}

fn conditions(cx: &mut Cx<'_>, rule: &RuleSpec<'_>) {
    for condition in rule.when.iter().flatten() {
        let Some(key) = condition.key else { continue };
        // A call may have several headers, claims, audiences, capabilities or agents: one may be wanted and another not.
        let single = !key.value.starts_with("request.headers[")
            && !key.value.starts_with("request.auth.claims[")
            || key.value == "request.headers[:method]";
        let many = ["request.auth.audiences", "pilotfish.capability", "pilotfish.delegation.agents"];
        if single && !many.contains(&key.value) {
            excluded(cx, condition.values.as_ref(), condition.not_values.as_ref(), "notValues");
        }
        let values = |own: fn(&mut Cx<'_>, Text<'_>), cx: &mut Cx<'_>| {
            each(&condition.values, &condition.not_values, |text| own(cx, text));
        };
        // A namespace may have stars anywhere, and the others are no texts.
        if !matches!(
            key.value,
            "source.namespace"
                | "source.trustDomain"
                | "source.serviceAccount"
                | "source.ip"
                | "remote.ip"
                | "destination.ip"
                | "destination.port"
        ) {
            values(stars, cx);
        }
        match key.value {
            "source.principal" | "pilotfish.delegation.agents" => values(principal, cx),
            "request.auth.principal" => values(request_principal, cx),
            "request.headers[:method]" => values(method, cx),
            "request.headers[:authority]" => values(host, cx),
            _ => {}
        }
    }
}

fn each<'s, 'n: 's>(
    any_of: &'s Option<List<Text<'n>>>,
    none_of: &'s Option<List<Text<'n>>>,
    mut take: impl FnMut(Text<'n>),
) {
    any_of.iter().chain(none_of).flatten().for_each(|text| take(*text));
}

/// Values all of which must not be.
fn excluded(cx: &mut Cx<'_>, any_of: Texts<'_, '_>, none_of: Texts<'_, '_>, name: &str) {
    let (Some(any_of), Some(none_of)) = (any_of, none_of) else { return };
    let out = |value: &Text<'_>| none_of.iter().any(|not| covers(not.value, value.value));
    let Some(first) = any_of.first().filter(|_| any_of.iter().all(out)) else { return };
    let message = format!("this can never match: `{name}` excludes all that is asked for");
    cx.warn(first.node, message, "write what may be, or what may not, and leave the other out");
}

/// Whether whatever matches `value` matches `wide` too, both with a `*` at one end perhaps.
fn covers(wide: &str, value: &str) -> bool {
    if wide == value || wide == "*" {
        return true;
    }
    let template = wide.contains('{') || value.contains('{');
    if let Some(prefix) = wide.strip_suffix('*').filter(|_| !template) {
        return !value.starts_with('*') && value.strip_suffix('*').unwrap_or(value).starts_with(prefix);
    }
    wide.strip_prefix('*').is_some_and(|suffix| !template && !value.ends_with('*') && value.ends_with(suffix))
}

/// A `*` that stands for itself, as Istio reads it.
fn stars(cx: &mut Cx<'_>, text: Text<'_>) {
    let inner = text.value.strip_prefix('*').or_else(|| text.value.strip_suffix('*')).unwrap_or(text.value);
    if inner.contains('*') && !text.value.contains('{') {
        let message =
            format!("`{}`: a `*` that is not at one end is a star and nothing else", clip_text(text.value));
        cx.warn(text.node, message, "`prefix*` or `*suffix`; of paths also `/a/{*}/b` and `/a/{**}`");
    }
}

fn method(cx: &mut Cx<'_>, text: Text<'_>) {
    if text.value.bytes().any(|byte| byte.is_ascii_lowercase()) {
        let upper = text.value.to_ascii_uppercase();
        let message = format!("no call has the method `{}`: case counts", clip_text(text.value));
        cx.warn(text.node, message, format!("write `{}`", clip_text(&upper)));
    }
}

fn host(cx: &mut Cx<'_>, text: Text<'_>) {
    if text.value.contains('/') {
        let message =
            format!("no call has the host `{}`: a host has neither scheme nor path", clip_text(text.value));
        let rest = text.value.split_once("://").map_or(text.value, |(_, rest)| rest);
        let bare = rest.split('/').next().unwrap_or_default();
        cx.warn(text.node, message, format!("write `{}`; paths are `paths`", clip_text(bare)));
    }
}

fn path(cx: &mut Cx<'_>, text: Text<'_>) {
    if !text.value.starts_with(['/', '*', '{']) {
        let message = format!("no call has the path `{}`: a path begins with `/`", clip_text(text.value));
        cx.warn(text.node, message, format!("write `/{}`", clip_text(text.value)));
    } else if text.value.contains(['?', '#']) {
        let message = format!("no call has the path `{}`: the query is no part of it", clip_text(text.value));
        cx.warn(text.node, message, "write what comes before the `?`");
    }
}

fn principal(cx: &mut Cx<'_>, text: Text<'_>) {
    if let Some(rest) = text.value.strip_prefix("spiffe://") {
        let message = "no caller is called so: principals are written without `spiffe://`";
        cx.warn(text.node, message, format!("write `{}`", clip_text(rest)));
    } else if !text.value.contains(['/', '*']) {
        let message = format!("no caller is called `{}`", clip_text(text.value));
        let hint = format!("write TRUST-DOMAIN/ns/NAMESPACE/agent/NAME, or `*/{}`", clip_text(text.value));
        cx.warn(text.node, message, hint);
    }
}

fn request_principal(cx: &mut Cx<'_>, text: Text<'_>) {
    if !text.value.contains(['/', '*']) {
        let message = format!("no token is called `{}`", clip_text(text.value));
        cx.warn(text.node, message, "write ISSUER/SUBJECT, ISSUER/* or *");
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn what_excludes_what() {
        for (wide, value) in [
            ("*", "a"),
            ("*", "*"),
            ("a", "a"),
            ("a*", "abc"),
            ("a*", "ab*"),
            ("*c", "abc"),
            ("*c", "*bc"),
            ("/a/{*}", "/a/{*}"),
        ] {
            assert!(covers(wide, value), "{wide} {value}");
        }
        for (wide, value) in [
            ("a", "*"),
            ("a*", "*"),
            ("a*", "*a"),
            ("*a", "a*"),
            ("ab*", "a*"),
            ("*bc", "*c"),
            ("a", "b"),
            ("/a*", "/a/{*}"),
        ] {
            assert!(!covers(wide, value), "{wide} {value}");
        }
    }
}
