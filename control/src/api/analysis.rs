//! What traces say, as JSON: of one trace, of all traces of a workflow, of two windows of time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where the time of one trace went. All times are nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceAnalysis {
    /// 32 hexadecimal digits.
    pub trace: String,
    /// When its first span began, since 1970.
    pub start_ns: u64,
    /// From its first start to its last end, clocks corrected.
    pub total_ns: u64,
    /// Spans that were looked at.
    pub spans: usize,
    /// Calls one below the other at most.
    pub depth: usize,
    /// Spans that did something of their own at the same time, at most.
    pub width: usize,
    /// The most calls that one span made.
    pub fan_out: FanOut,
    /// Whose time the total is: these add up to it.
    pub time: Time,
    /// Which span is responsible for each moment, in order: the durations add up to the total.
    pub critical_path: Vec<Segment>,
    /// Segments that were left out of `critical_path`, because there are too many.
    pub left_out: usize,
    /// What takes longest, by agent, operation and capability.
    pub bottlenecks: Vec<Bottleneck>,
    /// By agent.
    pub agents: Vec<AgentTime>,
    /// Own time of agents by the capability that was asked for.
    pub capabilities: BTreeMap<String, u64>,
    /// Tries after the first.
    pub retries: u64,
    /// Time of tries after which there was another.
    pub retried_ns: u64,
    /// Refusals of sidecars by reason.
    pub refusals: BTreeMap<String, u64>,
    /// Spans that are errors.
    pub errors: u64,
    /// Where the first error began.
    pub root_cause: Option<RootCause>,
    /// What about the trace is not as it should be.
    pub shape: Oddities,
    /// What to do about it, the most important first.
    pub recommendations: Vec<Recommendation>,
}

/// Whose time it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time {
    /// Agents' own.
    pub agent_ns: u64,
    /// Sidecars and the network between.
    pub mesh_ns: u64,
    /// Hosts that send no spans.
    pub outside_ns: u64,
    /// Nobody's: no span covers it.
    pub nobody_ns: u64,
}

/// The most calls that one span made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FanOut {
    /// Calls.
    pub calls: usize,
    /// The agent that made them.
    pub agent: String,
}

/// Whose time a span's own time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// An agent's work.
    #[default]
    Agent,
    /// Sidecars and the network between.
    Mesh,
    /// A host that sends no spans.
    Outside,
    /// Nobody's.
    Nobody,
}

/// A piece of the critical path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The span, 16 hexadecimal digits; none for time that no span covers.
    pub span: Option<String>,
    /// Whose time it is: the agent's, or the host's that is called.
    pub agent: String,
    /// The span's name.
    pub name: String,
    /// What kind of time.
    pub part: Part,
    /// From the start of the trace.
    pub at_ns: u64,
    /// How long.
    pub duration_ns: u64,
}

/// What takes long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bottleneck {
    /// Whose time it is.
    pub agent: String,
    /// The spans' name.
    pub name: String,
    /// The capability that was asked for.
    pub capability: Option<String>,
    /// What kind of time.
    pub part: Part,
    /// Spans.
    pub spans: u64,
    /// Their own time, summed.
    pub self_ns: u64,
    /// The longest own time of one.
    pub longest_ns: u64,
    /// Their time on the critical path.
    pub critical_ns: u64,
    /// Those that take longest, at most five.
    pub evidence: Vec<String>,
}

/// An agent in a trace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentTime {
    /// `namespace/name`, or a host.
    pub agent: String,
    /// Its spans.
    pub spans: u64,
    /// Its own work, summed over its spans.
    pub self_ns: u64,
    /// Of the critical path.
    pub critical_ns: u64,
    /// Spans that are errors.
    pub errors: u64,
    /// Tries after the first that its sidecar made.
    pub retries: u64,
    /// Tokens that were read.
    pub input_tokens: u64,
    /// Tokens that were written.
    pub output_tokens: u64,
}

/// Where an error began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootCause {
    /// The span.
    pub span: String,
    /// Its agent.
    pub agent: String,
    /// Its name.
    pub name: String,
    /// What went wrong, as it says.
    pub why: String,
    /// When, from the start of the trace.
    pub at_ns: u64,
    /// What waited for it did not fail: it was tried again, or done without.
    pub recovered: bool,
    /// Agents that it made fail, the nearest first.
    pub spread: Vec<String>,
}

/// What about a trace is not as it should be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oddities {
    /// It was not sampled; what is known was gathered because a call failed or was slow.
    pub partial: bool,
    /// Spans without a parent.
    pub roots: usize,
    /// Spans whose parent is not known.
    pub orphans: usize,
    /// Spans that were their own ancestors; the circle was cut there.
    pub cycles: usize,
    /// Spans that were there twice.
    pub duplicates: usize,
    /// Spans whose machine's clock is off, and that were shifted.
    pub shifted: usize,
    /// By how much at most, nanoseconds.
    pub largest_shift_ns: u64,
}

/// How much a recommendation matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    #[default]
    Info,
    /// Worth a look.
    Warning,
    /// It made the trace fail.
    Critical,
}

/// What to do, and the numbers behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recommendation {
    /// Stable: `bottleneck`, `outside`, `mesh`, `sequential`, `repeated`, `retries`, `error`, `refusals`, `fan-out`, `depth`,
    /// `clock`, `incomplete`.
    pub id: String,
    /// How much it matters.
    pub severity: Severity,
    /// What was found, with numbers.
    pub finding: String,
    /// What to do.
    pub advice: String,
    /// What could be saved of the total at most, nanoseconds; 0: not a matter of time.
    pub saving_ns: u64,
    /// Spans that show it, at most ten.
    pub evidence: Vec<String>,
}

/// All traces of a workflow. All times are nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkflowAnalysis {
    /// Its id.
    pub workflow: String,
    /// Traces that were looked at, the newest.
    pub traces: usize,
    /// There are more than were looked at.
    pub more: bool,
    /// When its first trace began, since 1970.
    pub start_ns: u64,
    /// From the first start to the last end.
    pub total_ns: u64,
    /// Time in which one of its traces ran.
    pub busy_ns: u64,
    /// Whose time the traces' critical paths are.
    pub time: Time,
    /// Spans.
    pub spans: usize,
    /// Traces with an error.
    pub failed: usize,
    /// Spans that are errors.
    pub errors: u64,
    /// Tries after the first.
    pub retries: u64,
    /// Refusals of sidecars by reason.
    pub refusals: BTreeMap<String, u64>,
    /// By agent, over all traces.
    pub agents: Vec<AgentTime>,
    /// Over all traces.
    pub bottlenecks: Vec<Bottleneck>,
    /// Over all traces: of each id the most important, with the number of traces.
    pub recommendations: Vec<Recommendation>,
    /// The slowest traces, at most ten: id and duration.
    pub slowest: Vec<(String, u64)>,
}

/// Two windows of time side by side.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The later window.
    pub now: Window,
    /// The earlier one.
    pub before: Window,
    /// What is significantly different, the worst first.
    pub changes: Vec<Change>,
    /// Every operation, those with the most calls first, at most 200.
    pub operations: Vec<Operation>,
}

/// A window of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// From, nanoseconds since 1970.
    pub from_ns: u64,
    /// Up to, nanoseconds since 1970.
    pub to_ns: u64,
    /// Traces that were looked at, the newest.
    pub traces: usize,
    /// There are more than were looked at.
    pub more: bool,
}

/// Calls of an operation in both windows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// The agent, `namespace/name`.
    pub agent: String,
    /// The name of its spans.
    pub name: String,
    /// Now.
    pub now: Calls,
    /// Before.
    pub before: Calls,
}

/// Calls in a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Calls {
    /// How many.
    pub count: u64,
    /// The share of them that are errors, 0 to 1.
    pub error_rate: f64,
    /// The time that half of them took at most, nanoseconds.
    pub p50_ns: u64,
    /// The time that 95 of 100 took at most, nanoseconds.
    pub p95_ns: u64,
}

/// What is different.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// More of it fails.
    #[default]
    Failing,
    /// It takes longer.
    Slower,
    /// It is not there any more.
    Vanished,
    /// It was not there before.
    New,
    /// Less of it fails.
    Recovered,
    /// It takes less long.
    Faster,
}

/// A significant difference.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// What.
    pub kind: ChangeKind,
    /// Of which operation.
    pub operation: Operation,
    /// In a sentence, with the numbers.
    pub finding: String,
}
