//! The rate limits of a plan.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Plan, Rule};
use crate::clock::Micros;
use crate::rate_limit::{Limit, RuleLimits, WHOLE};

/// The limits that the sidecar keeps.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    /// Each once, by name.
    pub(crate) all: Box<[Arc<Limit>]>,
    /// Those of calls to the local agent.
    pub(crate) inbound: RuleLimits,
    /// The slice of limits that become fleet-wide.
    pub(crate) first_share: u32,
}

impl Limits {
    /// For a person, with what was counted so far.
    pub(super) fn describe(&self) -> Vec<Value> {
        let inbound = |limit: &Arc<Limit>| self.inbound.limits().any(|own| own.name == limit.name);
        let one = |limit: &Arc<Limit>| {
            let counts = limit.state.counts();
            json!({
                "name": &*limit.name,
                "direction": if inbound(limit) { "inbound" } else { "outbound" },
                "requests": limit.amount.requests,
                "per_ms": limit.amount.per.as_millis() as u64,
                "burst": limit.amount.burst,
                "dry_run": limit.dry_run,
                "share": limit.fleet.then(|| f64::from(limit.state.share()) / f64::from(WHOLE)),
                "keys": limit.state.keys(),
                "allowed": counts.allowed,
                "limited": counts.limited,
            })
        };
        self.all.iter().map(one).collect()
    }
}

impl Plan {
    /// The rate limits of a rule, and what became of calls there.
    pub fn describe_limits(&self, rule: &Rule) -> Vec<Value> {
        let own = |one: &Value| rule.resilience.limits.limits().any(|limit| one["name"] == *limit.name);
        self.limits.describe().into_iter().filter(own).collect()
    }

    /// Every rate limit that the sidecar keeps, by name.
    pub fn rate_limits(&self) -> &[Arc<Limit>] {
        &self.limits.all
    }

    /// The limits of calls to the local agent.
    pub fn inbound_limits(&self) -> &RuleLimits {
        &self.limits.inbound
    }

    /// Lets the limits hold as this plan has them; to be called when it begins to serve. What was spent under the plan before
    /// stays spent.
    pub fn settle_limits(&self, now: Micros) {
        self.limits.all.iter().for_each(|limit| limit.settle(now, self.limits.first_share));
    }
}
