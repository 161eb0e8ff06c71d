//! The services that a sidecar sees: ServiceEntry documents by host, and agents whose WorkloadEntries stand alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use pilotfish_config::model::{HealthCheck, Host, PortProtocol, Resolution, ServiceEntry, Wish, includes};

use super::super::on_demand;
use super::Started;
use super::workloads::{Found, Seed, Seeds};
use super::{Resolved, Sources, first_only};
use crate::cluster::Kind;
use crate::on_demand::OnDemandAgent;
use crate::view::View;

/// The inbound port of a sidecar, for a mesh workload that names no port.
const INBOUND_PORT: u16 = 15006;
/// What callers address when they name no port.
const HTTP_PORT: u16 = 80;

/// A host with its ports.
pub(super) struct Service<'m> {
    pub(super) host: Box<str>,
    pub(super) ports: Vec<ServicePort<'m>>,
    /// Further numbers for ports: alias, port.
    pub(super) aliases: Vec<(u16, u16)>,
    /// Names of which an endpoint's certificate must have one, in place of its own.
    pub(super) subject_alt_names: &'m [String],
    /// The agent that is started when somebody calls, and nobody is there.
    pub(super) on_demand: Option<&'m Arc<OnDemandAgent>>,
}

/// A port of a host with what serves it.
pub(super) struct ServicePort<'m> {
    pub(super) number: u16,
    pub(super) protocol: PortProtocol,
    pub(super) resolution: Resolution,
    /// The port at the host's own addresses, when those are looked up.
    target: u16,
    has_workloads: bool,
    pub(super) seeds: Vec<Seed<'m>>,
    /// How its endpoints are checked.
    pub(super) health_check: &'m Wish<HealthCheck>,
}

impl Service<'_> {
    /// A host with the default port and nobody behind it.
    pub(super) fn empty(host: &str) -> Self {
        let port = ServicePort {
            number: HTTP_PORT,
            protocol: PortProtocol::Auto,
            resolution: Resolution::Static,
            target: HTTP_PORT,
            has_workloads: true,
            seeds: Vec::new(),
            health_check: &Wish::Silent,
        };
        let (aliases, on_demand) = (Vec::new(), None);
        Service { host: host.into(), ports: vec![port], aliases, subject_alt_names: &[], on_demand }
    }
}

impl ServicePort<'_> {
    /// Whether the host's own name is looked up: DNS without endpoints.
    pub(super) fn looks_up_host(&self) -> bool {
        matches!(self.resolution, Resolution::Dns | Resolution::DnsRoundRobin) && !self.has_workloads
    }

    pub(super) fn kind(&self) -> Kind {
        match self.resolution {
            Resolution::DynamicDns => Kind::Original,
            Resolution::None if !self.has_workloads => Kind::Original,
            _ => Kind::Endpoints,
        }
    }

    /// Endpoints at the addresses of the host's own name.
    pub(super) fn host_addresses<'h>(&self, host: &'h str, resolved: &Resolved) -> Vec<Found<'h>> {
        let addresses = resolved.get(host).map(Vec::as_slice).unwrap_or_default();
        let taken = if first_only(self.resolution) { 1 } else { addresses.len() };
        addresses.iter().take(taken).map(|ip| Found::named(SocketAddr::new(*ip, self.target), host)).collect()
    }
}

/// Every service that a sidecar at `place` sees, each host once.
pub(super) fn services<'m>(sources: &Sources<'m>, seeds: &Seeds<'m>) -> Vec<Service<'m>> {
    let Sources { model, view, place, on_demand, .. } = *sources;
    let mut by_host: HashMap<&str, Vec<&ServiceEntry>> = HashMap::new();
    let mut hosts = Vec::new();
    for entry in &model.service_entries {
        for host in entry.hosts.iter().filter(|host| view.sees_service(entry, host)) {
            let known = by_host.entry(host.as_str()).or_default();
            if known.is_empty() {
                hosts.push(host.as_str());
            }
            known.push(entry);
        }
    }
    let mut selected = HashSet::new();
    let mut services: Vec<Service<'m>> = Vec::new();
    for host in hosts {
        let entries = by_host.get(host).map(Vec::as_slice).unwrap_or_default();
        let entries: Vec<_> = of_one_namespace(entries, &place.namespace).collect();
        let started = on_demand.iter().find(|started| entries.iter().any(|entry| selects(entry, started)));
        let service = service(host, entries.into_iter(), seeds, &mut selected);
        services.push(Service { on_demand: started.map(|started| &started.agent), ..service });
    }
    let agents = agents(seeds, &selected, view);
    services.extend(agents.into_iter().filter(|agent| !by_host.contains_key(&*agent.host)));
    // Those that are started when they are asked for have a host also while nobody is there.
    for started in on_demand.iter().filter(|started| !by_host.contains_key(&*started.host)) {
        let known = services.iter().position(|service| service.host == started.host);
        let at = known.unwrap_or_else(|| {
            services.push(Service::empty(&started.host));
            services.len() - 1
        });
        if let Some(service) = services.get_mut(at) {
            service.on_demand = Some(&started.agent);
        }
    }
    services
}

/// Whether instances of an agent on demand will be among the workloads of a ServiceEntry.
fn selects(entry: &ServiceEntry, started: &Started) -> bool {
    let selector = entry.workload_selector.as_ref().filter(|selector| !selector.is_empty());
    started.namespace == entry.meta.namespace()
        && selector.is_some_and(|selector| includes(&started.labels, selector))
}

/// Entries for one host in several namespaces do not mix: the sidecar's own count, else those of the first one.
fn of_one_namespace<'a, 'm>(
    entries: &'a [&'m ServiceEntry],
    own: &str,
) -> impl Iterator<Item = &'m ServiceEntry> + 'a {
    let has_own = entries.iter().any(|entry| entry.meta.namespace() == own);
    let first = entries.first().map(|entry| entry.meta.namespace());
    let chosen = if has_own { Some(own.to_owned()) } else { first.map(str::to_owned) };
    entries.iter().copied().filter(move |entry| Some(entry.meta.namespace()) == chosen.as_deref())
}

fn service<'m>(
    host: &'m str,
    entries: impl Iterator<Item = &'m ServiceEntry>,
    seeds: &Seeds<'m>,
    selected: &mut HashSet<usize>,
) -> Service<'m> {
    let mut ports: Vec<ServicePort<'m>> = Vec::new();
    let mut subject_alt_names: &[String] = &[];
    for entry in entries {
        if subject_alt_names.is_empty() {
            subject_alt_names = &entry.subject_alt_names;
        }
        let workloads = seeds.of_entry(entry, selected);
        for port in &entry.ports {
            let at = |seed: &Seed<'m>| seed.at_port(entry.endpoint_port(seed.workload, port));
            let seeds = workloads.iter().map(at);
            match ports.iter_mut().find(|known| known.number == port.number) {
                Some(known) => {
                    known.has_workloads |= !workloads.is_empty();
                    known.seeds.extend(seeds);
                }
                None => ports.push(ServicePort {
                    number: port.number,
                    protocol: port.protocol,
                    resolution: entry.resolution,
                    target: port.target_port.unwrap_or(port.number),
                    has_workloads: !workloads.is_empty(),
                    seeds: seeds.collect(),
                    health_check: &entry.health_check,
                }),
            }
        }
    }
    Service { host: host.into(), ports, aliases: Vec::new(), subject_alt_names, on_demand: None }
}

/// Registered agents, and WorkloadEntries that belong to an agent, make a service named after the agent when no
/// ServiceEntry selects them. Ports of
/// the same name are one port. Callers reach it at 80 when it is the only one or called `http`, and at the workloads'
/// own numbers too.
fn agents<'m>(seeds: &Seeds<'m>, selected: &HashSet<usize>, view: &View<'_>) -> Vec<Service<'m>> {
    let mut by_host: BTreeMap<String, BTreeMap<&'m str, Vec<Seed<'m>>>> = BTreeMap::new();
    for seed in seeds.alone(selected) {
        let Some(agent) = &seed.workload.agent else { continue };
        let host = on_demand::host(agent, seed.namespace);
        if !view.is_wide() && !view.sees_host(seed.namespace, &Host::verbatim(&host)) {
            continue;
        }
        let ports = by_host.entry(host).or_default();
        if seed.workload.ports.is_empty() {
            let port = if seed.workload.mesh { INBOUND_PORT } else { HTTP_PORT };
            ports.entry("http").or_default().push(seed.at_port(port));
        }
        for (name, port) in &seed.workload.ports {
            ports.entry(name.as_str()).or_default().push(seed.at_port(*port));
        }
    }
    by_host.into_iter().map(|(host, ports)| agent_service(host, ports)).collect()
}

fn agent_service<'m>(host: String, by_name: BTreeMap<&'m str, Vec<Seed<'m>>>) -> Service<'m> {
    let (ports, aliases, on_demand) = (Vec::new(), Vec::new(), None);
    let mut service = Service { host: host.into(), ports, aliases, subject_alt_names: &[], on_demand };
    let only = by_name.len() == 1;
    for (name, seeds) in by_name {
        let first = seeds.iter().find(|seed| !seed.is_registered()).map_or(HTTP_PORT, |seed| seed.port);
        let number = if only || name == "http" { HTTP_PORT } else { first };
        let written = seeds.iter().filter(|seed| !seed.is_registered());
        service.aliases.extend(written.map(|seed| (seed.port, number)));
        service.ports.push(ServicePort {
            number,
            protocol: protocol(name),
            resolution: Resolution::Static,
            target: number,
            has_workloads: true,
            seeds,
            health_check: &Wish::Silent,
        });
    }
    service.aliases.sort_unstable();
    service.aliases.dedup();
    service
}

/// The protocol by Istio's rule for names: `<protocol>[-<suffix>]`.
fn protocol(name: &str) -> PortProtocol {
    match name.split('-').next() {
        Some("http2") => PortProtocol::Http2,
        Some("grpc") => PortProtocol::Grpc,
        Some("http") => PortProtocol::Http,
        Some("tcp") => PortProtocol::Tcp,
        _ => PortProtocol::Auto,
    }
}
