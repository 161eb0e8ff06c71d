//! DestinationRule: load balancing, limits and subsets of one host.

use super::{ExportTo, Host, Meta, ResourceKey, StringMap, TrafficPolicy};

/// Policies and subsets of one host.
#[derive(Debug, Clone)]
pub struct DestinationRule {
    /// Key, labels, annotations, place. Several documents for one host and namespace are merged into the first.
    pub meta: Meta,
    /// The host, resolved; may be a wildcard.
    pub host: Host,
    /// For every subset that does not say otherwise.
    pub policy: TrafficPolicy,
    /// Named parts of the host's endpoints.
    pub subsets: Vec<Subset>,
    /// Who sees it.
    pub export_to: ExportTo,
    /// Only callers with these labels use it; empty: all.
    pub workload_selector: StringMap,
    /// Further documents for this host that are part of it.
    pub merged: Vec<ResourceKey>,
}

impl DestinationRule {
    /// The subset of that name.
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|subset| subset.name == name)
    }

    /// The policy that applies to `subset` and `port`, merged as Istio does: the subset's settings replace the
    /// rule's one by one; settings for the port replace all of them without inheriting.
    pub fn effective_policy(&self, subset: Option<&str>, port: u16) -> TrafficPolicy {
        let base = self.policy.for_port(port);
        match subset.and_then(|name| self.subset(name)).and_then(|subset| subset.policy.as_ref()) {
            Some(own) => base.overridden_by(own, port),
            None => base,
        }
    }
}

/// A named part of a host's endpoints.
#[derive(Debug, Clone)]
pub struct Subset {
    /// Its name, as destinations use it.
    pub name: String,
    /// Labels that its endpoints have; empty: all endpoints.
    pub labels: StringMap,
    /// What differs from the rule's policy.
    pub policy: Option<TrafficPolicy>,
}
