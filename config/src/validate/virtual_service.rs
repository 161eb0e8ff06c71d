//! VirtualService: hosts, gateways, rules.

use crate::model::{Host, Meta, VirtualService};
use crate::raw::{List, Text, VirtualServiceSpec};
use crate::yaml::{Node, clip_text};

use super::check::{Cx, wildcard_domain};
use super::http_route::{Draft, Mention, http_route};
use super::l4;
use super::matching::gateways;
use super::retry;

/// A VirtualService whose delegates are not merged in yet.
pub(super) struct VirtualServiceDraft<'n> {
    /// Everything but `http`.
    pub service: VirtualService,
    /// Its rules.
    pub http: Vec<Draft<'n>>,
    /// Destinations of its own rules.
    pub mentions: Vec<Mention<'n>>,
    /// Where `hosts` is written, else the spec.
    pub node: Node<'n>,
    /// Whether another VirtualService goes on in it.
    pub used: bool,
}

/// Reads one.
pub(super) fn virtual_service<'n>(
    cx: &mut Cx<'_>,
    meta: Meta,
    spec: &VirtualServiceSpec<'n>,
) -> VirtualServiceDraft<'n> {
    let in_delegate = spec.hosts.as_ref().is_none_or(Vec::is_empty);
    if in_delegate {
        delegate_fields(cx, spec);
    }
    let mut gateways = gateways(cx, spec.gateways.as_ref());
    if gateways.is_empty() {
        gateways.push("mesh".into());
    }
    let mesh_only = gateways.iter().all(|gateway| gateway == "mesh");
    let hosts = hosts(cx, spec.hosts.as_ref(), mesh_only);
    if [spec.http.as_ref().map(Vec::len), spec.tls.as_ref().map(Vec::len), spec.tcp.as_ref().map(Vec::len)]
        .iter()
        .all(|length| length.unwrap_or_default() == 0)
    {
        cx.error_hint(spec.node, "there are no rules", "write `http`, `tls` or `tcp`");
    }
    let mut mentions = Vec::new();
    let (rules, mesh) = (spec.http.as_deref().unwrap_or_default().iter(), mesh_only && !in_delegate);
    let http: Vec<Draft<'n>> =
        rules.map(|route| http_route(cx, route, mesh, in_delegate, &mut mentions)).collect();
    for (written, draft) in spec.http.iter().flatten().zip(&http) {
        retry::only_unsafe(cx, &meta, written, &draft.route);
    }
    never_reached(cx, spec, &http);
    let tls = spec.tls.iter().flatten().map(|route| l4::tls_route(cx, route, spec)).collect();
    let tcp = spec.tcp.iter().flatten().map(|route| l4::tcp_route(cx, route)).collect();
    let export_to = cx.export_to(spec.export_to.as_ref(), false);
    let (merged, delegates) = (Vec::new(), Vec::new());
    let service = VirtualService { meta, hosts, gateways, http: merged, tls, tcp, export_to, delegates };
    let node = spec.node.get("hosts").unwrap_or(spec.node);
    VirtualServiceDraft { service, http, mentions, node, used: false }
}

/// What a delegate must not have.
fn delegate_fields(cx: &mut Cx<'_>, spec: &VirtualServiceSpec<'_>) {
    for name in ["gateways", "tls", "tcp"] {
        if let Some(node) = spec.node.get(name) {
            let message = format!("a VirtualService without hosts is a delegate and has no `{name}`");
            cx.diagnose.error_at_key(node, message, Some("write `hosts`, or remove it".into()));
        }
    }
}

fn hosts(cx: &mut Cx<'_>, list: Option<&List<Text<'_>>>, mesh_only: bool) -> Vec<Host> {
    let mut hosts: Vec<Host> = Vec::new();
    for text in list.into_iter().flatten() {
        if text.value.parse::<std::net::IpAddr>().is_err() {
            if let Err(why) = wildcard_domain(text.value) {
                cx.error(text.node, format!("`{}` is not a host name: {why}", clip_text(text.value)));
                continue;
            }
            if text.value == "*" && mesh_only {
                cx.warn(
                    text.node,
                    "the host `*` is for every host that nothing else is for; Istio refuses it for sidecars",
                    "name hosts, if they are known",
                );
            }
        }
        let host = Host::resolve(text.value, &cx.namespace);
        let overlap = |other: &&Host| other.covers(&host) || host.covers(other);
        if let Some(other) = hosts.iter().find(overlap) {
            cx.error(text.node, format!("`{host}` and `{other}` overlap in one VirtualService"));
        }
        hosts.push(host);
    }
    hosts
}

/// A rule without conditions takes everything: rules behind it are never reached.
fn never_reached(cx: &mut Cx<'_>, spec: &VirtualServiceSpec<'_>, http: &[Draft<'_>]) {
    let list = spec.http.as_deref().unwrap_or_default();
    let Some(all) = http.iter().position(|draft| draft.route.matches.is_empty()) else { return };
    if let Some(next) = list.get(all + 1) {
        let line = list.get(all).map(|rule| rule.node.at().line).unwrap_or_default();
        let message =
            format!("never reached: the rule in line {line} has no conditions and takes every request");
        cx.warn(next.node, message, "move it to the end");
    }
}
