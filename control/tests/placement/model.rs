//! A sequence of events by chance: nodes come, go, are drained and silent, cards fail, agents are scaled and changed. After each
//! everything comes to rest, with every rule kept on the way.

use pilotfish_control::placement::World;
use pilotfish_control::placement::world::MachineState;

use super::properties::converge;
use super::worlds::{Ids, limits, random, random_node};

const SEEDS: u64 = 120;
const EVENTS: usize = 12;

#[test]
fn whatever_happens_it_comes_to_rest() {
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut world = random(&mut rng);
            let mut ids = Ids::default();
            for event in 0..EVENTS {
                happens(&mut rng, &mut world, event);
                let rest = converge(&mut world, &limits(), &mut ids, seed);
                at_rest(&world, &rest);
            }
        });
        assert!(run.is_ok(), "seed {seed}");
    }
}

fn happens(rng: &mut fastrand::Rng, world: &mut World, event: usize) {
    let node = rng.usize(..world.nodes.len());
    let group = rng.usize(..world.groups.len());
    match rng.u8(..10) {
        0 => world.nodes[node].state = MachineState::Lost,
        1 => world.nodes[node].state = MachineState::Draining,
        2 => world.nodes[node].state = MachineState::Cordoned,
        3 | 4 => world.nodes[node].state = MachineState::Open,
        5 => world.nodes.push(random_node(rng, 100 + event)),
        6 => {
            if let Some(card) = world.nodes[node].gpus.first_mut() {
                card.healthy = !card.healthy;
            }
        }
        7 => world.groups[group].generation = format!("{event}"),
        8 if world.nodes.len() > 1 => drop(world.nodes.remove(node)),
        _ => world.groups[group].wanted = rng.u32(..14),
    }
}

/// What is there is what is wanted, or it is said why not.
fn at_rest(world: &World, rest: &pilotfish_control::placement::Outcome) {
    for held in &world.held {
        let node = world.nodes.iter().find(|node| node.name == held.node);
        assert!(
            node.is_some_and(|node| node.state != MachineState::Lost),
            "{} is on a lost node",
            held.replica
        );
        let group = world.groups.iter().find(|group| group.id == held.group).expect("wanted");
        let stays = rest.stays.iter().any(|stay| stay.replica == held.replica);
        assert!(held.generation == group.generation || stays, "{} is old, and nobody says why", held.replica);
        let drained = node.is_some_and(|node| node.state == MachineState::Draining);
        assert!(!drained || stays, "{} is on a drained node, and nobody says why", held.replica);
    }
}
