//! Response actions: what people, or detectors, hold an agent to at once, in every sidecar.

use serde::{Deserialize, Serialize};

/// All that are in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actions {
    /// By agent; one each.
    pub actions: Vec<Action>,
}

/// What an agent is held to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// `namespace/name`.
    pub agent: String,
    /// What it is.
    pub hold: Hold,
    /// When it ends by itself, seconds since 1970; `None`: when somebody ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// Since when, seconds since 1970.
    #[serde(default)]
    pub since: u64,
    /// Who wanted it, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// How an agent is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// It calls nobody, and nobody calls it.
    Quarantine,
    /// It may only ask for these capabilities; others may call it.
    Restrict(Vec<String>),
}
