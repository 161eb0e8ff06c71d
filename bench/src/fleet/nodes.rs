//! The control plane under a fleet of nodes: `pilotfish serve` as a process on core 0, 1,000 simulated nodes with four
//! cards each in this process on core 1.
//!
//! 10,000 replicas of five agents are applied: from the start of `pilotfish apply` to the moment at which the nodes together were told of
//! all of them. Then they say that all of them run, and live: what their leases cost.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use pilotfish_config::wire::Versions;
use pilotfish_config::wire::node::{
    FromNode, GpuState, Inventory, NodeBeat, NodeHello, ReplicaPhase, ReplicaSet, ReplicaState,
    ReplicaStates, ToNode,
};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::control::Control;
use super::link::{Identity, Link};
use super::on_core;
use crate::process::Place;
use crate::work::Values;

/// Nodes, and cards of each.
const NODES: usize = 1_000;
const CARDS: usize = 4;
/// Agents: name, replicas, cores, GiB, cards.
const AGENTS: [(&str, usize, &str, u32, u32); 5] = [
    ("conversation", 5_000, "1", 2, 0),
    ("knowledge", 2_500, "2", 4, 0),
    ("vision", 1_500, "4", 16, 1),
    ("planner", 500, "8", 32, 2),
    ("escalation", 500, "500m", 1, 0),
];
/// How long leases are measured.
const LEASES: Duration = Duration::from_secs(15);
/// Joins at a time: fewer than a stranger may have connections without a certificate.
const AT_A_TIME: usize = 32;

/// Runs all of it once.
///
/// # Errors
/// The control plane does not start, refuses, or does not answer in time.
pub fn run(
    binary: &Path,
    dir: &Path,
    port: u16,
    place: Place,
    (core, quick): (usize, bool),
) -> io::Result<Values> {
    let control = Control::start(binary, dir, port, place)?;
    on_core(core, &control, measure(&control, if quick { 10 } else { 1 }))
}

/// What the nodes were told, together.
#[derive(Debug, Default)]
struct Told {
    replicas: AtomicUsize,
    beats: AtomicU64,
    ended: AtomicU64,
    more: Notify,
}

async fn measure(control: &Control, share: usize) -> io::Result<Values> {
    let mut values = Values::new();
    let told = Arc::new(Told::default());
    let (mut opening, mut living) = (JoinSet::new(), JoinSet::new());
    let (mut next, count) = (0, NODES / share);
    let started = Instant::now();
    while next < count || !opening.is_empty() {
        if next < count && opening.len() < AT_A_TIME {
            let (token, told) = (control.node_token(&name(next)).await?, told.clone());
            let (address, number) = (control.address, next);
            opening.spawn(async move {
                let identity = Identity::join(address, &token, "", &name(number)).await?;
                Node::open(&identity, number, told).await
            });
            next += 1;
            continue;
        }
        if let Some(node) = opening.join_next().await {
            let node: Node = node.map_err(io::Error::other)??;
            living.spawn(node.live());
        }
    }
    values.insert("connect_s".into(), started.elapsed().as_secs_f64());
    sleep(Duration::from_secs(2)).await;

    let wanted: usize = AGENTS.iter().map(|(_, replicas, ..)| replicas / share).sum();
    let (cpu, start) = (control.cpu_ns(), Instant::now());
    control.apply_at_once(&documents(share)).await?;
    values.insert("apply_s".into(), start.elapsed().as_secs_f64());
    let all = async {
        while told.replicas.load(Relaxed) < wanted {
            told.more.notified().await;
        }
    };
    timeout(Duration::from_secs(60), all).await.map_err(|_| {
        io::Error::other(format!("after a minute {} of {wanted} are ordered", told.replicas.load(Relaxed)))
    })?;
    values.insert("ordered_s".into(), start.elapsed().as_secs_f64());
    values.insert("ordered_cpu_s".into(), (control.cpu_ns() - cpu) as f64 / 1e9);
    // What they say of that settles.
    sleep(Duration::from_secs(5)).await;
    let (cpu, start, beats) = (control.cpu_ns(), Instant::now(), told.beats.load(Relaxed));
    sleep(LEASES).await;
    let secs = start.elapsed().as_secs_f64();
    values.insert("lease_cores".into(), (control.cpu_ns() - cpu) as f64 / 1e9 / secs);
    values.insert("beats_per_s".into(), (told.beats.load(Relaxed) - beats) as f64 / secs);
    values.insert("rss_mib".into(), control.rss_mib());
    values.insert("errors".into(), told.ended.load(Relaxed) as f64);
    Ok(values)
}

fn name(number: usize) -> String {
    format!("node-{number:04}")
}

/// The AgentCluster.
fn documents(share: usize) -> String {
    let mut text =
        "apiVersion: pilotfish.dev/v1\nkind: AgentCluster\nmetadata: {name: fleet, namespace: bench}\nspec:\n  agents:\n"
            .to_owned();
    for (agent, replicas, cpu, memory, cards) in AGENTS {
        let _ = writeln!(
            text,
            "  - {{name: {agent}, replicas: {}, command: [serve-{agent}], start_timeout: 10m, resources: {{cpu: \
             \"{cpu}\", memory: {memory}Gi, gpu: \"{cards}\"}}}}",
            replicas / share
        );
    }
    text
}

/// A node that does everything that it is told, at once.
struct Node {
    link: Link,
    every: Duration,
    has: usize,
    told: Arc<Told>,
}

impl Node {
    async fn open(identity: &Identity, number: usize, told: Arc<Told>) -> io::Result<Node> {
        let card = |card: usize| GpuState {
            id: format!("GPU-{number}-{card}"),
            model: "NVIDIA A100-SXM4-80GB".into(),
            memory: 80 << 30,
            failed: None,
            driver: None,
            slices: Vec::new(),
            used: 0,
            busy_percent: 0,
        };
        let inventory = Inventory {
            locality: Some(format!("region-{}/zone-{}", number % 3, number % 9)),
            cpu_milli: 64_000,
            memory: 256 << 30,
            gpus: (0..CARDS).map(card).collect(),
            most_replicas: 110,
            ..Inventory::default()
        };
        let hello = NodeHello {
            versions: Versions::own(),
            node: identity.agent.clone(),
            instance: format!("{:032x}", fastrand::u128(..)),
            term: 0,
            inventory,
            replicas: Vec::new(),
        };
        let link = Link::open(identity, "/v1/nodes/stream", &FromNode::Hello(Box::new(hello))).await?;
        let mut node = Node { link, every: Duration::ZERO, has: 0, told };
        while node.every.is_zero() {
            node.receive().await?;
        }
        Ok(node)
    }

    async fn live(mut self) {
        if let Err(error) = self.beat().await {
            eprintln!("         a node's stream ended: {error}");
            self.told.ended.fetch_add(1, Relaxed);
        }
    }

    async fn beat(&mut self) -> io::Result<()> {
        // Spread over the time between two.
        let mut due = tokio::time::Instant::now() + self.every.mul_f64(fastrand::f64());
        let mut number = 0;
        loop {
            tokio::select! {
                received = self.receive() => received?,
                () = sleep_until(due) => {
                    due += self.every;
                    number += 1;
                    self.link.send(&FromNode::Beat(NodeBeat { number })).await?;
                    self.told.beats.fetch_add(1, Relaxed);
                }
            }
        }
    }

    async fn receive(&mut self) -> io::Result<()> {
        self.link.receive().await?;
        while let Some(frame) = self.link.frame() {
            match serde_json::from_slice(&frame)? {
                ToNode::Welcome(welcome) => self.every = Duration::from_millis(welcome.beat_ms),
                ToNode::Set(set) => self.take(&set).await?,
                ToNode::Refused(refused) => return Err(io::Error::other(refused.reason)),
                ToNode::Elsewhere(_) => return Err(io::Error::other("it does not lead")),
                _ => {}
            }
        }
        Ok(())
    }

    async fn take(&mut self, set: &ReplicaSet) -> io::Result<()> {
        let runs = |order: &pilotfish_config::wire::node::ReplicaOrder| ReplicaState {
            id: order.id.clone(),
            generation: order.generation.clone(),
            phase: ReplicaPhase::Running,
            reason: None,
            restarts: 0,
            sidecar_restarts: 0,
            pid: Some(1),
            since_ms: 0,
            usage: None,
        };
        let replicas = set.replicas.iter().map(runs).collect();
        self.told.replicas.fetch_add(set.replicas.len(), Relaxed);
        self.told.replicas.fetch_sub(self.has, Relaxed);
        self.has = set.replicas.len();
        self.told.more.notify_one();
        self.link.send(&FromNode::Replicas(ReplicaStates { replicas })).await
    }
}
