//! AlertRule: when somebody has to look at an agent.

use std::time::Duration;

use super::{Meta, ROOT_NAMESPACES, StringMap};

/// A rule that is evaluated every few seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertRule {
    /// Key, labels, annotations, place.
    pub meta: Meta,
    /// What is looked at, and what is too much.
    pub condition: AlertCondition,
    /// The agent that it is about; none: each of the namespace, in a root namespace each of the mesh.
    pub agent: Option<AgentName>,
    /// How long it has to hold before the alert fires (2 min; an agent that is away 30 s).
    pub hold: Duration,
    /// How long it has to be over before the alert is resolved (1 min).
    pub keep: Duration,
    /// How bad it is.
    pub severity: AlertSeverity,
    /// Labels of its alerts.
    pub labels: StringMap,
    /// Annotations of its alerts.
    pub annotations: StringMap,
    /// It is not evaluated.
    pub disabled: bool,
}

/// The name of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Which calls a rule looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertCalls {
    /// Who makes them; none: everybody.
    pub from: Option<AgentName>,
    /// What they ask for, in lower case; none: anything.
    pub capability: Option<String>,
    /// The time over which they are added up, 10 s to 1 h (2 min).
    pub window: Duration,
    /// With fewer the rule does not hold (10).
    pub min_calls: u32,
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq)]
pub enum AlertCondition {
    /// More than this share of calls, 0 to 1, failed.
    ErrorRate {
        /// Which calls.
        calls: AlertCalls,
        /// The share (0.05).
        above: f64,
    },
    /// The calls took longer than this.
    Latency {
        /// Which calls.
        calls: AlertCalls,
        /// Of which share of them, 0 to 1, the slowest is taken (0.95).
        quantile: f64,
        /// The time (5 s).
        above: Duration,
    },
    /// More calls than this are in flight at each instance (100).
    Saturation {
        /// Calls at an instance, all instances taken together.
        above: f64,
    },
    /// Fewer instances than this may be chosen (1).
    Unavailable {
        /// Instances.
        below: u32,
    },
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum AlertSeverity {
    /// Good to know.
    Info,
    /// Should be looked at.
    #[default]
    Warning,
    /// Has to be looked at now.
    Critical,
}

impl AlertSeverity {
    /// The word in YAML, labels and tables.
    pub const fn word(self) -> &'static str {
        match self {
            AlertSeverity::Info => "info",
            AlertSeverity::Warning => "warning",
            AlertSeverity::Critical => "critical",
        }
    }
}

impl AlertCondition {
    /// The word in YAML, labels and tables.
    pub const fn word(&self) -> &'static str {
        match self {
            AlertCondition::ErrorRate { .. } => "error-rate",
            AlertCondition::Latency { .. } => "latency",
            AlertCondition::Saturation { .. } => "saturation",
            AlertCondition::Unavailable { .. } => "agent-unavailable",
        }
    }
}

impl AlertRule {
    /// Whether it is about this agent, `namespace/name`; what is no agent (a host) has no `/`.
    pub fn is_about(&self, agent: &str) -> bool {
        let own = self.meta.namespace();
        let (namespace, name) = agent.split_once('/').unwrap_or(("", agent));
        match &self.agent {
            Some(wanted) => wanted.namespace == namespace && wanted.name == name,
            None => own == namespace || ROOT_NAMESPACES.contains(&own),
        }
    }
}

impl std::fmt::Display for AgentName {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}
