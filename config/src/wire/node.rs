//! What the leading control plane and the nodes say to each other: one stream for each node, `POST /v1/nodes/stream`,
//! framed as sidecars' streams are.
//!
//! The leader always tells the *whole* set of replicas that a node should have, each time it changes. A node makes it so:
//! it starts what it lacks, stops what it has and should not, leaves the rest alone. Whatever was lost on the way is in the
//! next set. Every set carries the leader's term; a node keeps the highest that it has seen on its disk, and takes no
//! lower one.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::frames::{Tagged, read};
use super::{Refused, Versions};

/// The longest frame that a control plane takes from a node, in bytes.
pub const LONGEST_FROM_NODE: usize = 4 << 20;
/// The longest frame that a node takes, in bytes.
pub const LONGEST_TO_NODE: usize = 64 << 20;

/// From a node to the control plane. The first message is a [`FromNode::Hello`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum FromNode {
    /// Who it is, what it has, what runs there.
    Hello(Box<NodeHello>),
    /// It lives: the sign of life for all its replicas.
    Beat(NodeBeat),
    /// What it has is different from what it said before.
    Inventory(Inventory),
    /// Replicas whose state changed, or whose usage is reported; those that are not named are as they were.
    Replicas(ReplicaStates),
    /// A replica is about to start for the first time and needs an identity.
    NeedToken(NeedToken),
    /// A set was not taken: its term is lower than one that the node has seen.
    Stale(Stale),
    /// Lines that were asked for.
    Lines(Lines),
    /// Something of a later minor version.
    #[serde(other)]
    Unknown,
}

/// From the control plane to a node. The first message is a [`ToNode::Welcome`], [`ToNode::Elsewhere`] or
/// [`ToNode::Refused`].
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ToNode {
    /// The hello was taken.
    Welcome(NodeWelcome),
    /// This control plane does not lead.
    Elsewhere(Elsewhere),
    /// The answer to a [`FromNode::Beat`].
    Beat(NodeBeat),
    /// What should run.
    Set(Box<ReplicaSet>),
    /// What was needed.
    Token(ReplicaToken),
    /// The last lines of a replica's output are wanted.
    Tail(Tail),
    /// Not served; the stream ends.
    Refused(Refused),
    /// Something of a later minor version.
    Unknown,
}

/// By hand, as [`super::ToSidecar`]'s.
impl<'de> Deserialize<'de> for ToNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Tagged { kind, text } = Tagged::read(deserializer)?;
        Ok(match &*kind {
            "welcome" => ToNode::Welcome(read(text)?),
            "elsewhere" => ToNode::Elsewhere(read(text)?),
            "beat" => ToNode::Beat(read(text)?),
            "set" => ToNode::Set(read(text)?),
            "token" => ToNode::Token(read(text)?),
            "tail" => ToNode::Tail(read(text)?),
            "refused" => ToNode::Refused(read(text)?),
            _ => ToNode::Unknown,
        })
    }
}

/// A node introduces itself. Its name must be that of its certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeHello {
    /// Its versions.
    pub versions: Versions,
    /// Its name.
    pub node: String,
    /// This process, unique and new with each start: 32 hexadecimal digits.
    pub instance: String,
    /// The highest term whose set it took; 0: none yet.
    pub term: u64,
    /// What it has.
    pub inventory: Inventory,
    /// Everything that runs there.
    pub replicas: Vec<ReplicaState>,
}

/// What a node has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// `region/zone/subzone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Taints, `key=value:Effect`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
    /// Cores for agents, thousandths.
    pub cpu_milli: u64,
    /// Memory for agents, bytes.
    pub memory: u64,
    /// Its cards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuState>,
    /// Agents at the same time, at most.
    pub most_replicas: u32,
    /// What is wrong with the machine, for people: a full disk, an NVML that answers errors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
    /// What it can hold agents to: `cpu`, `memory` (cgroup v2 controllers that it may use).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enforces: Vec<String>,
}

/// One card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuState {
    /// NVML's UUID, or the index.
    pub id: String,
    /// In the driver's words.
    pub model: String,
    /// Bytes.
    pub memory: u64,
    /// Why no work may run there; `None`: it may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// The driver's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// MIG instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<SliceState>,
    /// Bytes in use, by whomever.
    #[serde(default)]
    pub used: u64,
    /// Percent of the last second in which a kernel ran.
    #[serde(default)]
    pub busy_percent: u8,
}

/// One MIG instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceState {
    /// Its UUID.
    pub id: String,
    /// `1g.10gb`.
    pub profile: String,
    /// Bytes.
    pub memory: u64,
}

/// A sign of life, and its echo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeBeat {
    /// Counts up.
    pub number: u64,
}

/// The answer to a hello that is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeWelcome {
    /// Its versions.
    pub versions: Versions,
    /// Which control plane this is.
    pub control: String,
    /// The leader's term: the store's revision when it took the lead.
    pub term: u64,
    /// After so long without a beat, milliseconds (3,000), the node's replicas count as lost; without the echo the node looks for
    /// another control plane, and lets its replicas run.
    pub lease_ms: u64,
    /// How often a beat has to come, milliseconds: a third of the lease.
    pub beat_ms: u64,
}

/// Another control plane leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// Its name; `None`: nobody leads just now.
    pub control: Option<String>,
    /// Where it is, `https://HOST:15012`, if it said so.
    pub address: Option<String>,
}

/// The whole set of replicas that a node should have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplicaSet {
    /// The leader's term.
    pub term: u64,
    /// Counts up with each set of a term.
    pub sequence: u64,
    /// All of them.
    pub replicas: Vec<ReplicaOrder>,
}

/// One replica that should run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaOrder {
    /// `<namespace>/<agent>/<replica>`, where the last is 10 letters and digits; never used again.
    pub id: String,
    /// The agent's name.
    pub agent: String,
    /// Its namespace.
    pub namespace: String,
    /// Changes when the replica has to be started anew for what it says. A node compares nothing else.
    pub generation: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Further environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Where the program starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// In `--probe`'s words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<String>,
    /// Milliseconds until a replica that is not ready counts as failed.
    pub start_timeout_ms: u64,
    /// Milliseconds between SIGTERM and SIGKILL.
    pub stop_timeout_ms: u64,
    /// Thousandths of a core, where the node can hold it to that; 0: no limit.
    #[serde(default)]
    pub cpu_milli: u64,
    /// Bytes, likewise.
    #[serde(default)]
    pub memory: u64,
    /// What of which cards is its.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuShare>,
    /// Labels of its sidecar, those of placement included (`resource-type`, `gpu-model`, `gpu-pool`, `pilotfish.dev/node`,
    /// `pilotfish.dev/cluster`, `pilotfish.dev/replica`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What it is able to do, besides what documents say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Calls at a time, at most; 0: no limit.
    #[serde(default)]
    pub capacity: u32,
    /// Duties of node and supervisor that documents switch off: `local_scheduling`, `health_monitoring`, ...
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
}

/// A part of a card, or all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuShare {
    /// [`GpuState::id`].
    pub gpu: String,
    /// Its MIG instance, when that is what is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<String>,
    /// Bytes that are counted for it.
    pub memory: u64,
}

/// Replicas of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplicaStates {
    /// Each once.
    pub replicas: Vec<ReplicaState>,
}

/// How a replica is, as its node sees it. Whether its agent is *ready* is for its sidecar's registration to say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplicaState {
    /// [`ReplicaOrder::id`].
    pub id: String,
    /// [`ReplicaOrder::generation`] of what runs.
    pub generation: String,
    /// How far it is.
    pub phase: ReplicaPhase,
    /// Why, for people: what the program said last, what could not be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Starts of the agent's process after the first.
    #[serde(default)]
    pub restarts: u32,
    /// Starts of its sidecar after the first.
    #[serde(default)]
    pub sidecar_restarts: u32,
    /// The agent's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// When it reached its phase, milliseconds since 1970.
    #[serde(default)]
    pub since_ms: u64,
    /// What it uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// How far a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplicaPhase {
    /// Ordered; the sidecar or the agent is being started.
    #[default]
    Starting,
    /// The agent's process runs and its probe was good.
    Running,
    /// It ends: no new calls, then SIGTERM.
    Stopping,
    /// It ended again and again; the next start waits.
    CrashLoop,
    /// It cannot be started: no such command, no port, no token, a full disk.
    Failed,
    /// It is gone from the node.
    Gone,
}

impl ReplicaPhase {
    /// The word in tables and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            ReplicaPhase::Starting => "starting",
            ReplicaPhase::Running => "running",
            ReplicaPhase::Stopping => "stopping",
            ReplicaPhase::CrashLoop => "crash-loop",
            ReplicaPhase::Failed => "failed",
            ReplicaPhase::Gone => "gone",
        }
    }
}

/// What an agent uses now, its children included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Thousandths of a core, over the last interval.
    pub cpu_milli: u32,
    /// Resident bytes.
    pub memory: u64,
    /// Bytes on cards.
    #[serde(default)]
    pub gpu_memory: u64,
    /// Percent of its cards' time.
    #[serde(default)]
    pub gpu_percent: u8,
}

/// A replica needs an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeedToken {
    /// [`ReplicaOrder::id`].
    pub replica: String,
}

/// A join token that is good once, for a minute, for this replica's agent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaToken {
    /// [`ReplicaOrder::id`].
    pub replica: String,
    /// The secret, or why there is none.
    pub token: Result<String, String>,
}

impl std::fmt::Debug for ReplicaToken {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "ReplicaToken({}, {})",
            self.replica,
            if self.token.is_ok() { "(secret)" } else { "none" }
        )
    }
}

/// A set came from a leader that is none any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stale {
    /// The term that came.
    pub term: u64,
    /// The highest that was seen.
    pub seen: u64,
}

/// The last lines of a replica's output are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// Comes back with the lines.
    pub number: u64,
    /// [`ReplicaOrder::id`].
    pub replica: String,
    /// At most so many.
    pub lines: u32,
}

/// The answer to a [`Tail`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    /// Of the question.
    pub number: u64,
    /// The newest last, or why there are none.
    pub lines: Result<Vec<String>, String>,
}

/// A sidecar asks for an agent that nobody offers just now. Sent again every second while calls wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Each agent once, `namespace/name`, at most [`MOST_ASKED`].
    pub agents: Vec<AskedAgent>,
}

/// Agents in one [`Asked`].
pub const MOST_ASKED: usize = 100;

/// An agent that calls wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedAgent {
    /// `namespace/name`.
    pub agent: String,
    /// Calls that wait for it in this sidecar; 0: none does any more.
    pub waiting: u32,
}

/// An agent that is asked for will not come soon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotStarted {
    /// `namespace/name`.
    pub agent: String,
    /// Why, for people.
    pub reason: String,
}
