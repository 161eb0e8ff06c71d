//! What placement decides over: machines, pools, what is wanted, what is there.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use pilotfish_config::model::{AgentAffinity, Disruption, GpuSharing, Runtime, Taint, Toleration};
pub use pilotfish_config::wire::node::GpuShare;

use crate::cli::human;

/// Everything that a decision depends on.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// Machines; names are unique. One that is not here is lost.
    pub nodes: Vec<Machine>,
    /// Pools of cards; a card belongs to the first pool that selects it.
    pub pools: Vec<Pool>,
    /// What is wanted.
    pub groups: Vec<Group>,
    /// What is there, or ordered.
    pub held: Vec<Held>,
    /// Who calls whom how often, where it is known: for locality.
    pub traffic: Vec<Traffic>,
}

/// A machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// Unique.
    pub name: String,
    /// Empty: none is known.
    pub region: String,
    /// Within the region.
    pub zone: String,
    /// For selectors.
    pub labels: BTreeMap<String, String>,
    /// Who may not come.
    pub taints: Vec<Taint>,
    /// Thousandths of a core, all of them.
    pub cpu_milli: u64,
    /// Bytes, all of them.
    pub memory: u64,
    /// Cards.
    pub gpus: Vec<Card>,
    /// Replicas at the same time, at most.
    pub most_replicas: u32,
    /// How it is.
    pub state: MachineState,
}

/// How a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MachineState {
    /// Replicas may come.
    #[default]
    Open,
    /// What is there stays, nothing comes (`pilotfish cordon`, or silent for less than the grace time).
    Cordoned,
    /// What is there moves elsewhere, within disruption budgets (`pilotfish drain`).
    Draining,
    /// Silent for longer than the grace time: what was there counts as gone.
    Lost,
}

/// A card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Unique on its machine.
    pub id: String,
    /// In the driver's words.
    pub model: String,
    /// Bytes.
    pub memory: u64,
    /// Work may run there; what is there on a failed one moves.
    pub healthy: bool,
    /// MIG instances: id, profile, bytes.
    pub slices: Vec<(String, String, u64)>,
}

/// A pool of cards.
#[derive(Debug, Clone)]
pub struct Pool {
    /// `namespace/name`.
    pub name: String,
    /// Words of models, one of which has to be in the card's, without case.
    pub models: Vec<String>,
    /// At least so many bytes.
    pub min_memory: u64,
    /// Labels of the machine.
    pub node_labels: BTreeMap<String, String>,
    /// Regions of the machine; none: everywhere.
    pub regions: Vec<String>,
    /// How cards are shared.
    pub sharing: GpuSharing,
    /// Percent of memory that stays free for `reserve_priority` and above.
    pub reserved_percent: u8,
    /// From which priority on the reserve is open.
    pub reserve_priority: i32,
    /// `*`, `namespace`, `namespace/*`, `namespace/agent`; none: everybody.
    pub allowed: Vec<String>,
}

/// Replicas that are alike: an agent, perhaps within one region.
#[derive(Debug, Clone)]
pub struct Group {
    /// `namespace/agent`, or `namespace/agent@region`. Unique.
    pub id: Arc<str>,
    /// The agent's namespace.
    pub namespace: String,
    /// The agent's name.
    pub agent: String,
    /// The AgentCluster, `namespace/name`.
    pub cluster: String,
    /// Only in this region.
    pub region: Option<String>,
    /// So many.
    pub wanted: u32,
    /// What each needs.
    pub need: Need,
    /// Higher first.
    pub priority: i32,
    /// `name` or `namespace/name` of the pool that the cards have to be of.
    pub pool: Option<String>,
    /// Labels that the machine has to have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that it does not mind.
    pub tolerations: Vec<Toleration>,
    /// Near these agents.
    pub affinity: Vec<AgentAffinity>,
    /// Away from these.
    pub anti_affinity: Vec<AgentAffinity>,
    /// All or none.
    pub gang: bool,
    /// How many may be missing by moves and evictions.
    pub disruption: Disruption,
    /// How each is started; not looked at by placement.
    pub runtime: Runtime,
    /// Labels of the agent; not looked at by placement.
    pub labels: BTreeMap<String, String>,
    /// Digest of everything that a running replica would have to be started anew for.
    pub generation: String,
}

/// What a replica takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Need {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory: u64,
    /// Whole cards.
    pub gpus: u32,
    /// Bytes: of each of those cards at least; without whole cards a share of one card.
    pub gpu_memory: u64,
    /// One MIG instance of this profile.
    pub gpu_slice: Option<String>,
}

/// In words: `2 cores, 4 GiB of memory, 1 GPU`.
impl fmt::Display for Need {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.cpu_milli > 0 {
            let noun = if self.cpu_milli == 1000 { "core" } else { "cores" };
            parts.push(format!("{} {noun}", human::cores(self.cpu_milli)));
        }
        if self.memory > 0 {
            parts.push(format!("{} of memory", human::size(self.memory)));
        }
        let cards = human::count(self.gpus as usize, "GPU");
        match (self.gpus, self.gpu_memory, &self.gpu_slice) {
            (_, _, Some(profile)) => parts.push(format!("a GPU slice {profile}")),
            (0, 0, None) => {}
            (0, memory, None) => parts.push(format!("{} of a GPU's memory", human::size(memory))),
            (_, 0, None) => parts.push(cards),
            (_, memory, None) => parts.push(format!("{cards} with at least {}", human::size(memory))),
        }
        out.write_str(&if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") })
    }
}

impl Need {
    /// Whether it needs a card or a part of one.
    pub fn gpu(&self) -> bool {
        self.gpus > 0 || self.gpu_memory > 0 || self.gpu_slice.is_some()
    }
}

/// A replica that is there, or ordered.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// `<namespace>/<agent>/<replica>`.
    pub replica: Arc<str>,
    /// [`Group::id`]; one that is no group's is stopped.
    pub group: Arc<str>,
    /// [`Group::generation`] that it was started with.
    pub generation: String,
    /// [`Machine::name`].
    pub node: String,
    /// What of its cards it has.
    pub gpus: Vec<GpuShare>,
    /// What was counted for it.
    pub need: Need,
    /// Serves now. One that is not counts as missing for disruption budgets, and may be evicted without asking them: while it is
    /// not known yet (a new leader), say `true`.
    pub ready: bool,
    /// It is to be replaced by another (which is then in `held` too) and ends once that one is ready.
    pub leaving: bool,
    /// It was told to end and has not yet. It counts for no group, but what it has is given to nobody before it is gone from here:
    /// a place is never given twice.
    pub stopping: bool,
}

/// Calls a second from one agent to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Traffic {
    /// `namespace/agent` of the caller.
    pub from: String,
    /// `namespace/agent` of the called.
    pub to: String,
    /// Calls a second.
    pub rate: f64,
}
