//! Response actions: what an agent is held to at once, in every sidecar.

use pilotfish_config::wire::Hold;
use serde::{Deserialize, Serialize};

/// Hold an agent to something, or to nothing any more.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Act {
    /// `namespace/name`.
    pub agent: String,
    /// To what; `None`: to nothing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// For how long, seconds; `None`: until somebody ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_seconds: Option<u64>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Also an agent that nobody has heard of.
    #[serde(default)]
    pub force: bool,
}
