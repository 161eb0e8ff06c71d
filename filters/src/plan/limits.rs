//! The rate limits of a plan.

use std::sync::Arc;

use super::Plan;
use crate::clock::Micros;
use crate::rate_limit::{Limit, RuleLimits};

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

impl Plan {
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
