//! Why a call went as it did: what a sidecar is asked of its calls, and the accounts that it gives of them.

use serde::{Deserialize, Serialize};

/// Calls that a sidecar is asked for, by one of the three.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Why {
    /// Names the question on this stream.
    pub ask: u64,
    /// Those with this `x-request-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Those of this trace, 32 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The newest, so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
}

/// What a sidecar remembers of the calls that it was asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Answered {
    /// [`Why::ask`].
    pub ask: u64,
    /// Oldest first; at most [`MOST_ACCOUNTS`].
    pub calls: Vec<Account>,
    /// How many more there are.
    pub left_off: u64,
}

/// Calls in one [`Answered`].
pub const MOST_ACCOUNTS: usize = 100;
/// The longest [`Explained`] of a call, as JSON, in bytes.
pub const LONGEST_EXPLAINED: usize = 16 << 10;

/// How one call went, as one sidecar saw it: redacted. Times are microseconds after the call's start; 0: it never came so far.
/// Empty texts are left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Account {
    /// When it began, nanoseconds since 1970.
    pub time_ns: u64,
    /// `namespace/name` of the agent whose sidecar this is.
    pub agent: String,
    /// `outbound`: from the agent into the mesh; `inbound`: to the agent.
    pub direction: String,
    /// The calling agent, `namespace/name`, when its sidecar proved who it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub caller: String,
    /// The address that it came from.
    pub peer: String,
    /// The method.
    pub method: String,
    /// The host that was asked for.
    pub host: String,
    /// The path without its query.
    pub path: String,
    /// `http`, `grpc`, `mcp`, `a2a`, `openai`, ...
    pub protocol: String,
    /// What the caller got; 0: it left first.
    pub status: u16,
    /// Why the sidecar itself refused or gave up.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What it said about that.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// For whom it is, when that is not only the caller: inbound for whom the caller acts, outbound for whom the own agent does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delegation: Option<ActsFor>,
    /// The rule that matched.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rule: String,
    /// The cluster that it led to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// The capability that was asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub capability: String,
    /// The workflow that it is part of.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workflow: String,
    /// Its trace.
    pub trace: String,
    /// Its SERVER span at this sidecar.
    pub span: String,
    /// The span that made it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parent: String,
    /// Who the parent is was inferred.
    pub inferred: bool,
    /// Its spans are kept.
    pub sampled: bool,
    /// `x-request-id`.
    pub request_id: String,
    /// What made a difference besides the rule: `retry`, `hedge`, `rate-limit`, ...
    pub policies: Vec<String>,
    /// What it waited for, when nobody was there and an agent is started on demand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_for: Option<StartedFor>,
    /// When each stage was over.
    pub stages: StageTimes,
    /// How many tries there were; of more than four the first three and the last are told.
    pub tries: u32,
    /// The tries.
    pub attempts: Vec<Attempt>,
    /// Bytes of its body that went upstream.
    pub request_bytes: u64,
    /// Bytes of the answer's body that went downstream.
    pub response_bytes: u64,
    /// Everything about its decisions, of a call with `agent-explain: 1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explained: Option<Explained>,
}

/// The chain of who asked whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ActsFor {
    /// Where it began: a token's `ISSUER/SUBJECT`, or an agent's identity without `spiffe://`. Empty: nobody knows.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub origin: String,
    /// The agents of the chain, first to last, as `TRUST-DOMAIN/ns/NAMESPACE/agent/NAME`.
    pub agents: Vec<String>,
    /// Not all of it is known: then it may be for any of the agents.
    pub uncertain: bool,
}

/// An agent that a call waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StartedFor {
    /// `namespace/name`.
    pub agent: String,
    /// How long it waited, milliseconds.
    pub waited_ms: u64,
}

/// When which stage was over, microseconds after the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StageTimes {
    /// What the call is was known.
    pub decoded_us: u64,
    /// Its rule was known.
    pub routed_us: u64,
    /// It had a place.
    pub admitted_us: u64,
    /// The head of its answer went down.
    pub answered_us: u64,
    /// It was over.
    pub ended_us: u64,
}

/// One try.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempt {
    /// Its CLIENT span.
    pub span: String,
    /// Where it went.
    pub endpoint: String,
    /// The endpoint's agent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub agent: String,
    /// When it began, ...
    pub began_us: u64,
    /// ... had its connection, ...
    pub connected_us: u64,
    /// ... had its answer's head, or failed.
    pub answered_us: u64,
    /// On a kept connection.
    pub reused: bool,
    /// The answer's status; 0: none.
    pub status: u16,
    /// `answered`, `not-connected`, `reset`, `timed-out`, `cancelled`, `open`.
    pub ended: String,
    /// Endpoints that were looked at.
    pub candidates: u16,
    /// Those of them that could be chosen; 0: not counted.
    pub eligible: u16,
    /// What the chosen one cost in the balancer's eyes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f32>,
    /// Who would have been next, and what that one cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner_up: Option<RunnerUp>,
}

/// The second best endpoint of a try.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunnerUp {
    /// Its address.
    pub endpoint: String,
    /// Its cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f32>,
}

/// The decisions of one call, with everything that was weighed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Explained {
    /// Rules of its host that came before the one that matched, and what kept each from matching.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<PassedOver>,
    /// Each choice of an endpoint, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Choice>,
    /// Something was left out for length.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// A rule that did not match.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PassedOver {
    /// Its name.
    pub rule: String,
    /// For each of its alternatives the first condition that does not hold.
    pub why: Vec<String>,
}

/// One choice of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Choice {
    /// The destination: a cluster, or the capability that was asked for.
    pub target: String,
    /// The endpoint that was chosen; empty: none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub chosen: String,
    /// How: `peak-ewma`, `least-request`, `key`, ...
    pub by: String,
    /// Everybody who was looked at, the chosen one first, then by cost, then those who could not be chosen.
    pub candidates: Vec<Candidate>,
    /// How many more there are.
    pub left_off: usize,
}

/// An endpoint that was looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Candidate {
    /// Its address.
    pub endpoint: String,
    /// Its agent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub agent: String,
    /// It was chosen.
    pub chosen: bool,
    /// Its cost: latency, times calls in flight and one, by the square of success. None: nothing is known of it yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f32>,
    /// Expected latency, microseconds.
    pub latency_us: u64,
    /// The share of its calls that succeed, 0 to 1.
    pub success: f32,
    /// Calls in flight.
    pub in_flight: u32,
    /// Why it could not be chosen, or was not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub why_not: Vec<String>,
}
