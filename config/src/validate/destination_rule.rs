//! DestinationRule: host, subsets, policies.

use std::collections::HashMap;

use crate::model::{
    ClientTls, DestinationRule, Meta, OutlierDetection, Subset, TlsMode, TrafficPolicy, Tunnel, Wish,
};
use crate::raw::{
    ClientTlsMode, ClientTlsSpec, DestinationRuleSpec, OutlierSpec, PortPolicySpec, ProxyProtocolVersion,
    Text, TrafficPolicySpec, TunnelSpec,
};
use crate::yaml::{Node, clip_text};

use super::annotations::PolicyAnnotations;
use super::check::{Cx, fqdn};
use super::{load_balancer, pool, retry};
use std::time::Duration;

/// A DestinationRule and where its host and policy are written.
pub(super) struct DestinationRuleDraft<'n> {
    pub rule: DestinationRule,
    pub host: Node<'n>,
    pub policy: Option<Node<'n>>,
}

/// Reads one.
pub(super) fn destination_rule<'n>(
    cx: &mut Cx<'_>,
    meta: Meta,
    spec: &DestinationRuleSpec<'n>,
    annotations: &PolicyAnnotations,
) -> Option<DestinationRuleDraft<'n>> {
    let host = spec.host?;
    let mut policy =
        spec.traffic_policy.as_ref().map(|policy| traffic_policy(cx, policy)).unwrap_or_default();
    let mut names: HashMap<&str, u32> = HashMap::new();
    let mut subsets = Vec::new();
    for subset in spec.subsets.iter().flatten() {
        let Some(name) = subset.name else { continue };
        if let Some(line) = names.insert(name.value, name.node.at().line) {
            let message = format!("the subset `{}` is in line {line} already", clip_text(name.value));
            cx.error(name.node, message);
        }
        subsets.push(Subset {
            name: cx.label(name, "subset name"),
            labels: cx.labels(subset.labels.as_ref()),
            policy: subset.traffic_policy.as_ref().map(|policy| traffic_policy(cx, policy)),
        });
    }
    annotations.apply(&mut policy, &mut subsets);
    let workload_selector = spec
        .workload_selector
        .as_ref()
        .map(|selector| cx.selector(selector.node, selector.match_labels.as_ref()))
        .unwrap_or_default();
    let export_to = cx.export_to(spec.export_to.as_ref(), false);
    if let (Some(selector), Some(list)) = (&spec.workload_selector, &spec.export_to) {
        let own = |entry: &Text<'_>| entry.value == "." || entry.value == &*cx.namespace;
        if list.len() > 1 || !list.iter().all(own) {
            cx.error(selector.node, "a rule for selected workloads cannot be exported to other namespaces");
        }
    }
    let resolved = cx.host(host);
    let watches = |policy: &TrafficPolicy| {
        policy.outlier_detection.is_some() || matches!(policy.circuit_breaker, Wish::On(_))
    };
    if watches(&policy) && (resolved.capability().is_some() || resolved.as_str() == "*.capability.mesh") {
        let hint = "write them for the agents' own hosts, or the breaker on their AgentCluster";
        cx.warn(
            host.node,
            "outlier detection and breakers do nothing on a capability: they are an endpoint's",
            hint,
        );
    }
    let merged = Vec::new();
    let rule =
        DestinationRule { meta, host: resolved, policy, subsets, export_to, workload_selector, merged };
    Some(DestinationRuleDraft { rule, host: host.node, policy: spec.node.get("trafficPolicy") })
}

/// A policy.
pub(super) fn traffic_policy(cx: &mut Cx<'_>, spec: &TrafficPolicySpec<'_>) -> TrafficPolicy {
    if !spec.node.children().any(|child| !child.is_null()) {
        cx.error(spec.node, "the traffic policy is empty");
    }
    if spec.tunnel.is_some() && spec.proxy_protocol.is_some() {
        cx.error(spec.node, "`tunnel` and `proxyProtocol` exclude each other");
    }
    TrafficPolicy {
        load_balancer: spec.load_balancer.as_ref().map(|lb| load_balancer::load_balancer(cx, lb)),
        connection_pool: spec.connection_pool.as_ref().map(|pool| pool::connection_pool(cx, pool)),
        outlier_detection: spec.outlier_detection.as_ref().map(|outlier| outlier_detection(cx, outlier)),
        tls: spec.tls.as_ref().map(|tls| client_tls(cx, tls)),
        port_level: spec
            .port_level_settings
            .iter()
            .flatten()
            .filter_map(|port| port_policy(cx, port))
            .collect(),
        tunnel: spec.tunnel.as_ref().and_then(|tunnel| self::tunnel(cx, tunnel)),
        proxy_protocol: spec.proxy_protocol.as_ref().map(|proxy| match proxy.version.map(|v| v.value) {
            Some(ProxyProtocolVersion::V2) => 2,
            _ => 1,
        }),
        retry_budget: spec.retry_budget.as_ref().map(|budget| retry::budget(cx, budget)),
        // It is an annotation: see `PolicyAnnotations`.
        circuit_breaker: Wish::Silent,
    }
}

fn port_policy(cx: &mut Cx<'_>, spec: &PortPolicySpec<'_>) -> Option<(u16, TrafficPolicy)> {
    let policy = TrafficPolicy {
        load_balancer: spec.load_balancer.as_ref().map(|lb| load_balancer::load_balancer(cx, lb)),
        connection_pool: spec.connection_pool.as_ref().map(|pool| pool::connection_pool(cx, pool)),
        outlier_detection: spec.outlier_detection.as_ref().map(|outlier| outlier_detection(cx, outlier)),
        tls: spec.tls.as_ref().map(|tls| client_tls(cx, tls)),
        ..TrafficPolicy::default()
    };
    if policy.is_empty() {
        cx.error(spec.node, "the settings for the port are empty");
    }
    let number = spec.port.as_ref()?.number?;
    Some((cx.port(number)?, policy))
}

fn outlier_detection(cx: &mut Cx<'_>, spec: &OutlierSpec<'_>) -> OutlierDetection {
    let split = spec.split_external_local_origin_errors.is_some_and(|split| split.value);
    if let Some(failures) = spec.consecutive_local_origin_failures.filter(|f| f.value > 0 && !split) {
        let hint = "write splitExternalLocalOriginErrors: true";
        cx.error_hint(failures.node, "local failures are not counted apart", hint);
    }
    let number = |number: Option<u32>| number.filter(|number| *number > 0);
    let deprecated = spec.consecutive_errors.map(|errors| cx.not_negative(errors));
    let codes = spec.http_errors.as_deref().unwrap_or_default();
    for code in codes.iter().filter(|code| !(100..=599).contains(&code.value)) {
        cx.error_hint(code.node, format!("{} is not a status", code.value), "allowed: 100 to 599");
    }
    let detection = OutlierDetection {
        split_external_local_origin_errors: split,
        consecutive_local_origin_failures: number(
            spec.consecutive_local_origin_failures.map_or(Some(5), |f| Some(f.value)),
        ),
        consecutive_gateway_errors: number(spec.consecutive_gateway_errors.map(|e| e.value).or(deprecated)),
        consecutive_5xx_errors: number(spec.consecutive_5xx_errors.map_or(Some(5), |e| Some(e.value))),
        interval: spec.interval.map_or(Duration::from_secs(10), |time| cx.duration(time)),
        base_ejection_time: spec.base_ejection_time.map_or(Duration::from_secs(30), |time| cx.duration(time)),
        max_ejection_percent: spec.max_ejection_percent.map_or(10, |percent| cx.whole_percent(percent)),
        min_health_percent: spec.min_health_percent.map_or(0, |percent| cx.whole_percent(percent)),
        http_errors: codes.iter().filter_map(|code| u16::try_from(code.value).ok()).collect(),
    };
    unreachable_limits(cx, spec, &detection);
    detection
}

/// Limits that no row of failures can reach: all of them off, or another one always comes first.
fn unreachable_limits(cx: &mut Cx<'_>, spec: &OutlierSpec<'_>, detection: &OutlierDetection) {
    let (all, gateway) = (detection.consecutive_5xx_errors, detection.consecutive_gateway_errors);
    let local =
        detection.consecutive_local_origin_failures.filter(|_| detection.split_external_local_origin_errors);
    if all.is_none() && gateway.is_none() && local.is_none() {
        let hint = "write consecutive5xxErrors or consecutiveGatewayErrors";
        cx.error_hint(spec.node, "no endpoint is ever put aside: nothing is counted", hint);
    }
    if let (Some(all), Some(gateway), Some(own)) = (all, gateway, spec.consecutive_gateway_errors)
        && gateway > all
    {
        let message = format!(
            "{gateway} is never reached: 502, 503 and 504 also count as 5xx, of which {all} are enough"
        );
        let hint = "a smaller number than consecutive5xxErrors, or none";
        match spec.consecutive_5xx_errors {
            Some(_) => cx.error_hint(own.node, message, hint),
            None => cx.warn(own.node, message, hint),
        }
    }
}

fn client_tls(cx: &mut Cx<'_>, spec: &ClientTlsSpec<'_>) -> ClientTls {
    let text =
        |text: Option<Text<'_>>| text.filter(|text| !text.value.is_empty()).map(|text| text.value.to_owned());
    let mode = match spec.mode.map(|mode| mode.value) {
        None | Some(ClientTlsMode::Disable) => TlsMode::Disable,
        Some(ClientTlsMode::Simple) => TlsMode::Simple,
        Some(ClientTlsMode::Mutual) => TlsMode::Mutual,
        Some(ClientTlsMode::IstioMutual) => TlsMode::IstioMutual,
    };
    let tls = ClientTls {
        mode,
        client_certificate: text(spec.client_certificate),
        private_key: text(spec.private_key),
        ca_certificates: text(spec.ca_certificates),
        ca_crl: text(spec.ca_crl),
        credential_name: text(spec.credential_name),
        subject_alt_names: spec
            .subject_alt_names
            .iter()
            .flatten()
            .map(|name| name.value.to_owned())
            .collect(),
        sni: text(spec.sni),
        insecure_skip_verify: spec.insecure_skip_verify.map(|skip| skip.value),
    };
    tls_rules(cx, spec.node, &tls);
    tls
}

/// What Istio's validation refuses, and what would be read and not done.
fn tls_rules(cx: &mut Cx<'_>, node: Node<'_>, tls: &ClientTls) {
    let at = |field: &str| node.get(field).unwrap_or(node);
    let simple_or_mutual = matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual);
    let files = [
        ("clientCertificate", tls.client_certificate.is_some()),
        ("privateKey", tls.private_key.is_some()),
        ("caCertificates", tls.ca_certificates.is_some()),
        ("caCrl", tls.ca_crl.is_some()),
    ];
    let skips = tls.insecure_skip_verify == Some(true);
    if tls.credential_name.is_some() && tls.mode != TlsMode::Disable {
        let hint =
            "there are no secrets here: give files by caCertificates, clientCertificate and privateKey";
        cx.error_hint(at("credentialName"), "`credentialName` is not supported", hint);
    }
    match tls.mode {
        TlsMode::IstioMutual => {
            let others = [("insecureSkipVerify", skips)];
            for (field, _) in files.into_iter().chain(others).filter(|(_, written)| *written) {
                let message = format!("the mode ISTIO_MUTUAL takes no `{field}`");
                cx.error_hint(at(field), message, "it uses the mesh's own certificates; MUTUAL takes files");
            }
        }
        TlsMode::Mutual => {
            for (field, _) in files.into_iter().take(2).filter(|(_, written)| !written) {
                cx.error(node, format!("the mode MUTUAL needs `{field}`"));
            }
        }
        TlsMode::Simple => {
            for (field, _) in files.into_iter().take(2).filter(|(_, written)| *written) {
                cx.warn(at(field), "does nothing with the mode SIMPLE", "write the mode MUTUAL");
            }
        }
        TlsMode::Disable => {}
    }
    if !skips || !simple_or_mutual {
        return;
    }
    if tls.ca_certificates.is_some() || !tls.subject_alt_names.is_empty() {
        cx.error(node, "`insecureSkipVerify` and what is verified exclude each other");
    }
    let hint = "write caCertificates, or leave it out when the system's authorities know the host";
    cx.warn(at("insecureSkipVerify"), "whoever answers there is believed: nothing is verified", hint);
}

fn tunnel(cx: &mut Cx<'_>, spec: &TunnelSpec<'_>) -> Option<Tunnel> {
    if let Some(protocol) = spec.protocol.filter(|p| !matches!(p.value, "" | "CONNECT" | "POST")) {
        cx.error_hint(
            protocol.node,
            format!("`{}` is not a tunnel", clip_text(protocol.value)),
            "CONNECT or POST",
        );
    }
    let (host, port) = (spec.target_host?, spec.target_port?);
    if host.value.parse::<std::net::IpAddr>().is_err() && fqdn(host.value).is_err() {
        cx.error(host.node, format!("`{}` is not a host name or IP address", clip_text(host.value)));
    }
    let protocol = spec.protocol.filter(|p| !p.value.is_empty()).map_or("CONNECT", |p| p.value).to_owned();
    Some(Tunnel { protocol, target_host: host.value.to_owned(), target_port: cx.port(port)? })
}
