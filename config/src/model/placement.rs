//! Where agents run, and as what: nodes, their GPUs, pools of them, and how an agent is started. Quantities are exact integers.

use std::fmt;
use std::time::Duration;

use super::{Meta, StringMap, Taint, Toleration};

/// A machine that runs agents. Reported by `pilotfish node`, or written down for `pilotfish placement plan`.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name is the node's; labels are those that selectors choose by.
    pub meta: Meta,
    /// Where it is.
    pub region: Option<String>,
    /// Where in the region.
    pub zone: Option<String>,
    /// Cores for agents, thousandths.
    pub cpu_milli: u64,
    /// Memory for agents, bytes.
    pub memory: u64,
    /// Its cards.
    pub gpus: Vec<Gpu>,
    /// What keeps agents away that do not tolerate it.
    pub taints: Vec<Taint>,
    /// Nothing new is placed there.
    pub unschedulable: bool,
    /// Agents at the same time, at most (110, the kubelet's default).
    pub most_replicas: u32,
}

/// One card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Unique on its node: NVML's UUID, or the index.
    pub id: String,
    /// `NVIDIA A100-SXM4-80GB`, in the driver's words.
    pub model: String,
    /// Bytes.
    pub memory: u64,
    /// Work may run there; else why not.
    pub health: Result<(), String>,
    /// MIG instances; with some of them the card as a whole is not given out.
    pub slices: Vec<GpuSlice>,
    /// The driver's version, for people.
    pub driver: Option<String>,
}

/// A part of a card that is isolated in hardware (MIG).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuSlice {
    /// Unique: the MIG UUID.
    pub id: String,
    /// `1g.10gb`.
    pub profile: String,
    /// Bytes.
    pub memory: u64,
}

/// Cards that are given out under one rule.
#[derive(Debug, Clone)]
pub struct GpuPool {
    /// Its name is what agents write as `pool`.
    pub meta: Meta,
    /// Any of these words has to be in the card's model, without case; none: every model.
    pub models: Vec<String>,
    /// At least so many bytes.
    pub min_memory: Option<u64>,
    /// Labels that the card's node has to have.
    pub node_labels: StringMap,
    /// Regions that the node has to be in; none: everywhere.
    pub regions: Vec<String>,
    /// How cards are shared.
    pub sharing: GpuSharing,
    /// Share of its cards' memory that stays free for agents of at least [`GpuPool::reserve_priority`], percent.
    pub reserved_percent: u8,
    /// From this priority on the reserve is open.
    pub reserve_priority: i32,
    /// Who may use it: `*`, `namespace`, `namespace/agent`, `namespace/*`; none: everybody.
    pub allowed: Vec<String>,
}

/// How cards of a pool are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GpuSharing {
    /// A card belongs to one replica.
    #[default]
    Exclusive,
    /// Several replicas on a card, by memory.
    Fractional,
    /// MIG instances.
    Slices,
}

/// How an agent is started; fields that an agent does not write come from the AgentTemplate of its name.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Runtime {
    /// The program and its arguments; no shell.
    pub command: Vec<String>,
    /// A container's image, for the Kubernetes executor.
    pub image: Option<String>,
    /// Further environment.
    pub env: StringMap,
    /// Where the program starts; the node's folder for the replica by default.
    pub working_dir: Option<String>,
    /// How its health is found out, in `--probe`'s words; `tcp` by default.
    pub probe: Option<String>,
    /// How long it may take to become ready before it counts as failed (60 s).
    pub start_timeout: Option<Duration>,
    /// How long it may take to end after SIGTERM (10 s).
    pub stop_timeout: Option<Duration>,
}

/// How agents of a name are started, whatever cluster they are in.
#[derive(Debug, Clone)]
pub struct AgentTemplate {
    /// Its name is the agent's.
    pub meta: Meta,
    /// How.
    pub runtime: Runtime,
    /// What each needs where the AgentCluster does not say.
    pub resources: super::Resources,
}

/// When replicas run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deployment {
    /// Always as many as asked for.
    Static,
    /// `warm` of them run and wait, the others start when asked for.
    PreWarmed {
        /// Started and idle on top of those in use.
        warm: u32,
        /// Those.
        on_demand: OnDemand,
    },
    /// None runs until somebody asks.
    JustInTime(OnDemand),
}

/// How replicas come and go with demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnDemand {
    /// One that had no call for so long is stopped (5 min).
    pub idle: Duration,
    /// How long a call waits for one to start (30 s).
    pub wait: Duration,
    /// Calls that wait at the same time in one sidecar, at most (100); one more is refused.
    pub most_waiting: u32,
}

impl Default for OnDemand {
    fn default() -> Self {
        OnDemand { idle: Duration::from_secs(300), wait: Duration::from_secs(30), most_waiting: 100 }
    }
}

/// Where replicas of an agent want to be, or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentAffinity {
    /// The other agent, `namespace/name` (the own one for spreading).
    pub agent: String,
    /// What "together" means.
    pub topology: Topology,
    /// Not placed otherwise; else preferred only.
    pub required: bool,
}

/// How near is together, from the nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topology {
    /// On one machine.
    Node,
    /// In one zone.
    Zone,
    /// In one region.
    Region,
}

/// How many replicas may be missing because somebody moves or evicts them. Failures do not ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disruption {
    /// So many.
    Count(u32),
    /// So much of what is wanted, percent, rounded down, at least 1 unless it is 0 %.
    Percent(u8),
}

impl Default for Disruption {
    /// One at a time.
    fn default() -> Self {
        Disruption::Count(1)
    }
}

/// How the replicas of an agent are placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementRules {
    /// Higher goes first, and may evict lower (0).
    pub priority: i32,
    /// The GpuPool; any that may be used by default.
    pub pool: Option<String>,
    /// Labels that the node has to have.
    pub node_selector: StringMap,
    /// Taints that it does not mind.
    pub tolerations: Vec<Toleration>,
    /// Near these.
    pub affinity: Vec<AgentAffinity>,
    /// Away from these.
    pub anti_affinity: Vec<AgentAffinity>,
    /// All replicas of a region, or none.
    pub gang: bool,
    /// How many may be missing at a time.
    pub disruption: Disruption,
    /// When replicas run.
    pub deployment: Deployment,
    /// Calls that a replica takes at a time; `None`: no limit.
    pub capacity: Option<u32>,
}

impl Default for PlacementRules {
    fn default() -> Self {
        PlacementRules {
            priority: 0,
            pool: None,
            node_selector: StringMap::new(),
            tolerations: Vec::new(),
            affinity: Vec::new(),
            anti_affinity: Vec::new(),
            gang: false,
            disruption: Disruption::default(),
            deployment: Deployment::Static,
            capacity: None,
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Topology::Node => "node",
            Topology::Zone => "zone",
            Topology::Region => "region",
        })
    }
}

/// The levels of an orchestrator, each with its duties, from the top down.
pub const LEVELS: [(&str, [&str; 3]); 3] = [
    ("cluster-controller", ["resource_allocation", "agent_placement", "policy_enforcement"]),
    ("node-controller", ["local_scheduling", "health_monitoring", "resource_optimization"]),
    ("agent-supervisor", ["task_coordination", "failure_recovery", "performance_optimization"]),
];

/// The duties of the levels of an orchestrator. Everything is on unless levels name what is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duties {
    /// Cluster controller: counts against nodes' and pools' resources (`resource_allocation`).
    pub resource_allocation: bool,
    /// Cluster controller: chooses nodes (`agent_placement`); off: nothing new is placed.
    pub agent_placement: bool,
    /// Cluster controller: pool permissions, priorities, budgets (`policy_enforcement`).
    pub policy_enforcement: bool,
    /// Node controller: starts and stops (`local_scheduling`).
    pub local_scheduling: bool,
    /// Node controller: restarts dead sidecars, drains failed GPUs (`health_monitoring`).
    pub health_monitoring: bool,
    /// Node controller: cgroup limits (`resource_optimization`).
    pub resource_optimization: bool,
    /// Supervisor: probes and drains (`task_coordination`).
    pub task_coordination: bool,
    /// Supervisor: restarts with back-off (`failure_recovery`).
    pub failure_recovery: bool,
    /// Supervisor: measures CPU, memory, GPU (`performance_optimization`).
    pub performance_optimization: bool,
}

impl Default for Duties {
    fn default() -> Self {
        Duties {
            resource_allocation: true,
            agent_placement: true,
            policy_enforcement: true,
            local_scheduling: true,
            health_monitoring: true,
            resource_optimization: true,
            task_coordination: true,
            failure_recovery: true,
            performance_optimization: true,
        }
    }
}

impl Duties {
    /// Switches one on or off by its word; what [`LEVELS`] does not have is left alone.
    pub fn set(&mut self, word: &str, on: bool) {
        if let Some(duty) = self.all().into_iter().find(|(name, _)| *name == word) {
            *duty.1 = on;
        }
    }

    /// The words of those that are off.
    pub fn off(mut self) -> Vec<&'static str> {
        self.all().into_iter().filter(|(_, on)| !**on).map(|(word, _)| word).collect()
    }

    fn all(&mut self) -> [(&'static str, &mut bool); 9] {
        [
            ("resource_allocation", &mut self.resource_allocation),
            ("agent_placement", &mut self.agent_placement),
            ("policy_enforcement", &mut self.policy_enforcement),
            ("local_scheduling", &mut self.local_scheduling),
            ("health_monitoring", &mut self.health_monitoring),
            ("resource_optimization", &mut self.resource_optimization),
            ("task_coordination", &mut self.task_coordination),
            ("failure_recovery", &mut self.failure_recovery),
            ("performance_optimization", &mut self.performance_optimization),
        ]
    }
}

impl fmt::Debug for Runtime {
    /// Without arguments and values of the environment, which may be secrets.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let env: Vec<&str> = self.env.keys().map(String::as_str).collect();
        out.debug_struct("Runtime")
            .field("program", &self.command.first())
            .field("image", &self.image)
            .field("env", &env)
            .finish_non_exhaustive()
    }
}

impl Runtime {
    /// This one, with what it does not say from `other`. Environments are put together, name by name.
    #[must_use]
    pub fn or(&self, other: &Runtime) -> Runtime {
        let command = if self.command.is_empty() { &other.command } else { &self.command };
        let mut env = other.env.clone();
        env.extend(self.env.clone());
        Runtime {
            command: command.clone(),
            image: self.image.clone().or_else(|| other.image.clone()),
            env,
            working_dir: self.working_dir.clone().or_else(|| other.working_dir.clone()),
            probe: self.probe.clone().or_else(|| other.probe.clone()),
            start_timeout: self.start_timeout.or(other.start_timeout),
            stop_timeout: self.stop_timeout.or(other.stop_timeout),
        }
    }
}

impl Deployment {
    /// The word in YAML and tables.
    pub const fn word(self) -> &'static str {
        match self {
            Deployment::Static => "static",
            Deployment::PreWarmed { .. } => "pre_warmed",
            Deployment::JustInTime(_) => "just_in_time",
        }
    }
}

impl GpuSharing {
    /// The word in YAML and tables.
    pub const fn word(self) -> &'static str {
        match self {
            GpuSharing::Exclusive => "exclusive",
            GpuSharing::Fractional => "fractional",
            GpuSharing::Slices => "slices",
        }
    }
}
