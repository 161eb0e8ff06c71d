//! AgentSecurityPolicy and RoleBinding: how agents are governed.

use std::time::Duration;

use super::Meta;

/// How agents are governed.
#[derive(Debug, Clone)]
pub struct AgentSecurityPolicy {
    /// Key, labels, annotations, place.
    pub meta: Meta,
    /// Callers have to say who they are.
    pub authentication_required: bool,
    /// How they may (`certificate`, `oauth2`, ...).
    pub authentication_methods: Vec<String>,
    /// How long a token is valid.
    pub token_lifetime: Option<Duration>,
    /// `rbac` or another word.
    pub authorization_model: Option<String>,
    /// Who may do what.
    pub roles: Vec<AgentRole>,
    /// `required`, `preferred` or `disabled`.
    pub encryption: Option<String>,
    /// Protocols that are allowed.
    pub protocols: Vec<String>,
    /// Data has to be classified.
    pub classification_required: bool,
    /// Classes, from the least to the most secret.
    pub access_levels: Vec<String>,
    /// Log every action.
    pub audit_all_actions: bool,
    /// Log data access.
    pub log_data_access: bool,
    /// Raise an alert on anomalies.
    pub alert_on_anomalies: bool,
    /// Frameworks to comply with.
    pub frameworks: Vec<String>,
    /// How long records are kept.
    pub retention: Option<Duration>,
}

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRole {
    /// The agent that has the role.
    pub name: String,
    /// `area:verb`, `*` allowed.
    pub permissions: Vec<String>,
    /// Paths, `*` allowed.
    pub resources: Vec<String>,
}

/// Who has a role.
#[derive(Debug, Clone)]
pub struct RoleBinding {
    /// Key, labels, annotations, place.
    pub meta: Meta,
    /// The role's name.
    pub role: String,
    /// The AgentSecurityPolicy that has it; `None`: each of the namespace that has one of this name.
    pub policy: Option<String>,
    /// Who has it; any one.
    pub subjects: Vec<Subject>,
}

/// Somebody who may have a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// An agent of the mesh.
    Agent {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// An identity from a certificate, as AuthorizationPolicies write it: `mesh.local/ns/default/agent/a`, with `*` at one end.
    Principal(String),
    /// An identity from a token, `ISSUER/SUBJECT`, with `*` at one end.
    RequestPrincipal(String),
}
