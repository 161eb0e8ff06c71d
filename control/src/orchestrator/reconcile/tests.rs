//! Moves, failures and demand, with time that is given.

use std::slice;

use pilotfish_config::model::OnDemand;
use pilotfish_config::wire::Status;
use pilotfish_config::wire::node::{Inventory, ReplicaState};

use super::*;
use crate::fleet::ReplicaPresence;
use crate::orchestrator::records::{Loaded, NodeRecord};
use crate::placement::demand::Demand;
use crate::placement::place::{Limits, Move, MoveReason, place};
use crate::placement::world::Group;

fn wanted(name: &str, count: u32, deployment: Deployment) -> Wanted {
    let group = Group {
        id: format!("default/{name}").into(),
        namespace: "default".into(),
        agent: name.into(),
        cluster: "default/work".into(),
        region: None,
        wanted: count,
        need: crate::placement::world::Need { cpu_milli: 1000, memory: 1 << 30, ..Default::default() },
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
        generation: "one".into(),
    };
    Wanted { group, deployment, capacity: 1, waiting: None, without: Vec::new() }
}

/// A board of so many equal nodes with this demand.
fn board(nodes: usize, groups: Vec<Wanted>) -> Board {
    let inventory = Inventory { cpu_milli: 4000, memory: 8 << 30, most_replicas: 10, ..Inventory::default() };
    let node =
        |number| (format!("n{number}"), NodeRecord { inventory: inventory.clone(), ..NodeRecord::default() });
    let loaded = Loaded { nodes: (0..nodes).map(node).collect(), ..Loaded::default() };
    let mut board = Board::new(7, loaded);
    board.want(1, Demand { groups, ..Demand::default() });
    board
}

fn decide(board: &mut Board, now: Instant) -> Vec<String> {
    let outcome = place(&board.world(Vec::new(), now), &Limits::default());
    board.apply(outcome, now, 0)
}

fn replicas(board: &Board) -> Vec<(String, Arc<str>)> {
    board.assigned().map(|(node, _, assigned)| (node.to_owned(), assigned.replica.clone())).collect()
}

fn ids(board: &Board) -> Vec<Arc<str>> {
    replicas(board).into_iter().map(|(_, id)| id).collect()
}

fn presence(replica: &str, in_flight: u32, idle_ms: u64) -> ReplicaPresence {
    ReplicaPresence {
        replica: replica.into(),
        agent: replica.rsplit_once('/').unwrap().0.into(),
        status: Status::Ready,
        detail: None,
        in_flight,
        idle_ms: Some(idle_ms),
        usage: None,
        heard_ms: 0,
    }
}

fn phase(board: &mut Board, node: &str, replica: &str, phase: ReplicaPhase) {
    let state = ReplicaState {
        id: replica.into(),
        generation: "one".into(),
        phase,
        reason: Some("because".into()),
        restarts: 0,
        sidecar_restarts: 0,
        pid: None,
        since_ms: 0,
        usage: None,
    };
    board.states(node, vec![state]);
}

/// Orders the move of the only replica.
fn begin_move(board: &mut Board, now: Instant) -> (Arc<str>, Arc<str>) {
    decide(board, now);
    let (from, old) = replicas(board).remove(0);
    board.observe(vec![presence(&old, 0, 0)], now);
    let to = board.nodes.keys().find(|name| **name != from).unwrap().clone();
    let to = Start { group: "default/a".into(), node: to, gpus: Vec::new() };
    let step = Move { replica: old.clone(), to, why: MoveReason::Drained };
    board.apply(Outcome { moves: vec![step], ..Outcome::default() }, now, 0);
    let new =
        replicas(board).into_iter().map(|(_, replica)| replica).find(|replica| *replica != old).unwrap();
    (old, new)
}

#[test]
fn a_move_makes_before_it_breaks() {
    let mut now = Instant::now();
    let mut board = board(2, vec![wanted("a", 1, Deployment::Static)]);
    let (old, new) = begin_move(&mut board, now);
    board.settle(now);
    assert_eq!(replicas(&board).len(), 2, "the new one is not ready");
    // What is leaving is not replaced again.
    decide(&mut board, now);
    assert_eq!(replicas(&board).len(), 2);
    board.observe(vec![presence(&old, 0, 0), presence(&new, 0, 0)], now);
    let next = board.settle(now).unwrap();
    assert_eq!(replicas(&board).len(), 2, "it is ready only just now");
    now = next;
    board.settle(now);
    assert_eq!(ids(&board), slice::from_ref(&new));
    decide(&mut board, now);
    assert_eq!(replicas(&board).len(), 1);
}

#[test]
fn a_move_whose_new_replica_does_not_come_up_is_given_up_and_tried_later() {
    let now = Instant::now();
    let mut board = board(2, vec![wanted("a", 1, Deployment::Static)]);
    let (old, new) = begin_move(&mut board, now);
    board.settle(now);
    let to = board.places()[&new].clone();
    phase(&mut board, &to, &new, ReplicaPhase::CrashLoop);
    board.settle(now);
    assert_eq!(ids(&board), slice::from_ref(&old));
    assert!(board.stuck.held_back(&old, now).unwrap().contains("did not come up: because"));
    let step = |to: &str| {
        let to = Start { group: "default/a".into(), node: to.into(), gpus: Vec::new() };
        Outcome {
            moves: vec![Move { replica: old.clone(), to, why: MoveReason::Drained }],
            ..Outcome::default()
        }
    };
    assert!(board.apply(step(&to), now, 0).is_empty(), "not at once");
    assert!(board.stays[&old].contains("did not come up"));
    let later = board.stuck.next(now).unwrap();
    assert_eq!(board.apply(step(&to), later, 0).len(), 1);
    // The second does not report anything at all.
    board.settle(later);
    let new = board.assigned().find(|(.., a)| a.replaces.is_some()).map(|(.., a)| a.replica.clone()).unwrap();
    board.settle(later + START + LATE);
    assert!(!replicas(&board).iter().any(|(_, id)| *id == new));
    assert!(board.stuck.held_back(&old, later + START + LATE).unwrap().contains("not ready within 60 s"));
}

#[test]
fn a_replica_that_cannot_be_started_tries_other_nodes_and_stays_when_there_is_none() {
    let mut now = Instant::now();
    let mut board = board(2, vec![wanted("a", 1, Deployment::Static), wanted("b", 1, Deployment::Static)]);
    decide(&mut board, now);
    let of = |board: &Board, name: &str| {
        replicas(board).into_iter().find(|(_, id)| id.contains(name)).unwrap_or_else(|| panic!("no {name}"))
    };
    let mut been = Vec::new();
    for _ in 0..2 {
        let (node, replica) = of(&board, "/a/");
        been.push(node.clone());
        phase(&mut board, &node, &replica, ReplicaPhase::Failed);
        board.settle(now);
        now += Duration::from_secs(16);
        board.settle(now);
        decide(&mut board, now);
    }
    been.sort();
    assert_eq!(been, ["n0", "n1"]);
    let (node, replica) = of(&board, "/a/");
    assert!(
        board.nodes[&node].states.contains_key(&*replica),
        "there is no third node: it stays where it is"
    );
    // The other group is not kept from either.
    let (first, _) = of(&board, "/b/");
    board.stop(&first, &of(&board, "/b/").1.clone());
    decide(&mut board, now);
    of(&board, "/b/");
}

#[test]
fn agents_on_demand_come_when_asked_for_and_go_when_idle() {
    let mut now = Instant::now();
    let mut board = board(1, vec![wanted("a", 3, Deployment::JustInTime(OnDemand::default()))]);
    let waits = |calls| vec![("default/a".to_owned(), calls)];
    board.follow_demand(&[], true, now);
    decide(&mut board, now);
    assert!(replicas(&board).is_empty());
    board.follow_demand(&waits(2), true, now);
    decide(&mut board, now);
    assert_eq!(replicas(&board).len(), 2, "each takes one call");
    let ids = ids(&board);
    board.observe(vec![presence(&ids[0], 1, 0), presence(&ids[1], 0, 10)], now);
    board.follow_demand(&[], true, now);
    decide(&mut board, now);
    assert_eq!(replicas(&board).len(), 2);
    now += Duration::from_secs(301);
    board.observe(vec![presence(&ids[0], 1, 0), presence(&ids[1], 0, 301_000)], now);
    board.follow_demand(&[], true, now);
    decide(&mut board, now);
    assert_eq!(self::ids(&board), slice::from_ref(&ids[0]));
}

#[test]
fn what_a_lost_node_had_is_placed_elsewhere_and_given_to_nobody_else_there() {
    let now = Instant::now();
    let mut board = board(2, vec![wanted("a", 2, Deployment::Static)]);
    decide(&mut board, now);
    let before = replicas(&board);
    let later = now + Duration::from_secs(60);
    for node in board.nodes.values_mut() {
        node.life = Life::Here;
    }
    let lost = before[0].0.clone();
    board.nodes.get_mut(&lost).unwrap().life = Life::Lost;
    decide(&mut board, later);
    assert!(replicas(&board).iter().all(|(node, _)| *node != lost), "{:?}", replicas(&board));
    assert_eq!(replicas(&board).len(), 2);
    // Until it says that they are gone, they take their place there.
    board.nodes.get_mut(&lost).unwrap().life = Life::Here;
    let world = board.world(Vec::new(), later);
    let stopping = world.held.iter().filter(|held| held.stopping && held.node == lost).count();
    assert_eq!(stopping, before.iter().filter(|(node, _)| *node == lost).count());
    let ids: Vec<Arc<str>> =
        before.iter().filter(|(node, _)| *node == lost).map(|(_, id)| id.clone()).collect();
    ids.iter().for_each(|id| phase(&mut board, &lost, id, ReplicaPhase::Gone));
    assert!(board.world(Vec::new(), later).held.iter().all(|held| !held.stopping));
}
