//! Look-ups over a [`Model`], with Istio's precedence.

use std::collections::HashMap;

use super::{
    Agent, AgentTemplate, Capability, DestinationRule, GpuPool, Host, Meta, Model, OutboundMode, Probe,
    ServiceEntry, Sidecar, StringMap, Workload,
};

/// Namespaces whose documents for all workloads hold for the whole mesh: ours before Istio's.
pub const ROOT_NAMESPACES: [&str; 2] = ["pilotfish-system", "istio-system"];

impl Model {
    /// Pools, as agents name theirs.
    pub fn pools_by_name(&self) -> Named<'_, GpuPool> {
        Named::new(&self.gpu_pools, |pool| &pool.meta)
    }

    /// How agents are started, by their name.
    pub fn templates_by_name(&self) -> Named<'_, AgentTemplate> {
        Named::new(&self.agent_templates, |template| &template.meta)
    }

    /// The DestinationRule that a caller in `namespace` uses for `host`: the caller's namespace first, then the
    /// host's own, then any that is exported to the caller; in each, exact hosts before longer wildcards.
    pub fn destination_rule(&self, host: &str, namespace: &str) -> Option<&DestinationRule> {
        let index = most_specific_rule(self.destination_rules.iter(), host, namespace)?;
        self.destination_rules.get(index)
    }

    /// The service that serves `host` for callers in `namespace`: exact before wildcard, own namespace first.
    pub fn service(&self, host: &str, namespace: &str) -> Option<&ServiceEntry> {
        let visible = self
            .service_entries
            .iter()
            .filter(|entry| entry.meta.namespace() == namespace || entry.export_to.reaches(namespace));
        visible
            .filter_map(|entry| {
                let length = entry.hosts.iter().filter(|own| own.covers(host)).map(rank).max()?;
                Some((length, entry.meta.namespace() == namespace, entry))
            })
            .reduce(|best, next| if (next.0, next.1) > (best.0, best.1) { next } else { best })
            .map(|(_, _, entry)| entry)
    }

    /// Every workload of a service: those written in it, and the WorkloadEntries that it selects.
    pub fn workloads_of<'m>(&'m self, entry: &'m ServiceEntry) -> impl Iterator<Item = &'m Workload> {
        let selected = entry.workload_selector.as_ref().into_iter().flat_map(move |labels| {
            self.workload_entries
                .iter()
                .filter(move |w| {
                    w.meta.namespace() == entry.meta.namespace() && includes(&w.workload.labels, labels)
                })
                .map(|w| &w.workload)
        });
        entry.endpoints.iter().chain(selected)
    }

    /// The agent of that name in that namespace.
    pub fn agent(&self, namespace: &str, name: &str) -> Option<&Agent> {
        self.agent_clusters
            .iter()
            .filter(|cluster| cluster.meta.namespace() == namespace)
            .flat_map(|cluster| &cluster.agents)
            .find(|agent| agent.name == name)
    }

    /// What the agent at `workload` of a service in `namespace` is able to do; empty when no agent is tied to it.
    pub fn capabilities(&self, namespace: &str, workload: &Workload) -> &[Capability] {
        let agent = workload.agent.as_deref().and_then(|name| self.agent(namespace, name));
        agent.map(|agent| agent.capabilities.as_slice()).unwrap_or_default()
    }

    /// What happens to unknown destinations for a workload of `namespace` with `labels`, when its Sidecar says.
    pub fn outbound_mode(&self, namespace: &str, labels: &StringMap) -> Option<OutboundMode> {
        self.sidecar(namespace, labels)?.outbound
    }

    /// The Sidecar for a workload of `namespace` with `labels`: one that selects it, else its namespace's, else the
    /// mesh's, which is the one without a selector in a root namespace.
    pub fn sidecar(&self, namespace: &str, labels: &StringMap) -> Option<&Sidecar> {
        let own = || self.sidecars.iter().filter(|sidecar| sidecar.meta.namespace() == namespace);
        let wide = |sidecar: &&Sidecar| sidecar.workload_selector.is_empty();
        let of_mesh = || {
            ROOT_NAMESPACES.iter().find_map(|root| {
                self.sidecars.iter().filter(wide).find(|sidecar| sidecar.meta.namespace() == *root)
            })
        };
        own()
            .find(|sidecar| {
                !sidecar.workload_selector.is_empty() && includes(labels, &sidecar.workload_selector)
            })
            .or_else(|| own().find(wide))
            .or_else(of_mesh)
    }

    /// How the readiness of a workload of `namespace` with `labels` is probed: as the WorkloadGroup says whose template
    /// has most of these labels, all of its own among them.
    pub fn probe_for(&self, namespace: &str, labels: &StringMap) -> Option<&Probe> {
        let own = self.workload_groups.iter().filter(|group| group.meta.namespace() == namespace);
        let fits = own.filter_map(|group| {
            let wanted = group.workload_labels();
            let count = wanted.clone().count();
            let all = wanted.clone().all(|(key, value)| labels.get(key) == Some(value));
            (count > 0 && all).then_some((count, group.probe.as_ref()?))
        });
        fits.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, probe)| probe)
    }
}

/// Whether `labels` has everything that `wanted` asks for.
pub fn includes(labels: &StringMap, wanted: &StringMap) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Longer is more specific; a full name beats every wildcard.
fn rank(host: &Host) -> usize {
    if host.is_wildcard() { host.len() } else { usize::MAX }
}

/// The position of the rule that a caller in `namespace` uses for `host`; see [`Model::destination_rule`].
pub(crate) fn most_specific_rule<'r>(
    rules: impl Iterator<Item = &'r DestinationRule> + Clone,
    host: &str,
    namespace: &str,
) -> Option<usize> {
    let own = host.strip_suffix(".svc.cluster.local").and_then(|short| short.split('.').nth(1));
    rules
        .enumerate()
        .filter(|(_, rule)| rule.host.covers(host))
        .filter(|(_, rule)| rule.meta.namespace() == namespace || rule.export_to.reaches(namespace))
        .map(|(index, rule)| {
            let near = match rule.meta.namespace() {
                of if of == namespace => 2,
                of if Some(of) == own => 1,
                _ => 0,
            };
            (near, rank(&rule.host), index)
        })
        .reduce(|best, next| if (next.0, next.1) > (best.0, best.1) { next } else { best })
        .map(|(_, _, index)| index)
}

/// Documents of a kind, to be found from a namespace: its own first, then those of root namespaces.
#[derive(Debug)]
pub struct Named<'m, T>(HashMap<(&'m str, &'m str), &'m T>);

impl<'m, T> Named<'m, T> {
    fn new(all: &'m [T], meta: fn(&T) -> &Meta) -> Named<'m, T> {
        Named(all.iter().map(|one| ((meta(one).namespace(), meta(one).name()), one)).collect())
    }

    /// The one that somebody in `namespace` means by `name`, or by `namespace/name`.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&'m T> {
        let find = |namespace: &str, name: &str| self.0.get(&(namespace, name)).copied();
        match name.split_once('/') {
            Some((namespace, name)) => find(namespace, name),
            None => {
                find(namespace, name).or_else(|| ROOT_NAMESPACES.iter().find_map(|root| find(root, name)))
            }
        }
    }
}
