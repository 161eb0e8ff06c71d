//! AgentCluster: our own kind. Its keys are in snake_case.

use super::{
    AffinitySpec, Bool, CommandSpec, DeploymentSpec, DisruptionSpec, Int, List, Map, Raw, Reader, Shape,
    Signed, Text, TextMap, Time, TolerationSpec, object,
};
use crate::yaml::{Node, Type};

object! {
    /// Agents: what they are able to do, and how many of them run where, as what. The control plane places them on nodes
    /// (`pilotfish node`), which start each beside a sidecar; `pilotfish placement explain` says why one has no place.
    struct AgentClusterSpec<'n> "AgentCluster" {
        /// All replicas together: is compared with what agents or regions say. Of an only agent that says none it is the
        /// number.
        replicas = "replicas": Int<'n>;
        /// Who places and watches the agents.
        orchestrator = "orchestrator": OrchestratorSpec<'n>;
        /// The agents. One that only `regions` or `resource_management` name is there too.
        agents = "agents": List<AgentSpec<'n>>;
        /// How many run where. Agents that no region names run anywhere, as many as their `replicas`.
        regions = "regions": List<RegionSpec<'n>>;
        /// How their number follows load. It is checked, and manual for now: `pilotfish scale`.
        auto_scaling = "auto_scaling": AutoScalingSpec<'n>;
        /// Resources by agent name, for what `agents[].resources` does not say.
        resource_management = "resource_management": Map<'n, ResourcesSpec<'n>>;
    }

    /// Who places and watches agents. Without it every duty is done.
    struct OrchestratorSpec<'n> "Orchestrator" {
        /// `hierarchical`.
        kind = "type": Text<'n>;
        /// From the top down. What a level lists is done and what it does not is not; a level without a list, or that is not
        /// there, does everything.
        levels = "levels": List<LevelSpec<'n>>;
    }

    /// A level of an orchestrator.
    struct LevelSpec<'n> "OrchestratorLevel" {
        /// `cluster-controller` (the control plane), `node-controller` (`pilotfish node`) or `agent-supervisor` (the sidecar).
        name = "name": Text<'n>, required;
        /// What it spans: `global`, `node`, `agent-group`.
        scope = "scope": Text<'n>;
        /// What it does. cluster-controller: `resource_allocation` (counts against nodes and pools), `agent_placement` (places what
        /// is new), `policy_enforcement` (pool permissions, priorities, budgets). node-controller: `local_scheduling` (starts and
        /// stops), `health_monitoring` (restarts sidecars, leaves failed cards), `resource_optimization` (limits of cgroups).
        /// agent-supervisor: `task_coordination` (probes, drains), `failure_recovery` (restarts with back-off),
        /// `performance_optimization` (measures CPU, memory, GPU).
        responsibilities = "responsibilities": List<Text<'n>>;
    }

    /// A kind of agent.
    struct AgentSpec<'n> "Agent" {
        /// Its name; endpoints name it by the label `pilotfish.dev/agent`.
        name = "name": Text<'n>, required;
        /// How many run, where no region says: 1 when there is a `command` or an `image`, else none. With `deployment:
        /// just_in_time` or `pre_warmed` the most that run.
        replicas = "replicas": Int<'n>;
        /// What each needs.
        resources = "resources": ResourcesSpec<'n>;
        /// What it is able to do: `name`, `name@version` or `{name, version}`.
        capabilities = "capabilities": List<CapabilitySpec<'n>>;
        /// Further labels.
        labels = "labels": TextMap<'n>;
        /// A container's image, for the Kubernetes executor.
        image = "image": Text<'n>;
        /// The program and its arguments: a list, or a text that is split as a shell splits words, without expansion. Else
        /// `pilotfish.dev/command`, else that of the AgentTemplate of its name. It has to listen on 127.0.0.1:$PORT.
        command = "command": CommandSpec<'n>;
        /// Further environment.
        env = "env": TextMap<'n>;
        /// Where the program starts, an absolute path. The node's folder for the replica by default.
        working_dir = "working_dir": Text<'n>;
        /// How its health is found out: `http:/PATH`, `grpc`, `grpc:SERVICE`, `tcp` (the default) or `exec:COMMAND`.
        probe = "probe": Text<'n>;
        /// How long it may take to become ready before it is started anew: 1s to 1h (60s by default).
        start_timeout = "start_timeout": Time<'n>;
        /// How long it may take to end after SIGTERM before it is killed: 0s to 1h (10s by default, Docker's).
        stop_timeout = "stop_timeout": Time<'n>;
        /// Higher ones get a place first, and may evict lower ones within their disruption budgets (0 by default).
        priority = "priority": Signed<'n>;
        /// The GpuPool of its cards, `name` or `namespace/name`. Any that it may use by default.
        pool = "pool": Text<'n>;
        /// Labels that its nodes have to have.
        node_selector = "node_selector": TextMap<'n>;
        /// Taints of nodes that it does not mind.
        tolerations = "tolerations": List<TolerationSpec<'n>>;
        /// Agents that it should be near.
        affinity = "affinity": List<AffinitySpec<'n>>;
        /// Agents that it should be away from; itself to spread it.
        anti_affinity = "anti_affinity": List<AffinitySpec<'n>>;
        /// All of its replicas (of a region) get a place, or none does. False by default.
        gang = "gang": Bool<'n>;
        /// How many may be missing because somebody moves or evicts them.
        disruption_budget = "disruption_budget": DisruptionSpec<'n>;
        /// When its replicas run: `static` (always; the default), `pre_warmed`, `just_in_time`, or one of them with its settings.
        deployment = "deployment": DeploymentSpec<'n>;
        /// Calls that each replica takes at a time, 1 or more; no limit by default.
        capacity = "capacity": Int<'n>;
    }

    /// A capability with a version.
    struct VersionedCapability<'n> "Capability" {
        /// Its name.
        name = "name": Text<'n>, required;
        /// Its version, `1.2.0`.
        version = "version": Quantity<'n>;
    }

    /// What an agent needs. Quantities are Kubernetes': `500m`, `0.5`, `4Gi`, `1e3`.
    struct ResourcesSpec<'n> "Resources" {
        /// Cores, `500m` or `2`.
        cpu = "cpu": Quantity<'n>;
        /// Bytes, `4Gi`.
        memory = "memory": Quantity<'n>;
        /// Whole cards.
        gpu = "gpu": Quantity<'n>;
        /// Bytes on a card: with `gpu` each of the cards has at least so many, without it a share of one card, in a pool whose
        /// sharing is `fractional`.
        gpu_memory = "gpuMemory": Quantity<'n>;
        /// A MIG instance of this profile, `1g.10gb`, in a pool whose sharing is `slices`.
        gpu_slice = "gpuSlice": Text<'n>;
    }

    /// How many agents run in a region.
    struct RegionSpec<'n> "Region" {
        /// Region, as nodes name theirs.
        name = "name": Text<'n>, required;
        /// Number by agent name. It is what counts: `replicas` of the agent that differ are not placed. A name that no agent has is
        /// taken as the one that differs by singular or plural.
        agent_distribution = "agent_distribution": Map<'n, Int<'n>>;
    }

    /// How the number of agents follows load.
    struct AutoScalingSpec<'n> "AutoScaling" {
        /// On or off.
        enabled = "enabled": Bool<'n>;
        /// Never fewer.
        min_replicas = "min_replicas": Int<'n>;
        /// Never more.
        max_replicas = "max_replicas": Int<'n>;
        /// Aim, `70%`.
        target_utilization = "target_utilization": Quantity<'n>;
        /// More above this, `80%`.
        scale_up_threshold = "scale_up_threshold": Quantity<'n>;
        /// Fewer below this, `50%`.
        scale_down_threshold = "scale_down_threshold": Quantity<'n>;
    }
}

/// A number or a text with a unit, as Kubernetes quantities are: `2`, `"2"`, `4Gi`, `70%`.
#[derive(Debug, Clone, Copy)]
pub struct Quantity<'n>(pub Text<'n>);

impl<'n> Raw<'n> for Quantity<'n> {
    const SHAPE: Shape = Shape::Either(&[Shape::Text, Shape::Number]);
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        match node.scalar() {
            Some(scalar) => Some(Quantity(Text { value: scalar.text, node })),
            None => {
                let message = format!("expected a number or a text, found {}", node.kind().article());
                reader.diagnose.error(node, message, None);
                None
            }
        }
    }
}

/// A capability: `name`, `name@version` or `{name, version}`.
#[derive(Debug, Clone)]
pub struct CapabilitySpec<'n> {
    /// Its name, with `@version` perhaps.
    pub name: Text<'n>,
    /// Its version when written apart.
    pub version: Option<Quantity<'n>>,
}

impl<'n> Raw<'n> for CapabilitySpec<'n> {
    const SHAPE: Shape = Shape::Either(&[Shape::Text, <VersionedCapability<'n> as Raw<'n>>::SHAPE]);
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        if node.kind() == Type::Map {
            let versioned = VersionedCapability::read(node, reader)?;
            return Some(CapabilitySpec { name: versioned.name?, version: versioned.version });
        }
        Some(CapabilitySpec { name: Text::read(node, reader)?, version: None })
    }
}
