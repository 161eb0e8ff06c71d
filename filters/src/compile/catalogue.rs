//! The catalogue: every endpoint whose agent is able to do something, once.

use std::collections::HashSet;
use std::sync::Arc;

use crate::capability::{Candidate, Catalogue};
use crate::cluster::Clusters;

/// Collects from the first port of each host; what several hosts share counts once.
pub(super) fn compile(clusters: &Clusters) -> Catalogue {
    let mut hosts: Vec<&str> = clusters.hosts().collect();
    hosts.sort_unstable();
    let mut seen = HashSet::new();
    let mut candidates = Vec::new();
    for host in hosts {
        let first = clusters.by_port(host, None).first().map(|(_, id)| *id);
        let Some((cluster, endpoints)) = first.and_then(|id| Some((id, clusters.get(id)?.endpoints())))
        else {
            continue;
        };
        for endpoint in endpoints.iter().filter(|e| !e.capabilities.is_empty() && seen.insert(e.addr)) {
            candidates.push(Candidate { endpoint: Arc::clone(endpoint), cluster });
        }
    }
    Catalogue::new(candidates)
}
