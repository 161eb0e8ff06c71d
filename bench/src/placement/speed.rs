//! How long a decision takes.

use pilotfish_config::model::{AgentAffinity, Topology};
use pilotfish_control::placement::world::{Machine, Need, World};
use pilotfish_control::placement::{Limits, place};

use super::arrive::{empty, enter, group};
use super::mix::{CARD, machine};
use crate::work::Values;

/// Times of one more replica.
const ONES: usize = 21;

/// 10,000 replicas of five agents on 1,000 nodes with four cards each, in three zones: whole cards, parts of cards, none. With
/// `apart`, two of the agents keep their replicas on different nodes.
fn world(apart: bool) -> World {
    let need = |cores: u64, gib: u64, gpus: u32, parts: u64| Need {
        cpu_milli: cores * 1000,
        memory: gib << 30,
        gpus,
        gpu_memory: CARD / 8 * parts,
        gpu_slice: None,
    };
    let nodes = (0..1000).map(|index| {
        let zone = ["a", "b", "c"][index % 3].to_owned();
        Machine { region: "eu".to_owned(), zone, ..machine(index, 96_000, 512 * 1024, 4) }
    });
    let mut world = empty(nodes.collect());
    let agents = [
        ("llm", 2000, need(4, 16, 1, 0)),
        ("pair", 500, need(8, 64, 2, 0)),
        ("half", 500, need(4, 16, 0, 4)),
        ("embed", 3000, need(2, 8, 0, 1)),
        ("front", 4000, need(1, 4, 0, 0)),
    ];
    world.groups = agents.into_iter().map(|(name, wanted, need)| group(name, wanted, need)).collect();
    for group in world.groups.iter_mut().filter(|group| apart && group.wanted == 500) {
        let agent = group.agent.clone();
        group.anti_affinity.push(AgentAffinity { agent, topology: Topology::Node, required: true });
    }
    world
}

/// Milliseconds that this thread has run: a decision waits for nothing, and others on the machine do not count.
fn cpu_ms() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 / 1e6
}

/// From nothing, then one more of each agent in turn; milliseconds.
fn time(apart: bool) -> (f64, f64, f64, usize) {
    let mut world = world(apart);
    let begun = cpu_ms();
    let outcome = place(&world, &Limits::default());
    let all = cpu_ms() - begun;
    enter(&mut world, &outcome);
    let mut ones: Vec<f64> = Vec::new();
    for number in 0..ONES {
        let agents = world.groups.len();
        world.groups[number % agents].wanted += 1;
        let begun = cpu_ms();
        let outcome = place(&world, &Limits::default());
        ones.push(cpu_ms() - begun);
        enter(&mut world, &outcome);
    }
    ones.sort_by(f64::total_cmp);
    (all, ones[ONES / 2], ones[ONES - 1], outcome.starts.len())
}

/// Both ways.
pub fn run(values: &mut Values, text: &mut String) {
    *text += "| 1,000 nodes, 4,000 cards, 5 agents | placed | from nothing ms | one more ms | slowest ms |\n|---|--:|--:|--:|--:|\n";
    for (name, prefix, apart) in
        [("as they fit", "", false), ("1,000 of them on nodes of their own", "apart_", true)]
    {
        let (all, one, slowest, placed) = time(apart);
        *text += &format!("| {name} | {placed} | {all:.1} | {one:.2} | {slowest:.2} |\n");
        for (value, figure) in
            [("all_ms", all), ("one_ms", one), ("one_max_ms", slowest), ("placed", placed as f64)]
        {
            values.insert(format!("{prefix}{value}"), figure);
        }
    }
}
