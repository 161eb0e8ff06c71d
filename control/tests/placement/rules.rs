//! Each rule by itself.

use pilotfish_config::model::{AgentAffinity, Disruption, GpuSharing, TaintEffect, Toleration, Topology};
use pilotfish_control::placement::place::{Limits, MoveReason, StopReason};
use pilotfish_control::placement::world::{GpuShare, MachineState, Traffic, World};
use pilotfish_control::placement::{Outcome, place};

use super::checker::check;
use super::worlds::*;

fn decided(world: &World) -> Outcome {
    let outcome = place(world, &limits());
    check(world, &outcome);
    outcome
}

/// Replicas started on each node, by its name.
fn on(outcome: &Outcome, node: &str) -> usize {
    outcome.starts.iter().filter(|start| start.node == node).count()
}

fn share(card: usize, gib: u64) -> GpuShare {
    GpuShare { gpu: format!("gpu-{card}"), slice: None, memory: gib * GIB }
}

#[test]
fn parts_of_cards_leave_whole_cards_free() {
    let mut parts = group("parts", 8);
    parts.need.gpu_memory = 10 * GIB;
    let mut world = world(vec![node("n1", 64, 256, 4)], vec![parts]);
    world.pools = vec![pool("shared", GpuSharing::Fractional)];
    let outcome = decided(&world);
    let first = &outcome.starts[0].gpus[0].gpu;
    assert_eq!(outcome.starts.len(), 8);
    assert!(outcome.starts.iter().all(|start| start.gpus[0].gpu == *first), "{outcome:?}");
}

#[test]
fn a_small_card_is_taken_before_a_large_one() {
    let mut one = group("one", 1);
    (one.need.gpus, one.need.gpu_memory) = (1, 16 * GIB);
    let mut large = group("large", 0);
    (large.need.gpus, large.need.gpu_memory) = (1, 80 * GIB);
    let mut machine = node("n1", 64, 256, 2);
    machine.gpus[1] = card("gpu-1", 24);
    let outcome = decided(&world(vec![machine], vec![one, large]));
    assert_eq!(outcome.starts[0].gpus[0].gpu, "gpu-1");
}

#[test]
fn replicas_spread_over_nodes_and_zones() {
    let mut nodes: Vec<_> = (0..6).map(|index| node(&format!("n{index}"), 64, 256, 0)).collect();
    for (index, node) in nodes.iter_mut().enumerate() {
        node.zone = ["a", "a", "a", "a", "b", "b"][index].to_owned();
    }
    let outcome = decided(&world(nodes, vec![group("agent", 4)]));
    assert!((0..6).all(|index| on(&outcome, &format!("n{index}")) <= 1), "{outcome:?}");
    assert_eq!(on(&outcome, "n4") + on(&outcome, "n5"), 2, "half in each zone");
}

#[test]
fn agents_come_to_where_their_callers_are() {
    let (mut near, mut far) = (node("near", 8, 32, 0), node("far", 8, 32, 0));
    (near.region, far.region) = ("us".to_owned(), "eu".to_owned());
    let (caller, called) = (group("caller", 2), group("called", 1));
    let mut world = world(vec![far, near], vec![caller.clone(), called]);
    world.held = vec![held(&caller, 1, "near"), held(&caller, 2, "near")];
    world.traffic = vec![Traffic { from: "p/caller".to_owned(), to: "p/called".to_owned(), rate: 50.0 }];
    assert_eq!(on(&decided(&world), "near"), 1);
    world.traffic.clear();
    world.nodes[1].cpu_milli = 4000;
    assert_eq!(on(&decided(&world), "far"), 1, "without traffic the emptier one");
}

#[test]
fn preferred_affinity_and_taints_are_followed_where_that_is_possible() {
    let mut nodes = vec![node("n1", 8, 32, 0), node("n2", 8, 32, 0)];
    nodes[0].taints.push(taint("old", TaintEffect::PreferNoSchedule));
    let (store, mut agent) = (group("store", 1), group("agent", 1));
    let mut one = world(nodes, vec![store.clone(), agent.clone()]);
    one.held = vec![held(&store, 1, "n1")];
    assert_eq!(on(&decided(&one), "n2"), 1, "rather not on n1");
    one.nodes[0].taints.clear();
    agent.affinity.push(AgentAffinity { required: false, ..near("store", Topology::Node) });
    one.groups[1] = agent;
    assert_eq!(on(&decided(&one), "n1"), 1, "rather beside the store");
}

#[test]
fn replicas_with_cards_spread_too() {
    let mut agent = group("agent", 4);
    agent.need.gpus = 1;
    let nodes: Vec<_> = (0..4).map(|index| node(&format!("n{index}"), 64, 256, 4)).collect();
    let outcome = decided(&world(nodes, vec![agent]));
    assert!((0..4).all(|index| on(&outcome, &format!("n{index}")) == 1), "{outcome:?}");
}

#[test]
fn a_card_outside_a_reserve_is_found_beside_one_inside() {
    let mut agent = group("agent", 1);
    agent.need.gpu_memory = 10 * GIB;
    let mut machine = node("n1", 64, 256, 2);
    machine.gpus[0] = card("gpu-0", 16);
    machine.gpus[0].model = "NVIDIA T4".to_owned();
    let mut world = world(vec![machine], vec![agent]);
    world.pools = vec![pool("kept", GpuSharing::Fractional), pool("open", GpuSharing::Fractional)];
    (world.pools[0].models, world.pools[0].reserved_percent) = (vec!["t4".to_owned()], 100);
    world.pools[0].reserve_priority = 10;
    assert_eq!(decided(&world).starts[0].gpus[0].gpu, "gpu-1");
}

#[test]
fn a_gang_starts_together_or_not_at_all() {
    let mut gang = group("gang", 3);
    (gang.gang, gang.need.gpus) = (true, 1);
    let mut small = group("small", 1);
    small.need.gpus = 1;
    small.priority = -1;
    let mut world = world(vec![node("n1", 64, 256, 2)], vec![gang, small]);
    let outcome = decided(&world);
    assert_eq!(outcome.starts.len(), 1, "what the gang gave back is there for others");
    assert_eq!(&*outcome.starts[0].group, "p/small");
    assert_eq!(outcome.unplaced[0].count, 3);
    world.nodes.push(node("n2", 64, 256, 2));
    assert_eq!(decided(&world).starts.len(), 4);
}

#[test]
fn a_higher_priority_takes_the_fewest_and_the_lowest_within_their_budgets() {
    let (mut low, mut middle, mut high) = (group("low", 2), group("middle", 1), group("high", 1));
    (low.priority, middle.priority, high.priority) = (0, 5, 10);
    for one in [&mut low, &mut middle, &mut high] {
        one.need = need(2, 1);
    }
    let mut world = world(vec![node("n1", 6, 32, 0)], vec![low.clone(), middle.clone(), high]);
    world.held = vec![held(&middle, 3, "n1"), held(&low, 1, "n1"), held(&low, 2, "n1")];
    let outcome = decided(&world);
    assert_eq!(outcome.stops.len(), 1);
    assert_eq!(outcome.stops[0].why, StopReason::Evicted { by: "p/high".into() });
    assert!(outcome.stops[0].replica.starts_with("p/low/"));
    assert!(outcome.starts.is_empty(), "nothing is given twice: it starts when the other is gone");
    // The one that ends is waited for; nobody else has to go.
    let mut ids = Ids::default();
    carry_out(&mut world, &outcome, &mut ids);
    let waiting = decided(&world);
    assert!(waiting.stops.is_empty() && waiting.starts.is_empty(), "{waiting:?}");
    settle(&mut world);
    let last = decided(&world);
    assert_eq!((last.starts.len(), &*last.starts[0].group), (1, "p/high"));
    // Nobody may be missing: nobody goes.
    world.held = vec![held(&middle, 3, "n1"), held(&low, 1, "n1"), held(&low, 2, "n1")];
    for group in &mut world.groups {
        group.disruption = Disruption::Count(0);
    }
    let outcome = decided(&world);
    assert!(outcome.stops.is_empty());
    let hint = outcome.unplaced[0].hint.clone().unwrap_or_default();
    assert!(hint.starts_with("p/low has a lower priority, but"), "{hint}");
    // Those that do not serve are not missed.
    world.held[1].ready = false;
    let outcome = decided(&world);
    assert_eq!(outcome.stops.len(), 1);
    assert_eq!(outcome.stops[0].replica, world.held[1].replica);
    let limits = Limits { preempt: false, ..limits() };
    assert!(place(&world, &limits).stops.is_empty(), "nobody is evicted when that is off");
}

#[test]
fn what_is_too_much_ends_where_it_is_missed_least() {
    let mut parts = group("parts", 3);
    parts.need.gpu_memory = 10 * GIB;
    let mut world = world(vec![node("n1", 64, 256, 2), node("n2", 64, 256, 2)], vec![parts.clone()]);
    world.pools = vec![pool("shared", GpuSharing::Fractional)];
    let place_at = |id: usize, node: &str, card: usize| {
        let mut one = held(&parts, id, node);
        one.gpus = vec![share(card, 10)];
        one
    };
    world.held = vec![place_at(1, "n1", 0), place_at(2, "n1", 0), place_at(3, "n1", 1), place_at(4, "n2", 0)];
    let outcome = decided(&world);
    assert_eq!(outcome.stops.len(), 1);
    assert_eq!(&*outcome.stops[0].replica, "p/parts/0000000003", "it leaves a card free, on the fuller node");
    world.held[1].ready = false;
    assert_eq!(&*decided(&world).stops[0].replica, "p/parts/0000000002", "it does not serve");
    world.groups[0].wanted = 0;
    assert_eq!(decided(&world).stops.len(), 4);
    world.groups.clear();
    let outcome = decided(&world);
    assert!(outcome.stops.len() == 4 && outcome.stops.iter().all(|stop| stop.why == StopReason::NotWanted));
}

#[test]
fn a_drained_node_is_left_within_the_budget_and_the_new_ones_start_first() {
    let agent = group("agent", 3);
    let mut world = world(vec![node("n1", 8, 32, 0), node("n2", 8, 32, 0)], vec![agent.clone()]);
    world.held = (1..=3).map(|id| held(&agent, id, "n1")).collect();
    world.nodes[0].state = MachineState::Draining;
    let outcome = decided(&world);
    assert_eq!((outcome.moves.len(), outcome.stops.len(), outcome.stays.len()), (1, 0, 2));
    assert_eq!((outcome.moves[0].why, &*outcome.moves[0].to.node), (MoveReason::Drained, "n2"));
    assert!(outcome.stays[0].because.contains("its turn comes later"), "{:?}", outcome.stays);
    world.groups[0].disruption = Disruption::Percent(100);
    assert_eq!(decided(&world).moves.len(), 3);
    // No room elsewhere: within the budget they end, the others stay.
    world.nodes.pop();
    world.groups[0].disruption = Disruption::Count(1);
    let outcome = decided(&world);
    assert_eq!((outcome.moves.len(), outcome.stops.len(), outcome.stays.len()), (0, 1, 2));
    assert_eq!(outcome.stops[0].why, StopReason::MakesRoom { why: MoveReason::Drained });
    assert!(outcome.stays[0].because.contains("disruption budget"), "{:?}", outcome.stays);
}

#[test]
fn a_taint_that_executes_moves_only_those_that_do_not_tolerate_it() {
    let (agent, mut tough) = (group("agent", 1), group("tough", 1));
    tough.tolerations.push(Toleration { key: Some("hot".to_owned()), value: None, effect: None });
    let mut world =
        world(vec![node("n1", 8, 32, 0), node("n2", 8, 32, 0)], vec![agent.clone(), tough.clone()]);
    world.held = vec![held(&agent, 1, "n1"), held(&tough, 2, "n1")];
    assert!(decided(&world).moves.is_empty());
    world.nodes[0].taints.push(taint("hot", TaintEffect::NoExecute));
    let outcome = decided(&world);
    assert_eq!(outcome.moves.len(), 1);
    assert_eq!(outcome.moves[0].replica, world.held[0].replica);
}

#[test]
fn a_failed_card_is_left_for_another_even_on_the_same_node() {
    let mut agent = group("agent", 1);
    agent.need.gpus = 1;
    let mut world = world(vec![node("n1", 8, 32, 2)], vec![agent.clone()]);
    let mut one = held(&agent, 1, "n1");
    one.gpus = vec![share(0, 80)];
    world.held = vec![one];
    assert!(decided(&world).moves.is_empty());
    world.nodes[0].gpus[0].healthy = false;
    let outcome = decided(&world);
    assert_eq!((outcome.moves[0].why, &*outcome.moves[0].to.gpus[0].gpu), (MoveReason::GpuFailed, "gpu-1"));
    world.nodes[0].gpus.remove(0);
    assert_eq!(decided(&world).moves.len(), 1, "a card that is gone has failed");
}

#[test]
fn a_changed_agent_starts_anew_where_it_is_first_if_there_is_room() {
    let mut agent = group("agent", 2);
    agent.need = need(4, 4);
    let mut world = world(vec![node("n1", 16, 32, 0), node("n2", 64, 256, 0)], vec![agent.clone()]);
    world.held = vec![held(&agent, 1, "n1"), held(&agent, 2, "n1")];
    world.groups[0].generation = "2".to_owned();
    let outcome = decided(&world);
    assert_eq!((outcome.moves.len(), &*outcome.moves[0].to.node), (1, "n1"));
    // There is none anywhere: one after the other ends first.
    world.nodes.pop();
    world.nodes[0].cpu_milli = 8000;
    let outcome = decided(&world);
    assert_eq!((outcome.moves.len(), outcome.stops.len(), outcome.stays.len()), (0, 1, 1));
    assert_eq!(outcome.stops[0].why, StopReason::MakesRoom { why: MoveReason::Changed });
    // It is larger now than its own place: it stays.
    world.groups[0].need = need(12, 4);
    let outcome = decided(&world);
    assert!(outcome.stops.is_empty() && outcome.stays[0].because.contains("room nowhere"), "{outcome:?}");
}

#[test]
fn what_was_on_a_lost_node_is_placed_elsewhere() {
    let agent = group("agent", 2);
    let mut world = world(vec![node("n1", 8, 32, 0), node("n2", 8, 32, 0)], vec![agent.clone()]);
    world.held = vec![held(&agent, 1, "n1"), held(&agent, 2, "n2")];
    world.nodes[0].state = MachineState::Lost;
    let outcome = decided(&world);
    assert_eq!((outcome.stops.len(), &outcome.stops[0].why), (1, &StopReason::NodeLost));
    assert_eq!(on(&outcome, "n2"), 1);
    world.nodes[0].state = MachineState::Cordoned;
    assert_eq!(decided(&world), Outcome::default(), "silent for a while is not lost");
    world.nodes.remove(0);
    assert_eq!(decided(&world).stops.len(), 1, "nor is a node there that nobody knows");
}

#[test]
fn a_pools_reserve_is_for_high_priorities() {
    let (mut low, mut high) = (group("low", 4), group("high", 1));
    (low.need.gpus, high.need.gpus, high.priority) = (1, 1, 10);
    let mut world = world(vec![node("n1", 64, 256, 4)], vec![low.clone()]);
    world.pools = vec![pool("mine", GpuSharing::Exclusive)];
    (world.pools[0].reserved_percent, world.pools[0].reserve_priority) = (25, 10);
    let outcome = decided(&world);
    assert_eq!((outcome.starts.len(), outcome.unplaced[0].count), (3, 1));
    assert!(outcome.unplaced[0].reasons[0].why.contains("the reserve of pool p/mine"), "{outcome:?}");
    world.groups.push(high);
    assert_eq!(decided(&world).starts.len(), 3, "of which one is the high one");
}

#[test]
fn slices_are_given_out_one_by_one() {
    let mut agent = group("agent", 3);
    agent.need.gpu_slice = Some("1g.10gb".to_owned());
    let mut world = world(vec![node("n1", 64, 256, 1)], vec![agent]);
    let slice = |number: u64, profile: &str| (format!("mig-{number}"), profile.to_owned(), 10 * GIB);
    world.nodes[0].gpus[0].slices = vec![slice(0, "1g.10gb"), slice(1, "2g.20gb"), slice(2, "1g.10gb")];
    let outcome = decided(&world);
    let ids: Vec<_> = outcome.starts.iter().filter_map(|start| start.gpus[0].slice.as_deref()).collect();
    assert_eq!(ids, ["mig-0", "mig-2"]);
    assert!(outcome.unplaced[0].reasons[0].why.contains("in use"), "{outcome:?}");
}

#[test]
fn rebalancing_empties_a_card_and_never_moves_back() {
    let (mut a, mut b) = (group("a", 1), group("b", 1));
    (a.need.gpu_memory, b.need.gpu_memory) = (10 * GIB, 20 * GIB);
    let mut world = world(vec![node("n1", 64, 256, 2)], vec![a.clone(), b.clone()]);
    world.pools = vec![pool("shared", GpuSharing::Fractional)];
    let (mut one, mut other) = (held(&a, 1, "n1"), held(&b, 2, "n1"));
    (one.gpus, other.gpus) = (vec![share(0, 10)], vec![share(1, 20)]);
    world.held = vec![one, other];
    assert!(decided(&world).moves.is_empty(), "not unless asked");
    let limits = Limits { moves: 1, ..limits() };
    let outcome = place(&world, &limits);
    check(&world, &outcome);
    assert_eq!(outcome.moves.len(), 1);
    assert_eq!((outcome.moves[0].why, &*outcome.moves[0].to.gpus[0].gpu), (MoveReason::Rebalanced, "gpu-1"));
    let mut ids = Ids::default();
    carry_out(&mut world, &outcome, &mut ids);
    assert!(place(&world, &limits).moves.is_empty(), "one is on its way");
    settle(&mut world);
    settle(&mut world);
    assert_eq!(place(&world, &limits), Outcome::default());
}

#[test]
fn nothing_new_is_placed_while_the_duty_is_off() {
    let agent = group("agent", 1);
    let mut world = world(vec![node("n1", 8, 32, 0)], vec![agent.clone()]);
    let limits = Limits { place: false, ..limits() };
    let outcome = place(&world, &limits);
    assert!(outcome.starts.is_empty());
    assert!(outcome.unplaced[0].hint.as_deref().is_some_and(|hint| hint.contains("agent_placement")));
    world.held = vec![held(&agent, 1, "n1"), held(&agent, 2, "n1")];
    assert_eq!(place(&world, &limits).stops.len(), 1, "what is too much ends all the same");
}
