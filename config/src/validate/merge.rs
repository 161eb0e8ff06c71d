//! Several DestinationRules for one host and namespace become one, as in Istio: subsets are added up, the first
//! policy wins.

use std::collections::HashMap;

use super::check::Cx;
use super::destination_rule::DestinationRuleDraft;

/// Merges them into the first of each host.
pub(super) fn destination_rules(cx: &mut Cx<'_>, drafts: &mut Vec<DestinationRuleDraft<'_>>) {
    let mut first: HashMap<(String, String), usize> = HashMap::new();
    let mut kept: Vec<DestinationRuleDraft<'_>> = Vec::with_capacity(drafts.len());
    for draft in drafts.drain(..) {
        let rule = &draft.rule;
        let key = (rule.meta.namespace().to_owned(), rule.host.to_string());
        // A rule for selected workloads stands for itself, and so does one that others may not see.
        let into = first.get(&key).copied().filter(|&index: &usize| {
            let other = &kept[index].rule;
            other.workload_selector == rule.workload_selector && other.export_to == rule.export_to
        });
        let Some(index) = into else {
            first.entry(key).or_insert(kept.len());
            kept.push(draft);
            continue;
        };
        let target = &mut kept[index].rule;
        target.merged.push(rule.meta.key.clone());
        for subset in &rule.subsets {
            if target.subset(&subset.name).is_some() {
                let message = format!(
                    "the subset `{}` of {} is at {} already",
                    subset.name, rule.host, target.meta.source
                );
                cx.warn(draft.host, message, "the first one wins; give this one another name");
            } else {
                target.subsets.push(subset.clone());
            }
        }
        if target.policy.is_empty() {
            target.policy = rule.policy.clone();
        } else if !rule.policy.is_empty() {
            let message = format!("{} has a trafficPolicy at {} already", rule.host, target.meta.source);
            cx.warn(draft.host, message, "the first one wins; write one of them");
        }
    }
    *drafts = kept;
}
