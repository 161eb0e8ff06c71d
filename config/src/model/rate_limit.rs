//! RateLimit: how often something may be called.

use std::time::Duration;

use super::{Host, Meta, StringMap};

/// A limit, and what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Key, labels, annotations, place.
    pub meta: Meta,
    /// Calls that the agent gets, else those that it makes.
    pub inbound: bool,
    /// The workloads whose sidecars keep it; empty: all of the namespace, of the mesh in a root namespace.
    pub selector: StringMap,
    /// What is limited; empty (inbound only): everything.
    pub targets: Vec<LimitTarget>,
    /// What gets a bucket of its own; empty: one bucket.
    pub by: Vec<LimitKey>,
    /// How much.
    pub amount: LimitAmount,
    /// Whether it is a total of all sidecars that keep it.
    pub fleet: bool,
    /// Whether it only counts.
    pub dry_run: bool,
}

/// What a limit is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitTarget {
    /// Calls to a host, perhaps a wildcard.
    Host(Host),
    /// Calls by rules of a VirtualService.
    Route {
        /// The VirtualService's namespace.
        namespace: String,
        /// Its name.
        service: String,
        /// The rule's name or position; `None`: all.
        rule: Option<String>,
    },
    /// Calls that ask for a capability; its name in lower case.
    Capability(String),
}

/// What tells calls apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitKey {
    /// Who calls.
    Caller,
    /// The capability that is asked for.
    Capability,
    /// The value of this header, whose name is in lower case.
    Header(String),
}

/// A token bucket. The rate is at most 1,000,000 a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitAmount {
    /// Calls in each `per`, at least 1.
    pub requests: u32,
    /// 1 ms to 24 h, in whole milliseconds.
    pub per: Duration,
    /// Calls at once, at least 1.
    pub burst: u32,
}

impl LimitAmount {
    /// Calls a second.
    pub fn per_second(&self) -> f64 {
        f64::from(self.requests) / self.per.as_secs_f64()
    }
}

impl RateLimit {
    /// Whether the sidecar of such a workload keeps it.
    pub fn is_for(&self, namespace: &str, labels: &StringMap) -> bool {
        let own = self.meta.namespace();
        (own == namespace || super::ROOT_NAMESPACES.contains(&own)) && super::includes(labels, &self.selector)
    }
}
