//! The retry budget of a cluster: how many tries beyond the first may be active (Envoy's 20 %, at least 3).
//!
//! A retry holds a [`RetryPermit`] from the moment at which it is decided, through its wait, to the head of its answer. So a
//! storm of failures adds at most that share of calls, and the wait between tries makes it less.

mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::Micros;
use crate::inflight::ClusterLimits;
use window::Window;

/// `retryBudget` of a DestinationRule, and `connectionPool.http.maxRetries`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetPolicy {
    /// Percent of the calls that count, 0 to 100 (20, Envoy's default).
    pub percent: f64,
    /// So many are always allowed (3, Envoy's default).
    pub min: u32,
    /// Over how long calls are counted; `None`: those that are active (Envoy's default).
    pub interval: Option<Duration>,
    /// Never more than this (`maxRetries`); `None`: no limit, as in Istio.
    pub max: Option<u32>,
}

impl Default for BudgetPolicy {
    fn default() -> Self {
        BudgetPolicy { percent: 20.0, min: 3, interval: None, max: None }
    }
}

impl BudgetPolicy {
    /// How many retries `calls` calls allow.
    fn allowed(&self, calls: u32) -> u32 {
        (f64::from(calls) * self.percent / 100.0) as u32
    }
}

/// The retries of one cluster, counted for the whole process.
#[derive(Debug, Default)]
pub struct Budget {
    active: AtomicU32,
    /// Calls and retries of the last interval, for budgets that have one.
    calls: Window,
    retries: Window,
}

impl Budget {
    /// Retries that hold a permit now.
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Counts a call's first try; only clusters whose budget has an interval need it.
    pub fn note_call(&self, now: Micros, interval: Duration) {
        self.calls.add(now, interval);
    }

    /// Takes a place for one more retry. `in_flight` is asked for the tries of the cluster that are under way, the one that
    /// failed included.
    fn try_enter(&self, policy: &BudgetPolicy, now: Micros, in_flight: impl FnOnce() -> u32) -> bool {
        let most = policy.max.unwrap_or(u32::MAX);
        let Some(interval) = policy.interval else {
            // Retries do not earn further retries.
            let by_share = policy.allowed(in_flight().saturating_sub(self.active()));
            return self.enter_below(by_share.max(policy.min).min(most));
        };
        // Counted before it is asked for, so that of two at the same time none takes the last place twice.
        self.retries.add(now, interval);
        let within = self.retries.sum(now, interval) <= policy.allowed(self.calls.sum(now, interval));
        let entered = self.enter_below(if within { most } else { policy.min.min(most) });
        if !entered {
            self.retries.take_back(now, interval);
        }
        entered
    }

    fn enter_below(&self, limit: u32) -> bool {
        let enter = |active| (active < limit).then_some(active + 1);
        self.active.fetch_update(Relaxed, Relaxed, enter).is_ok()
    }

    fn leave(&self) {
        self.active.fetch_sub(1, Relaxed);
    }
}

/// One retry within its cluster's budget. Dropping it gives the place back.
#[derive(Debug)]
pub struct RetryPermit(Arc<ClusterLimits>);

impl RetryPermit {
    /// Takes a place; `None` when the budget is exhausted. `in_flight`: the tries of the cluster that are under way.
    pub fn try_acquire(
        limits: &Arc<ClusterLimits>,
        policy: &BudgetPolicy,
        now: Micros,
        in_flight: impl FnOnce() -> u32,
    ) -> Option<RetryPermit> {
        limits.budget.try_enter(policy, now, in_flight).then(|| RetryPermit(Arc::clone(limits)))
    }
}

impl Drop for RetryPermit {
    fn drop(&mut self) {
        self.0.budget.leave();
    }
}

#[cfg(test)]
mod tests;
