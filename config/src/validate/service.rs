//! ServiceEntry, WorkloadEntry and WorkloadGroup.

use std::collections::HashMap;

use crate::model::{
    Address, Host, Locality, Location, Meta, PortProtocol, Probe, ProbeMethod, Resolution, ServiceEntry,
    ServicePort, StringMap, Workload, WorkloadEntry, WorkloadGroup,
};
use crate::raw::{
    HttpGetSpec, List, LocationWord, ProbeSpec, ResolutionWord, ServiceEntrySpec, ServicePortSpec, Text,
    WorkloadGroupSpec, WorkloadSpec, nearest,
};
use crate::yaml::{Node, clip_text};

use super::check::{Cx, fqdn, is_subnet, wildcard_domain};
use super::headers::is_header_name;
use super::health;

/// The label and annotation that ties an endpoint to an agent.
pub(super) const AGENT: &str = "pilotfish.dev/agent";
/// The label and annotation that says that a port is a sidecar's inbound port.
pub(super) const MESH: &str = "pilotfish.dev/mesh";

/// The label and annotation that names the trust domain of an endpoint's identity.
pub(super) const TRUST_DOMAIN: &str = "pilotfish.dev/trust-domain";

/// Reads a ServiceEntry.
pub(super) fn service_entry(cx: &mut Cx<'_>, meta: Meta, spec: &ServiceEntrySpec<'_>) -> ServiceEntry {
    let resolution = match spec.resolution.map(|resolution| resolution.value) {
        None | Some(ResolutionWord::None) => Resolution::None,
        Some(ResolutionWord::Static) => Resolution::Static,
        Some(ResolutionWord::Dns) => Resolution::Dns,
        Some(ResolutionWord::DnsRoundRobin) => Resolution::DnsRoundRobin,
        Some(ResolutionWord::DynamicDns) => Resolution::DynamicDns,
    };
    let location = match spec.location.map(|location| location.value) {
        None | Some(LocationWord::MeshExternal) => Location::External,
        Some(LocationWord::MeshInternal) => Location::Internal,
    };
    let hosts = hosts(cx, spec, resolution);
    let addresses = addresses(cx, spec.addresses.as_ref(), resolution);
    let ports = ports(cx, spec.ports.as_deref().unwrap_or_default());
    if spec.ports.as_ref().is_none_or(Vec::is_empty) {
        cx.warn(spec.node, "the service has no ports, so nothing is routed to it", "write `ports`");
    }
    let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
    let mut endpoints = Vec::new();
    for endpoint in spec.endpoints.iter().flatten() {
        let workload = workload(cx, endpoint, &meta.annotations, Needs::of(resolution, &names));
        endpoints.push(workload);
    }
    let workload_selector = spec.workload_selector.as_ref().map(|selector| {
        if spec.endpoints.is_some() {
            let message = "`workloadSelector` and `endpoints` exclude each other";
            cx.error_hint(selector.node, message, "keep one of them");
        }
        cx.selector(selector.node, selector.labels.as_ref())
    });
    resolution_rules(cx, spec, resolution, &ports, hosts.len());
    let export_to = cx.export_to(spec.export_to.as_ref(), true);
    let subject_alt_names =
        spec.subject_alt_names.iter().flatten().map(|name| name.value.to_owned()).collect();
    let health_check = health::wish(&meta, "health-check", health::health_check);
    ServiceEntry {
        health_check,
        meta,
        hosts,
        addresses,
        ports,
        location,
        resolution,
        endpoints,
        workload_selector,
        export_to,
        subject_alt_names,
    }
}

fn hosts(cx: &mut Cx<'_>, spec: &ServiceEntrySpec<'_>, resolution: Resolution) -> Vec<Host> {
    if spec.hosts.as_ref().is_some_and(Vec::is_empty) {
        cx.error(spec.node, "the service has no hosts");
    }
    let mut hosts = Vec::new();
    for host in spec.hosts.iter().flatten() {
        if host.value == "*" {
            cx.error(host.node, "`*` is not a service's host");
            continue;
        }
        if let Err(why) = wildcard_domain(host.value) {
            cx.error(host.node, format!("`{}` is not a host name: {why}", clip_text(host.value)));
            continue;
        }
        let partial = host.value.starts_with('*') && !host.value.starts_with("*.");
        if partial && resolution != Resolution::DynamicDns {
            cx.warn(host.node, "a wildcard for a part of a label is not portable", "write `*.` and a domain");
        }
        hosts.push(Host::resolve(host.value, &cx.namespace));
    }
    hosts
}

fn addresses(cx: &mut Cx<'_>, list: Option<&List<Text<'_>>>, resolution: Resolution) -> Vec<String> {
    for address in list.into_iter().flatten() {
        let cidr = address.value.contains('/') && is_subnet(address.value);
        if cidr && !matches!(resolution, Resolution::None | Resolution::Static) {
            cx.error_hint(
                address.node,
                "a CIDR block needs resolution NONE or STATIC",
                "write an IP address",
            );
        }
    }
    list.into_iter().flatten().map(|address| cx.subnet(*address)).collect()
}

fn ports(cx: &mut Cx<'_>, list: &[ServicePortSpec<'_>]) -> Vec<ServicePort> {
    let (mut names, mut numbers) = (HashMap::new(), HashMap::new());
    let mut ports = Vec::new();
    for spec in list {
        let (Some(number), Some(name)) = (spec.number, spec.name) else { continue };
        cx.label(name, "port name");
        if let Some(line) = names.insert(name.value, name.node.at().line) {
            cx.error(
                name.node,
                format!("the port name `{}` is in line {line} already", clip_text(name.value)),
            );
        }
        if let Some(line) = numbers.insert(number.value, number.node.at().line) {
            cx.error(number.node, format!("the port {} is in line {line} already", number.value));
        }
        let target_port = spec.target_port.filter(|port| port.value != 0).and_then(|port| cx.port(port));
        let protocol = protocol(cx, spec.protocol);
        let Some(number) = cx.port(number) else { continue };
        ports.push(ServicePort { number, protocol, name: name.value.to_owned(), target_port });
    }
    ports
}

fn protocol(cx: &mut Cx<'_>, text: Option<Text<'_>>) -> PortProtocol {
    const KNOWN: &[(&str, PortProtocol)] = &[
        ("HTTP", PortProtocol::Http),
        ("HTTP_PROXY", PortProtocol::Http),
        ("HTTP2", PortProtocol::Http2),
        ("GRPC", PortProtocol::Grpc),
        ("GRPC-WEB", PortProtocol::GrpcWeb),
        ("HTTPS", PortProtocol::Https),
        ("TLS", PortProtocol::Tls),
        ("TCP", PortProtocol::Tcp),
        ("UDP", PortProtocol::Other),
        ("MONGO", PortProtocol::Other),
        ("MYSQL", PortProtocol::Other),
        ("REDIS", PortProtocol::Other),
        ("HBONE", PortProtocol::Other),
    ];
    let Some(text) = text.filter(|text| !text.value.is_empty()) else { return PortProtocol::Auto };
    let known = KNOWN.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.value));
    if let Some((_, protocol)) = known {
        return *protocol;
    }
    let names: Vec<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
    let hint = match nearest(text.value, names.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known: {}", names.join(", ")),
    };
    cx.error_hint(text.node, format!("`{}` is not a protocol", clip_text(text.value)), hint);
    PortProtocol::Other
}

/// What Istio asks of each resolution.
fn resolution_rules(
    cx: &mut Cx<'_>,
    spec: &ServiceEntrySpec<'_>,
    resolution: Resolution,
    ports: &[ServicePort],
    hosts: usize,
) {
    let endpoints = spec.endpoints.as_ref().map_or(0, Vec::len);
    let endpoints_at = spec.node.get("endpoints").unwrap_or(spec.node);
    match resolution {
        Resolution::None => {
            if endpoints > 0 {
                let message = "resolution NONE has no endpoints";
                cx.error_hint(endpoints_at, message, "write resolution STATIC or DNS, or remove them");
            }
            if let Some(selector) = &spec.workload_selector {
                cx.warn(selector.node, "does nothing with resolution NONE", "write resolution STATIC");
            }
        }
        Resolution::Static => {}
        Resolution::Dns | Resolution::DnsRoundRobin => {
            if resolution == Resolution::DnsRoundRobin && endpoints > 1 {
                cx.error(endpoints_at, "resolution DNS_ROUND_ROBIN has at most one endpoint");
            }
            if endpoints == 0 && spec.workload_selector.is_none() {
                for host in spec.hosts.iter().flatten().filter(|host| host.value.contains('*')) {
                    let hint = "write a full name, or endpoints";
                    cx.error_hint(
                        host.node,
                        format!("`{}` cannot be looked up", clip_text(host.value)),
                        hint,
                    );
                }
            }
        }
        Resolution::DynamicDns => dynamic_dns(cx, spec),
    }
    let tcp = |port: &&ServicePort| !port.protocol.is_http() || port.protocol == PortProtocol::Auto;
    let tls = |port: &&ServicePort| !matches!(port.protocol, PortProtocol::Https | PortProtocol::Tls);
    let opaque = ports.iter().filter(tcp).find(tls);
    if let Some(port) = opaque.filter(|_| hosts > 1 && resolution != Resolution::None) {
        let message =
            format!("several hosts cannot be told apart at port {}, which is not HTTP or TLS", port.number);
        cx.error_hint(
            spec.node.get("hosts").unwrap_or(spec.node),
            message,
            "write one host, or the port's protocol",
        );
    }
}

fn dynamic_dns(cx: &mut Cx<'_>, spec: &ServiceEntrySpec<'_>) {
    for host in spec.hosts.iter().flatten().filter(|host| !host.value.starts_with('*')) {
        cx.error(host.node, "resolution DYNAMIC_DNS needs a wildcard host");
    }
    for field in ["addresses", "endpoints"] {
        if let Some(node) = spec.node.get(field).filter(|node| node.children().next().is_some()) {
            cx.error(node, format!("resolution DYNAMIC_DNS has no `{field}`"));
        }
    }
    for port in spec.ports.iter().flatten() {
        let known = ["HTTP", "TLS", "GRPC", "HTTP2"];
        if let Some(protocol) =
            port.protocol.filter(|p| !known.iter().any(|k| k.eq_ignore_ascii_case(p.value)))
        {
            cx.error_hint(protocol.node, "not with resolution DYNAMIC_DNS", "HTTP, HTTP2, GRPC or TLS");
        }
    }
    let at = spec.node.get("resolution").unwrap_or(spec.node);
    cx.warn(
        at,
        "DYNAMIC_DNS is handled as NONE: the address is looked up when it is connected to",
        "write NONE",
    );
}

/// What is asked of an endpoint.
#[derive(Clone, Copy)]
pub(super) struct Needs<'p> {
    /// The names of the service's ports; `None` when no service is known.
    ports: Option<&'p [&'p str]>,
    /// Names are looked up, so they are allowed.
    names: bool,
    /// Unix sockets are allowed.
    unix: bool,
    /// It must have an address.
    address: bool,
}

impl<'p> Needs<'p> {
    fn of(resolution: Resolution, ports: &'p [&'p str]) -> Self {
        let fixed = resolution == Resolution::Static;
        Needs { ports: Some(ports), names: !fixed, unix: fixed, address: true }
    }

    /// A workload of its own.
    const ALONE: Needs<'static> = Needs { ports: None, names: true, unix: true, address: true };
    /// A template.
    const TEMPLATE: Needs<'static> = Needs { ports: None, names: true, unix: true, address: false };
}

/// Reads an endpoint. `annotations`: those of the resource that it is in.
pub(super) fn workload(
    cx: &mut Cx<'_>,
    spec: &WorkloadSpec<'_>,
    annotations: &StringMap,
    needs: Needs<'_>,
) -> Workload {
    let address = address(cx, spec, needs);
    let labels = cx.labels(spec.labels.as_ref());
    let mut ports = std::collections::BTreeMap::new();
    for (name, port) in spec.ports.iter().flatten() {
        let known = needs.ports.is_none_or(|known| known.contains(&name.value));
        if !known {
            let message = format!("the service has no port `{}`", clip_text(name.value));
            let near = nearest(name.value, needs.ports.unwrap_or_default().iter().copied());
            let hint = near.map(|near| format!("did you mean `{near}`?"));
            cx.diagnose.error_at_key(name.node, message, hint);
        } else {
            cx.label(*name, "port name");
        }
        ports.extend(cx.port(*port).map(|port| (name.value.to_owned(), port)));
    }
    let note = |key: &str| labels.get(key).or_else(|| annotations.get(key)).cloned();
    if let Some(locality) = spec.locality.filter(|l| l.value.split('/').count() > 3) {
        let hint = "write region/zone/subzone";
        cx.error_hint(locality.node, format!("`{}` is not a locality", clip_text(locality.value)), hint);
    }
    let trust_domain = note(TRUST_DOMAIN);
    if let Some(domain) = trust_domain.as_deref().filter(|domain| !is_trust_domain(domain)) {
        let message = format!("`{}` is not a trust domain ({TRUST_DOMAIN})", clip_text(domain));
        cx.error_hint(spec.node, message, "lower-case letters, digits, `.`, `-` and `_`");
    }
    let text =
        |text: Option<Text<'_>>| text.filter(|t| !t.value.is_empty()).map(|text| text.value.to_owned());
    Workload {
        address,
        ports,
        agent: note(AGENT),
        mesh: note(MESH).is_some_and(|mesh| mesh == "true"),
        trust_domain,
        labels,
        network: text(spec.network),
        locality: spec.locality.map(|locality| Locality::parse(locality.value)).unwrap_or_default(),
        // 0 is not written in proto3; Envoy counts such an endpoint as 1.
        weight: spec.weight.map_or(1, |weight| weight.value.max(1)),
        service_account: text(spec.service_account),
    }
}

/// As the SPIFFE-ID specification (2.1) defines it.
pub(super) fn is_trust_domain(text: &str) -> bool {
    let good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    !text.is_empty() && text.len() <= 255 && text.bytes().all(good)
}

fn address(cx: &mut Cx<'_>, spec: &WorkloadSpec<'_>, needs: Needs<'_>) -> Address {
    let Some(text) = spec.address.filter(|address| !address.value.is_empty()) else {
        if needs.address && spec.network.is_none_or(|network| network.value.is_empty()) {
            cx.error(spec.node, "the required field `address` is missing");
        } else if needs.address {
            cx.warn(spec.node, "without an address it is never reached directly", "write `address`");
        }
        return Address::Absent;
    };
    if let Some(path) = text.value.strip_prefix("unix://") {
        unix_address(cx, spec.node, text, path, needs);
        return Address::Unix(path.to_owned());
    }
    if let Ok(ip) = text.value.parse() {
        return Address::Ip(ip);
    }
    if !needs.names {
        let message = format!("`{}` is not an IP address", clip_text(text.value));
        cx.error_hint(text.node, message, "resolution STATIC needs IP addresses; DNS looks names up");
    } else if let Err(why) = fqdn(text.value) {
        let message = format!("`{}` is not an IP address or a host name: {why}", clip_text(text.value));
        let port = text.value.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let hint = if port { "ports belong in `ports`" } else { "write an IP address or a full name" };
        cx.error_hint(text.node, message, hint);
    }
    Address::Name(Host::verbatim(text.value))
}

fn unix_address(cx: &mut Cx<'_>, node: Node<'_>, text: Text<'_>, path: &str, needs: Needs<'_>) {
    let abstract_name = path.starts_with('@') && path.len() > 1;
    if !abstract_name && (!path.starts_with('/') || path.ends_with('/')) {
        let hint = "write unix:///path/to/socket or unix://@name";
        cx.error_hint(text.node, format!("`{}` is not an absolute path to a file", clip_text(path)), hint);
    }
    if !needs.unix {
        cx.error(text.node, "a Unix socket needs resolution STATIC");
    }
    if let Some(ports) = node.get("ports").filter(|ports| ports.children().next().is_some()) {
        cx.error(ports, "a Unix socket has no ports");
    }
    if needs.ports.is_some_and(|ports| ports.len() != 1) {
        cx.error(text.node, "a Unix socket needs a service with exactly one port");
    }
}

/// Reads a WorkloadEntry.
pub(super) fn workload_entry(cx: &mut Cx<'_>, meta: Meta, spec: &WorkloadSpec<'_>) -> WorkloadEntry {
    let workload = workload(cx, spec, &meta.annotations, Needs::ALONE);
    WorkloadEntry { meta, workload }
}

/// Reads a WorkloadGroup.
pub(super) fn workload_group(
    cx: &mut Cx<'_>,
    meta: Meta,
    spec: &WorkloadGroupSpec<'_>,
) -> Option<WorkloadGroup> {
    let template = workload(cx, spec.template.as_ref()?, &meta.annotations, Needs::TEMPLATE);
    let labels = spec.metadata.as_ref().map(|m| cx.labels(m.labels.as_ref())).unwrap_or_default();
    let annotations = spec.metadata.iter().flat_map(|m| m.annotations.iter().flatten());
    let annotations =
        annotations.map(|(key, value)| (key.value.to_owned(), value.value.to_owned())).collect();
    let probe = spec.probe.as_ref().and_then(|probe| self::probe(cx, probe));
    Some(WorkloadGroup { meta, labels, annotations, template, probe })
}

fn probe(cx: &mut Cx<'_>, spec: &ProbeSpec<'_>) -> Option<Probe> {
    let mut number = |number: Option<crate::raw::Signed<'_>>, default: u32| {
        number.map(|number| cx.not_negative(number)).filter(|n| *n > 0).unwrap_or(default)
    };
    let (initial_delay_seconds, timeout_seconds) =
        (number(spec.initial_delay_seconds, 0), number(spec.timeout_seconds, 1));
    let (period_seconds, success_threshold) =
        (number(spec.period_seconds, 10), number(spec.success_threshold, 1));
    let failure_threshold = number(spec.failure_threshold, 3);
    let text = |text: Option<Text<'_>>| text.map(|text| text.value.to_owned());
    let method = if let Some(http) = &spec.http_get {
        http_get(cx, http)?
    } else if let Some(tcp) = &spec.tcp_socket {
        ProbeMethod::Tcp { host: text(tcp.host), port: cx.port(tcp.port?)? }
    } else if let Some(exec) = &spec.exec {
        if exec.command.as_ref().is_some_and(Vec::is_empty) {
            cx.error(exec.node, "the command is empty");
        }
        ProbeMethod::Exec(exec.command.iter().flatten().map(|word| word.value.to_owned()).collect())
    } else if let Some(grpc) = &spec.grpc {
        ProbeMethod::Grpc { port: cx.port(grpc.port?)?, service: text(grpc.service) }
    } else {
        cx.error_hint(spec.node, "the probe does not say how", "write httpGet, tcpSocket, exec or grpc");
        return None;
    };
    Some(Probe {
        initial_delay_seconds,
        timeout_seconds,
        period_seconds,
        success_threshold,
        failure_threshold,
        method,
    })
}

fn http_get(cx: &mut Cx<'_>, spec: &HttpGetSpec<'_>) -> Option<ProbeMethod> {
    if let Some(scheme) = spec.scheme.filter(|scheme| !matches!(scheme.value, "" | "HTTP" | "HTTPS")) {
        cx.error(scheme.node, "the scheme must be `HTTP` or `HTTPS`");
    }
    let mut headers = Vec::new();
    for header in spec.http_headers.iter().flatten() {
        let name = header.name.map_or("", |name| name.value);
        if !is_header_name(name) || name.contains('*') {
            cx.error(
                header.name.map_or(header.node, |name| name.node),
                format!("`{}` is not a header name", clip_text(name)),
            );
        }
        headers.push((name.to_owned(), header.value.map_or(String::new(), |value| value.value.to_owned())));
    }
    Some(ProbeMethod::HttpGet {
        path: spec.path.map_or("/", |path| path.value).to_owned(),
        port: cx.port(spec.port?)?,
        host: spec.host.map(|host| host.value.to_owned()),
        scheme: spec.scheme.filter(|scheme| !scheme.value.is_empty()).map_or("HTTP", |s| s.value).to_owned(),
        headers,
    })
}
