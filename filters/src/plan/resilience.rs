//! What a rule does about failure, load and time. One field for each policy; each has its own file in this crate.

use std::sync::Arc;

use crate::call_path::PathPolicy;
use crate::cors::Cors;
use crate::deadline::Timeouts;
use crate::fault::Fault;
use crate::hedge::Hedge;
use crate::mirror::Mirror;
use crate::rate_limit::RuleLimits;
use crate::retry::RetryPolicy;

/// The policies of a rule. The default is what holds when the YAML is silent.
#[derive(Debug, Clone, Default)]
pub struct Resilience {
    /// When to try again.
    pub retry: Arc<RetryPolicy>,
    /// Whether a slow call is tried a second time at once.
    pub hedge: Option<Hedge>,
    /// Times besides the rule's timeout.
    pub timeouts: Timeouts,
    /// Faults to inject.
    pub fault: Option<Box<Fault>>,
    /// Where copies go.
    pub mirrors: Box<[Mirror]>,
    /// Cross-origin rules.
    pub cors: Option<Arc<Cors>>,
    /// How often it may be called.
    pub limits: RuleLimits,
    /// Depth, cycles, fan-out.
    pub path: PathPolicy,
}
