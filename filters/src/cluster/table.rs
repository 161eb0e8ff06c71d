//! All clusters of a plan, as compiling finds them by host, port and subset.

use std::collections::HashMap;
use std::sync::Arc;

use super::Cluster;

/// A cluster's position in [`Clusters`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u32);

/// All clusters of a plan.
#[derive(Debug, Default)]
pub struct Clusters {
    all: Vec<Arc<Cluster>>,
    hosts: HashMap<Box<str>, Ports>,
    /// Wildcard hosts (`*.example.com`), longest first.
    wildcards: Vec<Box<str>>,
}

/// The ports of a host, with their clusters.
#[derive(Debug, Default)]
struct Ports(Vec<Port>);

#[derive(Debug)]
struct Port {
    number: u16,
    whole: ClusterId,
    subsets: Vec<(Box<str>, ClusterId)>,
}

impl Clusters {
    /// Adds a cluster; a subset comes after the whole of its host and port. The first of equals is kept.
    pub(crate) fn add(&mut self, cluster: Cluster) {
        let id = ClusterId(self.all.len() as u32);
        if cluster.host.starts_with('*') && !self.hosts.contains_key(&cluster.host) {
            let at = self.wildcards.partition_point(|known| known.len() >= cluster.host.len());
            self.wildcards.insert(at, cluster.host.clone());
        }
        let ports = &mut self.hosts.entry(cluster.host.clone()).or_default().0;
        let port = ports.iter_mut().find(|port| port.number == cluster.port);
        match (port, &cluster.subset) {
            (None, None) => ports.push(Port { number: cluster.port, whole: id, subsets: Vec::new() }),
            (Some(port), Some(subset)) if port.subset(subset).is_none() => {
                port.subsets.push((subset.clone(), id))
            }
            _ => return,
        }
        self.all.push(Arc::new(cluster));
    }

    /// Lets callers address `port` of `host` by the number `alias` too, unless that is a port of its own.
    pub(crate) fn alias(&mut self, host: &str, alias: u16, port: u16) {
        let Some(Ports(ports)) = self.hosts.get_mut(host) else { return };
        if ports.iter().any(|known| known.number == alias) {
            return;
        }
        if let Some(known) = ports.iter().find(|known| known.number == port) {
            let copy = Port { number: alias, whole: known.whole, subsets: known.subsets.clone() };
            ports.push(copy);
        }
    }

    /// The cluster.
    pub fn get(&self, id: ClusterId) -> Option<&Arc<Cluster>> {
        self.all.get(id.0 as usize)
    }

    /// The cluster of a host (full name, lower case), port and subset: exact hosts before wildcards, longest first.
    /// Without a port, the host's only one.
    pub fn find(&self, host: &str, port: Option<u16>, subset: Option<&str>) -> Option<ClusterId> {
        let port = self.ports_of(host)?.port(port)?;
        match subset {
            None => Some(port.whole),
            Some(subset) => port.subset(subset),
        }
    }

    /// Whether a host is known, with whatever ports.
    pub fn knows(&self, host: &str) -> bool {
        self.ports_of(host).is_some()
    }

    /// The clusters of a host and subset by port, in the order of configuration; empty when there is none.
    pub fn by_port(&self, host: &str, subset: Option<&str>) -> Vec<(u16, ClusterId)> {
        let ports = self.ports_of(host).into_iter().flat_map(|ports| &ports.0);
        let cluster = |port: &Port| subset.map_or(Some(port.whole), |subset| port.subset(subset));
        ports.filter_map(|port| Some((port.number, cluster(port)?))).collect()
    }

    /// Every host, wildcards included, in no particular order.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.keys().map(|host| &**host)
    }

    /// Every cluster.
    pub fn iter(&self) -> impl Iterator<Item = (ClusterId, &Arc<Cluster>)> {
        self.all.iter().enumerate().map(|(at, cluster)| (ClusterId(at as u32), cluster))
    }

    /// All of them, each at the position that its [`ClusterId`] says.
    pub fn into_list(self) -> Box<[Arc<Cluster>]> {
        self.all.into()
    }

    fn ports_of(&self, host: &str) -> Option<&Ports> {
        self.hosts.get(host).or_else(|| {
            let covers = |wildcard: &&str| {
                let suffix = wildcard.get(1..).unwrap_or_default();
                host.len() > suffix.len() && host.ends_with(suffix)
            };
            self.hosts.get(self.wildcards.iter().map(|wildcard| &**wildcard).find(covers)?)
        })
    }
}

impl Ports {
    fn port(&self, number: Option<u16>) -> Option<&Port> {
        match number {
            Some(number) => self.0.iter().find(|port| port.number == number),
            None => self.0.first().filter(|first| self.0.iter().all(|port| port.whole == first.whole)),
        }
    }
}

impl Port {
    fn subset(&self, name: &str) -> Option<ClusterId> {
        self.subsets.iter().find(|(known, _)| **known == *name).map(|(_, id)| *id)
    }
}
