//! Node, GpuPool and AgentTemplate, and how an AgentCluster's agents are placed and started. Our own kinds, in snake_case.

use super::{
    Bool, Int, List, One, Quantity, Raw, Reader, ResourcesSpec, Shape, Signed, Text, TextMap, Time, Val,
    Word, object, words,
};
use crate::yaml::{Node, Type};

object! {
    /// A machine that runs agents. Nodes report themselves (`pilotfish node`); a document adds its labels, taints and
    /// `unschedulable` to the node of its name, and describes machines for `pilotfish placement plan`. Labels are those of
    /// `metadata`.
    struct NodeSpec<'n> "Node" {
        /// Where it is.
        region = "region": Text<'n>;
        /// Where in the region.
        zone = "zone": Text<'n>;
        /// Cores for agents, `64`.
        cpu = "cpu": Quantity<'n>;
        /// Memory for agents, `256Gi`.
        memory = "memory": Quantity<'n>;
        /// Its cards.
        gpus = "gpus": List<GpuSpec<'n>>;
        /// What keeps agents away that do not tolerate it: `key=value:Effect`, `key:Effect` or `{key, value, effect}`.
        taints = "taints": List<TaintSpec<'n>>;
        /// Nothing new is placed there. False by default.
        unschedulable = "unschedulable": Bool<'n>;
        /// Agents at the same time, at most (110, the kubelet's default).
        max_replicas = "max_replicas": Int<'n>;
        /// So many machines that are alike, named NAME-1, NAME-2, ...; for `pilotfish placement plan`. 1 to 10000.
        count = "count": Int<'n>;
    }

    /// A card.
    struct GpuSpec<'n> "Gpu" {
        /// Unique on its node, as NVML's UUID. Its place in the list by default.
        id = "id": Text<'n>;
        /// In the driver's words: `NVIDIA A100-SXM4-80GB`.
        model = "model": Text<'n>, required;
        /// Bytes, `80Gi`.
        memory = "memory": Quantity<'n>, required;
        /// `ok` (the default), else why nothing may run there.
        health = "health": Text<'n>;
        /// MIG instances; with some of them the card as a whole is not given out.
        slices = "slices": List<GpuSliceSpec<'n>>;
        /// The driver's version.
        driver = "driver": Text<'n>;
        /// So many cards that are alike, 1 to 64.
        count = "count": Int<'n>;
    }

    /// A part of a card that is isolated in hardware (MIG).
    struct GpuSliceSpec<'n> "GpuSlice" {
        /// Unique on its node, as the MIG UUID. The card's and its place in the list by default.
        id = "id": Text<'n>;
        /// `1g.10gb`.
        profile = "profile": Text<'n>, required;
        /// Bytes. What the profile says by default.
        memory = "memory": Quantity<'n>;
        /// So many that are alike, 1 to 64.
        count = "count": Int<'n>;
    }

    /// What keeps agents away from a node.
    struct TaintTable<'n> "Taint" {
        /// What.
        key = "key": Text<'n>, required;
        /// Perhaps with a value.
        value = "value": Text<'n>;
        /// What happens to agents that do not tolerate it.
        effect = "effect": One<'n, EffectWord>, required;
    }

    /// A taint that an agent does not mind.
    struct TolerationTable<'n> "Toleration" {
        /// Of the taint; without it every taint is meant, and the operator has to be `Exists`.
        key = "key": Text<'n>;
        /// `Equal` (the default): the value is that of the taint; `Exists`: it has any value.
        operator = "operator": One<'n, OperatorWord>;
        /// Of the taint.
        value = "value": Text<'n>;
        /// Of the taint; without it any.
        effect = "effect": One<'n, EffectWord>;
    }

    /// Cards that are given out under one rule. A card belongs to the first pool, by namespace and name, that selects it; one that none
    /// selects is given out as a whole, or by its MIG instances, to anybody.
    struct GpuPoolSpec<'n> "GpuPool" {
        /// Which cards. All by default.
        selector = "selector": GpuSelectorSpec<'n>;
        /// How they are shared: `exclusive` (a card belongs to one replica; the default), `fractional` (replicas with `gpuMemory` share a
        /// card by its memory) or `slices` (MIG instances, for replicas with `gpuSlice`).
        sharing = "sharing": One<'n, SharingWord>;
        /// What is kept free for those who matter more.
        reserved = "reserved": ReserveSpec<'n>;
        /// Who may use them: `namespace`, `namespace/*`, `namespace/agent` or `*`. Everybody by default.
        allowed = "allowed": List<Text<'n>>;
    }

    /// Which cards. All that is written has to hold.
    struct GpuSelectorSpec<'n> "GpuSelector" {
        /// One of these words is in the card's model, upper or lower case: `A100`, `H100`.
        models = "models": List<Text<'n>>;
        /// It has at least so many bytes, `40Gi`.
        min_memory = "min_memory": Quantity<'n>;
        /// Labels that its node has.
        node_labels = "node_labels": TextMap<'n>;
        /// Its node is in one of these regions.
        regions = "regions": List<Text<'n>>;
    }

    /// What is kept free.
    struct ReserveSpec<'n> "GpuReserve" {
        /// Share of the pool's memory, `20%`.
        share = "share": Quantity<'n>, required;
        /// Agents of this `priority` and above may use it (1 by default).
        priority = "priority": Signed<'n>;
    }

    /// How agents of its name are started, and what they need, where their AgentCluster does not say. An agent takes the template of
    /// its own namespace, else of a root namespace (`pilotfish-system`, `istio-system`).
    struct AgentTemplateSpec<'n> "AgentTemplate" {
        /// A container's image, for the Kubernetes executor.
        image = "image": Text<'n>;
        /// The program and its arguments: a list, or a text that is split as a shell splits words, without expansion.
        command = "command": CommandSpec<'n>;
        /// Further environment; the agent's own goes before it, name by name.
        env = "env": TextMap<'n>;
        /// Where the program starts, an absolute path.
        working_dir = "working_dir": Text<'n>;
        /// How its health is found out: `http:/PATH`, `grpc`, `grpc:SERVICE`, `tcp` or `exec:COMMAND`.
        probe = "probe": Text<'n>;
        /// How long it may take to become ready: 1s to 1h.
        start_timeout = "start_timeout": Time<'n>;
        /// How long it may take to end after SIGTERM: 0s to 1h.
        stop_timeout = "stop_timeout": Time<'n>;
        /// What each replica needs. Those of cards are taken together, when the agent says nothing of cards.
        resources = "resources": ResourcesSpec<'n>;
    }

    /// An agent to be near to, or away from.
    struct AffinitySpec<'n> "AgentAffinity" {
        /// `name` or `namespace/name`.
        agent = "agent": Text<'n>, required;
        /// What counts as one place (`node` by default).
        topology = "topology": One<'n, TopologyWord>;
        /// Nothing is placed otherwise. Near: only where a replica of that agent is already. False by default: a preference.
        required = "required": Bool<'n>;
    }

    /// How many replicas may be missing because somebody moves or evicts them. Failures do not ask.
    struct DisruptionSpec<'n> "DisruptionBudget" {
        /// A number, or a share of what is wanted as `25%`, rounded down but at least one (1 by default). 0: none is ever moved.
        max_unavailable = "max_unavailable": Quantity<'n>;
    }

    /// When replicas run.
    struct DeploymentTable<'n> "Deployment" {
        /// `static`: always, as many as there should be. `pre_warmed`: `warm` of them wait, further ones start when they are asked for.
        /// `just_in_time`: none runs until somebody asks.
        strategy = "strategy": One<'n, StrategyWord>, required;
        /// For `pre_warmed`: so many run and are idle, on top of those in use (1 by default).
        warm = "warm": Int<'n>;
        /// One that had no call for so long is stopped: 1s to 24h (5m by default). Not for `static`.
        idle = "idle": Time<'n>;
        /// How long a call waits for one to start: 100ms to 10m (30s by default). Not for `static`.
        wait = "wait": Time<'n>;
        /// Calls that wait at the same time in one sidecar: 1 to 10000 (100 by default). Not for `static`.
        max_waiting = "max_waiting": Int<'n>;
    }
}

words! {
    /// What a taint does.
    enum EffectWord {
        /// Nothing new.
        NoSchedule = "NoSchedule",
        /// Rather not.
        PreferNoSchedule = "PreferNoSchedule",
        /// Nothing new, and what is there moves away.
        NoExecute = "NoExecute",
    }

    /// How a toleration's value is compared.
    enum OperatorWord {
        /// It is that of the taint.
        Equal = "Equal",
        /// Any.
        Exists = "Exists",
    }

    /// How cards are shared.
    enum SharingWord {
        /// A card belongs to one replica.
        Exclusive = "exclusive",
        /// By memory.
        Fractional = "fractional",
        /// MIG instances.
        Slices = "slices",
    }

    /// What counts as one place.
    enum TopologyWord {
        /// A machine.
        Node = "node",
        /// A zone.
        Zone = "zone",
        /// A region.
        Region = "region",
    }

    /// When replicas run.
    enum StrategyWord {
        /// Always.
        Static = "static",
        /// Some wait.
        PreWarmed = "pre_warmed",
        /// When asked for.
        JustInTime = "just_in_time",
    }
}

/// A program and its arguments: a list, or one text.
#[derive(Debug, Clone)]
pub struct CommandSpec<'n> {
    /// Where it is written.
    pub node: Node<'n>,
    /// The words; of one text it has to be split into words.
    pub words: Result<List<Text<'n>>, Text<'n>>,
}

impl<'n> Raw<'n> for CommandSpec<'n> {
    const SHAPE: Shape = Shape::Either(&[Shape::Text, Shape::List(&Shape::Text)]);
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        let words = match node.kind() {
            Type::List => Ok(List::read(node, reader)?),
            _ => Err(Text::read(node, reader)?),
        };
        Some(CommandSpec { node, words })
    }
}

/// A taint: `key=value:Effect`, or spelled out.
#[derive(Debug, Clone)]
pub enum TaintSpec<'n> {
    /// One text.
    Short(Text<'n>),
    /// Spelled out.
    Long(TaintTable<'n>),
}

impl<'n> Raw<'n> for TaintSpec<'n> {
    const SHAPE: Shape = Shape::Either(&[Shape::Text, <TaintTable<'n> as Raw<'n>>::SHAPE]);
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        match node.kind() {
            Type::Map => Some(TaintSpec::Long(Raw::read(node, reader)?)),
            _ => Some(TaintSpec::Short(Raw::read(node, reader)?)),
        }
    }
}

/// A toleration: `key`, `key=value`, `key:Effect`, `key=value:Effect`, or spelled out.
#[derive(Debug, Clone)]
pub enum TolerationSpec<'n> {
    /// One text.
    Short(Text<'n>),
    /// Spelled out.
    Long(TolerationTable<'n>),
}

impl<'n> Raw<'n> for TolerationSpec<'n> {
    const SHAPE: Shape = Shape::Either(&[Shape::Text, <TolerationTable<'n> as Raw<'n>>::SHAPE]);
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        match node.kind() {
            Type::Map => Some(TolerationSpec::Long(Raw::read(node, reader)?)),
            _ => Some(TolerationSpec::Short(Raw::read(node, reader)?)),
        }
    }
}

/// When replicas run: a word, or spelled out.
#[derive(Debug, Clone)]
pub struct DeploymentSpec<'n> {
    /// Where it is written.
    pub node: Node<'n>,
    /// The word.
    pub strategy: One<'n, StrategyWord>,
    /// Its settings.
    pub settings: Option<Box<DeploymentTable<'n>>>,
}

impl<'n> Raw<'n> for DeploymentSpec<'n> {
    const SHAPE: Shape =
        Shape::Either(&[Shape::Words(StrategyWord::NAMES), <DeploymentTable<'n> as Raw<'n>>::SHAPE]);
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        if node.kind() == Type::Map {
            let settings: Box<DeploymentTable<'n>> = Raw::read(node, reader)?;
            return Some(DeploymentSpec { node, strategy: settings.strategy?, settings: Some(settings) });
        }
        let strategy: Val<'n, StrategyWord> = Raw::read(node, reader)?;
        Some(DeploymentSpec { node, strategy, settings: None })
    }
}
