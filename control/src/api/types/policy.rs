//! What AgentSecurityPolicies say, and what of it is enforced.

use serde::{Deserialize, Serialize};

/// All policies.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyReports {
    /// One for each, by namespace and name.
    pub policies: Vec<PolicyReport>,
}

/// One policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyReport {
    /// `namespace/name`.
    pub policy: String,
    /// The agents that it is for: of documents, and registered ones; sorted.
    pub agents: Vec<String>,
    /// What it says, line by line.
    pub lines: Vec<PolicyLine>,
    /// Its roles.
    pub roles: Vec<PolicyRole>,
    /// What of each framework is enforced.
    pub frameworks: Vec<Framework>,
}

impl PolicyReport {
    /// Whether it is the one of this name (or `namespace/name`) and namespace; `None`: any.
    pub fn is_named(&self, name: Option<&str>, namespace: Option<&str>) -> bool {
        let (own_namespace, own_name) = self.policy.split_once('/').unwrap_or_default();
        name.is_none_or(|name| name == own_name || name == self.policy)
            && namespace.is_none_or(|namespace| namespace == own_namespace)
    }
}

/// How far something is enforced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforced {
    /// As it is written.
    Enforced,
    /// Some of it.
    Partly,
    /// Not by Pilotfish.
    #[default]
    Not,
    /// It could be, and the policy does not ask for it.
    NotAskedFor,
}

/// One line of a policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyLine {
    /// Its place, `authentication.required`.
    pub field: String,
    /// What is written there.
    pub says: String,
    /// How far it is enforced.
    pub state: Enforced,
    /// How, or why not.
    pub how: String,
}

/// One role.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyRole {
    /// Its name.
    pub role: String,
    /// `domain:verb`.
    pub permissions: Vec<String>,
    /// What they are for.
    pub resources: Vec<String>,
    /// The highest class that it may see; empty: nothing is classified.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub clearance: String,
    /// Who has it: agents, and principals as bindings write them.
    pub held_by: Vec<String>,
}

/// A framework that the policy names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Framework {
    /// As written.
    pub name: String,
    /// What it asks for, as far as it is known here; empty: nothing is known of it.
    pub asks: Vec<FrameworkLine>,
}

/// One thing that a framework asks for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FrameworkLine {
    /// What, with its place in the law.
    pub asks: String,
    /// How far it is enforced.
    pub state: Enforced,
    /// By what, or what is left to do.
    pub how: String,
}
