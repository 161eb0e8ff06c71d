//! AgentSecurityPolicy and RoleBinding: how agents are governed.

use std::time::Duration;

use super::{Meta, Permission};

/// How agents are governed: what holds for calls to every agent of its namespace, in a root namespace of the mesh.
#[derive(Debug, Clone)]
pub struct AgentSecurityPolicy {
    /// Key, labels, annotations, place.
    pub meta: Meta,
    /// Callers have to say who they are.
    pub authentication_required: bool,
    /// How they may; any one is enough. Empty: all of them.
    pub authentication_methods: Vec<AuthenticationMethod>,
    /// How long a token may be valid in all; one that is valid for longer, or older, does not count.
    pub token_lifetime: Option<Duration>,
    /// A call of the mesh has to say for whom it is.
    pub delegation_required: bool,
    /// `rbac`, or nothing.
    pub authorization_model: Option<String>,
    /// Who may do what. No two have one name.
    pub roles: Vec<AgentRole>,
    /// Whether calls have to be encrypted.
    pub encryption: Option<Encryption>,
    /// How they may be; empty: in any way.
    pub protocols: Vec<SecureProtocol>,
    /// Data has to be classified.
    pub classification_required: bool,
    /// Classes, from the least to the most secret.
    pub access_levels: Vec<String>,
    /// Resources, with `*` for any characters, and their class, which is one of the levels.
    pub classifications: Vec<(String, String)>,
    /// Log every action.
    pub audit_all_actions: bool,
    /// Log data access.
    pub log_data_access: bool,
    /// Raise an alert on anomalies.
    pub alert_on_anomalies: bool,
    /// Refuse what cannot be recorded.
    pub audit_required: bool,
    /// Frameworks to comply with, as written.
    pub frameworks: Vec<String>,
    /// How long records are kept.
    pub retention: Option<Duration>,
}

impl AgentSecurityPolicy {
    /// Whether calls need a permission.
    pub fn is_rbac(&self) -> bool {
        !self.roles.is_empty()
    }

    /// Whether calls in plaintext are refused: it says so, or names protocols, none of which is plaintext, and nothing of encryption.
    pub fn needs_encryption(&self) -> bool {
        match self.encryption {
            Some(encryption) => encryption == Encryption::Required,
            None => !self.protocols.is_empty(),
        }
    }
}

/// How a caller says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthenticationMethod {
    /// By its certificate of the mesh.
    Certificate,
    /// By a token that a RequestAuthentication takes.
    OAuth2,
}

/// Whether calls have to be encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// Always.
    Required,
    /// If the other side can: what the mesh does anyway.
    Preferred,
    /// It does not matter; the mesh encrypts all the same.
    Disabled,
}

/// How calls may be encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecureProtocol {
    /// TLS 1.2; only to hosts outside of the mesh.
    Tls12,
    /// TLS 1.3.
    Tls13,
    /// TLS with a certificate of the caller.
    Mtls,
}

impl SecureProtocol {
    /// As documents write it.
    pub const fn word(self) -> &'static str {
        match self {
            SecureProtocol::Tls12 => "tls-1.2",
            SecureProtocol::Tls13 => "tls-1.3",
            SecureProtocol::Mtls => "mtls",
        }
    }
}

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRole {
    /// Its name: that of the agent of the policy's namespace that has it, or `namespace/name` of another.
    pub name: String,
    /// `domain:verb`, each part perhaps `*`.
    pub permissions: Vec<Permission>,
    /// Resources, with `*` for any characters.
    pub resources: Vec<String>,
    /// The highest class that it may see; `None`: the lowest, or the highest when it may do everything.
    pub clearance: Option<String>,
}

impl AgentRole {
    /// Whether it may do everything to everything.
    pub fn is_all(&self) -> bool {
        self.permissions.iter().any(Permission::is_all)
            && self.resources.iter().any(|resource| resource == "*")
    }
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
