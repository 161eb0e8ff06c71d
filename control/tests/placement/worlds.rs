//! Small worlds, and random ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotfish_config::model::{
    AgentAffinity, Disruption, GpuSharing, Taint, TaintEffect, Toleration, Topology,
};
use pilotfish_control::placement::place::{Limits, Outcome, StopReason};
use pilotfish_control::placement::world::{Card, Group, Held, Machine, MachineState, Need, Pool, World};

/// 2^30 bytes.
pub const GIB: u64 = 1 << 30;

/// A machine with cards of 80 GiB.
pub fn node(name: &str, cores: u64, memory_gib: u64, cards: usize) -> Machine {
    Machine {
        name: name.to_owned(),
        region: "eu".to_owned(),
        zone: "a".to_owned(),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        cpu_milli: cores * 1000,
        memory: memory_gib * GIB,
        gpus: (0..cards).map(|card| self::card(&format!("gpu-{card}"), 80)).collect(),
        most_replicas: 110,
        state: MachineState::Open,
    }
}

pub fn card(id: &str, gib: u64) -> Card {
    let (id, model) = (id.to_owned(), "NVIDIA A100-SXM4-80GB".to_owned());
    Card { id, model, memory: gib * GIB, healthy: true, slices: Vec::new() }
}

/// A group of the namespace `p` that needs a core and a GiB.
pub fn group(name: &str, wanted: u32) -> Group {
    Group {
        id: format!("p/{name}").into(),
        namespace: "p".to_owned(),
        agent: name.split('@').next().unwrap_or(name).to_owned(),
        cluster: "p/cluster".to_owned(),
        region: None,
        wanted,
        need: need(1, 1),
        priority: 0,
        pool: None,
        node_selector: BTreeMap::new(),
        tolerations: Vec::new(),
        affinity: Vec::new(),
        anti_affinity: Vec::new(),
        gang: false,
        disruption: Disruption::default(),
        runtime: Default::default(),
        labels: BTreeMap::new(),
        generation: "1".to_owned(),
    }
}

pub fn need(cores: u64, gib: u64) -> Need {
    Need { cpu_milli: cores * 1000, memory: gib * GIB, ..Need::default() }
}

pub fn pool(name: &str, sharing: GpuSharing) -> Pool {
    Pool {
        name: format!("p/{name}"),
        models: Vec::new(),
        min_memory: 0,
        node_labels: BTreeMap::new(),
        regions: Vec::new(),
        sharing,
        reserved_percent: 0,
        reserve_priority: 0,
        allowed: Vec::new(),
    }
}

pub fn near(agent: &str, topology: Topology) -> AgentAffinity {
    AgentAffinity { agent: agent.to_owned(), topology, required: true }
}

pub fn taint(key: &str, effect: TaintEffect) -> Taint {
    Taint { key: key.to_owned(), value: String::new(), effect }
}

pub fn world(nodes: Vec<Machine>, groups: Vec<Group>) -> World {
    World { nodes, groups, ..World::default() }
}

/// One that is there and serves.
pub fn held(group: &Group, id: usize, node: &str) -> Held {
    Held {
        replica: format!("{}/{id:010}", group.id).into(),
        group: group.id.clone(),
        generation: group.generation.clone(),
        node: node.to_owned(),
        gpus: Vec::new(),
        need: group.need.clone(),
        ready: true,
        leaving: false,
        stopping: false,
    }
}

/// Counts replicas' ids up.
#[derive(Default)]
pub struct Ids(usize);

impl Ids {
    pub fn next(&mut self, group: &str) -> Arc<str> {
        self.0 += 1;
        format!("{group}/{:010}", self.0).into()
    }
}

/// Makes it so, as an executor would: what is new does not serve yet, what ends is still ending.
pub fn carry_out(world: &mut World, outcome: &Outcome, ids: &mut Ids) {
    for stop in &outcome.stops {
        if stop.why == StopReason::NodeLost {
            world.held.retain(|held| held.replica != stop.replica);
        }
        for held in world.held.iter_mut().filter(|held| held.replica == stop.replica) {
            held.stopping = true;
        }
    }
    for moved in &outcome.moves {
        for held in world.held.iter_mut().filter(|held| held.replica == moved.replica) {
            held.leaving = true;
        }
    }
    for start in outcome.starts.iter().chain(outcome.moves.iter().map(|moved| &moved.to)) {
        let Some(group) = world.groups.iter().find(|group| group.id == start.group) else { continue };
        let mut new = held(group, 0, &start.node);
        new.replica = ids.next(&start.group);
        new.gpus = start.gpus.clone();
        new.ready = false;
        world.held.push(new);
    }
}

/// Time passes: what starts serves, what ends is gone, and what was replaced ends.
pub fn settle(world: &mut World) {
    world.held.retain(|held| !held.stopping);
    world.held.iter_mut().for_each(|held| held.ready = true);
    for held in world.held.iter_mut().filter(|held| held.leaving) {
        held.stopping = true;
    }
}

pub fn limits() -> Limits {
    Limits::default()
}

/// A world by chance: machines of some kinds, pools of each kind of sharing, groups with all kinds of wishes.
pub fn random(rng: &mut fastrand::Rng) -> World {
    let nodes = (0..rng.usize(1..12)).map(|index| random_node(rng, index)).collect();
    let pools = (0..rng.usize(0..4)).map(|index| random_pool(rng, index)).collect();
    let mut world = World { nodes, pools, ..World::default() };
    let count = rng.usize(1..7);
    world.groups = (0..count).map(|index| random_group(rng, index, count)).collect();
    world
}

pub fn random_node(rng: &mut fastrand::Rng, index: usize) -> Machine {
    let mut node = node(&format!("n{index}"), rng.u64(2..32), rng.u64(4..64), 0);
    node.region = ["eu", "us"][rng.usize(..2)].to_owned();
    node.zone = ["a", "b", "c"][rng.usize(..3)].to_owned();
    node.most_replicas = rng.u32(3..20);
    let sliced = rng.u8(..5) == 0;
    for number in 0..rng.usize(..5) {
        let mut card = card(&format!("gpu-{number}"), [16, 40, 80][rng.usize(..3)]);
        card.model = ["NVIDIA T4", "NVIDIA A100", "NVIDIA H100"][rng.usize(..3)].to_owned();
        card.healthy = rng.u8(..12) > 0;
        if sliced {
            let slice = |slice: u64| (format!("mig-{number}-{slice}"), "1g.10gb".to_owned(), 10 * GIB);
            card.slices = (0..rng.u64(1..7)).map(slice).collect();
        }
        node.gpus.push(card);
    }
    if rng.u8(..4) == 0 {
        node.labels.insert("disk".to_owned(), "ssd".to_owned());
    }
    if rng.u8(..6) == 0 {
        let effects = [TaintEffect::NoSchedule, TaintEffect::PreferNoSchedule, TaintEffect::NoExecute];
        node.taints.push(taint("dedicated", effects[rng.usize(..3)]));
    }
    if rng.u8(..8) == 0 {
        node.state = [MachineState::Cordoned, MachineState::Draining, MachineState::Lost][rng.usize(..3)];
    }
    node
}

fn random_pool(rng: &mut fastrand::Rng, index: usize) -> Pool {
    let ways = [GpuSharing::Exclusive, GpuSharing::Fractional, GpuSharing::Fractional, GpuSharing::Slices];
    let mut pool = pool(&format!("pool-{index}"), ways[rng.usize(..4)]);
    if rng.bool() {
        pool.models = vec![["t4", "a100", "h100"][rng.usize(..3)].to_owned()];
    }
    if rng.u8(..3) == 0 {
        pool.allowed = vec![["p/g0", "p", "other", "p/*"][rng.usize(..4)].to_owned()];
    }
    if rng.u8(..3) == 0 {
        (pool.reserved_percent, pool.reserve_priority) = (rng.u8(..60), 5);
    }
    if rng.u8(..5) == 0 {
        pool.min_memory = 40 * GIB;
    }
    pool
}

fn random_group(rng: &mut fastrand::Rng, index: usize, all: usize) -> Group {
    let mut group = group(&format!("g{index}"), rng.u32(..10));
    group.need.cpu_milli = rng.u64(1..6000);
    group.need.memory = rng.u64(1..8 * GIB);
    match rng.u8(..5) {
        0 => group.need.gpus = rng.u32(1..4),
        1 => (group.need.gpus, group.need.gpu_memory) = (1, 40 * GIB),
        2 => group.need.gpu_memory = rng.u64(1..40 * GIB),
        3 if rng.bool() => group.need.gpu_slice = Some("1g.10gb".to_owned()),
        _ => {}
    }
    group.priority = rng.i32(0..3) * 5;
    group.gang = rng.u8(..5) == 0;
    group.disruption = match rng.u8(..4) {
        0 => Disruption::Count(0),
        1 => Disruption::Count(2),
        2 => Disruption::Percent(rng.u8(..=100)),
        _ => Disruption::default(),
    };
    group.region = [None, None, Some("eu".to_owned())][rng.usize(..3)].clone();
    if rng.u8(..5) == 0 {
        group.node_selector.insert("disk".to_owned(), "ssd".to_owned());
    }
    if rng.u8(..3) == 0 {
        let key = Some("dedicated".to_owned());
        group.tolerations.push(Toleration { key, value: None, effect: None });
    }
    let topology = [Topology::Node, Topology::Zone, Topology::Region][rng.usize(..3)];
    let other = format!("g{}", rng.usize(..all));
    match rng.u8(..6) {
        0 => group.anti_affinity.push(near(&other, topology)),
        1 => group.affinity.push(near(&other, topology)),
        2 => group.affinity.push(AgentAffinity { required: false, ..near(&other, topology) }),
        _ => {}
    }
    if rng.u8(..6) == 0 {
        group.pool = Some(format!("pool-{}", rng.usize(..4)));
    }
    group
}
