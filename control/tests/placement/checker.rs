//! What must hold of every decision, looked at one replica at a time and without any of placement's own books.

use std::collections::{BTreeMap, BTreeSet};

use pilotfish_config::model::{AgentAffinity, Disruption, GpuSharing, TaintEffect, Topology};
use pilotfish_control::placement::place::{Outcome, Start, StopReason};
use pilotfish_control::placement::world::{Card, GpuShare, Group, Machine, MachineState, Need, Pool, World};

/// One replica with a place.
struct Here<'a> {
    group: Option<&'a Group>,
    node: &'a Machine,
    need: &'a Need,
    gpus: &'a [GpuShare],
    new: bool,
}

/// Panics if anything is wrong.
pub fn check(world: &World, outcome: &Outcome) {
    let here = after(world, outcome);
    nothing_is_given_twice(world, &here);
    for one in here.iter().filter(|one| one.new) {
        may_be_there(world, one);
    }
    new_ones_keep_apart_and_together(&here, outcome);
    reserves(world, &here);
    gangs(world, outcome);
    budgets(world, outcome);
    counts(world, outcome);
    evictions(world, outcome);
    moves_have_reasons(world, outcome);
}

fn node<'a>(world: &'a World, name: &str) -> Option<&'a Machine> {
    world.nodes.iter().find(|node| node.name == name && node.state != MachineState::Lost)
}

fn group<'a>(world: &'a World, id: &str) -> Option<&'a Group> {
    world.groups.iter().find(|group| &*group.id == id)
}

fn new(outcome: &Outcome) -> impl Iterator<Item = &Start> {
    outcome.starts.iter().chain(outcome.moves.iter().map(|moved| &moved.to))
}

/// Everything that has a place at the same time: what ends has not ended yet.
fn after<'a>(world: &'a World, outcome: &'a Outcome) -> Vec<Here<'a>> {
    let old = world.held.iter().filter_map(|held| {
        let node = node(world, &held.node)?;
        Some(Here { group: group(world, &held.group), node, need: &held.need, gpus: &held.gpus, new: false })
    });
    let new = new(outcome).map(|start| {
        let group = group(world, &start.group).expect("a group that is wanted");
        let node = node(world, &start.node).expect("a node that is there");
        Here { group: Some(group), node, need: &group.need, gpus: &start.gpus, new: true }
    });
    old.chain(new).collect()
}

fn nothing_is_given_twice(world: &World, here: &[Here<'_>]) {
    for node in &world.nodes {
        let there: Vec<&Here<'_>> = here.iter().filter(|one| one.node.name == node.name).collect();
        if !there.iter().any(|one| one.new) {
            continue;
        }
        assert!(
            there.iter().map(|one| one.need.cpu_milli).sum::<u64>() <= node.cpu_milli,
            "{}: cpu",
            node.name
        );
        assert!(there.iter().map(|one| one.need.memory).sum::<u64>() <= node.memory, "{}: memory", node.name);
        assert!(there.len() <= node.most_replicas as usize, "{}: replicas", node.name);
        for card in &node.gpus {
            card_is_not_given_twice(card, &there);
        }
    }
}

fn card_is_not_given_twice(card: &Card, there: &[&Here<'_>]) {
    let mut users = 0;
    let mut whole = 0;
    let mut bytes = 0;
    let mut slices = BTreeSet::new();
    for one in there {
        for share in one.gpus.iter().filter(|share| share.gpu == card.id) {
            users += 1;
            bytes += share.memory;
            whole += usize::from(one.need.gpus > 0);
            if let Some(slice) = &share.slice {
                assert!(slices.insert(slice.clone()), "slice {slice} twice");
                assert!(card.slices.iter().any(|known| known.0 == *slice), "no slice {slice}");
            }
        }
    }
    let all: u64 = if card.slices.is_empty() { card.memory } else { card.slices.iter().map(|s| s.2).sum() };
    assert!(bytes <= all, "card {}: {bytes} of {all} bytes", card.id);
    assert!(whole == 0 || users == 1, "card {} is somebody's alone, and {users} have it", card.id);
}

fn pool_of<'a>(world: &'a World, node: &Machine, card: &Card) -> Option<&'a Pool> {
    world.pools.iter().find(|pool| {
        let model = card.model.to_lowercase();
        (pool.models.is_empty() || pool.models.iter().any(|word| model.contains(&word.to_lowercase())))
            && card.memory >= pool.min_memory
            && pool.node_labels.iter().all(|(key, value)| node.labels.get(key) == Some(value))
            && (pool.regions.is_empty() || pool.regions.contains(&node.region))
    })
}

fn may_be_there(world: &World, one: &Here<'_>) {
    let (group, node) = (one.group.expect("new ones have a group"), one.node);
    assert_eq!(node.state, MachineState::Open, "{} takes nothing", node.name);
    assert!(group.region.as_ref().is_none_or(|region| *region == node.region), "region");
    assert!(group.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value)), "labels");
    for taint in node.taints.iter().filter(|taint| taint.effect != TaintEffect::PreferNoSchedule) {
        let tolerated = group.tolerations.iter().any(|t| {
            t.key.as_ref().is_none_or(|key| *key == taint.key)
                && t.value.as_ref().is_none_or(|value| *value == taint.value)
                && t.effect.is_none_or(|effect| effect == taint.effect)
        });
        assert!(tolerated, "{} has a taint", node.name);
    }
    let need = one.need;
    let cards = if need.gpus > 0 { need.gpus as usize } else { usize::from(need.gpu()) };
    assert_eq!(one.gpus.len(), cards, "so many cards");
    let ids: BTreeSet<&str> = one.gpus.iter().map(|share| share.gpu.as_str()).collect();
    assert_eq!(ids.len(), cards, "different cards");
    for share in one.gpus {
        let card = node.gpus.iter().find(|card| card.id == share.gpu).expect("a card of the node");
        assert!(card.healthy, "a failed card");
        card_is_right(world, group, need, node, card, share);
    }
}

fn card_is_right(world: &World, group: &Group, need: &Need, node: &Machine, card: &Card, share: &GpuShare) {
    let pool = pool_of(world, node, card);
    let sharing = pool.map_or(GpuSharing::Exclusive, |pool| pool.sharing);
    if let Some(pool) = pool {
        let allowed = pool.allowed.iter().any(|entry| {
            let own = [
                "*".to_owned(),
                group.namespace.clone(),
                format!("{}/*", group.namespace),
                format!("{}/{}", group.namespace, group.agent),
            ];
            own.contains(entry)
        });
        assert!(pool.allowed.is_empty() || allowed, "{} may not use {}", group.id, pool.name);
    }
    if let Some(name) = &group.pool {
        assert_eq!(pool.map(|pool| pool.name.clone()), Some(format!("p/{name}")), "the pool that it names");
    }
    if need.gpus > 0 {
        assert!(card.slices.is_empty() && sharing != GpuSharing::Slices, "a whole card");
        assert!(card.memory >= need.gpu_memory && share.memory == card.memory && share.slice.is_none());
    } else if let Some(profile) = &need.gpu_slice {
        assert!(pool.is_none() || sharing == GpuSharing::Slices, "a pool of slices");
        let slice = card.slices.iter().find(|slice| Some(&slice.0) == share.slice.as_ref());
        assert_eq!(slice.map(|slice| &slice.1), Some(profile));
    } else {
        assert!(sharing == GpuSharing::Fractional && card.slices.is_empty(), "a card that is shared");
        assert_eq!(share.memory, need.gpu_memory);
    }
}

fn same(topology: Topology, one: &Machine, other: &Machine) -> bool {
    match topology {
        Topology::Node => one.name == other.name,
        Topology::Zone => one.region == other.region && one.zone == other.zone,
        Topology::Region => one.region == other.region,
    }
}

fn is_about(rule: &AgentAffinity, of: &Group, other: &Group) -> bool {
    rule.agent == other.agent && of.namespace == other.namespace
        || rule.agent == format!("{}/{}", other.namespace, other.agent)
}

fn new_ones_keep_apart_and_together(here: &[Here<'_>], outcome: &Outcome) {
    // What is moved or ends may be what kept others away or near: then only a later world tells.
    let restless = !outcome.stops.is_empty() || !outcome.moves.is_empty();
    for (index, one) in here.iter().enumerate().filter(|one| one.1.new) {
        let group = one.group.expect("new ones have a group");
        let others = || here.iter().enumerate().filter(|other| other.0 != index).map(|other| other.1);
        for other in others() {
            let Some(theirs) = other.group else { continue };
            let apart =
                group.anti_affinity.iter().filter(|rule| rule.required && is_about(rule, group, theirs));
            let kept =
                theirs.anti_affinity.iter().filter(|rule| rule.required && is_about(rule, theirs, group));
            for rule in apart.chain(kept) {
                assert!(!same(rule.topology, one.node, other.node), "{} beside {}", group.id, theirs.id);
            }
        }
        for rule in group.affinity.iter().filter(|rule| rule.required && !restless) {
            let about = |other: &&Here<'_>| other.group.is_some_and(|theirs| is_about(rule, group, theirs));
            let near = others().filter(about).any(|other| same(rule.topology, one.node, other.node));
            let own = is_about(rule, group, group);
            let alone = !others().any(|other| other.group.is_some_and(|theirs| theirs.id == group.id));
            assert!(near || (own && alone), "{} is not near {}", group.id, rule.agent);
        }
    }
}

/// Lower priorities leave the reserve of a pool alone. (Groups that wait for others come out of turn: not looked at with them.)
fn reserves(world: &World, here: &[Here<'_>]) {
    if world.groups.iter().any(|group| group.affinity.iter().any(|rule| rule.required)) {
        return;
    }
    for pool in world.pools.iter().filter(|pool| pool.reserved_percent > 0) {
        let is_of =
            |node: &Machine, card: &Card| pool_of(world, node, card).is_some_and(|its| its.name == pool.name);
        let bytes = |card: &Card| match card.slices.is_empty() {
            true => card.memory,
            false => card.slices.iter().map(|slice| slice.2).sum(),
        };
        let nodes = world.nodes.iter().filter(|node| node.state != MachineState::Lost);
        let cards = nodes.flat_map(|node| node.gpus.iter().filter(|card| card.healthy && is_of(node, card)));
        let total: u64 = cards.map(bytes).sum();
        let share = |one: &Here<'_>| {
            let of =
                |share: &&GpuShare| one.node.gpus.iter().any(|c| c.id == share.gpu && is_of(one.node, c));
            one.gpus.iter().filter(of).map(|share| share.memory).sum::<u64>()
        };
        let used: u64 = here.iter().map(share).sum();
        let low = |one: &&Here<'_>| one.group.is_some_and(|group| group.priority < pool.reserve_priority);
        let low = here.iter().filter(|one| one.new).filter(low).any(|one| share(one) > 0);
        let most = total - total * u64::from(pool.reserved_percent) / 100;
        assert!(!low || used <= most, "{}: {used} of {total} bytes, with a reserve", pool.name);
    }
}

/// Replicas of a group that are there to stay, before anything happens.
fn active(world: &World, group: &Group) -> usize {
    let stays = |held: &&pilotfish_control::placement::world::Held| {
        held.group == group.id && !held.leaving && !held.stopping && node(world, &held.node).is_some()
    };
    world.held.iter().filter(stays).count()
}

fn gangs(world: &World, outcome: &Outcome) {
    for group in world.groups.iter().filter(|group| group.gang) {
        let started = outcome.starts.iter().filter(|start| start.group == group.id).count();
        let stopped = outcome.stops.iter().filter(|stop| {
            let of = |held: &&pilotfish_control::placement::world::Held| held.replica == stop.replica;
            world.held.iter().find(of).is_some_and(|held| held.group == group.id && !held.leaving)
                && stop.why != StopReason::NodeLost
        });
        let wanted = group.wanted as usize;
        let stays = active(world, group) - stopped.count();
        assert!(started == 0 || started + stays == wanted, "a part of gang {}", group.id);
    }
}

pub fn budget(group: &Group) -> usize {
    match group.disruption {
        Disruption::Count(count) => count as usize,
        Disruption::Percent(0) => 0,
        Disruption::Percent(percent) => (group.wanted as usize * usize::from(percent) / 100).max(1),
    }
}

/// Those that serve: never fewer than the budget says, unless there were fewer before.
fn budgets(world: &World, outcome: &Outcome) {
    for group in &world.groups {
        let serving = world.held.iter().filter(|held| {
            held.group == group.id && held.ready && !held.stopping && node(world, &held.node).is_some()
        });
        let serving: Vec<_> = serving.collect();
        let least = (group.wanted as usize).saturating_sub(budget(group)).min(serving.len());
        let disturbed = outcome.stops.iter().filter(|stop| {
            matches!(stop.why, StopReason::Evicted { .. } | StopReason::MakesRoom { .. })
                && serving.iter().any(|held| held.replica == stop.replica)
        });
        let disturbed = disturbed.count();
        assert!(disturbed == 0 || serving.len() - disturbed >= least, "{}: disruption budget", group.id);
    }
}

/// Nothing is decided twice, and no group gets more than it wants.
fn counts(world: &World, outcome: &Outcome) {
    let mut ends = BTreeSet::new();
    for replica in
        outcome.stops.iter().map(|stop| &stop.replica).chain(outcome.moves.iter().map(|moved| &moved.replica))
    {
        assert!(ends.insert(replica.clone()), "{replica} is decided twice");
        assert!(world.held.iter().any(|held| held.replica == *replica), "{replica} is not there");
    }
    let mut lacking: BTreeMap<&str, u32> = BTreeMap::new();
    for unplaced in &outcome.unplaced {
        assert!(lacking.insert(&unplaced.group, unplaced.count).is_none(), "explained twice");
        assert!(unplaced.count > 0);
        assert!(
            unplaced.reasons.iter().map(|reason| reason.nodes).sum::<u32>() as usize == world.nodes.len()
        );
    }
    for group in &world.groups {
        let ended = world.held.iter().filter(|held| {
            held.group == group.id
                && !held.leaving
                && !held.stopping
                && node(world, &held.node).is_some()
                && outcome.stops.iter().any(|stop| stop.replica == held.replica)
        });
        let stays = active(world, group) - ended.count();
        let started = outcome.starts.iter().filter(|start| start.group == group.id).count();
        let lacks = lacking.get(&*group.id).copied().unwrap_or(0) as usize;
        assert_eq!(stays + started + lacks, group.wanted as usize, "{}: the numbers add up", group.id);
    }
}

/// Only lower priorities go, and only for somebody who lacks a place.
fn evictions(world: &World, outcome: &Outcome) {
    for stop in &outcome.stops {
        let StopReason::Evicted { by } = &stop.why else { continue };
        let held = world.held.iter().find(|held| held.replica == stop.replica).expect("there");
        let (theirs, ours) = (group(world, &held.group).expect("wanted"), group(world, by).expect("wanted"));
        assert!(theirs.priority < ours.priority, "{} evicts {}", ours.id, theirs.id);
        assert!(outcome.unplaced.iter().any(|lack| lack.group == *by), "{by} waits for the place");
    }
}

/// Nothing moves that could stay.
fn moves_have_reasons(world: &World, outcome: &Outcome) {
    for moved in &outcome.moves {
        let held = world.held.iter().find(|held| held.replica == moved.replica).expect("there");
        let (node, group) =
            (node(world, &held.node).expect("there"), group(world, &held.group).expect("wanted"));
        let card = |share: &GpuShare| node.gpus.iter().find(|card| card.id == share.gpu);
        let failed = held.gpus.iter().any(|share| card(share).is_none_or(|card| !card.healthy));
        let drained = node.state == MachineState::Draining
            || node.taints.iter().any(|taint| taint.effect == TaintEffect::NoExecute);
        let rebalanced = moved.why == pilotfish_control::placement::place::MoveReason::Rebalanced;
        assert!(
            failed || drained || rebalanced || held.generation != group.generation,
            "{} moves",
            held.replica
        );
    }
}
