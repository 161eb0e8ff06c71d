//! What documents of the workload's own namespace, or of a root namespace, declare of calls to it.
//!
//! Others' documents declare nothing, whatever they export: nobody else says what a call to this workload needs.

use std::collections::HashSet;

use pilotfish_config::model::{
    Action, Host, HttpMatch, HttpRoute, Meta, Model, ROOT_NAMESPACES, ResourceTemplate, StringMatch,
    VirtualService, includes,
};

use super::super::{CompileOptions, block, names_of};
use crate::authz::governance::declared::{Declarations, Declared, DeclaredRule, DeclaredService};
use crate::route::block::{Block, PathMatch};

/// All that is declared for the workload of `options`.
pub(super) fn compile(
    model: &Model,
    options: &CompileOptions,
    levels: &[&str],
    warnings: &mut Vec<Box<str>>,
) -> Declarations {
    let mut declarations = Declarations::default();
    let own =
        |meta: &Meta| meta.namespace() == options.namespace || ROOT_NAMESPACES.contains(&meta.namespace());
    let clusters =
        model.agent_clusters.iter().filter(|cluster| cluster.meta.namespace() == options.namespace);
    let mut capabilities: HashSet<&str> = HashSet::new();
    for cluster in clusters {
        let Some(agent) = cluster.agents.iter().find(|agent| agent.name == options.agent) else { continue };
        declarations.general = declared(&cluster.meta, Some(&agent.name), levels, warnings);
        for capability in &agent.capabilities {
            capabilities.insert(&capability.name);
            if said_for(&cluster.meta, &capability.name) {
                let declared = declared(&cluster.meta, Some(&capability.name), levels, warnings);
                declarations.capabilities.push((capability.name.as_str().into(), declared));
            }
        }
    }
    if let Some(sidecar) = model.sidecar(&options.namespace, &options.labels) {
        let said = declared(&sidecar.meta, None, levels, warnings);
        if !declarations.general.says_need() {
            declarations.general.permission = said.permission;
            declarations.general.resource = said.resource;
        }
        declarations.general.class = declarations.general.class.or(said.class);
    }
    let services =
        model.virtual_services.iter().filter(|service| own(&service.meta) && service.is_for_mesh());
    let services: Vec<&VirtualService> = services.collect();
    if services.iter().any(|service| declares(&service.meta)) {
        let hosts = hosts(model, options, &capabilities);
        declarations.services = services
            .into_iter()
            .filter_map(|service| virtual_service(service, &hosts, options, levels, warnings))
            .collect();
        if declarations
            .services
            .iter()
            .all(|service| service.rules.is_empty() && service.otherwise.is_empty())
        {
            declarations.services.clear();
        }
    }
    declarations
}

const NAMES: [&str; 3] = ["permission", "resource", "classification"];

/// Whether a document declares anything.
pub(crate) fn declares(meta: &Meta) -> bool {
    let of = |key: &String| {
        let name = key.strip_prefix("pilotfish.dev/")?;
        NAMES.contains(&name.split('.').next()?).then_some(())
    };
    meta.annotations.keys().any(|key| of(key).is_some())
}

/// Whether a document declares something for this rule, agent or capability in particular.
fn said_for(meta: &Meta, name: &str) -> bool {
    NAMES.iter().any(|annotation| meta.annotation(&format!("{annotation}.{name}")).is_some())
}

/// What a document declares, for a part of it or for all.
fn declared(meta: &Meta, part: Option<&str>, levels: &[&str], warnings: &mut Vec<Box<str>>) -> Declared {
    let find = |name: &str| meta.annotation_for(name, part);
    let class = find("classification");
    let place = class.and_then(|class| super::level(levels, class));
    if let (Some(class), None, false) = (class, place, levels.is_empty()) {
        // Loading refuses it where it sees the policy; here it can only be more secret than anything.
        warnings.push(
            format!(
                "{}: {}: `{class}` is none of the access levels, so it counts as the highest",
                meta.source, meta.key
            )
            .into(),
        );
    }
    let resource = find("resource").map(|text| ResourceTemplate::parse(text, find("resource-path")));
    Declared {
        permission: find("permission").map(Box::from),
        // What loading let through can be read.
        resource: resource.and_then(Result::ok),
        class: place.or(class.and(levels.len().checked_sub(1))),
    }
}

/// The hosts by which the workload is called.
pub(in crate::compile) fn hosts(
    model: &Model,
    options: &CompileOptions,
    capabilities: &HashSet<&str>,
) -> Vec<Host> {
    let namespace = &options.namespace;
    let own = Host::verbatim(&format!("{}.{namespace}.svc.cluster.local", options.agent));
    let mut hosts: Vec<Host> = names_of(&own, namespace).map(Host::verbatim).collect();
    hosts.extend(capabilities.iter().map(|name| Host::verbatim(&format!("{name}.capability.mesh"))));
    for entry in model.service_entries.iter().filter(|entry| entry.meta.namespace() == namespace) {
        let selects =
            entry.workload_selector.as_ref().is_some_and(|labels| includes(&options.labels, labels));
        let named = || {
            let mut workloads = model.workloads_of(entry);
            workloads.any(|workload| workload.agent.as_deref() == Some(&options.agent))
        };
        if selects || named() {
            hosts.extend(entry.hosts.iter().cloned());
        }
    }
    hosts
}

pub(in crate::compile) fn overlaps(hosts: &[Host], host: &Host) -> bool {
    hosts.iter().any(|own| own.covers(host) || host.covers(own))
}

/// The rules of a VirtualService that is for the workload: one of its hosts is the workload's, or a rule sends there.
fn virtual_service(
    service: &VirtualService,
    hosts: &[Host],
    options: &CompileOptions,
    levels: &[&str],
    warnings: &mut Vec<Box<str>>,
) -> Option<DeclaredService> {
    let is_own = service.hosts.iter().any(|host| overlaps(hosts, host));
    let sends = |rule: &&HttpRoute| match &rule.action {
        Action::Route(destinations) => {
            destinations.iter().any(|destination| overlaps(hosts, &destination.destination.host))
        }
        _ => false,
    };
    let rules: Vec<&HttpRoute> = service.http.iter().filter(|rule| is_own || sends(rule)).collect();
    if !is_own && rules.is_empty() {
        return None;
    }
    let otherwise = declared(&service.meta, None, levels, warnings);
    let authorities = rules.iter().filter_map(|rule| rule.rewrite.as_ref()?.authority.as_deref());
    let mut compiled: Vec<DeclaredRule> = rules
        .iter()
        .map(|rule| {
            let (blocks, sure) = blocks(rule, options);
            let declared = declared(&service.meta, rule.name.as_deref(), levels, warnings);
            DeclaredRule { blocks, sure, declared }
        })
        .collect();
    let last = compiled.iter().rposition(|rule| rule.declared != otherwise);
    let hosts = service.hosts.iter().flat_map(|host| names_of(host, &options.namespace).map(Host::verbatim));
    let hosts = hosts
        .chain(authorities.map(|authority| Host::verbatim(crate::route::split_authority(authority).0)))
        .collect();
    compiled.truncate(last.map_or(0, |last| last + 1));
    Some(DeclaredService { hosts, rules: compiled, otherwise })
}

/// The rule as its calls arrive: who called is not known here, and the path is what the rule made of it. The second part says whether a
/// call that matches surely is the rule's.
pub(in crate::compile) fn blocks(rule: &HttpRoute, options: &CompileOptions) -> (Vec<Block>, bool) {
    let rewrite = rule.rewrite.as_ref();
    let edits = &rule.headers.request;
    let edited = |name: &str| {
        let set = edits.set.iter().chain(&edits.add).any(|(edited, _)| edited == name);
        set || edits.remove.iter().any(|edited| edited == name)
    };
    let mut sure = true;
    let mut blocks = Vec::new();
    for written in &rule.matches {
        let mut arrives = HttpMatch {
            source_labels: Default::default(),
            source_namespace: None,
            gateways: Vec::new(),
            scheme: None,
            authority: written.authority.clone().filter(|_| rewrite.is_none_or(|r| r.authority.is_none())),
            ..written.clone()
        };
        arrives.headers.retain(|(name, _)| !edited(name));
        arrives.without_headers.retain(|(name, _)| !edited(name));
        arrives.uri = rewritten(written.uri.as_ref(), rewrite);
        sure &= arrives == *written;
        blocks.extend(block::block(&arrives, 0, options));
    }
    if rule.matches.is_empty() {
        blocks.push(Block { rule: 0, path: PathMatch::Any, rest: Box::default() });
    }
    (blocks, sure)
}

/// The condition on the path after the rule changed it; `None`: any path.
fn rewritten(
    uri: Option<&StringMatch>,
    rewrite: Option<&pilotfish_config::model::Rewrite>,
) -> Option<StringMatch> {
    let Some(rewrite) = rewrite else { return uri.cloned() };
    if rewrite.uri_regex.is_some() {
        return None;
    }
    match (&rewrite.uri, uri) {
        (None, uri) => uri.cloned(),
        (Some(new), Some(StringMatch::Exact(_) | StringMatch::Regex(_))) => {
            Some(StringMatch::Exact(new.clone()))
        }
        (Some(new), _) => Some(StringMatch::Prefix(new.clone())),
    }
}
