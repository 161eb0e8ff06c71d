//! Who may call whom, and why.

use std::net::IpAddr;

use pilotfish_config::wire::Normalization;
use serde::{Deserialize, Serialize};

/// Would this call be allowed?
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AuthzQuestion {
    /// Who calls: `namespace/agent`, or an identity `TRUST-DOMAIN/ns/NAMESPACE/agent/NAME`; empty: somebody without a certificate.
    #[serde(default)]
    pub from: String,
    /// The agent that is called, `namespace/agent`.
    pub to: String,
    /// `GET`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The host that the caller names; `None`: the agent's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// What the caller's token says; it is not verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<serde_json::Map<String, serde_json::Value>>,
    /// The agents for whom the caller acts, first to last, as `from` names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<String>,
    /// Where that began; `None`: with the first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The caller's address (127.0.0.1 by default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_ip: Option<IpAddr>,
    /// The agent's own port; `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The client's address behind trusted proxies; `None`: the caller's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_ip: Option<IpAddr>,
    /// How far sidecars normalise paths; `None`: as those of the two agents say, else BASE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalization: Option<Normalization>,
}

/// What would become of a call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AuthzAnswer {
    /// The caller's identity; empty: none.
    pub from: String,
    /// The agent that is called, `namespace/agent`.
    pub to: String,
    /// Whether it is allowed, external authorizers apart.
    pub allowed: bool,
    /// The refusal's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its HTTP status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The policy and rule that decided; empty: none is for this agent.
    pub by: String,
    /// Where that policy is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
    /// Who is asked before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asks: Option<AuthzAsks>,
    /// The dry run that would decide otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<String>,
    /// Whether the decision is recorded even when it allows.
    #[serde(default)]
    pub audit: bool,
    /// The permission that the call needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission: Option<String>,
    /// On which resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The class of what it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The highest class that the caller may get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clearance: Option<String>,
    /// The caller's roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<AuthzRole>,
    /// Every AuthorizationPolicy that is for the agent that is called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<AuthzPolicy>,
    /// What to write so that the call is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// What the answer takes for granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// An external authorizer that is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthzAsks {
    /// The AuthorizationProvider, `namespace/name`.
    pub provider: String,
    /// The policy and rule that want it.
    pub by: String,
    /// Its answer is recorded, not obeyed.
    pub dry_run: bool,
}

/// A role of the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthzRole {
    /// `namespace/policy role NAME`.
    pub role: String,
    /// Whether it gives the permission.
    pub gives: bool,
}

/// What one AuthorizationPolicy says of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthzPolicy {
    /// `namespace/name`.
    pub policy: String,
    /// `ALLOW`, `DENY`, `AUDIT`, `CUSTOM`.
    pub action: String,
    /// It is only recorded.
    #[serde(default)]
    pub dry_run: bool,
    /// Where it is written.
    pub written: String,
    /// The first rule that matches, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
    /// Otherwise the rule that nearly does, and what does not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near: Option<(usize, Vec<String>)>,
    /// Why it cannot be enforced; nobody may call while that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

/// Of which calls the matrix is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthzCalls {
    /// Agents of this namespace are called; `None`: of all.
    pub namespace: Option<String>,
    /// With this method.
    pub method: Option<String>,
    /// With this path.
    pub path: Option<String>,
    /// Messages to this skill (A2A).
    pub capability: Option<String>,
    /// Calls of this tool (MCP).
    pub tool: Option<String>,
}

/// Who may call whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthzMatrix {
    /// `namespace/agent`, sorted.
    pub callers: Vec<String>,
    /// `namespace/agent`, sorted.
    pub callees: Vec<String>,
    /// For each caller, for each callee.
    pub rows: Vec<Vec<AuthzCell>>,
    /// Whether nobody may call whom no ALLOW policy lets in.
    pub default_deny: bool,
    /// What the answer takes for granted, and what is missing in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How far calls get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthzCell {
    /// All of them.
    Yes,
    /// None.
    No,
    /// It hangs on more: path, method, tool, header, token, address, or the capabilities that a restricted caller is left.
    Some,
    /// An external authorizer is asked.
    Ask,
    /// One of the two is quarantined.
    Held,
}

impl AuthzCell {
    /// As tables show it.
    pub const fn word(self) -> &'static str {
        match self {
            AuthzCell::Yes => "yes",
            AuthzCell::No => "no",
            AuthzCell::Some => "some",
            AuthzCell::Ask => "ask",
            AuthzCell::Held => "held",
        }
    }
}
