//! What is valid and does nothing, because something that it names is nowhere: warnings.

use std::collections::{HashMap, HashSet};

use crate::model::{Host, Model, PeerAuthentication, ROOT_NAMESPACES, ServiceEntry, includes};

use super::Drafts;
use super::check::Cx;

/// Checks names across documents; `registered`: hosts that need none.
pub(super) fn check(cx: &mut Cx<'_>, drafts: &Drafts<'_>, model: &Model, registered: &[String]) {
    hosts_twice(cx, drafts);
    destinations(cx, drafts, model, registered);
    workloads(cx, drafts, model);
    agents(cx, drafts, model);
    peers(cx, drafts, model);
}

/// PeerAuthentications that cannot have an effect on any workload.
fn peers(cx: &mut Cx<'_>, drafts: &Drafts<'_>, model: &Model) {
    // As the plan decides: of those for a whole namespace, the first by name holds.
    let wide = model.peer_authentications.iter().filter(|policy| policy.selector.is_empty());
    let mut first: HashMap<&str, &PeerAuthentication> = HashMap::new();
    for policy in wide {
        let known = first.entry(policy.meta.namespace()).or_insert(policy);
        if policy.meta.name() < known.meta.name() {
            *known = policy;
        }
    }
    for (policy, node) in model.peer_authentications.iter().zip(&drafts.peers) {
        let namespace = policy.meta.namespace();
        if !policy.selector.is_empty() {
            if ROOT_NAMESPACES.contains(&namespace) {
                let hint = "put it into the workloads' namespace";
                cx.warn(*node, "a selector in a root namespace selects nothing", hint);
            }
        } else if let Some(first) = first.get(namespace).filter(|first| first.meta.key != policy.meta.key) {
            let message = format!("the namespace {namespace} has {} already", first.meta.key);
            cx.warn(*node, message, "the first by name holds; put them into one");
        }
    }
}

/// Two VirtualServices for one host: the first one wins.
fn hosts_twice(cx: &mut Cx<'_>, drafts: &Drafts<'_>) {
    let mut seen: std::collections::HashMap<(&str, &Host), &crate::model::Meta> = Default::default();
    for draft in drafts.virtual_services.iter().filter(|draft| draft.service.is_for_mesh()) {
        let meta = &draft.service.meta;
        for host in &draft.service.hosts {
            if let Some(first) = seen.insert((meta.namespace(), host), meta) {
                let message =
                    format!("{host} is already in VirtualService {} at {}", first.name(), first.source);
                cx.warn(draft.node, message, "the rules of the first one win; write them into one");
                seen.insert((meta.namespace(), host), first);
            }
        }
    }
}

/// Destinations that no ServiceEntry knows: only what comes from elsewhere can make them work.
fn destinations(cx: &mut Cx<'_>, drafts: &Drafts<'_>, model: &Model, registered: &[String]) {
    let mut services: HashMap<&str, &ServiceEntry> = HashMap::new();
    for entry in &model.service_entries {
        for host in &entry.hosts {
            services.entry(host.as_str()).or_insert(entry);
        }
    }
    let wide: Vec<&Host> = model
        .service_entries
        .iter()
        .flat_map(|entry| &entry.hosts)
        .filter(|host| host.is_wildcard())
        .collect();
    let declared = model.agent_clusters.iter().flat_map(|cluster| {
        cluster.agents.iter().map(|agent| Host::resolve(&agent.name, cluster.meta.namespace()))
    });
    let agents: HashSet<Host> = declared.chain(registered.iter().map(|own| Host::verbatim(own))).collect();
    let mut said: HashSet<&str> = HashSet::new();
    for mention in drafts.virtual_services.iter().flat_map(|draft| &draft.mentions) {
        let host = &mention.destination.host;
        let known = host.capability().is_some()
            || services.contains_key(host.as_str())
            || agents.contains(host)
            || wide.iter().any(|wide| wide.covers(host));
        if !known && said.insert(host) {
            let at = mention.node.get("host").unwrap_or(mention.node);
            let message = format!("no ServiceEntry here has the host {host}");
            cx.warn(at, message, "without one, and no agent that registers as it, requests get 503");
        }
        if let (Some(port), Some(entry)) = (mention.destination.port, services.get(host.as_str()))
            && entry.port(Some(port)).is_none()
            && !entry.ports.is_empty()
        {
            let ports: Vec<String> = entry.ports.iter().map(|port| port.number.to_string()).collect();
            let at = mention.node.get("port").unwrap_or(mention.node);
            cx.warn(at, format!("{host} has no port {port}"), format!("it has {}", ports.join(", ")));
        }
    }
}

/// A label and its value.
type Pair<'m> = (&'m String, &'m String);

/// Which services select which workloads, without comparing each with each: there may be thousands of both.
fn workloads(cx: &mut Cx<'_>, drafts: &Drafts<'_>, model: &Model) {
    // Selectors by their first pair; those without any by nothing.
    let mut selectors: HashMap<(&str, Option<Pair<'_>>), Vec<usize>> = HashMap::new();
    for (at, service) in model.service_entries.iter().enumerate() {
        if let Some(labels) = &service.workload_selector {
            selectors.entry((service.meta.namespace(), labels.iter().next())).or_default().push(at);
        }
    }
    let mut selecting = vec![false; model.service_entries.len()];
    for (entry, node) in model.workload_entries.iter().zip(&drafts.workloads) {
        let mut selected = false;
        for pair in std::iter::once(None).chain(entry.workload.labels.iter().map(Some)) {
            for at in selectors.get(&(entry.meta.namespace(), pair)).into_iter().flatten() {
                let labels = model.service_entries[*at].workload_selector.as_ref();
                if labels.is_some_and(|labels| includes(&entry.workload.labels, labels)) {
                    (selected, selecting[*at]) = (true, true);
                }
            }
        }
        // An agent's workload makes a service of its own.
        if !selected && entry.workload.agent.is_none() {
            let hint = "a ServiceEntry of its namespace has to select its labels by `workloadSelector`";
            cx.warn(*node, "no ServiceEntry here selects this workload, so nothing is sent to it", hint);
        }
    }
    for ((service, node), selects) in model.service_entries.iter().zip(&drafts.services).zip(selecting) {
        if service.workload_selector.is_some() && !selects && service.endpoints.is_empty() {
            let at = node.get("workloadSelector").unwrap_or(*node);
            let hint = "without one, and no registered agent with these labels, requests get 503";
            cx.warn(at, "selects no WorkloadEntry here", hint);
        }
    }
}

fn agents(cx: &mut Cx<'_>, drafts: &Drafts<'_>, model: &Model) {
    let services = model.service_entries.iter().zip(&drafts.services);
    let in_services = services.flat_map(|(service, node)| {
        service.endpoints.iter().map(|workload| (service.meta.namespace(), workload, *node))
    });
    let entries = model.workload_entries.iter().zip(&drafts.workloads);
    let alone = entries.map(|(entry, node)| (entry.meta.namespace(), &entry.workload, *node));
    let known: HashSet<(&str, &str)> = model
        .agent_clusters
        .iter()
        .flat_map(|cluster| {
            cluster.agents.iter().map(|agent| (cluster.meta.namespace(), agent.name.as_str()))
        })
        .collect();
    let mut said: HashSet<(&str, &str)> = HashSet::new();
    for (namespace, workload, node) in in_services.chain(alone) {
        let Some(agent) = workload.agent.as_deref() else { continue };
        if !known.contains(&(namespace, agent)) && said.insert((namespace, agent)) {
            let message = format!("no AgentCluster of the namespace {namespace} has an agent `{agent}`");
            cx.warn(node, message, "without one, the endpoint has no capabilities");
        }
    }
}
