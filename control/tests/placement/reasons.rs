//! What is said to a person who asked for too much.

use pilotfish_config::model::{GpuSharing, TaintEffect, Topology};
use pilotfish_control::placement::place;
use pilotfish_control::placement::world::{GpuShare, MachineState, World};

use super::checker::check;
use super::worlds::*;

/// What is said of the only group that lacks a place: machines with their reasons, and the hint.
fn said(world: &World) -> (Vec<(u32, String)>, String) {
    let outcome = place(world, &limits());
    check(world, &outcome);
    let lack = outcome.unplaced.first().expect("something has no place");
    let reasons = lack.reasons.iter().map(|reason| (reason.nodes, reason.why.clone())).collect();
    (reasons, lack.hint.clone().unwrap_or_default())
}

/// Nodes g1 to g3 with four cards each, c1 without; cards `taken` of each are somebody's.
fn cluster(taken: [usize; 3]) -> World {
    let mut other = group("other", u32::try_from(taken.iter().sum::<usize>()).unwrap_or(0));
    other.need.gpus = 1;
    let mut nodes: Vec<_> = (1..=3).map(|index| node(&format!("g{index}"), 64, 256, 4)).collect();
    nodes.push(node("c1", 64, 256, 0));
    let mut world = world(nodes, vec![other.clone()]);
    for (index, taken) in taken.into_iter().enumerate() {
        for card in 0..taken {
            let mut one = held(&other, index * 10 + card, &format!("g{}", index + 1));
            one.gpus = vec![GpuShare { gpu: format!("gpu-{card}"), slice: None, memory: 80 * GIB }];
            world.held.push(one);
        }
    }
    world
}

#[test]
fn cards_that_are_in_use_are_counted() {
    let mut world = cluster([3, 2, 1]);
    let mut agent = group("agent", 1);
    agent.need.gpus = 4;
    world.groups.push(agent);
    let (reasons, hint) = said(&world);
    assert_eq!(reasons, [(3, "4 GPUs wanted, at most 3 free".to_owned()), (1, "no GPU".to_owned())]);
    assert_eq!(hint, "the nearest: node g3 has 3 of 4 GPUs of that memory free, 4 wanted");
}

#[test]
fn more_than_any_node_has() {
    let mut world = cluster([0, 0, 0]);
    world.groups[0].need.gpus = 16;
    world.groups[0].wanted = 1;
    let (reasons, hint) = said(&world);
    assert_eq!(reasons[0], (3, "16 GPUs of that memory wanted, at most 4 there".to_owned()));
    assert_eq!(hint, "more than any node has: 16 GPUs wanted, and node g1 has the most: 4");
    world.groups[0].need = need(65, 1);
    let (reasons, hint) = said(&world);
    assert_eq!(reasons, [(4, "65 CPUs wanted, the largest has 64".to_owned())]);
    assert_eq!(hint, "more than any node has: 65 CPUs wanted, the largest has 64 (node g1)");
    world.groups[0].need = need(1, 512);
    assert_eq!(said(&world).0, [(4, "512 GiB of memory wanted, the largest has 256 GiB".to_owned())]);
    (world.groups[0].need.gpus, world.groups[0].need.gpu_memory) = (1, 96 * GIB);
    world.groups[0].need.memory = GIB;
    assert_eq!(said(&world).0[0], (3, "a GPU with 96 GiB wanted, the largest has 80 GiB".to_owned()));
    world.nodes.retain(|node| node.name == "c1");
    assert_eq!(said(&world).1, "it needs a GPU, and no node that it may be on has one");
}

#[test]
fn parts_of_cards() {
    let mut world = cluster([0, 0, 0]);
    world.groups[0].wanted = 1;
    (world.groups[0].need.gpus, world.groups[0].need.gpu_memory) = (0, 8 * GIB);
    let (reasons, _) = said(&world);
    assert!(reasons[0].1.contains("GPUs that are given out whole only"), "{reasons:?}");
    world.pools = vec![pool("shared", GpuSharing::Fractional)];
    world.nodes.truncate(1);
    world.nodes[0].gpus.truncate(1);
    let mut big = world.groups[0].clone();
    (big.id, big.need.gpu_memory, big.priority) = ("p/big".into(), 77 * GIB, 1);
    world.groups.push(big);
    let (reasons, hint) = said(&world);
    assert_eq!(reasons, [(1, "8 GiB of GPU memory wanted, at most 3 GiB free on a card".to_owned())]);
    assert_eq!(hint, "the nearest: node g1 has 3 GiB free on a GPU, 8 GiB wanted");
}

#[test]
fn slices() {
    let mut world = cluster([0, 0, 0]);
    world.groups[0].wanted = 1;
    (world.groups[0].need.gpus, world.groups[0].need.gpu_slice) = (0, Some("1g.10gb".to_owned()));
    assert_eq!(said(&world).0[0], (3, "no GPU slice of profile 1g.10gb".to_owned()));
    world.pools = vec![pool("whole", GpuSharing::Exclusive)];
    assert!(said(&world).0[0].1.contains("not given out in slices"));
    world.pools = vec![pool("sliced", GpuSharing::Slices)];
    (world.groups[0].need.gpus, world.groups[0].need.gpu_slice) = (1, None);
    assert_eq!(said(&world).0[0], (3, "GPUs that are given out in slices only".to_owned()));
}

#[test]
fn pools() {
    let mut world = cluster([0, 0, 0]);
    world.groups[0].wanted = 1;
    world.groups[0].pool = Some("traning".to_owned());
    assert_eq!(said(&world).1, "there is no GpuPool traning: there is none");
    world.pools = vec![pool("training", GpuSharing::Exclusive)];
    assert_eq!(said(&world).1, "there is no GpuPool traning: there are p/training");
    world.groups[0].pool = Some("training".to_owned());
    world.pools[0].allowed = vec!["research/*".to_owned(), "q/bot".to_owned()];
    let hint = said(&world).1;
    assert_eq!(hint, "GpuPool p/training is for research/*, q/bot only: p/other is not among them");
    world.groups[0].pool = None;
    assert_eq!(said(&world).0[0], (3, "GPUs only in pools that it may not use (p/training)".to_owned()));
    world.pools[0].allowed.clear();
    world.pools[0].models = vec!["h100".to_owned()];
    world.groups[0].pool = Some("training".to_owned());
    assert_eq!(said(&world).0[0], (3, "no GPU of pool training".to_owned()));
}

#[test]
fn regions_labels_taints_and_states() {
    let mut world = cluster([0, 0, 0]);
    world.groups = vec![group("agent", 1)];
    world.groups[0].region = Some("mars".to_owned());
    let (reasons, hint) = said(&world);
    assert_eq!(reasons, [(4, "not in region mars".to_owned())]);
    assert_eq!(hint, "no node is in region mars: nodes are in eu");
    world.groups[0].region = None;
    world.groups[0].node_selector.insert("disk".to_owned(), "ssd".to_owned());
    assert_eq!(said(&world).0, [(4, "without the label disk=ssd".to_owned())]);
    world.groups[0].node_selector.clear();
    for node in &mut world.nodes[..3] {
        node.taints.push(taint("gpu", TaintEffect::NoSchedule));
    }
    world.nodes[3].state = MachineState::Cordoned;
    let (reasons, hint) = said(&world);
    assert_eq!(reasons[0].1, "with the taint gpu:NoSchedule, which it does not tolerate");
    assert_eq!(reasons[1], (1, "cordoned, or silent just now".to_owned()));
    assert!(hint.starts_with("the nearest: node g1 fails on this: with the taint"), "{hint}");
    world.nodes.clear();
    assert_eq!(said(&world), (vec![], "there are no nodes: start one with `pilotfish node`".to_owned()));
}

#[test]
fn agents_that_cannot_be_near_each_other() {
    let mut world = cluster([0, 0, 0]);
    let (mut a, mut b, mut c) = (group("a", 1), group("b", 1), group("c", 1));
    a.affinity.push(near("b", Topology::Node));
    b.affinity.push(near("p/c", Topology::Node));
    c.affinity.push(near("a", Topology::Node));
    world.groups = vec![a.clone(), b, c];
    let (reasons, hint) = said(&world);
    assert_eq!(reasons, [(4, "not near b (same node)".to_owned())]);
    assert_eq!(hint, "p/a near p/b near p/c near p/a: none can be the first; let one of them prefer it only");
    world.groups = vec![a];
    assert_eq!(said(&world).1, "it has to be near b, and no replica of b has a place");
    let mut alone = group("alone", 5);
    alone.anti_affinity.push(near("alone", Topology::Node));
    world.groups = vec![alone];
    let (reasons, _) = said(&world);
    assert_eq!(reasons, [(4, "too near alone (same node)".to_owned())]);
    let mut together = group("together", 2);
    together.affinity.push(near("together", Topology::Zone));
    world.groups = vec![together];
    assert_eq!(place(&world, &limits()).starts.len(), 2, "the first of them may be anywhere");
}

#[test]
fn gangs_and_full_nodes() {
    let mut world = cluster([2, 0, 0]);
    world.nodes.truncate(1);
    let mut gang = group("gang", 3);
    (gang.gang, gang.need.gpus) = (true, 1);
    world.groups.push(gang);
    let (_, hint) = said(&world);
    assert_eq!(hint, "a gang starts together: 2 of 3 that are missing would have a place");
    world.groups.pop();
    world.groups.push(group("agent", 200));
    assert_eq!(said(&world).0, [(1, "1 CPU wanted, at most 0 free".to_owned())]);
    world.nodes[0].most_replicas = 10;
    assert_eq!(said(&world).0, [(1, "as many replicas as the node takes".to_owned())]);
    world.nodes[0].gpus.iter_mut().for_each(|card| card.healthy = false);
    world.groups[1].need.gpus = 1;
    world.held.clear();
    assert_eq!(said(&world).0, [(1, "its GPUs failed".to_owned())]);
}
