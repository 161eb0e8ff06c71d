//! Who calls whom.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Agents and the calls between them, as far as this control plane knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Graph {
    /// The control plane: it hears of calls from the sidecars that are connected to it.
    pub control: String,
    /// The window that rates are of, seconds: what was asked for, or less when it has not run for so long.
    pub window_seconds: f64,
    /// Sidecars that are registered.
    pub sidecars: usize,
    /// Those of them that are connected here; the calls of the others are known to other control planes.
    pub sidecars_here: usize,
    /// Agents that are registered, and whatever else is called or calls, by name.
    pub nodes: Vec<GraphNode>,
    /// Calls, by caller and callee.
    pub edges: Vec<GraphEdge>,
}

/// An agent, or a host outside the mesh.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GraphNode {
    /// `namespace/name` of an agent; else a host.
    pub id: String,
    /// Whether an agent of this name is registered now.
    pub registered: bool,
    /// How many instances are in each status.
    pub statuses: BTreeMap<String, usize>,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Calls that it serves now.
    pub in_flight: u64,
    /// Calls to it.
    pub incoming: GraphTraffic,
    /// Calls from it.
    pub outgoing: GraphTraffic,
}

/// Calls from one agent to another.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GraphEdge {
    /// The caller's [`GraphNode::id`].
    pub from: String,
    /// The callee's.
    pub to: String,
    /// All of them.
    pub traffic: GraphTraffic,
    /// The same by the capability that was asked for; calls by host have none.
    pub capabilities: Vec<CapabilityTraffic>,
}

/// Calls for one capability.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CapabilityTraffic {
    /// Which.
    pub capability: Option<String>,
    /// Its calls.
    pub traffic: GraphTraffic,
}

/// Calls within the window.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct GraphTraffic {
    /// Calls that ended.
    pub calls: u64,
    /// Those of them that failed.
    pub errors: u64,
    /// Calls a second.
    pub rate: f64,
    /// The share that failed, 0 to 1.
    pub error_share: f64,
    /// The mean duration, microseconds.
    pub mean_us: Option<u64>,
    /// Half of the calls took at most this long, microseconds; 10 s stands for that and more.
    pub p50_us: Option<u64>,
    /// 95 of 100.
    pub p95_us: Option<u64>,
    /// 99 of 100.
    pub p99_us: Option<u64>,
}
