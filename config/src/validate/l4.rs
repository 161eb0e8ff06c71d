//! Rules for TLS that is passed through, and for opaque TCP.

use crate::model::{ConnectionMatch, Host, RouteDestination, TcpRoute, TlsMatch, TlsRoute};
use crate::raw::{
    L4DestinationSpec, L4MatchSpec, List, TcpRouteSpec, Text, TlsMatchSpec, TlsRouteSpec, VirtualServiceSpec,
};
use crate::yaml::{Node, clip_text};

use super::check::{Cx, wildcard_domain};
use super::http_route::{destination, no_weight, weight};
use super::matching::gateways;

/// A rule for TLS.
pub(super) fn tls_route(cx: &mut Cx<'_>, spec: &TlsRouteSpec<'_>, of: &VirtualServiceSpec<'_>) -> TlsRoute {
    if spec.matches.as_ref().is_some_and(Vec::is_empty) {
        cx.error(spec.node, "a TLS rule needs at least one condition");
    }
    let matches = spec.matches.iter().flatten().map(|m| tls_match(cx, m, of)).collect();
    TlsRoute { matches, route: destinations(cx, spec.node, spec.route.as_ref()) }
}

fn tls_match(cx: &mut Cx<'_>, spec: &TlsMatchSpec<'_>, of: &VirtualServiceSpec<'_>) -> TlsMatch {
    if spec.sni_hosts.as_ref().is_some_and(Vec::is_empty) {
        cx.error(spec.node, "a TLS condition needs at least one server name in `sniHosts`");
    }
    let sni_hosts = spec.sni_hosts.iter().flatten().map(|name| sni_host(cx, *name, of)).collect();
    let connection = ConnectionMatch {
        destination_subnets: subnets(cx, spec.destination_subnets.as_ref()),
        port: spec.port.filter(|port| port.value != 0).and_then(|port| cx.port(port)),
        source_labels: cx.labels(spec.source_labels.as_ref()),
        gateways: gateways(cx, spec.gateways.as_ref()),
        source_namespace: spec.source_namespace.map(|name| name.value.to_owned()),
    };
    TlsMatch { sni_hosts, connection }
}

fn sni_host(cx: &mut Cx<'_>, name: Text<'_>, of: &VirtualServiceSpec<'_>) -> String {
    if name.value.parse::<std::net::IpAddr>().is_ok() {
        cx.warn(name.node, "a server name is never an IP address", "most clients do not send one");
    } else if let Err(why) = wildcard_domain(name.value) {
        // Names such as `outbound_.80_._.host` are made by gateways.
        if !name.value.starts_with("outbound_") {
            cx.error(name.node, format!("`{}` is not a host name: {why}", clip_text(name.value)));
        }
    } else {
        let wanted = name.value.to_ascii_lowercase();
        let covers = |host: &Text<'_>| {
            let host = host.value.to_ascii_lowercase();
            let wide = match host.strip_prefix('*') {
                Some(suffix) => wanted.ends_with(suffix),
                None => host == wanted,
            };
            wide || Host::resolve(&host, &cx.namespace).covers(&wanted)
        };
        if !of.hosts.iter().flatten().any(covers) {
            let message = format!("`{}` is none of the hosts of this VirtualService", name.value);
            cx.error(name.node, message);
        }
    }
    name.value.to_owned()
}

/// A rule for TCP.
pub(super) fn tcp_route(cx: &mut Cx<'_>, spec: &TcpRouteSpec<'_>) -> TcpRoute {
    let matches = spec.matches.iter().flatten().map(|m| l4_match(cx, m)).collect();
    TcpRoute { matches, route: destinations(cx, spec.node, spec.route.as_ref()) }
}

fn l4_match(cx: &mut Cx<'_>, spec: &L4MatchSpec<'_>) -> ConnectionMatch {
    if let Some(subnet) = spec.source_subnet.filter(|subnet| !subnet.value.is_empty()) {
        cx.subnet(subnet);
    }
    ConnectionMatch {
        destination_subnets: subnets(cx, spec.destination_subnets.as_ref()),
        port: spec.port.filter(|port| port.value != 0).and_then(|port| cx.port(port)),
        source_labels: cx.labels(spec.source_labels.as_ref()),
        gateways: gateways(cx, spec.gateways.as_ref()),
        source_namespace: spec.source_namespace.map(|name| name.value.to_owned()),
    }
}

fn subnets(cx: &mut Cx<'_>, list: Option<&List<Text<'_>>>) -> Vec<String> {
    list.into_iter().flatten().map(|subnet| cx.subnet(*subnet)).collect()
}

fn destinations(
    cx: &mut Cx<'_>,
    rule: Node<'_>,
    list: Option<&List<L4DestinationSpec<'_>>>,
) -> Vec<RouteDestination> {
    let list = list.map(Vec::as_slice).unwrap_or_default();
    if list.is_empty() {
        cx.error(rule, "the rule has no destination in `route`");
    }
    let mut route = Vec::new();
    for entry in list {
        let weight = weight(cx, entry.weight, list.len() == 1);
        let destination = entry.destination.as_ref().and_then(|spec| destination(cx, spec));
        let headers = Default::default();
        route.extend(destination.map(|destination| RouteDestination { destination, weight, headers }));
    }
    if list.len() > 1 {
        no_weight(cx, rule.get("route").unwrap_or(rule), &route);
    }
    route
}
