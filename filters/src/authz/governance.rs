//! AgentSecurityPolicies of one workload: roles, permissions, classification, what is recorded.

use std::time::Duration;

use super::{Asking, Judgement};

/// What holds for this workload. By default nothing.
#[derive(Debug, Default)]
pub struct Governance {
    /// The classes of data, from the least to the most secret; empty: nothing is classified.
    pub levels: Box<[Box<str>]>,
    /// Everything is recorded (`audit_all_actions`).
    pub audit_all: bool,
    /// Access to classified data is recorded (`log_data_access`).
    pub log_access: bool,
    /// Unusual behaviour is told of (`alert_on_anomalies`).
    pub alert_on_anomalies: bool,
    /// How long records are kept; `None`: no policy says.
    pub retention: Option<Duration>,
    /// A call is refused when its record cannot be kept, instead of going on with a gap.
    pub audit_required: bool,
}

impl Governance {
    /// Goes on with what the AuthorizationPolicies allowed.
    pub fn decide<'p>(&'p self, _asking: &Asking<'_>, judgement: Judgement<'p>) -> Judgement<'p> {
        judgement
    }

    /// Whether permissions or resources hang on what only a body says.
    pub fn reads_body(&self) -> bool {
        false
    }
}
