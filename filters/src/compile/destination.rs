//! Destinations: from a host, subset and port to a cluster or a capability, and the affinity of its policy.

use pilotfish_config::model::{Destination, Host};

use super::cluster::Rules;
use super::{CompileOptions, action};
use crate::affinity::HashPolicy;
use crate::capability::Wanted;
use crate::cluster::{ClusterId, Clusters};
use crate::plan::{CapabilityTarget, Target};
use crate::route::hash::FixedMap;

/// Finds what destinations mean; each is worked out once.
pub(super) struct Destinations<'a> {
    rules: &'a Rules<'a>,
    clusters: &'a Clusters,
    /// Stands for a loopback source address in hashes.
    own: u64,
    /// Positions in `found`.
    known: FixedMap<&'a Destination, usize>,
    found: Vec<Found>,
}

/// What a destination means.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Where to.
    pub(super) target: Target,
    /// What its balancer hashes.
    pub(super) affinity: Option<HashPolicy>,
}

impl<'a> Destinations<'a> {
    pub(super) fn new(rules: &'a Rules<'a>, clusters: &'a Clusters, options: &CompileOptions) -> Self {
        Destinations {
            rules,
            clusters,
            own: options.identity_hash(),
            known: FixedMap::default(),
            found: Vec::new(),
        }
    }

    /// What `destination` means.
    pub(super) fn find(&mut self, destination: &'a Destination) -> &Found {
        let at = self.known.get(destination).copied().unwrap_or_else(|| {
            self.found.push(self.work_out(destination));
            self.known.insert(destination, self.found.len() - 1);
            self.found.len() - 1
        });
        &self.found[at]
    }

    /// What `destination` means, worked out anew.
    pub(super) fn work_out(&self, destination: &Destination) -> Found {
        let subset = destination.subset.as_deref();
        let target = match destination.host.capability() {
            Some(name) => self.capability(name, &destination.host, subset),
            None => self.cluster(&destination.host, destination.port, subset),
        };
        let affinity = self.affinity(&target);
        Found { target, affinity }
    }

    /// What the balancer of a target hashes, when it hashes.
    pub(super) fn affinity(&self, target: &Target) -> Option<HashPolicy> {
        let id = match target {
            Target::Cluster(id) => *id,
            Target::ByPort(ports) => ports.first()?.1,
            Target::Capability(target) => target.settings?,
            Target::Unknown(_) => return None,
        };
        self.clusters.get(id)?.hash_key.as_ref().map(|key| action::hash_policy(key, self.own))
    }

    /// The cluster that holds the settings for a capability's host, when a DestinationRule names it.
    pub(super) fn settings(&self, host: &str, subset: Option<&str>) -> Option<ClusterId> {
        self.clusters.find(host, None, subset)
    }

    fn capability(&self, name: &str, host: &Host, subset: Option<&str>) -> Target {
        let labels = match (subset, self.rules.find(host)) {
            (None, _) => Some(None),
            (Some(subset), Some(rule)) => rule.subset(subset).map(|subset| Some(&subset.labels)),
            (Some(_), None) => None,
        };
        match (labels, Wanted::parse(name)) {
            (Some(labels), Ok(wanted)) => Target::Capability(Box::new(CapabilityTarget {
                wanted: [wanted].into(),
                subset: labels.into_iter().flatten().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
                settings: self.settings(host, subset),
            })),
            _ => Target::Unknown(described(host, None, subset)),
        }
    }

    fn cluster(&self, host: &Host, port: Option<u16>, subset: Option<&str>) -> Target {
        let full = self.full_name(host);
        let host = full.as_ref().unwrap_or(host);
        if let Some(id) = self.clusters.find(host, port, subset) {
            return Target::Cluster(id);
        }
        let unknown = || Target::Unknown(described(host, port, subset));
        if port.is_some() {
            return unknown();
        }
        let ports: Box<[_]> = self.clusters.by_port(host, subset).into();
        if ports.is_empty() { unknown() } else { Target::ByPort(ports) }
    }

    /// The in-cluster service that a short dotted name (`reviews.prod`, `reviews.prod.svc`) means, when nobody has
    /// exactly that name.
    pub(super) fn full_name(&self, host: &Host) -> Option<Host> {
        if self.clusters.knows(host) {
            return None;
        }
        let short = host.strip_suffix(".svc").unwrap_or(host);
        let full = format!("{short}.svc.cluster.local");
        (short.matches('.').count() == 1 && self.clusters.knows(&full)).then(|| Host::resolve(&full, ""))
    }
}

fn described(host: &Host, port: Option<u16>, subset: Option<&str>) -> Box<str> {
    let port = port.map_or(String::new(), |port| format!(":{port}"));
    let subset = subset.map_or(String::new(), |subset| format!(" subset {subset}"));
    format!("{host}{port}{subset}").into()
}
