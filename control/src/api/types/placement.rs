//! What people ask of placement.

use serde::{Deserialize, Serialize};

pub use crate::orchestrator::Mark;
pub use crate::orchestrator::view::{
    AgentPlacement, Explanation, GpuRow, NodeRow, PlacementView, ReplicaRow,
};

/// How many replicas of an agent there should be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scale {
    /// `namespace/name`.
    pub agent: String,
    /// Of this region only.
    #[serde(default)]
    pub region: Option<String>,
    /// So many; `None`: as its documents say.
    #[serde(default)]
    pub replicas: Option<u32>,
}

/// What becomes of a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MarkNode {
    /// Its name.
    pub node: String,
    /// What.
    pub mark: Mark,
}

/// Room is to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rebalance {
    /// At most so many replicas move.
    pub moves: u32,
    /// Say it, do not do it.
    #[serde(default)]
    pub dry_run: bool,
}

/// What moves, one sentence each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Moved {
    /// They.
    pub moves: Vec<String>,
}

/// Lines of a replica's output, the newest last.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TailLines {
    /// They.
    pub lines: Vec<String>,
}
