//! What sidecars and control plane tell each other of calls: edges of the graph, traces that are to be whole, live calls.

use serde::{Deserialize, Serialize};

/// Calls of this sidecar's agent to another, since the last report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// The agent that was called, `namespace/name`; else the cluster's host.
    pub to: String,
    /// The capability that was asked for, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// Calls that ended.
    pub calls: u32,
    /// Those of them that failed: an answer of 500 and above, or none.
    pub errors: u32,
    /// How long they took, summed, microseconds.
    pub sum_us: u64,
    /// How many took at most as long as each of [`EDGE_BOUNDS`], and longer: one more number than bounds, not cumulative.
    pub buckets: Vec<u32>,
}

/// Upper bounds of [`Edge::buckets`], microseconds: OpenTelemetry's for `http.client.request.duration`.
pub const EDGE_BOUNDS: [u64; 14] = [
    5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000, 1_000_000, 2_500_000,
    5_000_000, 7_500_000, 10_000_000,
];

/// Traces by id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traces {
    /// 32 hexadecimal digits each; at most [`MOST_TRACES`].
    pub traces: Vec<String>,
}

/// Ids in one [`Traces`].
pub const MOST_TRACES: usize = 200;

/// Everybody who looks at calls of this sidecar; none: nobody does any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taps {
    /// Each once.
    pub taps: Vec<Tap>,
}

/// Taps at a time, on one control plane.
pub const MOST_TAPS: usize = 16;
/// Calls in one [`Tapped`].
pub const MOST_TAPPED: usize = 1000;

/// Which calls somebody wants to see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tap {
    /// Names it on this stream.
    pub id: u64,
    /// Only calls that ask for this capability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// Only calls with this status: `503`, `5xx`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Only calls for which this expression holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matching: Option<String>,
    /// At most so many calls a second; more are counted.
    pub rate: u32,
}

/// Calls for one who looks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tapped {
    /// [`Tap::id`].
    pub tap: u64,
    /// Calls, oldest first.
    pub calls: Vec<TappedCall>,
    /// Calls that would have been shown but for the rate.
    #[serde(default)]
    pub dropped: u64,
}

/// A finished call as one sidecar saw it, redacted. Empty texts are left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TappedCall {
    /// When it began, nanoseconds since 1970.
    pub time_ns: u64,
    /// `namespace/name` of the agent whose sidecar it is.
    pub agent: String,
    /// `outbound` or `inbound`.
    pub direction: String,
    /// The other agent, `namespace/name`, or its address.
    pub peer: String,
    /// The method.
    pub method: String,
    /// The host.
    pub host: String,
    /// The path without its query.
    pub path: String,
    /// The status; 0: the caller left first.
    pub status: u16,
    /// Why the sidecar itself refused.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The rule.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rule: String,
    /// The cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// The endpoint of the last try.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// The capability.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub capability: String,
    /// `http`, `grpc`, `mcp`, `a2a`, `openai`, ...
    pub protocol: String,
    /// Tries.
    pub tries: u32,
    /// How long it took, microseconds.
    pub duration_us: u64,
    /// Bytes of its body.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub response_bytes: u64,
    /// Its trace.
    pub trace: String,
    /// `x-request-id`.
    pub request_id: String,
}
