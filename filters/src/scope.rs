//! What concerns a sidecar: the documents and registered endpoints of which its plan is made.
//!
//! A plan compiled from these routes every request as one compiled from everything. More than strictly needed may be
//! seen (compiling looks again); security documents of other namespaces never are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use pilotfish_config::model::{
    Deployment, Host, Kind, Meta, Model, ROOT_NAMESPACES, ResourceKey, StringMap, Workload, includes,
};
use pilotfish_config::wire;

use crate::compile::declares;
use crate::view::{View, destinations};

/// Which sidecars see the same: namespace, and the Sidecar document that is for them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ScopeClass {
    namespace: Arc<str>,
    sidecar: Option<ResourceKey>,
}

impl ScopeClass {
    /// The class of a workload with `labels` in `namespace`: two of one class see the same of one model.
    pub fn of(model: &Model, namespace: &str, labels: &StringMap) -> ScopeClass {
        let sidecar = model.sidecar(namespace, labels).map(|sidecar| sidecar.meta.key.clone());
        ScopeClass { namespace: namespace.into(), sidecar }
    }
}

/// What sidecars of one class see of one model.
#[derive(Debug)]
pub struct Scope<'m> {
    class: ScopeClass,
    view: View<'m>,
    /// Names by kind and namespace.
    documents: HashMap<(Kind, &'m str), HashSet<&'m str>>,
    /// What the services that it sees select, by namespace.
    selectors: HashMap<&'m str, Vec<&'m StringMap>>,
}

impl<'m> Scope<'m> {
    /// The scope of a workload with `labels` in `namespace`.
    pub fn new(model: &'m Model, namespace: &'m str, labels: &StringMap) -> Scope<'m> {
        let mut scope = Scope {
            class: ScopeClass::of(model, namespace, labels),
            view: View::new(model, namespace, labels),
            documents: HashMap::new(),
            selectors: HashMap::new(),
        };
        scope.services(model);
        scope.workloads(model);
        scope.rules(model, namespace);
        scope.own(model, namespace);
        scope
    }

    /// Sidecars of equal class see the same.
    pub fn class(&self) -> &ScopeClass {
        &self.class
    }

    /// Whether a document concerns it.
    pub fn sees_document(&self, key: &wire::Key) -> bool {
        let kind = Kind::ALL.iter().find(|kind| kind.name() == key.kind);
        let names = kind.and_then(|kind| self.documents.get(&(*kind, key.namespace.as_str())));
        names.is_some_and(|names| names.contains(key.name.as_str()))
    }

    /// Whether every registered agent concerns it.
    pub fn is_wide(&self) -> bool {
        self.view.is_wide()
    }

    /// Whether a registered agent concerns it. Statuses are not looked at.
    pub fn sees_endpoint(&self, endpoint: &wire::Endpoint) -> bool {
        self.view.is_wide() || self.sees_agent(&endpoint.namespace, &endpoint.agent) || {
            let selectors = self.selectors.get(endpoint.namespace.as_str());
            selectors.is_some_and(|all| all.iter().any(|selector| includes(&endpoint.labels, selector)))
        }
    }

    fn sees_agent(&self, namespace: &str, agent: &str) -> bool {
        self.view.is_wide()
            || self
                .view
                .sees_host(namespace, &Host::verbatim(&format!("{agent}.{namespace}.svc.cluster.local")))
    }

    fn see(&mut self, meta: &'m Meta) {
        self.see_key(&meta.key);
    }

    fn see_key(&mut self, key: &'m ResourceKey) {
        self.documents.entry((key.kind, &key.namespace)).or_default().insert(&key.name);
    }

    fn services(&mut self, model: &'m Model) {
        for entry in &model.service_entries {
            if entry.hosts.iter().any(|host| self.view.sees_service(entry, host)) {
                self.see(&entry.meta);
                self.selectors.entry(entry.meta.namespace()).or_default().extend(&entry.workload_selector);
            }
        }
    }

    /// Workloads, and the agents that run there.
    fn workloads(&mut self, model: &'m Model) {
        // Namespaces of which some agent's capabilities count.
        let mut agents: HashSet<&str> = HashSet::new();
        let has_agent = |workload: &Workload| workload.agent.is_some();
        for entry in &model.service_entries {
            let seen = self.documents.get(&(Kind::ServiceEntry, entry.meta.namespace()));
            if seen.is_some_and(|names| names.contains(entry.meta.name()))
                && entry.endpoints.iter().any(has_agent)
            {
                agents.insert(entry.meta.namespace());
            }
        }
        for entry in &model.workload_entries {
            let namespace = entry.meta.namespace();
            let selectors = self.selectors.get(namespace).map(Vec::as_slice).unwrap_or_default();
            let selected = || selectors.iter().any(|selector| includes(&entry.workload.labels, selector));
            let agent = entry.workload.agent.as_deref();
            if agent.is_some_and(|agent| self.sees_agent(namespace, agent)) || selected() {
                self.see(&entry.meta);
                if agent.is_some() {
                    agents.insert(namespace);
                }
            }
        }
        for cluster in &model.agent_clusters {
            let namespace = cluster.meta.namespace();
            // Who may start an agent by calling it has to know that it may.
            let starts = || {
                let mut agents = cluster.agents.iter();
                agents.any(|agent| {
                    agent.rules.deployment != Deployment::Static && self.sees_agent(namespace, &agent.name)
                })
            };
            if agents.contains(namespace) || namespace == &*self.class.namespace || starts() {
                self.see(&cluster.meta);
            }
        }
    }

    /// Rules with their delegates, and policies: those that it uses itself, and those that its rules' own namespaces use,
    /// because they say what a rule means (undefined subsets, lent policies).
    fn rules(&mut self, model: &'m Model, namespace: &'m str) {
        let mut around: HashMap<&str, HashSet<&str>> = HashMap::new();
        let mut heads: HashSet<&str> = HashSet::new();
        for rules in model.virtual_services.iter().filter(|rules| !rules.hosts.is_empty()) {
            if !self.view.sees_rules(rules) {
                continue;
            }
            self.see(&rules.meta);
            rules.delegates.iter().for_each(|key| self.see_key(key));
            let hosts = around.entry(rules.meta.namespace()).or_default();
            hosts.extend(destinations(rules).map(Host::as_str));
            heads.extend(rules.hosts.iter().map(Host::as_str));
        }
        for rule in &model.destination_rules {
            let home = rule.meta.namespace();
            let used =
                || home == namespace || rule.export_to.reaches(namespace) && self.view.may_reach(&rule.host);
            let covers = |hosts: &HashSet<&str>| {
                hosts.contains(rule.host.as_str())
                    || rule.host.is_wildcard() && hosts.iter().any(|host| rule.host.covers(host))
            };
            let meant = || {
                heads.contains(rule.host.as_str())
                    || around
                        .iter()
                        .any(|(of, hosts)| (home == *of || rule.export_to.reaches(of)) && covers(hosts))
            };
            if used() || meant() {
                self.see(&rule.meta);
                rule.merged.iter().for_each(|key| self.see_key(key));
            }
        }
    }

    /// Documents for the workloads of a namespace: those of its own, and of the root namespaces those for all.
    fn own(&mut self, model: &'m Model, namespace: &'m str) {
        let own = |meta: &Meta| meta.namespace() == namespace;
        let root = |meta: &Meta| ROOT_NAMESPACES.contains(&meta.namespace());
        let groups = model.workload_groups.iter().map(|group| &group.meta).filter(|meta| own(meta));
        let sidecars = model.sidecars.iter().filter(|sidecar| {
            own(&sidecar.meta) || root(&sidecar.meta) && sidecar.workload_selector.is_empty()
        });
        let peers = model.peer_authentications.iter().map(|policy| &policy.meta);
        let security = peers
            .chain(model.authorization_policies.iter().map(|policy| &policy.meta))
            .chain(model.request_authentications.iter().map(|policy| &policy.meta))
            .chain(model.agent_security_policies.iter().map(|policy| &policy.meta))
            .chain(model.rate_limits.iter().map(|limit| &limit.meta))
            .chain(model.telemetries.iter().map(|telemetry| &telemetry.meta))
            .chain(model.telemetry_providers.iter().map(|provider| &provider.meta))
            .chain(model.role_bindings.iter().map(|binding| &binding.meta))
            .chain(model.authorization_providers.iter().map(|provider| &provider.meta))
            .chain(model.outbound_credentials.iter().map(|credential| &credential.meta))
            .filter(|meta| own(meta) || root(meta));
        // What calls to its workloads need is declared there too, whether or not they call those hosts themselves.
        let rules = || model.virtual_services.iter().filter(|rules| own(&rules.meta) || root(&rules.meta));
        if rules().any(|rules| declares(&rules.meta)) {
            for rules in rules() {
                self.see(&rules.meta);
                rules.delegates.iter().for_each(|key| self.see_key(key));
            }
        }
        for meta in groups.chain(sidecars.map(|sidecar| &sidecar.meta)).chain(security) {
            self.see(meta);
        }
    }
}
