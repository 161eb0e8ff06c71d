//! Workloads -> endpoints: which of them a service has, and at which addresses they are.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use pilotfish_config::model::{
    Address, AgentCluster, Capability, Locality, Model, Registration, Resolution, ServiceEntry, StringMap,
    Workload, includes,
};

use super::{Resolved, first_only};
use crate::balance::hash;
use crate::endpoint::{Endpoint, EndpointStats, Labels};

/// A workload with what its document says besides, before its addresses are known.
#[derive(Debug, Clone)]
pub(super) struct Seed<'m> {
    pub(super) workload: &'m Workload,
    pub(super) namespace: &'m str,
    pub(super) labels: Labels,
    pub(super) capabilities: Arc<[Capability]>,
    /// The AgentCluster of its agent.
    says: Option<&'m AgentCluster>,
    pub(super) port: u16,
    registration: Option<&'m Registration>,
}

/// A seed at one of its addresses.
pub(super) struct Found<'m> {
    pub(super) addr: SocketAddr,
    hostname: Option<&'m str>,
    seed: Option<&'m Seed<'m>>,
}

/// All WorkloadEntries and registered agents, found by their labels, and what agents are able to do.
pub(super) struct Seeds<'m> {
    /// Registered agents first: of equal addresses, theirs is kept.
    alone: Vec<Alone<'m>>,
    /// Positions in `alone` by namespace, label and value: a selector goes through its rarest pair's only.
    by_label: HashMap<(&'m str, &'m str, &'m str), Vec<usize>>,
    by_namespace: HashMap<&'m str, Vec<usize>>,
    agents: HashMap<(&'m str, &'m str), Known<'m>>,
}

/// What an AgentCluster says of an agent.
struct Known<'m> {
    capabilities: Arc<[Capability]>,
    says: &'m AgentCluster,
}

/// A workload that is not written in a service.
struct Alone<'m> {
    workload: &'m Workload,
    namespace: &'m str,
    registration: Option<&'m Registration>,
}

impl<'m> Seeds<'m> {
    pub(super) fn new(model: &'m Model) -> Seeds<'m> {
        Seeds::with(model, &model.registrations)
    }

    /// Without registered agents.
    pub(super) fn written(model: &'m Model) -> Seeds<'m> {
        Seeds::with(model, &[])
    }

    fn with(model: &'m Model, registrations: &'m [Registration]) -> Seeds<'m> {
        let registered = registrations.iter().map(|own| Alone {
            workload: &own.workload,
            namespace: &own.namespace,
            registration: Some(own),
        });
        let written = model.workload_entries.iter().map(|entry| Alone {
            workload: &entry.workload,
            namespace: entry.meta.namespace(),
            registration: None,
        });
        let mut seeds = Seeds {
            alone: registered.chain(written).collect(),
            by_label: HashMap::new(),
            by_namespace: HashMap::new(),
            agents: HashMap::new(),
        };
        for cluster in &model.agent_clusters {
            for agent in &cluster.agents {
                let key = (cluster.meta.namespace(), agent.name.as_str());
                let known = || Known { capabilities: agent.capabilities.clone().into(), says: cluster };
                seeds.agents.entry(key).or_insert_with(known);
            }
        }
        // Only those labels that some selector asks for.
        let asked: HashSet<&str> = model
            .service_entries
            .iter()
            .filter_map(|entry| entry.workload_selector.as_ref())
            .flat_map(|selector| selector.keys().map(String::as_str))
            .collect();
        for (at, alone) in seeds.alone.iter().enumerate() {
            seeds.by_namespace.entry(alone.namespace).or_default().push(at);
            for (key, value) in alone.workload.labels.iter().filter(|(key, _)| asked.contains(key.as_str())) {
                seeds.by_label.entry((alone.namespace, key, value)).or_default().push(at);
            }
        }
        seeds
    }

    /// The workloads of a service; notes in `selected` which of those that stand alone are among them.
    pub(super) fn of_entry(&self, entry: &'m ServiceEntry, selected: &mut HashSet<usize>) -> Vec<Seed<'m>> {
        let namespace = entry.meta.namespace();
        let written = |own| self.seed(&Alone { workload: own, namespace, registration: None });
        let mut found: Vec<Seed<'m>> = entry.endpoints.iter().map(written).collect();
        let Some(selector) = &entry.workload_selector else { return found };
        for at in self.candidates(namespace, selector) {
            let Some(other) = self.alone.get(*at).filter(|w| includes(&w.workload.labels, selector)) else {
                continue;
            };
            selected.insert(*at);
            found.push(self.seed(other));
        }
        found
    }

    fn candidates(&self, namespace: &'m str, selector: &'m StringMap) -> &[usize] {
        let lists =
            selector.iter().map(|(key, value)| self.by_label.get(&(namespace, key.as_str(), value.as_str())));
        let shortest =
            lists.map(|list| list.map(Vec::as_slice).unwrap_or_default()).min_by_key(|list| list.len());
        shortest.or_else(|| self.by_namespace.get(namespace).map(Vec::as_slice)).unwrap_or_default()
    }

    /// The WorkloadEntries and registered agents that no service selected.
    pub(super) fn alone<'a>(&'a self, selected: &'a HashSet<usize>) -> impl Iterator<Item = Seed<'m>> + 'a {
        let alone = self.alone.iter().enumerate().filter(|(at, _)| !selected.contains(at));
        alone.map(|(_, alone)| self.seed(alone))
    }

    fn seed(&self, of: &Alone<'m>) -> Seed<'m> {
        let workload = of.workload;
        let agent = workload.agent.as_deref();
        let known = agent.and_then(|agent| self.agents.get(&(of.namespace, agent)));
        let capabilities = match of.registration {
            Some(registration) => Some(&registration.capabilities),
            None => known.map(|known| &known.capabilities),
        };
        Seed {
            workload,
            namespace: of.namespace,
            labels: workload.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            capabilities: capabilities.cloned().unwrap_or_default(),
            says: known.map(|known| known.says),
            port: of.registration.map_or(0, |registration| registration.port),
            registration: of.registration,
        }
    }
}

impl<'m> Seed<'m> {
    /// This workload at `port`; a registered agent stays at its sidecar's.
    pub(super) fn at_port(&self, port: u16) -> Seed<'m> {
        Seed { port: if self.registration.is_some() { self.port } else { port }, ..self.clone() }
    }

    /// Whether the control plane said it, and no document.
    pub(super) fn is_registered(&self) -> bool {
        self.registration.is_some()
    }

    /// The SPIFFE ID of its agent, else of its service account.
    fn identity(&self, own_domain: &str) -> Option<Arc<str>> {
        let domain = self.workload.trust_domain.as_deref().unwrap_or(own_domain);
        let (kind, name) = match (&self.workload.agent, &self.workload.service_account) {
            (Some(agent), _) => ("agent", agent),
            (None, Some(account)) => ("sa", account),
            (None, None) => return None,
        };
        Some(format!("spiffe://{domain}/ns/{}/{kind}/{name}", self.namespace).into())
    }

    /// Where it is now; a name that has no answer yet is nowhere.
    pub(super) fn addresses(&'m self, resolved: &Resolved, resolution: Resolution) -> Vec<Found<'m>> {
        let at =
            |ip: IpAddr, hostname| Found { addr: SocketAddr::new(ip, self.port), hostname, seed: Some(self) };
        match &self.workload.address {
            Address::Ip(ip) => vec![at(*ip, None)],
            Address::Unix(path) => vec![at(stand_in(path), None)],
            Address::Absent => Vec::new(),
            Address::Name(name) => {
                let addresses = resolved.get(name.as_str()).map(Vec::as_slice).unwrap_or_default();
                let taken = if first_only(resolution) { 1 } else { addresses.len() };
                addresses.iter().take(taken).map(|ip| at(*ip, Some(name.as_str()))).collect()
            }
        }
    }
}

/// An address in the discard prefix (RFC 6666) that is unique to a Unix socket's path: counters, hash tables and the
/// list of endpoints already tried all know endpoints by address.
fn stand_in(path: &str) -> IpAddr {
    let hash = path.bytes().fold(0, |hash: u64, byte| hash::mix(hash ^ u64::from(byte)));
    IpAddr::V6(Ipv6Addr::from_bits(0x0100_u128 << 112 | u128::from(hash)))
}

impl<'m> Found<'m> {
    /// An endpoint known by nothing but a name.
    pub(super) fn named(addr: SocketAddr, hostname: &'m str) -> Found<'m> {
        Found { addr, hostname: Some(hostname), seed: None }
    }

    /// The AgentCluster of its agent.
    pub(super) fn says(&self) -> Option<&'m AgentCluster> {
        self.seed.and_then(|seed| seed.says)
    }

    /// Calls that it says that it takes at a time; 0: no limit.
    pub(super) fn capacity(&self) -> u32 {
        self.seed.and_then(|seed| seed.registration).map_or(0, |registration| registration.capacity)
    }

    /// As an endpoint of a cluster; nothing but whether it can be reached is watched.
    pub(super) fn endpoint(&self, stats: Arc<EndpointStats>, of: &Home<'_>) -> Endpoint {
        let workload = self.seed.map(|seed| seed.workload);
        let registration = self.seed.and_then(|seed| seed.registration);
        Endpoint {
            addr: self.addr,
            unix: workload.and_then(|workload| match &workload.address {
                Address::Unix(path) => Some(Box::from(Path::new(path))),
                _ => None,
            }),
            hostname: self.hostname.map(Box::from),
            labels: self.seed.map(|seed| seed.labels.clone()).unwrap_or_default(),
            locality: workload.map_or_else(Locality::default, |workload| workload.locality.clone()),
            weight: workload.map_or(1, |workload| workload.weight.max(1)),
            agent: workload.and_then(|workload| workload.agent.as_deref().map(Box::from)),
            capabilities: self.seed.map(|seed| Arc::clone(&seed.capabilities)).unwrap_or_default(),
            namespace: self.seed.map_or_else(Box::default, |seed| seed.namespace.into()),
            mesh: workload.is_some_and(|workload| workload.mesh),
            identity: of.expected(self.seed),
            id: registration.map(|registration| Arc::clone(&registration.id)),
            degraded: registration.is_some_and(|registration| registration.degraded),
            dedup: registration.and_then(|registration| registration.dedup.clone()),
            stats,
            care: None,
        }
    }
}

/// What a cluster's endpoints have in common.
pub(super) struct Home<'a> {
    /// The sidecar's own trust domain.
    pub(super) trust_domain: Option<&'a str>,
    /// Names that are expected in place of the endpoint's own.
    pub(super) subject_alt_names: &'a [Arc<str>],
}

impl Home<'_> {
    fn expected(&self, seed: Option<&Seed<'_>>) -> Option<Arc<str>> {
        let own = seed.and_then(|seed| seed.identity(self.trust_domain?));
        let listed = own.as_ref().is_some_and(|own| self.subject_alt_names.contains(own));
        if listed { own } else { self.subject_alt_names.first().cloned().or(own) }
    }
}
