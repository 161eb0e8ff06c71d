//! Services and traffic policies -> clusters: one for each host, port and subset that a sidecar sees.

mod care;
pub(super) mod policy;
mod rules;
mod services;
mod workloads;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use pilotfish_config::model::{
    Address, Concurrency, DestinationRule, Model, Resolution, ServiceEntry, Subset, TrafficPolicy,
};

use super::on_demand::Started;
use super::to_agent;
use crate::balance::locality::{self, Place};
use crate::cluster::{self, Cluster, ClusterSpec, Clusters, Kind};
use crate::concurrency::Limit;
use crate::endpoint::Endpoint;
use crate::state::Pass;
use crate::view::View;
pub(crate) use rules::{EVERY_CAPABILITY, Rules};
use services::{Service, ServicePort};
use workloads::Seeds;

/// What DNS said: addresses by name, the last answer for names whose look-up fails.
pub type Resolved = HashMap<Box<str>, Vec<IpAddr>>;

/// What a model's clusters are compiled from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'m> {
    /// The configuration.
    pub model: &'m Model,
    /// Addresses of the names that [`dns_names`] lists.
    pub resolved: &'m Resolved,
    /// What the sidecar may reach.
    pub view: &'m View<'m>,
    /// For whom.
    pub place: &'m Place,
    /// Its trust domain, when it has an identity.
    pub trust_domain: Option<&'m str>,
    /// Agents that are started when they are asked for.
    pub on_demand: &'m [Started],
}

/// All clusters that the sidecar at `place` sees, and the names whose addresses have to be looked up, sorted.
pub(crate) fn clusters(sources: Sources<'_>, pass: &mut Pass<'_>) -> (Clusters, Box<[Box<str>]>) {
    let rules = Rules::new(sources.model, sources.place);
    let seeds = Seeds::new(sources.model);
    let mut clusters = Clusters::default();
    let services = services::services(&sources, &seeds);
    let names = names_of(&services);
    // Settings for a capability's host; who serves it is known by capability only.
    let capabilities = rules.capability_hosts().map(|host| Service::empty(host));
    for service in services.into_iter().chain(capabilities) {
        let rule = rules.find(&service.host);
        for port in &service.ports {
            let build = Build { sources, service: &service, port, rule };
            clusters.add(build.cluster(None, pass));
            for subset in rule.map(|rule| rule.subsets.as_slice()).unwrap_or_default() {
                clusters.add(build.cluster(Some(subset), pass));
            }
        }
        for (alias, port) in &service.aliases {
            clusters.alias(&service.host, *alias, *port);
        }
    }
    (clusters, names)
}

/// Names whose addresses have to be looked up before `model` is compiled, sorted.
pub fn dns_names(model: &Model, place: &Place) -> Box<[Box<str>]> {
    // Registered agents have addresses; they only matter to a service whose own name is looked up without them.
    let selects = |entry: &ServiceEntry| {
        entry.workload_selector.is_some()
            && matches!(entry.resolution, Resolution::Dns | Resolution::DnsRoundRobin)
    };
    let seeds =
        if model.service_entries.iter().any(selects) { Seeds::new(model) } else { Seeds::written(model) };
    let view = View::new(model, &place.namespace, &place.labels);
    let resolved = Resolved::default();
    let sources =
        Sources { model, resolved: &resolved, view: &view, place, trust_domain: None, on_demand: &[] };
    names_of(&services::services(&sources, &seeds))
}

fn names_of(services: &[Service<'_>]) -> Box<[Box<str>]> {
    let mut names = BTreeSet::new();
    for service in services {
        for port in &service.ports {
            for seed in &port.seeds {
                if let Address::Name(name) = &seed.workload.address {
                    names.insert(Box::from(name.as_str()));
                }
            }
            if port.looks_up_host() {
                names.insert(service.host.clone());
            }
        }
    }
    names.into_iter().collect()
}

/// One port of one service on its way to clusters.
struct Build<'m> {
    sources: Sources<'m>,
    service: &'m Service<'m>,
    port: &'m ServicePort<'m>,
    rule: Option<&'m DestinationRule>,
}

impl Build<'_> {
    fn cluster(&self, subset: Option<&Subset>, pass: &mut Pass<'_>) -> Cluster {
        let subset_name = subset.map(|subset| subset.name.as_str());
        let policy =
            self.rule.map(|rule| rule.effective_policy(subset_name, self.port.number)).unwrap_or_default();
        let balancing = policy::balancing(&policy);
        let said = self.rule.map(|rule| Concurrency::of(&rule.meta)).unwrap_or_default();
        let mut settings = policy::settings(&policy, self.port.protocol, self.service.subject_alt_names);
        settings.limit = to_agent::limit(&said).unwrap_or_default();
        let spec = ClusterSpec {
            host: self.service.host.clone(),
            port: self.port.number,
            subset: subset_name.map(Box::from),
            kind: if balancing.passthrough { Kind::Original } else { self.port.kind() },
            settings,
            algorithm: balancing.algorithm,
            hash_key: balancing.hash_key,
            balance_factor: balancing.factor,
            warmup: balancing.warmup,
            on_demand: self.service.on_demand.cloned(),
            min_health: policy.outlier_detection.as_ref().map_or(0, |outlier| outlier.min_health_percent),
        };
        if spec.kind == Kind::Original {
            return Cluster::new(spec, Vec::new(), &[], pass);
        }
        let name = cluster::name(&spec.host, spec.port, spec.subset.as_deref());
        pass.limits(&name).line.set_policy(to_agent::queue(&said));
        let mut endpoints = self.endpoints(subset, &spec, &policy, pass);
        let mut levels = match balancing.locality {
            Some(mode) => locality::levels(&endpoints, self.sources.place, &mode),
            None => locality::all(&endpoints),
        };
        if spec.hash_key.is_some() {
            locality::merge_groups(&mut endpoints, &mut levels);
        }
        Cluster::new(spec, endpoints, &levels, pass)
    }

    /// The subset's endpoints by address, each once: all sidecars have to agree on their order.
    fn endpoints(
        &self,
        subset: Option<&Subset>,
        spec: &ClusterSpec,
        policy: &TrafficPolicy,
        pass: &mut Pass<'_>,
    ) -> Vec<Arc<Endpoint>> {
        let seeds = self
            .port
            .seeds
            .iter()
            .filter(|seed| subset.is_none_or(|subset| seed.labels.contain(subset.labels.iter())));
        let mut found: Vec<workloads::Found<'_>> =
            seeds.flat_map(|seed| seed.addresses(self.sources.resolved, self.port.resolution)).collect();
        if self.port.looks_up_host() && subset.is_none_or(|subset| subset.labels.is_empty()) {
            found.extend(self.port.host_addresses(&self.service.host, self.sources.resolved));
        }
        // Stable: of equals, a registered agent is kept, else the first in the configuration.
        found.sort_by_key(|found| found.addr);
        found.dedup_by_key(|found| found.addr);
        let name = cluster::name(&spec.host, spec.port, spec.subset.as_deref());
        let stats: Vec<_> = found.iter().map(|found| pass.stats(&name, found.addr)).collect();
        for (found, stats) in found.iter().zip(&stats) {
            // What an administrator writes goes before what an agent says of itself.
            let limit = match (spec.settings.limit, found.capacity()) {
                (Limit::None, 1..) => Limit::Fixed(found.capacity()),
                (said, _) => said,
            };
            stats.set_limit(limit, if limit == Limit::None { 0 } else { pass.seed() });
        }
        let home = workloads::Home {
            trust_domain: self.sources.trust_domain,
            subject_alt_names: &spec.settings.subject_alt_names,
        };
        let mut care = care::Careful::new(policy, self.port.health_check, &stats);
        let mut endpoints = Vec::with_capacity(found.len());
        for (found, stats) in found.into_iter().zip(stats) {
            let care = care.of(found.says());
            endpoints.push(Arc::new(Endpoint { care, ..found.endpoint(stats, &home) }));
        }
        endpoints
    }
}

/// Whether a resolution uses only the first address of a name.
fn first_only(resolution: Resolution) -> bool {
    resolution == Resolution::DnsRoundRobin
}

#[cfg(test)]
mod tests;
