//! AgentClusters as people bring them, from documents to places: the numbers are those of the documents, nothing is given twice,
//! and what does not fit is named with its reason.

use std::collections::BTreeMap;

use pilotfish_config::{Options, load_texts};
use pilotfish_control::placement::demand::{Demand, demand};
use pilotfish_control::placement::place::{Limits, Outcome, place};
use pilotfish_control::placement::world::{Card, Held, Machine, MachineState, World};

const WORLDWIDE: &str = include_str!("../../config/tests/placement/support-worldwide.yaml");
const HIERARCHY: &str = include_str!("../../config/tests/placement/support-hierarchy.yaml");
const TWELVE: &str = include_str!("../../config/tests/placement/twelve-regions.yaml");
const GIB: u64 = 1 << 30;

fn wanted(text: &str) -> Demand {
    let loaded = load_texts(&[("agents.yaml", text)], &Options::default());
    demand(&loaded.model.unwrap_or_else(|| panic!("{}", loaded.report)), &|_| None)
}

fn machines(region: &str, count: usize, cores: u64, memory_gib: u64, cards: usize) -> Vec<Machine> {
    let machine = |number: usize| Machine {
        name: format!("{region}-{number}"),
        region: region.into(),
        zone: format!("{region}-{}", number % 3),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        cpu_milli: cores * 1000,
        memory: memory_gib * GIB,
        gpus: (0..cards)
            .map(|card| Card {
                id: format!("gpu-{card}"),
                model: "NVIDIA A100-SXM4-80GB".into(),
                memory: 80 * GIB,
                healthy: true,
                slices: Vec::new(),
            })
            .collect(),
        most_replicas: 250,
        state: MachineState::Open,
    };
    (0..count).map(machine).collect()
}

fn world(demand: Demand, nodes: Vec<Machine>) -> World {
    let groups = demand.groups.into_iter().map(|wanted| wanted.group).collect();
    World { nodes, pools: demand.pools, groups, ..World::default() }
}

/// What a machine has given out: cores, memory, replicas, and by card: bytes, and replicas that have it whole.
#[derive(Default)]
struct Given<'a> {
    cpu: u64,
    memory: u64,
    replicas: u32,
    cards: BTreeMap<&'a str, (u64, u32, Vec<&'a str>)>,
}

/// Adds up what starts. Panics where more is given than is there.
fn add_up(world: &World, outcome: &Outcome) -> BTreeMap<String, u32> {
    let nodes: BTreeMap<&str, &Machine> = world.nodes.iter().map(|node| (&*node.name, node)).collect();
    let mut given: BTreeMap<&str, Given<'_>> = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for start in &outcome.starts {
        let group = world.groups.iter().find(|group| group.id == start.group).unwrap();
        let node = nodes[&*start.node];
        assert_eq!(node.state, MachineState::Open, "{}", node.name);
        assert!(
            group.region.as_ref().is_none_or(|region| *region == node.region),
            "{} on {}",
            group.id,
            node.name
        );
        let given = given.entry(&node.name).or_default();
        given.cpu += group.need.cpu_milli;
        given.memory += group.need.memory;
        given.replicas += 1;
        assert_eq!(start.gpus.is_empty(), !group.need.gpu(), "{}", group.id);
        for share in &start.gpus {
            let card = given.cards.entry(&share.gpu).or_default();
            card.0 += share.memory;
            card.1 += u32::from(group.need.gpus > 0);
            card.2.extend(share.slice.as_deref());
        }
        *counts.entry(group.id.to_string()).or_default() += 1;
    }
    for (name, given) in given {
        let node = nodes[name];
        assert!(given.cpu <= node.cpu_milli && given.memory <= node.memory, "{name}");
        assert!(given.replicas <= node.most_replicas, "{name}");
        for (id, (bytes, whole, mut slices)) in given.cards {
            let card = node.gpus.iter().find(|card| card.id == id).unwrap();
            assert!(bytes <= card.memory && whole <= 1, "{name}/{id}: {bytes}, {whole}");
            let all = slices.len();
            slices.sort_unstable();
            slices.dedup();
            assert_eq!(slices.len(), all, "{name}/{id}: a slice twice");
        }
    }
    counts
}

fn numbers(world: &World) -> BTreeMap<String, u32> {
    let wanted = world.groups.iter().filter(|group| group.wanted > 0);
    wanted.map(|group| (group.id.to_string(), group.wanted)).collect()
}

/// As if it had been carried out.
fn hold(world: &mut World, outcome: &Outcome) {
    for (number, start) in outcome.starts.iter().enumerate() {
        let group = world.groups.iter().find(|group| group.id == start.group).unwrap();
        world.held.push(Held {
            replica: format!("{}/{}/{number:010}", group.namespace, group.agent).into(),
            group: group.id.clone(),
            generation: group.generation.clone(),
            node: start.node.clone(),
            gpus: start.gpus.clone(),
            need: group.need.clone(),
            ready: true,
            leaving: false,
            stopping: false,
        });
    }
}

#[test]
fn the_regions_of_a_worldwide_cluster_get_what_they_say() {
    let demand = wanted(WORLDWIDE);
    assert!(demand.notes[0].contains("10000 replicas, but the regions add up to 8005"), "{:?}", demand.notes);
    // 3,000 of 1 core and 2 GiB, 150 of 2 and 4, 50 of half a core and 1: 3,325 cores and 6,650 GiB for the largest region.
    let fleet = ["us-east", "eu-central", "ap-southeast"].map(|region| machines(region, 56, 64, 256, 0));
    let mut world = world(demand, fleet.concat());
    let outcome = place(&world, &Limits::default());
    let counts = add_up(&world, &outcome);
    assert!(outcome.unplaced.is_empty(), "{:?}", outcome.unplaced);
    assert_eq!(counts, numbers(&world));
    assert_eq!(counts.values().sum::<u32>(), 8005);
    assert_eq!(counts["default/conversation_agent@us-east"], 3000);
    assert_eq!(counts["default/escalation_agent@ap-southeast"], 35);

    // What is placed stays.
    hold(&mut world, &outcome);
    let again = place(&world, &Limits::default());
    assert_eq!((again.starts.len(), again.stops.len(), again.moves.len()), (0, 0, 0));

    // A region without machines: its part waits, the others do not mind.
    world.held.clear();
    world.nodes.retain(|node| node.region != "eu-central");
    let outcome = place(&world, &Limits::default());
    assert_eq!(add_up(&world, &outcome).values().sum::<u32>(), 8005 - 2670);
    let missing: u32 = outcome.unplaced.iter().map(|unplaced| unplaced.count).sum();
    assert_eq!(missing, 2670);
    assert!(outcome.unplaced.iter().all(|unplaced| unplaced.group.ends_with("@eu-central")));
    assert!(outcome.unplaced.iter().all(|unplaced| !unplaced.reasons.is_empty() || unplaced.hint.is_some()));
}

#[test]
fn a_hierarchy_is_short_of_two_cards_on_48() {
    // 6 machines of 8 cards.
    let world_of_six = world(wanted(HIERARCHY), machines("eu", 6, 64, 512, 8));
    let outcome = place(&world_of_six, &Limits::default());
    let counts = add_up(&world_of_six, &outcome);
    assert_eq!(counts["production/conversation-agent"], 48);
    assert_eq!(counts["production/escalation-agent"], 10);
    assert_eq!(outcome.unplaced.len(), 1);
    let unplaced = &outcome.unplaced[0];
    assert_eq!((&*unplaced.group, unplaced.count), ("production/conversation-agent", 2));
    assert_eq!(unplaced.reasons[0].nodes, 6);
    assert!(unplaced.reasons[0].why.contains("GPU"), "{:?}", unplaced.reasons);

    let world_of_seven = world(wanted(HIERARCHY), machines("eu", 7, 64, 512, 8));
    let outcome = place(&world_of_seven, &Limits::default());
    assert!(outcome.unplaced.is_empty(), "{:?}", outcome.unplaced);
    assert_eq!(add_up(&world_of_seven, &outcome).values().sum::<u32>(), 60);
}

#[test]
fn twelve_regions_with_10_000_agents_fit_on_their_fleet() {
    let demand = wanted(TWELVE);
    let nodes = demand.machines.clone();
    assert_eq!(nodes.len(), 1000);
    assert_eq!(nodes.iter().map(|node| node.gpus.len()).sum::<usize>(), 4000);
    let mut world = world(demand, nodes);
    let outcome = place(&world, &Limits::default());
    let counts = add_up(&world, &outcome);
    assert!(outcome.unplaced.is_empty(), "{:?}", outcome.unplaced);
    assert_eq!(counts, numbers(&world));
    assert_eq!(counts.values().sum::<u32>(), 10_000);
    hold(&mut world, &outcome);

    // A machine is lost: as many come back as it had, in its region, and nothing else moves.
    let lost = "us-east-whole-1";
    let gone = world.held.iter().filter(|held| held.node == lost).count();
    assert!(gone > 0, "nothing was on {lost}");
    world.nodes.iter_mut().find(|node| node.name == lost).unwrap().state = MachineState::Lost;
    let outcome = place(&world, &Limits::default());
    assert_eq!(outcome.stops.len(), gone);
    assert_eq!((outcome.starts.len(), outcome.moves.len()), (gone, 0), "{:?}", outcome.unplaced);
    assert!(outcome.starts.iter().all(|start| start.node.starts_with("us-east-") && start.node != lost));
}
