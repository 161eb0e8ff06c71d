//! What Istio would leave dead, spelled out: undefined subsets and policies for a VirtualService's own host.
//!
//! Both apply only where Istio gives a route that never answers, or a rule that nothing uses; both print the YAML
//! that says the same explicitly; both are off with `--strict-istio`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::Options;
use crate::model::{
    Action, Affinity, Algorithm, ConsistentHash, DestinationRule, ExportTo, HashKey, HashTable, Host,
    LoadBalancer, Meta, ResourceKey, Subset, TrafficPolicy, most_specific_rule,
};
use crate::yaml::{Node, print};

use super::Drafts;
use super::check::Cx;
use super::destination_rule::DestinationRuleDraft;
use super::virtual_service::VirtualServiceDraft;

/// Applies both, then `pilotfish.dev/affinity` of VirtualServices.
pub(super) fn spell_out(cx: &mut Cx<'_>, drafts: &mut Drafts<'_>, options: &Options) {
    undefined_subsets(cx, drafts, options.strict_istio);
    lent_policies(cx, drafts, options.strict_istio);
    affinities(drafts);
}

/// The rule that callers in `namespace` use for `host`.
fn rule_of<'d, 'n>(
    rules: &'d mut [DestinationRuleDraft<'n>],
    host: &Host,
    namespace: &str,
) -> Option<&'d mut DestinationRuleDraft<'n>> {
    let index = most_specific_rule(rules.iter().map(|draft| &draft.rule), host, namespace)?;
    rules.get_mut(index)
}

/// A rule for `host` where there is none yet.
fn new_rule<'n>(host: &Host, of: &Meta, what: &str, node: Node<'n>) -> DestinationRuleDraft<'n> {
    let key = ResourceKey {
        kind: crate::model::Kind::DestinationRule,
        namespace: of.key.namespace.clone(),
        name: format!("{}-{what}", short(host)).into(),
    };
    let meta = Meta { key, labels: BTreeMap::new(), annotations: BTreeMap::new(), source: node.source() };
    let rule = DestinationRule {
        meta,
        host: host.clone(),
        policy: TrafficPolicy::default(),
        subsets: Vec::new(),
        export_to: ExportTo::All,
        workload_selector: BTreeMap::new(),
        merged: Vec::new(),
    };
    DestinationRuleDraft { rule, host: node, policy: None }
}

/// The first label of a host, for names.
fn short(host: &str) -> &str {
    host.trim_start_matches(['*', '.']).split('.').next().unwrap_or_default()
}

/// What is missing for one host: who asks first, and the names.
struct Missing<'n> {
    service: usize,
    node: Node<'n>,
    subsets: BTreeSet<String>,
}

fn undefined_subsets(cx: &mut Cx<'_>, drafts: &mut Drafts<'_>, strict: bool) {
    let mut missing: BTreeMap<(String, Host), Missing<'_>> = BTreeMap::new();
    let mut known: HashMap<(&str, &Host, &str), bool> = HashMap::new();
    for (service, draft) in drafts.virtual_services.iter().enumerate() {
        let namespace = draft.service.meta.namespace();
        for mention in &draft.mentions {
            let destination = &mention.destination;
            let Some(subset) = destination.subset.as_deref() else { continue };
            let rules = &drafts.destination_rules;
            let defined = *known.entry((namespace, &destination.host, subset)).or_insert_with(|| {
                most_specific_rule(rules.iter().map(|draft| &draft.rule), &destination.host, namespace)
                    .is_some_and(|index| rules[index].rule.subset(subset).is_some())
            });
            if !defined {
                let key = (namespace.to_owned(), destination.host.clone());
                let entry = missing.entry(key).or_insert_with(|| Missing {
                    service,
                    node: mention.node,
                    subsets: BTreeSet::new(),
                });
                entry.subsets.insert(subset.to_owned());
            }
        }
    }
    for ((namespace, host), missing) in missing {
        define(cx, drafts, &namespace, &host, missing, strict);
    }
}

fn define<'n>(
    cx: &mut Cx<'_>,
    drafts: &mut Drafts<'n>,
    namespace: &str,
    host: &Host,
    missing: Missing<'n>,
    strict: bool,
) {
    let node = missing.node.get("subset").unwrap_or(missing.node);
    let list = missing.subsets.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let what = format!("no DestinationRule of {host} defines the subset {list}");
    let yaml = subsets_yaml(host, namespace, &missing.subsets);
    if strict {
        let hint = format!("the route is dead: requests get 503 (--strict-istio); define it:\n{yaml}");
        cx.warn(node, what, hint);
        return;
    }
    let what = format!("{what}; it is taken as the label `version` of the same value");
    cx.warn(node, what, format!("Istio would answer 503; write it out:\n{yaml}"));
    let meta = drafts.virtual_services[missing.service].service.meta.clone();
    if rule_of(&mut drafts.destination_rules, host, namespace).is_none() {
        drafts.destination_rules.push(new_rule(host, &meta, "subsets", missing.node));
    }
    if let Some(draft) = rule_of(&mut drafts.destination_rules, host, namespace) {
        draft.rule.subsets.extend(missing.subsets.into_iter().map(|name| Subset {
            labels: BTreeMap::from([("version".to_owned(), name.clone())]),
            name,
            policy: None,
        }));
    }
}

fn head_yaml(host: &str, namespace: &str, what: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: {}-{what}\n  namespace: {namespace}\nspec:\n  host: {host}\n",
        short(host)
    )
}

fn subsets_yaml(host: &str, namespace: &str, subsets: &BTreeSet<String>) -> String {
    let mut yaml = head_yaml(host, namespace, "subsets") + "  subsets:\n";
    for name in subsets {
        yaml.push_str(&format!("  - name: {name}\n    labels:\n      version: {name}\n"));
    }
    yaml.trim_end().to_owned()
}

/// A policy that is lent: from which rule, to which hosts of which VirtualService.
struct Loan {
    rule: usize,
    service: usize,
    hosts: BTreeSet<Host>,
}

fn lent_policies(cx: &mut Cx<'_>, drafts: &mut Drafts<'_>, strict: bool) {
    let destinations: BTreeSet<Host> = drafts
        .virtual_services
        .iter()
        .flat_map(|draft| &draft.mentions)
        .map(|mention| mention.destination.host.clone())
        .collect();
    let mut loans = Vec::new();
    for (rule, draft) in drafts.destination_rules.iter().enumerate() {
        let host = &draft.rule.host;
        let is_destination = match host.is_wildcard() {
            true => destinations.iter().any(|destination| host.covers(destination)),
            false => destinations.contains(host),
        };
        if draft.rule.policy.is_empty() || is_destination {
            continue;
        }
        let namespace = draft.rule.meta.namespace();
        let of = drafts.virtual_services.iter().position(|service| {
            let visible =
                service.service.meta.namespace() == namespace || draft.rule.export_to.reaches(namespace);
            visible && service.service.hosts.contains(host)
        });
        if let Some(service) = of {
            loans.push(Loan { rule, service, hosts: hosts_of(&drafts.virtual_services[service]) });
        }
    }
    for loan in loans {
        lend(cx, drafts, loan, strict);
    }
}

/// The hosts that a VirtualService's rules send to, those of its delegates included.
fn hosts_of(draft: &VirtualServiceDraft<'_>) -> BTreeSet<Host> {
    let actions = draft.service.http.iter().map(|route| &route.action);
    actions
        .filter_map(|action| match action {
            Action::Route(route) => Some(route),
            _ => None,
        })
        .flatten()
        .map(|entry| entry.destination.host.clone())
        .collect()
}

fn lend(cx: &mut Cx<'_>, drafts: &mut Drafts<'_>, loan: Loan, strict: bool) {
    let (node, policy_node) = {
        let from = &drafts.destination_rules[loan.rule];
        (from.host, from.policy)
    };
    let from = drafts.destination_rules[loan.rule].rule.clone();
    let meta = drafts.virtual_services[loan.service].service.meta.clone();
    let name = format!("{}/{}", meta.namespace(), meta.name());
    if strict {
        let what = format!(
            "nothing uses this rule: {} is the host of VirtualService {name}, not a destination",
            from.host
        );
        cx.warn(node, what, "name the destinations' hosts instead (--strict-istio)");
        return;
    }
    let mut lent = Vec::new();
    for host in &loan.hosts {
        let index = most_specific_rule(
            drafts.destination_rules.iter().map(|draft| &draft.rule),
            host,
            meta.namespace(),
        );
        let index = index.unwrap_or_else(|| {
            drafts.destination_rules.push(new_rule(host, &meta, "policy", node));
            drafts.destination_rules.len() - 1
        });
        let rule = &mut drafts.destination_rules[index].rule;
        if rule.policy.is_empty() {
            rule.policy = from.policy.clone();
            lent.push(host.clone());
        }
    }
    let names = lent.iter().map(|host| host.to_string()).collect::<Vec<_>>().join(", ");
    let mut what = format!("{} is the host of VirtualService {name} and no destination; ", from.host);
    if lent.is_empty() {
        what.push_str("its destinations have policies of their own, so this rule does nothing");
        cx.warn(node, what, "remove it");
        return;
    }
    what.push_str(&format!("its trafficPolicy is used for {names}"));
    if !from.subsets.is_empty() {
        let subsets = from.subsets.iter().map(|s| format!("`{}`", s.name)).collect::<Vec<_>>().join(", ");
        what.push_str(&format!(" (its subset {subsets} is not: no route can name it)"));
    }
    let policy = policy_node.map(|policy| print(policy, 4)).unwrap_or_default();
    let documents: Vec<String> = lent
        .iter()
        .map(|host| head_yaml(host, meta.namespace(), "policy") + "  trafficPolicy:\n" + policy.trim_end())
        .collect();
    cx.warn(
        node,
        what,
        format!("Istio would not use it at all; write it out:\n{}", documents.join("\n---\n")),
    );
}

/// `pilotfish.dev/affinity` of a VirtualService: for its destinations that have no load balancer of their own.
fn affinities(drafts: &mut Drafts<'_>) {
    for service in 0..drafts.virtual_services.len() {
        let draft = &drafts.virtual_services[service];
        let word = draft.service.meta.annotations.get("pilotfish.dev/affinity");
        let Some(affinity) = word.and_then(|word| Affinity::parse(word)) else { continue };
        let (meta, node) = (draft.service.meta.clone(), draft.node);
        for host in hosts_of(draft) {
            if rule_of(&mut drafts.destination_rules, &host, meta.namespace()).is_none() {
                drafts.destination_rules.push(new_rule(&host, &meta, "affinity", node));
            }
            let Some(rule) = rule_of(&mut drafts.destination_rules, &host, meta.namespace()) else {
                continue;
            };
            rule.rule.policy.load_balancer.get_or_insert_with(|| LoadBalancer {
                algorithm: Algorithm::ConsistentHash(ConsistentHash {
                    key: HashKey::Affinity(affinity),
                    table: HashTable::default(),
                    balance_factor: None,
                }),
                ..LoadBalancer::default()
            });
        }
    }
}
