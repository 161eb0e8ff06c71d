//! Which endpoints are preferred by where they are: priority levels, and shares of localities (Istio's rules).

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotfish_config::model::{Distribute, Failover, FailoverLabel, Locality, LocalityMode, StringMap};

use crate::endpoint::Endpoint;

/// Where a caller is: what configuration is read with the eyes of one sidecar.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The sidecar's namespace.
    pub namespace: String,
    /// The sidecar's own locality.
    pub locality: Locality,
    /// The sidecar's own labels, for `failoverPriority`.
    pub labels: StringMap,
}

/// Endpoints of one priority; positions are those in the cluster's list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LevelPlan {
    /// Parts with their shares.
    pub groups: Vec<GroupPlan>,
}

/// Endpoints among which a balancer chooses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupPlan {
    /// Its share relative to the other groups of its level.
    pub weight: u32,
    /// Positions.
    pub endpoints: Vec<u32>,
}

impl LevelPlan {
    fn single(endpoints: Vec<u32>) -> LevelPlan {
        LevelPlan { groups: vec![GroupPlan { weight: 1, endpoints }] }
    }
}

/// One level with all endpoints: no preference.
pub fn all(endpoints: &[Arc<Endpoint>]) -> Vec<LevelPlan> {
    vec![LevelPlan::single((0..endpoints.len() as u32).collect())]
}

/// Levels and shares by `mode` for a caller at `place`. Never without an endpoint if there is one.
pub fn levels(endpoints: &[Arc<Endpoint>], place: &Place, mode: &LocalityMode) -> Vec<LevelPlan> {
    let planned = match mode {
        LocalityMode::Distribute(rules) => distribute(endpoints, &place.locality, rules).unwrap_or_default(),
        LocalityMode::FailoverPriority(labels) => {
            by_priority(endpoints, |e| label_priority(e, place, labels))
        }
        _ if place.locality.is_empty() => Vec::new(),
        LocalityMode::Nearest => by_priority(endpoints, |e| distance(e, place, &[])),
        LocalityMode::Failover(rules) => by_priority(endpoints, |e| distance(e, place, rules)),
    };
    if planned.iter().all(|level| level.groups.is_empty()) { all(endpoints) } else { planned }
}

/// Shares for callers in the first `from` that covers the caller; endpoints that no `to` covers get nothing.
fn distribute(endpoints: &[Arc<Endpoint>], own: &Locality, rules: &[Distribute]) -> Option<Vec<LevelPlan>> {
    let rule = rules.iter().find(|rule| own.matches(&rule.from))?;
    let mut groups: Vec<GroupPlan> =
        rule.to.iter().map(|(_, weight)| GroupPlan { weight: *weight, endpoints: Vec::new() }).collect();
    for (at, endpoint) in endpoints.iter().enumerate() {
        let target = rule.to.iter().position(|(pattern, _)| endpoint.locality.matches(pattern));
        if let Some(group) = target.and_then(|target| groups.get_mut(target)) {
            group.endpoints.push(at as u32);
        }
    }
    groups.retain(|group| group.weight > 0 && !group.endpoints.is_empty());
    Some(vec![LevelPlan { groups }])
}

/// Makes one group of each level by putting the groups' shares into the weights of their endpoints, as consistent
/// hashing needs it: one table for all localities (Envoy does the same).
pub fn merge_groups(endpoints: &mut [Arc<Endpoint>], levels: &mut [LevelPlan]) {
    for level in levels.iter_mut().filter(|level| level.groups.len() > 1) {
        for group in &level.groups {
            let weight_of =
                |at: &u32| endpoints.get(*at as usize).map_or(0, |endpoint| u64::from(endpoint.weight));
            let sum = group.endpoints.iter().map(weight_of).sum::<u64>().max(1);
            for at in &group.endpoints {
                let Some(endpoint) = endpoints.get_mut(*at as usize) else { continue };
                let scaled = u64::from(group.weight) * u64::from(endpoint.weight) * MERGED_SCALE / sum;
                let weight = u32::try_from(scaled).unwrap_or(u32::MAX).max(1);
                *endpoint = Arc::new(Endpoint { weight, ..Endpoint::clone(endpoint) });
            }
        }
        let endpoints =
            std::mem::take(&mut level.groups).into_iter().flat_map(|group| group.endpoints).collect();
        *level = LevelPlan::single(endpoints);
    }
}

/// Merged weights are whole numbers: shares of 1 among this many are exact enough.
const MERGED_SCALE: u64 = 10_000;

fn by_priority(endpoints: &[Arc<Endpoint>], priority: impl Fn(&Endpoint) -> usize) -> Vec<LevelPlan> {
    let mut levels: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for (at, endpoint) in endpoints.iter().enumerate() {
        levels.entry(priority(endpoint)).or_default().push(at as u32);
    }
    levels.into_values().map(LevelPlan::single).collect()
}

/// 0 for the same sub-zone, then zone, region; regions to which the caller's fails over come before all others.
fn distance(endpoint: &Endpoint, place: &Place, rules: &[Failover]) -> usize {
    let (own, other) = (&place.locality, &endpoint.locality);
    if own.region != other.region {
        let target = rules.iter().find(|rule| rule.from == own.region).map(|rule| &rule.to);
        return if target.is_none_or(|to| *to == other.region) { 3 } else { 4 };
    }
    match (own.zone == other.zone, own.subzone == other.subzone) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 2,
    }
}

/// How many labels from the first that differs on are left: an endpoint that agrees on all of them has priority 0.
fn label_priority(endpoint: &Endpoint, place: &Place, labels: &[FailoverLabel]) -> usize {
    let agrees = |label: &FailoverLabel| {
        let own = label
            .value
            .as_deref()
            .or_else(|| place_label(&label.key, &place.locality, place.labels.get(&label.key)));
        let other = place_label(&label.key, &endpoint.locality, endpoint.labels.get(&label.key));
        own.unwrap_or_default() == other.unwrap_or_default()
    };
    let first_difference = labels.iter().position(|label| !agrees(label)).unwrap_or(labels.len());
    labels.len() - first_difference
}

/// A label, where Istio's names for the parts of a locality stand for those.
fn place_label<'a>(
    key: &str,
    locality: &'a Locality,
    label: Option<&'a (impl AsRef<str> + ?Sized)>,
) -> Option<&'a str> {
    let part = match key {
        "topology.kubernetes.io/region" | "failure-domain.beta.kubernetes.io/region" => &locality.region,
        "topology.kubernetes.io/zone" | "failure-domain.beta.kubernetes.io/zone" => &locality.zone,
        "topology.istio.io/subzone" => &locality.subzone,
        _ => return label.map(AsRef::as_ref),
    };
    label.map(AsRef::as_ref).or(Some(part))
}

#[cfg(test)]
mod tests;
