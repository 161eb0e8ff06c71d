//! Small instances, all at once: what placement gives out against the most that can be, which an exact solver finds
//! (`bench/exact.py`, OR-Tools' CP-SAT from PyPI).

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use pilotfish_control::placement::world::{Need, World};
use pilotfish_control::placement::{Limits, place};
use serde_json::{Value, json};

use super::arrive::{empty, group};
use super::mix::{CARD, Mix, bytes, machine};

/// Loads that are tried, in shares of the cards.
const LOADS: [f64; 3] = [0.9, 1.1, 1.4];

/// One instance.
pub struct Small {
    world: World,
    replicas: Vec<Need>,
    /// What arrives, as a share of the cards.
    pub load: f64,
}

/// Compared with the best.
pub struct Compared {
    /// What arrives, as a share of the cards.
    pub load: f64,
    /// Bytes that placement gave out.
    pub ours: u64,
    /// Bytes that the solver reached.
    pub reached: f64,
    /// Bytes that it proved nobody can exceed.
    pub bound: f64,
}

/// Instances of four to eight machines of the shape of `mix`.
pub fn instances(mix: &Mix, count: u64) -> Vec<Small> {
    (0..count).map(|seed| instance(mix, seed)).collect()
}

fn instance(mix: &Mix, seed: u64) -> Small {
    let mut rng = fastrand::Rng::with_seed(seed);
    let load = LOADS[(seed % 3) as usize];
    let mut nodes = Vec::new();
    for index in 0..rng.usize(4..=8) {
        let like = &mix.nodes[rng.usize(..mix.nodes.len())];
        nodes.push(machine(index, like.cpu_milli, like.memory / super::mix::MIB, like.gpus.len()));
    }
    let small = mix.on(nodes);
    let replicas = small.arrivals(load, &mut rng);
    let mut world = empty(small.nodes);
    for need in &replicas {
        world.groups.push(group(&format!("a{:04}", world.groups.len()), 1, need.clone()));
    }
    Small { world, replicas, load }
}

impl Small {
    /// Bytes that placement gives out.
    pub fn ours(&self) -> u64 {
        let outcome = place(&self.world, &Limits::default());
        outcome.starts.iter().flat_map(|start| &start.gpus).map(|share| share.memory).sum()
    }

    fn json(&self) -> Value {
        let nodes =
            self.world.nodes.iter().map(
                |node| json!({ "cpu": node.cpu_milli, "memory": node.memory, "cards": node.gpus.len() }),
            );
        // The solver maximizes GPU memory: what needs none would be left out anyway.
        let replicas = self.replicas.iter().filter(|need| bytes(need) > 0).map(|need| {
            json!({ "cpu": need.cpu_milli, "memory": need.memory, "cards": need.gpus, "share": need.gpu_memory })
        });
        json!({ "card": CARD, "nodes": nodes.collect::<Vec<_>>(), "replicas": replicas.collect::<Vec<_>>() })
    }
}

/// Asks the solver about all of them.
///
/// # Errors
/// There is no Python with OR-Tools, or it says something else.
pub fn compare(instances: &[Small], python: &Path, script: &Path, secs: f64) -> io::Result<Vec<Compared>> {
    let mut solver = Command::new(python)
        .arg(script)
        .arg(secs.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e} (make bench-deps)", python.display())))?;
    let text: String = instances.iter().map(|one| one.json().to_string() + "\n").collect();
    let (stdin, stdout) = (solver.stdin.take(), solver.stdout.take());
    stdin.ok_or_else(|| io::Error::other("no pipe"))?.write_all(text.as_bytes())?;
    let mut said = String::new();
    stdout.ok_or_else(|| io::Error::other("no pipe"))?.read_to_string(&mut said)?;
    solver.wait()?;
    if said.lines().count() != instances.len() {
        return Err(io::Error::other("the solver did not answer (make bench-deps installs OR-Tools)"));
    }
    let each = instances.iter().zip(said.lines()).map(|(one, line)| {
        let answer: Value = serde_json::from_str(line)?;
        let number = |key: &str| answer[key].as_f64().unwrap_or(0.0);
        Ok(Compared { load: one.load, ours: one.ours(), reached: number("reached"), bound: number("bound") })
    });
    each.collect()
}

/// Per cent: ours of what the solver reached, the worst instance of that, ours of the bound.
pub fn shares<'a>(found: impl Iterator<Item = &'a Compared>) -> (f64, f64, f64) {
    let (mut ours, mut reached, mut bound, mut worst) = (0.0, 0.0, 0.0, 100.0_f64);
    for one in found.filter(|one| one.reached > 0.0) {
        ours += one.ours as f64;
        reached += one.reached;
        bound += one.bound;
        worst = worst.min(one.ours as f64 / one.reached * 100.0);
    }
    (ours / reached * 100.0, worst, ours / bound * 100.0)
}
