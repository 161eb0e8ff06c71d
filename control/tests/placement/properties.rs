//! What holds of every world: seeds by the thousand.

use pilotfish_config::model::GpuSharing;
use pilotfish_control::placement::place::{Limits, MoveReason, Outcome};
use pilotfish_control::placement::world::{Group, Need};
use pilotfish_control::placement::{World, place};

use super::checker::check;
use super::worlds::{GIB, Ids, carry_out, limits, pool, random, settle};

const SEEDS: u64 = 600;

/// Runs on until nothing is to be done; panics if that never happens.
pub fn converge(world: &mut World, limits: &Limits, ids: &mut Ids, seed: u64) -> Outcome {
    for _ in 0..80 {
        let outcome = place(world, limits);
        check(world, &outcome);
        let on_way = world.held.iter().any(|held| held.leaving || held.stopping || !held.ready);
        if !on_way && outcome.starts.is_empty() && outcome.stops.is_empty() && outcome.moves.is_empty() {
            return outcome;
        }
        carry_out(world, &outcome, ids);
        settle(world);
    }
    panic!("seed {seed}: it never comes to rest");
}

fn of_seed(seed: u64) -> World {
    random(&mut fastrand::Rng::with_seed(seed))
}

#[test]
fn nothing_is_overcommitted_and_every_rule_holds() {
    for seed in 0..SEEDS {
        let world = of_seed(seed);
        let outcome = std::panic::catch_unwind(|| {
            let outcome = place(&world, &limits());
            check(&world, &outcome);
        });
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

#[test]
fn the_same_world_has_the_same_outcome() {
    for seed in 0..SEEDS / 4 {
        let mut world = of_seed(seed);
        let mut ids = Ids::default();
        for _ in 0..3 {
            let outcome = place(&world, &limits());
            assert_eq!(outcome, place(&world.clone(), &limits()), "seed {seed}");
            carry_out(&mut world, &outcome, &mut ids);
        }
    }
}

#[test]
fn what_is_placed_stays_where_it_is() {
    for seed in 0..SEEDS {
        let mut world = of_seed(seed);
        let first = place(&world, &limits());
        carry_out(&mut world, &first, &mut Ids::default());
        // Whatever was evicted is not at rest yet; nor is what has to be near somebody who came after it and has a lower priority.
        let near = |group: &Group| group.affinity.iter().any(|rule| rule.required);
        if !first.stops.is_empty() || (!first.unplaced.is_empty() && world.groups.iter().any(near)) {
            continue;
        }
        let second = place(&world, &limits());
        assert!(second.starts.is_empty() && second.stops.is_empty(), "seed {seed}: {second:?}");
        assert!(second.moves.is_empty(), "seed {seed}: {second:?}");
        let lacks = |outcome: &Outcome| -> Vec<_> {
            outcome
                .unplaced
                .iter()
                .map(|lack| (lack.group.clone(), lack.count, lack.reasons.clone()))
                .collect()
        };
        assert_eq!(lacks(&second), lacks(&first), "seed {seed}");
    }
}

#[test]
fn rebalancing_comes_to_rest_and_does_not_lose_whole_cards() {
    let whole = |world: &World| {
        let cards = world.nodes.iter().flat_map(|node| node.gpus.iter().map(move |card| (node, card)));
        let used = |node: &str, card: &str| {
            world.held.iter().any(|held| held.node == node && held.gpus.iter().any(|share| share.gpu == card))
        };
        cards.filter(|(node, card)| !used(&node.name, &card.id)).count()
    };
    let mut moved = 0;
    for seed in 0..SEEDS {
        let mut world = of_seed(seed);
        let mut ids = Ids::default();
        world.pools = vec![pool("shared", GpuSharing::Fractional)];
        for (group, gib) in world.groups.iter_mut().zip([7, 5, 11, 9, 4, 13]) {
            group.need = Need { gpu_memory: gib * GIB, ..group.need.clone() };
            (group.need.gpus, group.need.gpu_slice, group.pool) = (0, None, None);
        }
        converge(&mut world, &limits(), &mut ids, seed);
        // Holes: every other replica goes, and its group with it shrinks.
        let mut keep = false;
        world.held.retain(|held| {
            keep = !keep;
            let group = world.groups.iter_mut().find(|group| group.id == held.group);
            if let Some(group) = group.filter(|_| !keep) {
                group.wanted -= 1;
            }
            keep
        });
        converge(&mut world, &limits(), &mut ids, seed);
        let before = whole(&world);
        for _ in 0..60 {
            let outcome = place(&world, &Limits { moves: 2, ..limits() });
            check(&world, &outcome);
            let leaving = world.held.iter().filter(|held| held.leaving).count();
            assert!(outcome.moves.len() + leaving <= 2, "seed {seed}: a limit on moves");
            moved += outcome.moves.iter().filter(|one| one.why == MoveReason::Rebalanced).count();
            if outcome.moves.is_empty() && leaving == 0 {
                break;
            }
            carry_out(&mut world, &outcome, &mut ids);
            settle(&mut world);
        }
        settle(&mut world);
        let outcome = place(&world, &Limits { moves: 2, ..limits() });
        assert!(outcome.moves.is_empty(), "seed {seed}: it goes on and on");
        assert!(whole(&world) >= before, "seed {seed}: fewer whole cards");
    }
    assert!(moved > 20, "{moved} moves: there was something to do");
}

#[test]
fn a_higher_priority_is_never_left_out_for_a_lower_one() {
    // With nothing there yet: what a group lacks is not to be had by leaving out lower ones that were placed.
    for seed in 0..SEEDS {
        let world = of_seed(seed);
        let outcome = place(&world, &limits());
        for lack in &outcome.unplaced {
            let Some(group) = world.groups.iter().find(|group| group.id == lack.group) else { continue };
            let plain = group.affinity.is_empty() && group.anti_affinity.is_empty();
            let kept = world.groups.iter().any(|other| !other.anti_affinity.is_empty());
            if !plain || kept {
                continue;
            }
            let mut alone = world.clone();
            alone.groups.retain(|other| other.priority > group.priority || other.id == group.id);
            // The rest of what is wanted says what cards are good for: the count may differ a little, not all or none.
            let placed =
                |outcome: &Outcome| outcome.starts.iter().filter(|start| start.group == group.id).count();
            if placed(&outcome) == 0
                && world.groups.iter().all(|other| other.id == group.id || other.priority != group.priority)
            {
                assert_eq!(placed(&place(&alone, &limits())), 0, "seed {seed}: {}", group.id);
            }
        }
    }
}
