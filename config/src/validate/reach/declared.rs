//! Policies against what the documents declare: workloads, namespaces, agents, ports, other meshes, tokens.
//!
//! Agents may register without any document, so a name that no document has is only told of when it is close to one that is
//! there, and a selector only where its namespace declares workloads.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::model::{AuthorizationPolicy, Model, ROOT_NAMESPACES, ServiceEntry, StringMap, TargetRef};
use crate::raw::{List, RuleSpec, SourceSpec, Text, nearest};
use crate::validate::check::Cx;
use crate::yaml::{Node, clip_text};

use super::{Draft, meet};

/// So many names are looked at for one that is near.
const MOST_NAMES: usize = 1000;
/// By which policies select a workload of that name that has no such label.
const NAMES: [&str; 2] = ["app", "pilotfish.dev/agent"];

/// What documents declare.
pub(super) struct Declared<'m> {
    model: &'m Model,
    /// The mesh's own trust domain.
    trust_domain: Option<&'m str>,
    /// Those of other documents than AuthorizationPolicies.
    namespaces: BTreeSet<&'m str>,
    /// By namespace.
    workloads: HashMap<&'m str, Vec<Workload<'m>>>,
    /// By namespace.
    agents: HashMap<&'m str, BTreeSet<&'m str>>,
}

/// A workload, as far as a document says what it is.
#[derive(Default)]
struct Workload<'m> {
    name: Option<&'m str>,
    labels: Option<&'m StringMap>,
    /// Whether it has no other labels.
    whole: bool,
}

impl Workload<'_> {
    /// Whether a selector may select it.
    fn may_be(&self, selector: &StringMap) -> bool {
        selector.iter().all(|(key, value)| match self.label(key) {
            Some(own) => own == value,
            None => !self.whole,
        })
    }

    fn label(&self, key: &str) -> Option<&str> {
        let label = self.labels.and_then(|labels| labels.get(key)).map(String::as_str);
        label.or_else(|| self.name.filter(|_| NAMES.contains(&key)))
    }
}

impl<'m> Declared<'m> {
    pub(super) fn of(model: &'m Model, trust_domain: Option<&'m str>) -> Declared<'m> {
        let mut declared = Declared {
            model,
            trust_domain,
            namespaces: BTreeSet::new(),
            workloads: HashMap::new(),
            agents: HashMap::new(),
        };
        for entry in &model.service_entries {
            for workload in &entry.endpoints {
                declared.add(entry.meta.namespace(), workload.agent.as_deref(), Some(&workload.labels), true);
            }
            if let Some(selector) = &entry.workload_selector {
                declared.add(entry.meta.namespace(), None, Some(selector), false);
            }
        }
        for entry in &model.workload_entries {
            let workload = &entry.workload;
            declared.add(entry.meta.namespace(), workload.agent.as_deref(), Some(&workload.labels), true);
        }
        for group in &model.workload_groups {
            declared.add(group.meta.namespace(), None, Some(&group.template.labels), false);
        }
        for cluster in &model.agent_clusters {
            for agent in &cluster.agents {
                declared.add(cluster.meta.namespace(), Some(&agent.name), Some(&agent.labels), false);
            }
        }
        for sidecar in &model.sidecars {
            if !sidecar.workload_selector.is_empty() {
                declared.add(sidecar.meta.namespace(), None, Some(&sidecar.workload_selector), false);
            }
        }
        let routes = model.virtual_services.iter().map(|own| &own.meta);
        let rules = model.destination_rules.iter().map(|own| &own.meta);
        let services = model.service_entries.iter().map(|own| &own.meta);
        declared.namespaces.extend(routes.chain(rules).chain(services).map(|meta| meta.namespace()));
        declared
    }

    fn add(&mut self, namespace: &'m str, name: Option<&'m str>, labels: Option<&'m StringMap>, whole: bool) {
        self.namespaces.insert(namespace);
        self.workloads.entry(namespace).or_default().push(Workload { name, labels, whole });
        if let Some(name) = name {
            self.agents.entry(namespace).or_default().insert(name);
        }
    }

    pub(super) fn check(&self, cx: &mut Cx<'_>, policy: &AuthorizationPolicy, draft: &Draft<'_>) {
        self.selector(cx, policy, draft);
        for target in &policy.scope.targets {
            self.target(cx, policy, target, draft);
        }
        let no_tokens = !self.has_tokens(policy);
        let ports = self.ports(policy);
        for rule in draft.spec.rules.iter().flatten() {
            for source in rule.from.iter().flatten().filter_map(|from| from.source.as_ref()) {
                self.source(cx, policy, source);
                if let Some(first) = first(source.request_principals.as_ref()).filter(|_| no_tokens) {
                    tokens(cx, first);
                }
            }
            self.conditions(cx, policy, rule, no_tokens);
            if let Some(ports) = &ports {
                for operation in rule.to.iter().flatten().filter_map(|to| to.operation.as_ref()) {
                    operation.ports.iter().flatten().for_each(|port| has_port(cx, *port, ports));
                }
            }
        }
    }

    /// Workloads of the namespaces that a policy is for.
    fn around(&self, policy: &AuthorizationPolicy) -> impl Iterator<Item = &Workload<'m>> {
        let own = policy.meta.namespace().to_owned();
        let root = ROOT_NAMESPACES.contains(&&*own);
        self.workloads
            .iter()
            .filter(move |(namespace, _)| root || **namespace == own)
            .flat_map(|(_, all)| all)
    }

    fn selector(&self, cx: &mut Cx<'_>, policy: &AuthorizationPolicy, draft: &Draft<'_>) {
        let selector = &policy.scope.selector;
        let mut around = self.around(policy).peekable();
        if selector.is_empty() || around.peek().is_none() || around.any(|own| own.may_be(selector)) {
            return;
        }
        let node = draft.spec.selector.as_ref().map_or(draft.node, |selector| selector.node);
        let near = selector.iter().find_map(|(key, value)| {
            let known = self.around(policy).filter_map(|own| own.label(key)).take(MOST_NAMES);
            nearest(value, known)
                .filter(|near| near != value)
                .map(|near| format!("did you mean `{key}: {near}`?"))
        });
        let hint = near.unwrap_or_else(|| {
            "it is for agents that register with these labels, or that are called as `app` says, if there are any".into()
        });
        cx.warn(node, "selects no workload that is declared here", hint);
    }

    fn target(&self, cx: &mut Cx<'_>, policy: &AuthorizationPolicy, target: &TargetRef, draft: &Draft<'_>) {
        let namespace = policy.meta.namespace();
        if target.kind != "ServiceEntry" || !self.namespaces.contains(namespace) {
            return;
        }
        let own = || self.model.service_entries.iter().filter(|entry| entry.meta.namespace() == namespace);
        if own().any(|entry| entry.meta.name() == target.name) {
            return;
        }
        let written = draft.spec.target_ref.iter().chain(draft.spec.target_refs.iter().flatten());
        let name = written.filter_map(|spec| spec.name).find(|name| name.value == target.name);
        let near = nearest(&target.name, own().map(|entry| entry.meta.name()).take(MOST_NAMES));
        let hint = near.map_or_else(
            || "write one, or a `selector`".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        let message = format!("there is no ServiceEntry `{}` in {namespace}", clip_text(&target.name));
        cx.warn(name.map_or(draft.node, |name| name.node), message, hint);
    }

    /// Whether tokens are looked at where a policy holds.
    fn has_tokens(&self, policy: &AuthorizationPolicy) -> bool {
        let own = (policy.meta.namespace(), &policy.scope);
        self.model
            .request_authentications
            .iter()
            .any(|other| meet(own, (other.meta.namespace(), &other.scope)))
    }

    /// The ports of the services whose workloads a policy selects; `None` where documents do not say.
    fn ports(&self, policy: &AuthorizationPolicy) -> Option<HashSet<u16>> {
        let (scope, namespace) = (&policy.scope, policy.meta.namespace());
        let selects = |entry: &&ServiceEntry| {
            let by_target = scope.targets.iter().any(|target| target.name == entry.meta.name());
            let labels = entry.workload_selector.as_ref();
            by_target
                || !scope.selector.is_empty()
                    && labels.is_some_and(|own| crate::model::includes(own, &scope.selector))
        };
        let own = self.model.service_entries.iter().filter(|entry| entry.meta.namespace() == namespace);
        let mut ports = HashSet::new();
        for entry in own.filter(selects) {
            ports.extend(entry.ports.iter().flat_map(|port| [Some(port.number), port.target_port]).flatten());
            ports
                .extend(self.model.workloads_of(entry).flat_map(|workload| workload.ports.values().copied()));
        }
        (!ports.is_empty()).then_some(ports)
    }

    fn source(&self, cx: &mut Cx<'_>, policy: &AuthorizationPolicy, source: &SourceSpec<'_>) {
        each(&source.namespaces, &source.not_namespaces, |text| self.namespace(cx, text));
        each(&source.principals, &source.not_principals, |text| self.principal(cx, text));
        each(&source.trust_domains, &source.not_trust_domains, |text| {
            self.mesh(cx, text);
        });
        each(&source.service_accounts, &source.not_service_accounts, |text| {
            let (namespace, name) =
                text.value.split_once('/').unwrap_or((policy.meta.namespace(), text.value));
            self.agent(cx, text, namespace, name);
        });
    }

    fn conditions(
        &self,
        cx: &mut Cx<'_>,
        policy: &AuthorizationPolicy,
        rule: &RuleSpec<'_>,
        no_tokens: bool,
    ) {
        for condition in rule.when.iter().flatten() {
            let Some(key) = condition.key else { continue };
            if key.value.starts_with("request.auth.") && no_tokens && condition.values.is_some() {
                tokens(cx, key);
            }
            each(&condition.values, &condition.not_values, |text| match key.value {
                "source.namespace" => self.namespace(cx, text),
                "source.principal" | "pilotfish.delegation.agents" => self.principal(cx, text),
                "source.trustDomain" => {
                    self.mesh(cx, text);
                }
                "source.serviceAccount" => {
                    let own = policy.meta.namespace();
                    let (namespace, name) = text.value.split_once('/').unwrap_or((own, text.value));
                    self.agent(cx, text, namespace, name);
                }
                _ => {}
            });
        }
    }

    /// A namespace that nothing is in, and that is nearly called as one that something is in.
    fn namespace(&self, cx: &mut Cx<'_>, text: Text<'_>) {
        self.namespace_named(cx, text, text.value);
    }

    fn namespace_named(&self, cx: &mut Cx<'_>, text: Text<'_>, namespace: &str) -> bool {
        if namespace.contains('*') || self.namespaces.contains(namespace) {
            return true;
        }
        let near = close(namespace, self.namespaces.iter().copied());
        if let Some(near) = near {
            let message = format!("nothing is declared in the namespace `{}`", clip_text(namespace));
            cx.warn(text.node, message, format!("did you mean `{near}`?"));
        }
        near.is_none()
    }

    fn agent(&self, cx: &mut Cx<'_>, text: Text<'_>, namespace: &str, name: &str) {
        if !self.namespace_named(cx, text, namespace) || name.contains('*') {
            return;
        }
        let Some(known) = self.agents.get(namespace).filter(|known| !known.contains(name)) else { return };
        if let Some(near) = close(name, known.iter().copied()) {
            let message = format!("no agent `{}` is declared in {namespace}", clip_text(name));
            cx.warn(text.node, message, format!("did you mean `{near}`?"));
        }
    }

    /// `TRUST-DOMAIN/ns/NAMESPACE/agent/NAME`
    fn principal(&self, cx: &mut Cx<'_>, text: Text<'_>) {
        let parts: Vec<&str> = text.value.split('/').collect();
        let [trust_domain, "ns", rest @ ..] = parts.as_slice() else { return };
        if !self.mesh_named(cx, text.node, trust_domain) || !self.is_own(trust_domain) {
            return;
        }
        match rest {
            [namespace, "sa" | "agent", name] => self.agent(cx, text, namespace, name),
            [namespace, ..] => {
                self.namespace_named(cx, text, namespace);
            }
            [] => {}
        }
    }

    /// Whether names of a trust domain are those of this mesh's documents; one that is not known may be.
    fn is_own(&self, trust_domain: &str) -> bool {
        !self.model.trust_domains.iter().any(|other| other.name == trust_domain)
    }

    fn mesh(&self, cx: &mut Cx<'_>, text: Text<'_>) -> bool {
        self.mesh_named(cx, text.node, text.value)
    }

    /// Tells of a trust domain that is neither the mesh's own nor one that it takes certificates of.
    fn mesh_named(&self, cx: &mut Cx<'_>, node: Node<'_>, trust_domain: &str) -> bool {
        let Some(own) = self.trust_domain else { return true };
        let other = || self.model.trust_domains.iter().map(|domain| domain.name.as_str());
        if trust_domain.contains('*') || [own, "cluster.local"].contains(&trust_domain) {
            return true;
        }
        if other().any(|name| name == trust_domain) {
            return true;
        }
        let message = format!("nobody of the trust domain `{}` can call here", clip_text(trust_domain));
        let hint = match nearest(trust_domain, other().chain([own])) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the mesh's own is `{own}`; a TrustDomain document lets another one in"),
        };
        cx.warn(node, message, hint);
        false
    }
}

/// A name that differs by little, as a slip of the fingers does; short names differ by little anyway.
pub(in crate::validate) fn close<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    if word.len() < 5 {
        return None;
    }
    let near = nearest(word, known.take(MOST_NAMES))?;
    let digits = |text: &str| text.bytes().filter(u8::is_ascii_digit).collect::<Vec<_>>();
    let same_size = near.len().abs_diff(word.len()) <= 1;
    (same_size && digits(near) == digits(word)).then_some(near)
}

fn first<'n>(list: Option<&List<Text<'n>>>) -> Option<Text<'n>> {
    list.and_then(|list| list.first()).copied()
}

fn each<'s, 'n: 's>(
    any_of: &'s Option<List<Text<'n>>>,
    none_of: &'s Option<List<Text<'n>>>,
    mut take: impl FnMut(Text<'n>),
) {
    any_of.iter().chain(none_of).flatten().for_each(|text| take(*text));
}

fn tokens(cx: &mut Cx<'_>, text: Text<'_>) {
    let message =
        "this can never match: no RequestAuthentication is for these workloads, so no token is looked at";
    cx.warn(text.node, message, "write one that says whose tokens are valid");
}

fn has_port(cx: &mut Cx<'_>, text: Text<'_>, known: &HashSet<u16>) {
    if text.value.parse().is_ok_and(|port: u16| !known.contains(&port)) {
        let mut known: Vec<u16> = known.iter().copied().collect();
        known.sort_unstable();
        let known: Vec<String> = known.iter().take(8).map(u16::to_string).collect();
        let message = format!("none of these workloads has the port {}", text.value);
        cx.warn(text.node, message, format!("they have {}", known.join(", ")));
    }
}
