//! What people are shown of placement; the API answers with these.

use std::collections::BTreeMap;

use pilotfish_config::wire::node::{GpuShare, SliceState, Usage};
use serde::{Deserialize, Serialize};

/// Everything.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PlacementView {
    /// Which control plane leads, and its term.
    pub leader: String,
    /// Its term.
    pub term: u64,
    /// `process` or `kubernetes`.
    pub executor: String,
    /// Nodes by name.
    pub nodes: Vec<NodeRow>,
    /// Replicas by agent and id.
    pub replicas: Vec<ReplicaRow>,
    /// Agents by name: wanted, placed, ready.
    pub agents: Vec<AgentPlacement>,
    /// What should be looked at.
    pub notes: Vec<String>,
}

/// One node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Its name.
    pub name: String,
    /// `ready`, `silent`, `lost`, `cordoned`, `draining`.
    pub status: String,
    /// Milliseconds since its last sign of life.
    pub heard_ms: Option<u64>,
    /// `region/zone`.
    pub locality: Option<String>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Thousandths of a core: given out, all.
    pub cpu_milli: (u64, u64),
    /// Bytes: given out, all.
    pub memory: (u64, u64),
    /// Cards.
    pub gpus: Vec<GpuRow>,
    /// Replicas there.
    pub replicas: u32,
    /// Replicas at the same time, at most; 0: it did not say.
    #[serde(default)]
    pub most_replicas: u32,
    /// What keeps replicas away, `key=value:NoSchedule`.
    #[serde(default)]
    pub taints: Vec<String>,
    /// What is wrong there.
    #[serde(default)]
    pub troubles: Vec<String>,
}

/// One card.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuRow {
    /// Its id.
    pub id: String,
    /// Its model.
    pub model: String,
    /// The pool that it belongs to.
    pub pool: Option<String>,
    /// Bytes: given out, all.
    pub memory: (u64, u64),
    /// Why no work may run there.
    pub failed: Option<String>,
    /// Percent of its time, as measured.
    pub busy_percent: u8,
    /// Bytes in use, as measured.
    pub used: u64,
    /// MIG instances; with some of them the card as a whole is not given out.
    #[serde(default)]
    pub slices: Vec<SliceState>,
    /// Replicas on it.
    pub replicas: Vec<String>,
}

/// One replica.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplicaRow {
    /// `<namespace>/<agent>/<replica>`.
    pub id: String,
    /// Its group.
    pub group: String,
    /// Its node.
    pub node: Option<String>,
    /// `waiting`, `starting`, `running`, `ready`, `leaving`, `stopping`, `crash-loop`, `failed`, `lost`.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// Its cards.
    #[serde(default)]
    pub gpus: Vec<GpuShare>,
    /// What it uses, as measured.
    pub usage: Option<Usage>,
    /// Starts after the first.
    pub restarts: u32,
    /// When it was ordered, seconds since 1970.
    pub since: u64,
}

/// One group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentPlacement {
    /// `namespace/agent` or `namespace/agent@region`.
    pub group: String,
    /// The AgentCluster.
    pub cluster: String,
    /// `static`, `pre_warmed`, `just_in_time`.
    pub strategy: String,
    /// So many are wanted now.
    pub wanted: u32,
    /// So many have a place.
    pub placed: u32,
    /// So many serve.
    pub ready: u32,
    /// Why those that are missing are.
    pub reason: Option<String>,
}

/// Why an agent's replicas are where they are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// What was asked for.
    pub agent: String,
    /// What each replica needs, in words.
    pub need: String,
    /// Groups with what is missing.
    pub groups: Vec<AgentPlacement>,
    /// For a group that lacks places: how many nodes are not fit for which reason.
    pub obstacles: Vec<(u32, String)>,
    /// What would help.
    pub hint: Option<String>,
    /// Each replica that has a place.
    pub replicas: Vec<ReplicaRow>,
}
