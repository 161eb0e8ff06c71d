//! Workloads -> endpoints: which of them a service has, and at which addresses they are.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use pilotfish_config::model::{
    Address, Capability, Locality, Model, Resolution, ServiceEntry, StringMap, Workload, WorkloadEntry,
    includes,
};

use super::{Resolved, first_only};
use crate::balance::hash;
use crate::endpoint::{Endpoint, EndpointStats, Labels};
use crate::inflight::ClusterLimits;

/// A workload with what its document says besides, before its addresses are known.
#[derive(Debug, Clone)]
pub(super) struct Seed<'m> {
    pub(super) workload: &'m Workload,
    pub(super) namespace: &'m str,
    pub(super) labels: Labels,
    pub(super) capabilities: Arc<[Capability]>,
    pub(super) port: u16,
}

/// A seed at one of its addresses.
pub(super) struct Found<'m> {
    pub(super) addr: SocketAddr,
    hostname: Option<&'m str>,
    seed: Option<&'m Seed<'m>>,
}

/// All WorkloadEntries, found by their labels, and what agents are able to do.
pub(super) struct Seeds<'m> {
    entries: &'m [WorkloadEntry],
    /// Positions in `entries` by namespace, label and value: a selector goes through its rarest pair's only.
    by_label: HashMap<(&'m str, &'m str, &'m str), Vec<usize>>,
    by_namespace: HashMap<&'m str, Vec<usize>>,
    agents: HashMap<(&'m str, &'m str), Arc<[Capability]>>,
}

impl<'m> Seeds<'m> {
    pub(super) fn new(model: &'m Model) -> Seeds<'m> {
        let mut seeds = Seeds {
            entries: &model.workload_entries,
            by_label: HashMap::new(),
            by_namespace: HashMap::new(),
            agents: HashMap::new(),
        };
        for cluster in &model.agent_clusters {
            for agent in &cluster.agents {
                let key = (cluster.meta.namespace(), agent.name.as_str());
                seeds.agents.entry(key).or_insert_with(|| agent.capabilities.clone().into());
            }
        }
        for (at, entry) in model.workload_entries.iter().enumerate() {
            let namespace = entry.meta.namespace();
            seeds.by_namespace.entry(namespace).or_default().push(at);
            for (key, value) in &entry.workload.labels {
                seeds.by_label.entry((namespace, key, value)).or_default().push(at);
            }
        }
        seeds
    }

    /// The workloads of a service; notes in `selected` which WorkloadEntries are among them.
    pub(super) fn of_entry(&self, entry: &'m ServiceEntry, selected: &mut HashSet<usize>) -> Vec<Seed<'m>> {
        let namespace = entry.meta.namespace();
        let mut found: Vec<Seed<'m>> = entry.endpoints.iter().map(|own| self.seed(own, namespace)).collect();
        let Some(selector) = &entry.workload_selector else { return found };
        for at in self.candidates(namespace, selector) {
            let Some(other) = self.entries.get(*at).filter(|w| includes(&w.workload.labels, selector)) else {
                continue;
            };
            selected.insert(*at);
            found.push(self.seed(&other.workload, namespace));
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

    /// The WorkloadEntries that no service selected.
    pub(super) fn alone<'a>(&'a self, selected: &'a HashSet<usize>) -> impl Iterator<Item = Seed<'m>> + 'a {
        let alone = self.entries.iter().enumerate().filter(|(at, _)| !selected.contains(at));
        alone.map(|(_, entry)| self.seed(&entry.workload, entry.meta.namespace()))
    }

    fn seed(&self, workload: &'m Workload, namespace: &'m str) -> Seed<'m> {
        let capabilities = workload.agent.as_deref().and_then(|agent| self.agents.get(&(namespace, agent)));
        Seed {
            workload,
            namespace,
            labels: workload.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            capabilities: capabilities.cloned().unwrap_or_default(),
            port: 0,
        }
    }
}

impl<'m> Seed<'m> {
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

    pub(super) fn endpoint(&self, stats: Arc<EndpointStats>, home: &Arc<ClusterLimits>) -> Endpoint {
        let workload = self.seed.map(|seed| seed.workload);
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
            stats,
            home: Arc::clone(home),
        }
    }
}
