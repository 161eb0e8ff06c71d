//! PeerAuthentication, AuthorizationPolicy and RequestAuthentication.

use std::collections::BTreeMap;

use crate::model::{
    AuthorizationAction, AuthorizationCondition, AuthorizationOperation, AuthorizationPolicy,
    AuthorizationRule, AuthorizationSource, JwtRule, Meta, MtlsMode, PeerAuthentication,
    RequestAuthentication, Scope, TargetRef, Values, is_dry_run,
};
use crate::raw::{
    ActionWord, AuthorizationPolicySpec, ConditionSpec, JwtRuleSpec, List, MtlsSpec, MtlsWord, OperationSpec,
    PeerAuthenticationSpec, PresenceWord, RequestAuthenticationSpec, RuleSpec, SelectorSpec, SourceSpec,
    TargetRefSpec, Text,
};
use crate::yaml::{Node, clip_text};

use super::check::{Cx, is_subnet};
use super::headers::is_header_name;

/// Whom a policy is for; labels and objects exclude each other.
pub(super) fn scope(
    cx: &mut Cx<'_>,
    selector: Option<&SelectorSpec<'_>>,
    target: Option<&TargetRefSpec<'_>>,
    targets: Option<&List<TargetRefSpec<'_>>>,
) -> Scope {
    let list = targets.map(Vec::as_slice).unwrap_or_default();
    let kinds = [selector.is_some(), target.is_some(), !list.is_empty()];
    if kinds.iter().filter(|some| **some).count() > 1
        && let Some(node) = selector.map(|own| own.node).or(target.map(|own| own.node))
    {
        cx.error(node, "`selector`, `targetRef` and `targetRefs` exclude each other");
    }
    Scope {
        selector: selector.map(|s| cx.selector(s.node, s.match_labels.as_ref())).unwrap_or_default(),
        targets: target.into_iter().chain(list).filter_map(|target| target_ref(cx, target)).collect(),
    }
}

fn target_ref(cx: &mut Cx<'_>, spec: &TargetRefSpec<'_>) -> Option<TargetRef> {
    const ALLOWED: &[(&str, &str)] = &[
        ("", "Service"),
        ("core", "Service"),
        ("networking.istio.io", "ServiceEntry"),
        ("gateway.networking.k8s.io", "Gateway"),
        ("gateway.networking.k8s.io", "GatewayClass"),
    ];
    let (kind, name) = (spec.kind?, spec.name?);
    let group = spec.group.map_or("", |group| group.value);
    if !ALLOWED.contains(&(group, kind.value)) {
        let message = format!("`{}/{}` cannot be a target", clip_text(group), clip_text(kind.value));
        cx.error_hint(kind.node, message, "a Service, ServiceEntry, Gateway or GatewayClass with its group");
    }
    if let Some(namespace) = spec.namespace.filter(|namespace| !namespace.value.is_empty()) {
        cx.error(namespace.node, "a target in another namespace is not supported");
    }
    let name = cx.not_empty(name);
    let namespace = spec.namespace.map(|namespace| namespace.value.to_owned());
    Some(TargetRef { group: group.to_owned(), kind: kind.value.to_owned(), name, namespace })
}

/// Reads a PeerAuthentication.
pub(super) fn peer_authentication(
    cx: &mut Cx<'_>,
    meta: Meta,
    spec: &PeerAuthenticationSpec<'_>,
) -> PeerAuthentication {
    let scope = scope(cx, spec.selector.as_ref(), None, None);
    let ports = spec.port_level_mtls.as_deref().unwrap_or_default();
    if let Some(map) = spec.node.get("portLevelMtls") {
        if scope.selector.is_empty() && !ports.is_empty() {
            cx.error_hint(map, "ports can only be named for selected workloads", "write `selector`");
        }
        if map.children().next().is_none() {
            cx.error(map, "`portLevelMtls` is empty");
        }
    }
    let mut port_level = BTreeMap::new();
    for (port, mtls) in ports {
        match port.value.parse::<u16>() {
            Ok(number) if number > 0 => {
                port_level.insert(number, mtls_mode(mtls));
            }
            _ => {
                let message = format!("`{}` is not a port", clip_text(port.value));
                cx.diagnose.error_at_key(port.node, message, Some("ports are 1 to 65535".into()));
            }
        }
    }
    let mode = spec.mtls.as_ref().and_then(mtls_mode);
    PeerAuthentication { meta, selector: scope.selector, mode, port_level }
}

fn mtls_mode(spec: &MtlsSpec<'_>) -> Option<MtlsMode> {
    match spec.mode?.value {
        MtlsWord::Unset => None,
        MtlsWord::Disable => Some(MtlsMode::Disable),
        MtlsWord::Permissive => Some(MtlsMode::Permissive),
        MtlsWord::Strict => Some(MtlsMode::Strict),
    }
}

/// Reads an AuthorizationPolicy.
pub(super) fn authorization_policy(
    cx: &mut Cx<'_>,
    meta: Meta,
    spec: &AuthorizationPolicySpec<'_>,
) -> AuthorizationPolicy {
    let action = match spec.action.map(|action| action.value) {
        None | Some(ActionWord::Allow) => AuthorizationAction::Allow,
        Some(ActionWord::Deny) => AuthorizationAction::Deny,
        Some(ActionWord::Audit) => AuthorizationAction::Audit,
        Some(ActionWord::Custom) => AuthorizationAction::Custom,
    };
    let provider =
        spec.provider.as_ref().and_then(|provider| provider.name).map(|name| name.value.to_owned());
    let custom = action == AuthorizationAction::Custom;
    if custom && provider.as_ref().is_none_or(String::is_empty) {
        cx.error(spec.node, "the action CUSTOM needs `provider.name`");
    }
    if let Some(provider) = spec.provider.as_ref().filter(|_| !custom) {
        cx.error(provider.node, "`provider` needs the action CUSTOM");
    }
    if spec.rules.is_none() && matches!(action, AuthorizationAction::Custom | AuthorizationAction::Deny) {
        cx.error_hint(
            spec.node,
            "without `rules` the action never happens",
            "write `rules: [{}]` for every request",
        );
    }
    if action == AuthorizationAction::Audit && is_dry_run(&meta) {
        cx.error_hint(
            spec.node,
            "a dry run of AUDIT does nothing",
            "AUDIT enforces nothing: no dry run is needed",
        );
    }
    let rules = spec.rules.iter().flatten().map(|rule| self::rule(cx, rule, custom)).collect();
    let scope = scope(cx, spec.selector.as_ref(), spec.target_ref.as_ref(), spec.target_refs.as_ref());
    AuthorizationPolicy { meta, scope, action, provider, rules }
}

fn rule(cx: &mut Cx<'_>, spec: &RuleSpec<'_>, custom: bool) -> AuthorizationRule {
    for (name, empty) in [
        ("from", spec.from.as_ref().is_some_and(Vec::is_empty)),
        ("to", spec.to.as_ref().is_some_and(Vec::is_empty)),
    ] {
        if empty {
            cx.error(spec.node, format!("`{name}` must not be empty"));
        }
    }
    let mut rule = AuthorizationRule::default();
    for from in spec.from.iter().flatten() {
        match &from.source {
            Some(spec) => rule.from.push(source(cx, spec, custom)),
            None => cx.error(from.node, "the required field `source` is missing"),
        }
    }
    for to in spec.to.iter().flatten() {
        match &to.operation {
            Some(spec) => rule.to.push(operation(cx, spec)),
            None => cx.error(to.node, "the required field `operation` is missing"),
        }
    }
    rule.when = spec.when.iter().flatten().filter_map(|when| condition(cx, when, custom)).collect();
    rule
}

fn values(cx: &mut Cx<'_>, any: Option<&List<Text<'_>>>, none: Option<&List<Text<'_>>>) -> Values {
    Values { any_of: cx.texts(any), none_of: cx.texts(none) }
}

/// Complains of a part of a rule in which nothing is written, and warns of lists with nothing in them: Istio reads those as if they were
/// not there, so that they let in everybody and not nobody.
fn written(cx: &mut Cx<'_>, node: Node<'_>, what: &str) {
    let is_empty = |child: &Node<'_>| child.scalar().is_none() && child.children().next().is_none();
    if node.children().all(|child| child.is_null() || is_empty(&child)) {
        cx.error_hint(node, format!("the {what} is empty"), "a rule without it is for any");
        return;
    }
    for child in node.children().filter(|child| !child.is_null() && is_empty(child)) {
        cx.warn(child, "an empty list is as if it were not written", "write what it is for, or remove it");
    }
}

/// A service account as a source names it.
fn is_account(text: &str) -> bool {
    let (namespace, name) = text.split_once('/').map_or((None, text), |(own, name)| (Some(own), name));
    namespace != Some("") && !name.is_empty() && !name.contains('/') && !text.contains('*')
}

/// A trust domain, with `*` at one end perhaps.
fn is_trust_domain(text: &str) -> bool {
    let inner = text.strip_prefix('*').or_else(|| text.strip_suffix('*')).unwrap_or(text);
    !inner.contains(['*', '/'])
}

fn source(cx: &mut Cx<'_>, spec: &SourceSpec<'_>, custom: bool) -> AuthorizationSource {
    written(cx, spec.node, "source");
    let identities = ["principals", "notPrincipals", "namespaces", "notNamespaces"];
    let accounts = ["serviceAccounts", "notServiceAccounts"];
    let has = |names: &[&str]| names.iter().find_map(|name| spec.node.get(name));
    if let (Some(_), Some(account)) = (has(&identities), has(&accounts)) {
        cx.error(account, "service accounts exclude namespaces and principals");
    }
    if custom {
        let unsupported = ["requestPrincipals", "notRequestPrincipals", "trustDomains", "notTrustDomains"];
        for name in identities.iter().chain(&accounts).chain(&unsupported) {
            if let Some(node) = spec.node.get(name) {
                cx.error(node, "not supported with the action CUSTOM");
            }
        }
    }
    for account in spec.service_accounts.iter().chain(&spec.not_service_accounts).flatten() {
        if !is_account(account.value) {
            let message = format!("`{}` is not a service account", clip_text(account.value));
            cx.error_hint(
                account.node,
                message,
                "NAME or NAMESPACE/NAME, without `*`; `namespaces` takes all of one",
            );
        }
    }
    for domain in spec.trust_domains.iter().chain(&spec.not_trust_domains).flatten() {
        if !is_trust_domain(domain.value) {
            let message = format!("`{}` is not a trust domain", clip_text(domain.value));
            cx.error_hint(domain.node, message, "a name without `/`, with one `*` at one end at most");
        }
    }
    for list in [&spec.ip_blocks, &spec.not_ip_blocks, &spec.remote_ip_blocks, &spec.not_remote_ip_blocks] {
        for block in list.iter().flatten().filter(|block| !is_subnet(block.value)) {
            let message = format!("`{}` is not an IP address or CIDR block", clip_text(block.value));
            cx.error(block.node, message);
        }
    }
    AuthorizationSource {
        principals: values(cx, spec.principals.as_ref(), spec.not_principals.as_ref()),
        request_principals: values(
            cx,
            spec.request_principals.as_ref(),
            spec.not_request_principals.as_ref(),
        ),
        namespaces: values(cx, spec.namespaces.as_ref(), spec.not_namespaces.as_ref()),
        service_accounts: values(cx, spec.service_accounts.as_ref(), spec.not_service_accounts.as_ref()),
        ip_blocks: values(cx, spec.ip_blocks.as_ref(), spec.not_ip_blocks.as_ref()),
        remote_ip_blocks: values(cx, spec.remote_ip_blocks.as_ref(), spec.not_remote_ip_blocks.as_ref()),
        trust_domains: values(cx, spec.trust_domains.as_ref(), spec.not_trust_domains.as_ref()),
    }
}

fn operation(cx: &mut Cx<'_>, spec: &OperationSpec<'_>) -> AuthorizationOperation {
    written(cx, spec.node, "operation");
    for port in spec.ports.iter().chain(&spec.not_ports).flatten() {
        if !port.value.parse::<u16>().is_ok_and(|number| number > 0) {
            let message = format!("`{}` is not a port", clip_text(port.value));
            cx.error_hint(port.node, message, "ports are 1 to 65535");
        }
    }
    for path in spec.paths.iter().chain(&spec.not_paths).flatten() {
        path_template(cx, *path);
    }
    AuthorizationOperation {
        hosts: values(cx, spec.hosts.as_ref(), spec.not_hosts.as_ref()),
        ports: values(cx, spec.ports.as_ref(), spec.not_ports.as_ref()),
        methods: values(cx, spec.methods.as_ref(), spec.not_methods.as_ref()),
        paths: values(cx, spec.paths.as_ref(), spec.not_paths.as_ref()),
    }
}

/// `{*}` is one whole segment, `{**}` any number of them and the last one of the two; other braces mean nothing. What stands between them
/// is plain text of a path (RFC 3986's `pchar`), and no segment of it is empty.
fn path_template(cx: &mut Cx<'_>, path: Text<'_>) {
    if !path.value.contains(['{', '}']) {
        return;
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte);
    let segments = || path.value.trim_matches('/').split('/');
    let operator = |segment: &&str| matches!(*segment, "{*}" | "{**}");
    let wrong =
        segments().filter(|segment| !operator(segment)).any(|s| s.is_empty() || !s.bytes().all(plain));
    let mut operators = segments().filter(operator);
    let behind_rest = operators.by_ref().any(|operator| operator == "{**}") && operators.next().is_some();
    if wrong || behind_rest {
        let hint = "`{*}` is one whole segment, `{**}` any number of them and the last one; beside them plain segments, none empty, without `*`";
        cx.error_hint(path.node, format!("`{}` is not a path template", clip_text(path.value)), hint);
    }
}

fn condition(cx: &mut Cx<'_>, spec: &ConditionSpec<'_>, custom: bool) -> Option<AuthorizationCondition> {
    let key = spec.key?;
    let values = values(cx, spec.values.as_ref(), spec.not_values.as_ref());
    if values.any_of.is_empty() && values.none_of.is_empty() {
        cx.error_hint(spec.node, "the condition has no values", "write `values` or `notValues`");
    }
    let metadata = key.value.starts_with("experimental.envoy.filters.http.ext_authz[");
    let experimental = key.value.starts_with("experimental.envoy.filters.");
    if !is_attribute(key.value) && !experimental {
        let bracketed = ["request.headers[NAME]", "request.auth.claims[NAME]"];
        let elsewhere = ELSEWHERE.iter().find(|(own, _)| key.value.starts_with(own)).map(|(_, hint)| *hint);
        let near = || crate::raw::nearest(key.value, ATTRIBUTES.iter().copied().chain(bracketed));
        let hint = match elsewhere {
            Some(hint) => hint.to_owned(),
            None => near().map_or_else(
                || format!("known: {}, {}", ATTRIBUTES.join(", "), bracketed.join(", ")),
                |near| format!("did you mean `{near}`?"),
            ),
        };
        cx.error_hint(key.node, format!("`{}` is not an attribute", clip_text(key.value)), hint);
    }
    if experimental && !metadata {
        let message = format!(
            "`{}` cannot be decided here: of Envoy's filters there is only `http.ext_authz`",
            clip_text(key.value)
        );
        cx.warn(key.node, message, "the policy denies its workload");
    }
    let identity = matches!(
        key.value,
        "source.namespace" | "source.principal" | "source.serviceAccount" | "source.trustDomain"
    );
    if custom && (identity || metadata || key.value.starts_with("request.auth.")) {
        cx.error(key.node, "not supported with the action CUSTOM");
    }
    for value in spec.values.iter().chain(&spec.not_values).flatten() {
        let valid = match key.value {
            "source.ip" | "remote.ip" | "destination.ip" => is_subnet(value.value),
            "destination.port" => value.value.parse::<u16>().is_ok_and(|port| port > 0),
            "source.serviceAccount" => is_account(value.value),
            "source.trustDomain" => is_trust_domain(value.value),
            "pilotfish.delegation.depth" => is_bound(value.value),
            _ => true,
        };
        if !valid {
            let hint = match key.value {
                "pilotfish.delegation.depth" => "a number, or `<=N`, `<N`, `>=N`, `>N`",
                "source.serviceAccount" => "NAME or NAMESPACE/NAME, without `*`",
                "source.trustDomain" => "a name without `/`, with one `*` at one end at most",
                "destination.port" => "ports are 1 to 65535",
                _ => "an IP address or CIDR block",
            };
            let message = format!("`{}` is not a value of {}", clip_text(value.value), key.value);
            cx.error_hint(value.node, message, hint);
        }
        if key.value == "pilotfish.protocol" && !is_protocol_pattern(value.value) {
            let message = format!("no protocol is called `{}`", clip_text(value.value));
            cx.warn(value.node, message, format!("known: {}", PROTOCOLS.join(", ")));
        }
    }
    Some(AuthorizationCondition { key: key.value.to_owned(), values })
}

/// Attributes that `when` may name, besides those with brackets: Istio's, then ours.
const ATTRIBUTES: &[&str] = &[
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.serviceAccount",
    "source.trustDomain",
    "source.principal",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "destination.ip",
    "destination.port",
    "connection.sni",
    "pilotfish.protocol",
    "pilotfish.capability",
    "pilotfish.a2a.method",
    "pilotfish.a2a.skill",
    "pilotfish.mcp.method",
    "pilotfish.mcp.tool",
    "pilotfish.model",
    "pilotfish.delegation.depth",
    "pilotfish.delegation.origin",
    "pilotfish.delegation.agents",
];

/// Attributes that Istio had once, or has by another name, and what is written instead.
const ELSEWHERE: &[(&str, &str)] = &[
    ("request.headers[:path]", "paths are `to[].operation.paths`"),
    ("destination.labels[", "workloads are chosen by `selector`"),
    ("destination.name", "workloads are chosen by `selector`"),
    ("destination.user", "workloads are chosen by `selector`"),
    ("destination.namespace", "a policy is for the workloads of its own namespace"),
];

/// What `pilotfish.protocol` may be.
const PROTOCOLS: &[&str] = &["http", "grpc", "websocket", "jsonrpc", "mcp", "a2a", "openai"];

fn is_attribute(key: &str) -> bool {
    let within = |start: &str| key.strip_prefix(start)?.strip_suffix(']');
    let header = within("request.headers[").map(|name| {
        let name = name.to_ascii_lowercase();
        is_header_name(&name) || matches!(name.as_str(), ":authority" | ":method")
    });
    let is_claim = |name: &str| !name.is_empty() && !name.contains(['[', ']']);
    let claims = within("request.auth.claims[").map(|names| names.split("][").all(is_claim));
    ATTRIBUTES.contains(&key) || header.or(claims) == Some(true)
}

fn is_protocol_pattern(value: &str) -> bool {
    value.contains('*') || PROTOCOLS.contains(&value)
}

fn is_bound(text: &str) -> bool {
    let text = text.trim();
    let digits = ["<=", ">=", "<", ">"].iter().find_map(|sign| text.strip_prefix(sign)).unwrap_or(text);
    digits.trim().parse::<u64>().is_ok()
}

/// A header that a rule writes: none that frames messages, and none that only sidecars write.
fn written_header(cx: &mut Cx<'_>, header: Text<'_>) -> String {
    const RESERVED: &[&str] = &[
        "agent-hops",
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-client-cert",
    ];
    let name = header.value.to_ascii_lowercase();
    if !is_header_name(&name) || name.contains(['.', '*']) {
        cx.error(header.node, format!("`{}` is not a header name", clip_text(header.value)));
    } else if RESERVED.contains(&name.as_str()) || name.starts_with("x-pilotfish-") {
        cx.error_hint(
            header.node,
            format!("`{name}` is not a rule's to write"),
            "a name of your own, as in `x-user`",
        );
    }
    header.value.to_owned()
}

/// Keys in a document: what can be said of them without the arithmetic, which the sidecar does.
fn key_set(cx: &mut Cx<'_>, jwks: Text<'_>) {
    let set = serde_json::from_str::<serde_json::Value>(jwks.value).unwrap_or_default();
    let keys = match set.get("keys") {
        Some(keys) => keys.as_array().map(Vec::as_slice),
        None => set.get("kty").map(|_| std::slice::from_ref(&set)),
    };
    let Some(keys) = keys else {
        cx.error(jwks.node, "not a JSON Web Key Set");
        return;
    };
    let is =
        |kind: &str| keys.iter().any(|key| key.get("kty").and_then(serde_json::Value::as_str) == Some(kind));
    if keys.iter().any(|key| key.get("kty") != Some(&"oct".into()) && key.get("d").is_some()) {
        cx.warn(
            jwks.node,
            "the key set has a private key, and whoever reads this document can make tokens with it",
            "write the public part alone, and make the issuer a new key",
        );
    }
    if is("oct") {
        cx.error_hint(
            jwks.node,
            "a shared secret (`oct`) is no key of an issuer: whoever can check its tokens can make them",
            "public keys: RSA, EC or OKP",
        );
    } else if !["RSA", "EC", "OKP"].into_iter().any(is) {
        cx.error_hint(
            jwks.node,
            "the key set has no key that can be used",
            "RSA, EC (P-256, P-384) or OKP (Ed25519)",
        );
    }
}

/// Reads a RequestAuthentication.
pub(super) fn request_authentication(
    cx: &mut Cx<'_>,
    meta: Meta,
    spec: &RequestAuthenticationSpec<'_>,
) -> RequestAuthentication {
    let scope = scope(cx, spec.selector.as_ref(), spec.target_ref.as_ref(), spec.target_refs.as_ref());
    let jwt_rules = spec.jwt_rules.iter().flatten().map(|rule| jwt_rule(cx, rule)).collect();
    RequestAuthentication { meta, scope, jwt_rules }
}

fn jwt_rule(cx: &mut Cx<'_>, spec: &JwtRuleSpec<'_>) -> JwtRule {
    let uri = spec.jwks_uri.or(spec.jwks_uri_old).filter(|uri| !uri.value.is_empty());
    let issuer = spec.issuer.map_or(String::new(), |issuer| issuer.value.to_owned());
    let jwks = spec.jwks.filter(|jwks| !jwks.value.is_empty());
    if issuer.is_empty() && uri.is_none() {
        cx.error(spec.node, "`issuer` or `jwksUri` must not be empty");
    } else if uri.is_none() && jwks.is_none() && !issuer.contains("://") {
        let message = format!(
            "there are no keys: the issuer `{}` is no address that could be asked",
            clip_text(&issuer)
        );
        cx.warn(spec.node, message, "write `jwksUri` or `jwks`");
    }
    if let Some(uri) = uri {
        let rest = uri.value.strip_prefix("https://").or_else(|| uri.value.strip_prefix("http://"));
        let host = rest.and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default();
        let port = host.rsplit_once(':').map(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
        if host.contains('@') {
            // What stands before it may be a secret.
            cx.error_hint(uri.node, "the URI of keys has a user name", "keys are public: write it without");
        } else if host.is_empty() || host.starts_with(':') || port == Some(false) && !host.ends_with(']') {
            cx.error_hint(
                uri.node,
                format!("`{}` is not a URI of keys", clip_text(uri.value)),
                "http:// or https://",
            );
        }
    }
    if let Some(jwks) = jwks {
        key_set(cx, jwks);
        if uri.is_some() {
            cx.error_hint(jwks.node, "`jwks` and `jwksUri` exclude each other", "write one of them");
        }
    }
    let mut from_headers = Vec::new();
    for header in spec.from_headers.iter().flatten() {
        let Some(name) = header.name else { continue };
        if !name.value.is_empty() && !is_header_name(name.value) {
            cx.error(name.node, format!("`{}` is not a header name", clip_text(name.value)));
        }
        from_headers.push((cx.not_empty(name), header.prefix.map(|prefix| prefix.value.to_owned())));
    }
    let mut output_claim_to_headers: Vec<(String, String)> = Vec::new();
    for entry in spec.output_claim_to_headers.iter().flatten() {
        let (Some(header), Some(claim)) = (entry.header, entry.claim) else { continue };
        let same = |(other, _): &(String, String)| other.eq_ignore_ascii_case(header.value);
        if output_claim_to_headers.iter().any(same) {
            let message = format!("`{}` is written by another claim already", clip_text(header.value));
            cx.error_hint(header.node, message, "a header for each claim");
        }
        output_claim_to_headers.push((written_header(cx, header), cx.not_empty(claim)));
    }
    JwtRule {
        issuer,
        audiences: cx.texts(spec.audiences.as_ref()),
        jwks_uri: uri.map(|uri| uri.value.to_owned()),
        jwks: jwks.map(|jwks| jwks.value.to_owned()),
        from_headers,
        from_params: cx.texts(spec.from_params.as_ref()),
        from_cookies: cx.texts(spec.from_cookies.as_ref()),
        output_payload_to_header: spec.output_payload_to_header.map(|header| written_header(cx, header)),
        forward_original_token: spec.forward_original_token.is_some_and(|forward| forward.value),
        output_claim_to_headers,
        timeout: spec.timeout.map(|time| cx.duration(time)),
        space_delimited_claims: cx.texts(spec.space_delimited_claims.as_ref()),
        required: spec.presence.is_some_and(|presence| presence.value == PresenceWord::Required),
    }
}
