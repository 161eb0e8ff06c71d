//! Which DestinationRule a sidecar uses for a host: [`Model::destination_rule`] with an index, since there may be
//! thousands of both.

use std::collections::BTreeMap;

use pilotfish_config::model::{DestinationRule, Host, Model, includes};

use crate::balance::locality::Place;

/// The host of settings that hold for every capability without its own.
pub(crate) const EVERY_CAPABILITY: &str = "*.capability.mesh";

/// The DestinationRules that one sidecar sees.
#[derive(Debug)]
pub(crate) struct Rules<'m> {
    exact: BTreeMap<&'m str, Vec<&'m DestinationRule>>,
    /// Longest host first.
    wildcards: Vec<&'m DestinationRule>,
    namespace: &'m str,
}

impl<'m> Rules<'m> {
    pub(crate) fn new(model: &'m Model, place: &'m Place) -> Rules<'m> {
        let namespace = place.namespace.as_str();
        let sees = |rule: &&DestinationRule| {
            let own = rule.meta.namespace() == namespace;
            (own || rule.export_to.reaches(namespace))
                && (rule.workload_selector.is_empty()
                    || own && includes(&place.labels, &rule.workload_selector))
        };
        let mut rules = Rules { exact: BTreeMap::new(), wildcards: Vec::new(), namespace };
        for rule in model.destination_rules.iter().filter(sees) {
            match rule.host.is_wildcard() {
                true => rules.wildcards.push(rule),
                false => rules.exact.entry(rule.host.as_str()).or_default().push(rule),
            }
        }
        rules.wildcards.sort_by_key(|rule| std::cmp::Reverse(rule.host.len()));
        rules
    }

    /// The capabilities' hosts that rules name, `*.capability.mesh` for all of them included.
    pub(crate) fn capability_hosts(&self) -> impl Iterator<Item = &'m Host> {
        let exact = self.exact.values().filter_map(|rules| rules.first()).map(|rule| &rule.host);
        let all = self.wildcards.iter().map(|rule| &rule.host);
        let every = all.filter(|host| host.as_str() == EVERY_CAPABILITY).take(1);
        exact.filter(|host| host.capability().is_some()).chain(every)
    }

    /// The rule for `host`: the sidecar's namespace first, then the host's own, then any other; in each, exact hosts
    /// before longer wildcards, and rules that select the sidecar by its labels before those for all.
    pub(crate) fn find(&self, host: &str) -> Option<&'m DestinationRule> {
        let home = host.strip_suffix(".svc.cluster.local").and_then(|short| short.split('.').nth(1));
        let exact = self.exact.get(host).map(Vec::as_slice).unwrap_or_default();
        let wildcards = self.wildcards.iter().filter(|rule| rule.host.covers(host));
        let scope = |rule: &DestinationRule| match rule.meta.namespace() {
            own if own == self.namespace => 0,
            own if Some(own) == home => 1,
            _ => 2,
        };
        // Candidates come by falling specificity; `min_by_key` keeps the first of equals.
        let all = exact.iter().chain(wildcards).copied();
        all.min_by_key(|rule| {
            (scope(rule), std::cmp::Reverse(rule.host.len()), rule.workload_selector.is_empty())
        })
    }
}
