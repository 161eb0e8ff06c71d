//! Replicas arrive one by one until well over what the cards can hold, and whoever finds no place is sent away: placement
//! against best-fit and first-fit.

use pilotfish_config::model::GpuSharing;
use pilotfish_control::placement::world::{Group, Held, Machine, Need, Pool, World};
use pilotfish_control::placement::{Limits, place};

use super::mix::{CARD, Mix, bytes};

/// Who places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The control plane.
    Ours,
    /// The machine on which the least is left, by the shares of processor, memory and cards.
    BestFit,
    /// The first machine.
    FirstFit,
}

impl By {
    /// All of them.
    pub const ALL: [By; 3] = [By::Ours, By::BestFit, By::FirstFit];

    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            By::Ours => "pilotfish",
            By::BestFit => "best-fit",
            By::FirstFit => "first-fit",
        }
    }
}

/// The share of the cards that is given out, for each per cent of load that has arrived.
pub struct Curve(pub Vec<f64>);

impl Curve {
    /// At a load in per cent.
    pub fn at(&self, load: usize) -> f64 {
        self.0.get(load).or(self.0.last()).copied().unwrap_or(0.0)
    }
}

/// Lets `arrivals` come.
pub fn run(mix: &Mix, arrivals: &[Need], by: By) -> Curve {
    let all = mix.capacity() as f64;
    let (mut arrived, mut given) = (0u64, 0u64);
    let mut curve = vec![0.0];
    let mut bed: Box<dyn FnMut(&Need) -> bool> = match by {
        By::Ours => {
            let mut world = empty(mix.nodes.clone());
            Box::new(move |need| ours(&mut world, need))
        }
        _ => {
            let mut rooms: Vec<Room> = mix.nodes.iter().map(Room::of).collect();
            Box::new(move |need| simple(&mut rooms, need, by))
        }
    };
    for need in arrivals {
        arrived += bytes(need);
        given += if bed(need) { bytes(need) } else { 0 };
        let load = (arrived as f64 / all * 100.0) as usize;
        while curve.len() <= load {
            curve.push(given as f64 / all);
        }
    }
    Curve(curve)
}

/// Machines, whose cards are all shared by memory.
pub fn empty(nodes: Vec<Machine>) -> World {
    let pool = Pool {
        name: "bench/all".to_owned(),
        models: Vec::new(),
        min_memory: 0,
        node_labels: Default::default(),
        regions: Vec::new(),
        sharing: GpuSharing::Fractional,
        reserved_percent: 0,
        reserve_priority: 0,
        allowed: Vec::new(),
    };
    World { nodes, pools: vec![pool], ..World::default() }
}

/// A group of alike replicas.
pub fn group(name: &str, wanted: u32, need: Need) -> Group {
    Group {
        id: format!("bench/{name}").into(),
        namespace: "bench".to_owned(),
        agent: name.to_owned(),
        cluster: "bench/all".to_owned(),
        region: None,
        wanted,
        need,
        priority: 0,
        pool: None,
        node_selector: Default::default(),
        tolerations: Vec::new(),
        affinity: Vec::new(),
        anti_affinity: Vec::new(),
        gang: false,
        disruption: Default::default(),
        runtime: Default::default(),
        labels: Default::default(),
        generation: String::new(),
    }
}

/// Makes what was decided a part of the world.
pub fn enter(world: &mut World, outcome: &pilotfish_control::placement::Outcome) {
    for start in &outcome.starts {
        let Some(group) = world.groups.iter().rev().find(|group| group.id == start.group) else { continue };
        let number = world.held.len();
        world.held.push(Held {
            replica: format!("{}/{number:010}", start.group).into(),
            group: start.group.clone(),
            generation: String::new(),
            node: start.node.clone(),
            gpus: start.gpus.clone(),
            need: group.need.clone(),
            ready: true,
            leaving: false,
            stopping: false,
        });
    }
}

fn ours(world: &mut World, need: &Need) -> bool {
    world.groups.push(group(&format!("a{:06}", world.groups.len()), 1, need.clone()));
    let outcome = place(world, &Limits::default());
    enter(world, &outcome);
    if outcome.starts.is_empty() {
        world.groups.pop();
    }
    !outcome.starts.is_empty()
}

/// What is free on a machine, of each card in bytes.
struct Room {
    cpu: u64,
    memory: u64,
    cards: Vec<u64>,
    all: (u64, u64),
}

impl Room {
    fn of(node: &Machine) -> Room {
        let cards = node.gpus.iter().map(|card| card.memory).collect();
        Room { cpu: node.cpu_milli, memory: node.memory, cards, all: (node.cpu_milli, node.memory) }
    }

    fn fits(&self, need: &Need) -> bool {
        let whole = self.cards.iter().filter(|free| **free == CARD).count();
        self.cpu >= need.cpu_milli
            && self.memory >= need.memory
            && whole >= need.gpus as usize
            && (need.gpu_memory == 0 || self.cards.iter().any(|free| *free >= need.gpu_memory))
    }

    /// Shares of what the machine has, together.
    fn left(&self) -> f64 {
        let cards = self.cards.iter().sum::<u64>() as f64 / (self.cards.len().max(1) as u64 * CARD) as f64;
        let share = |free: u64, all: u64| free as f64 / all.max(1) as f64;
        share(self.cpu, self.all.0) + share(self.memory, self.all.1) + cards
    }

    fn take(&mut self, need: &Need, by: By) {
        self.cpu -= need.cpu_milli;
        self.memory -= need.memory;
        if need.gpus > 0 {
            let whole = self.cards.iter_mut().filter(|free| **free == CARD);
            whole.take(need.gpus as usize).for_each(|free| *free = 0);
        } else if need.gpu_memory > 0 {
            let fit = self.cards.iter_mut().filter(|free| **free >= need.gpu_memory);
            let card = if by == By::BestFit { fit.min_by_key(|free| **free) } else { fit.into_iter().next() };
            card.into_iter().for_each(|free| *free -= need.gpu_memory);
        }
    }
}

fn simple(rooms: &mut [Room], need: &Need, by: By) -> bool {
    let mut fit = rooms.iter_mut().filter(|room| room.fits(need));
    let room = match by {
        By::BestFit => fit.min_by(|a, b| a.left().total_cmp(&b.left())),
        _ => fit.next(),
    };
    room.map(|room| room.take(need, by)).is_some()
}
