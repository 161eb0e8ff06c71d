//! Sidecar.

use crate::model::{Meta, OutboundMode, Sidecar, SidecarEgress, SidecarIngress, SidecarPort};
use crate::raw::{
    CaptureMode, EgressSpec, IngressSpec, One, OutboundWord, SidecarPortSpec, SidecarSpec, Text,
};
use crate::yaml::clip_text;

use super::annotations::PREFIX;
use super::check::{Cx, is_dns_label, wildcard_domain};
use super::{http_route, pool};

/// Reads one.
pub(super) fn sidecar(cx: &mut Cx<'_>, meta: Meta, spec: &SidecarSpec<'_>) -> Sidecar {
    if spec.egress.is_none()
        && spec.ingress.is_none()
        && spec.outbound_traffic_policy.is_none()
        && spec.inbound_connection_pool.is_none()
        && !meta.annotations.keys().any(|key| key.starts_with(PREFIX))
    {
        cx.error_hint(
            spec.node,
            "the Sidecar says nothing",
            "write outboundTrafficPolicy, egress, ingress or an annotation",
        );
    }
    let workload_selector = spec
        .workload_selector
        .as_ref()
        .map(|selector| cx.selector(selector.node, selector.labels.as_ref()))
        .unwrap_or_default();
    let outbound = spec.outbound_traffic_policy.as_ref();
    let mode = outbound.map(|policy| match policy.mode.map(|mode| mode.value) {
        None | Some(OutboundWord::RegistryOnly) => OutboundMode::RegistryOnly,
        Some(OutboundWord::AllowAny) => OutboundMode::AllowAny,
    });
    let egress_proxy = outbound.and_then(|policy| policy.egress_proxy.as_ref()).and_then(|proxy| {
        if mode != Some(OutboundMode::AllowAny) {
            cx.error(proxy.node, "`egressProxy` needs the mode ALLOW_ANY");
        }
        if proxy.port.is_none() {
            cx.error(proxy.node, "the required field `port` is missing");
        }
        http_route::destination(cx, proxy)
    });
    let egress: Vec<_> = spec.egress.iter().flatten().map(|listener| self::egress(cx, listener)).collect();
    let list = spec.egress.as_deref().unwrap_or_default();
    for listener in list.iter().rev().skip(1).filter(|listener| listener.port.is_none()) {
        cx.error(listener.node, "a listener without a port must be the last one");
    }
    Sidecar {
        meta,
        workload_selector,
        ingress: spec.ingress.iter().flatten().filter_map(|listener| ingress(cx, listener)).collect(),
        egress,
        inbound_connection_pool: spec.inbound_connection_pool.as_ref().map(|p| pool::connection_pool(cx, p)),
        outbound: mode,
        egress_proxy,
    }
}

fn port(cx: &mut Cx<'_>, spec: &SidecarPortSpec<'_>, zero: bool) -> Option<SidecarPort> {
    if let Some(target) = spec.target_port.filter(|target| target.value > 0) {
        cx.error(target.node, "`targetPort` has no effect in a Sidecar");
    }
    if let Some(name) = spec.name.filter(|name| !name.value.is_empty()) {
        cx.label(name, "port name");
    }
    let number = match spec.number {
        Some(number) if number.value > 0 => cx.port(number)?,
        _ if zero => 0,
        _ => {
            cx.error(spec.node, "the required field `number` is missing");
            return None;
        }
    };
    let text = |text: Option<Text<'_>>| text.map_or(String::new(), |text| text.value.to_owned());
    Some(SidecarPort { number, protocol: text(spec.protocol), name: text(spec.name) })
}

fn capture_mode(mode: Option<One<'_, CaptureMode>>) -> String {
    match mode.map(|mode| mode.value) {
        None | Some(CaptureMode::Default) => "DEFAULT",
        Some(CaptureMode::Iptables) => "IPTABLES",
        Some(CaptureMode::None) => "NONE",
    }
    .to_owned()
}

fn bind(cx: &mut Cx<'_>, bind: Option<Text<'_>>) -> Option<String> {
    let bind = bind.filter(|bind| !bind.value.is_empty())?;
    let unix = bind.value.strip_prefix("unix://").is_some_and(|path| path.starts_with(['/', '@']));
    if !unix && bind.value.parse::<std::net::IpAddr>().is_err() {
        let message = format!("`{}` is not an IP address or unix:///path", clip_text(bind.value));
        cx.error(bind.node, message);
    }
    Some(bind.value.to_owned())
}

fn ingress(cx: &mut Cx<'_>, spec: &IngressSpec<'_>) -> Option<SidecarIngress> {
    let bind = bind(cx, spec.bind);
    let port = port(cx, spec.port.as_ref()?, false)?;
    if let Some(endpoint) = spec.default_endpoint.filter(|endpoint| !endpoint.value.is_empty()) {
        let unix = endpoint.value.strip_prefix("unix://").is_some_and(|path| path.starts_with(['/', '@']));
        let loopback = endpoint.value.rsplit_once(':').is_some_and(|(host, port)| {
            let local = matches!(host, "" | "127.0.0.1" | "0.0.0.0" | "[::1]" | "[::]");
            local && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if !unix && !loopback {
            let hint = "write 127.0.0.1:PORT, 0.0.0.0:PORT, [::1]:PORT, [::]:PORT or unix:///path";
            cx.error_hint(endpoint.node, "not an address of the workload itself", hint);
        }
    }
    Some(SidecarIngress {
        port,
        bind,
        capture_mode: capture_mode(spec.capture_mode),
        default_endpoint: spec.default_endpoint.map(|endpoint| endpoint.value.to_owned()),
        connection_pool: spec.connection_pool.as_ref().map(|p| pool::connection_pool(cx, p)),
    })
}

fn egress(cx: &mut Cx<'_>, spec: &EgressSpec<'_>) -> SidecarEgress {
    if spec.hosts.as_ref().is_some_and(Vec::is_empty) {
        cx.error(spec.node, "a listener needs at least one host in `hosts`");
    }
    for host in spec.hosts.iter().flatten() {
        let valid = host.value.split_once('/').is_some_and(|(namespace, name)| {
            let excluded = namespace.strip_prefix('~').unwrap_or(namespace);
            let namespace = matches!(namespace, "*" | "." | "~") || is_dns_label(excluded);
            namespace && (name == "*" || wildcard_domain(name).is_ok())
        });
        if !valid {
            let message = format!("`{}` is not a host of an egress listener", clip_text(host.value));
            cx.error_hint(host.node, message, "write namespace/host, ./host, */host, ~/* or ~namespace/host");
        }
    }
    SidecarEgress {
        bind: bind(cx, spec.bind),
        port: spec.port.as_ref().and_then(|spec| port(cx, spec, true)),
        capture_mode: capture_mode(spec.capture_mode),
        hosts: spec.hosts.iter().flatten().map(|host| host.value.to_owned()).collect(),
    }
}
