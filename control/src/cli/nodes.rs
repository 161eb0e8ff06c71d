//! `pilotfish nodes`: the machines that run agents, with their cards.

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;

use super::client::{Client, Connection};
use super::failed::Failed;
use super::human;
use super::output::Output;
use super::placement::rows;
use super::table::{Cell, Table};
use super::terminal::{Terminal, Tone, harmless};
use crate::api::types::{GpuRow, NodeRow, PlacementView, ReplicaRow};

/// Show the machines that run agents, with their cards.
///
/// A node is a machine with `pilotfish node`. CPU and MEMORY are what agents were given, of what there is for agents; GPUS FREE
/// are whole cards that nobody has, of all. A node that is silent for 3 s gets nothing new; after the grace time it is lost,
/// and its replicas are placed elsewhere.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish nodes
  pilotfish nodes gpu-1            # its cards, what runs there, what is wrong there
  pilotfish nodes -o json | jq '.[] | select(.status != \"ready\") | .name'

Prints:
  NODE   STATUS    LOCALITY   CPU          MEMORY  GPUS FREE       GPU MEMORY  REPLICAS  HEARD
  cpu-1  ready     eu/eu-a   4/16    8 GiB/64 GiB  -                        -         4  now
  gpu-1  cordoned  eu/eu-a   8/32  16 GiB/128 GiB  2/4 A100   160 GiB/320 GiB         4  now

  gpu-1: GPU-8f2b1c3d failed: fell off the bus")]
pub struct Nodes {
    /// Only this one, in detail
    #[arg(value_name = "NAME")]
    name: Option<String>,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

/// One node with what runs there.
#[derive(Debug, Serialize)]
struct Detail {
    node: NodeRow,
    replicas: Vec<ReplicaRow>,
}

impl Nodes {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        let view: PlacementView = client.get("/v1/placement").await?;
        let terminal = Terminal::stdout();
        let Some(name) = &self.name else {
            if view.nodes.is_empty() && !self.output.is_data() {
                eprintln!("no node has joined; on a machine that is to run agents: pilotfish node --help");
            }
            return self.output.print(&view.nodes, |wide| all(&view.nodes, wide, &terminal));
        };
        let node = view.nodes.iter().find(|node| node.name == *name).cloned();
        let node = node.ok_or_else(|| unknown(name, &view))?;
        let here = view.replicas.into_iter().filter(|replica| replica.node.as_ref() == Some(name));
        let detail = Detail { node, replicas: here.collect() };
        self.output.print(&detail, |wide| one(&detail, wide, human::now(), &terminal))
    }
}

/// There is no such node; which there are.
pub fn unknown(name: &str, view: &PlacementView) -> Failed {
    let mut names: Vec<&str> = view.nodes.iter().map(|node| node.name.as_str()).collect();
    names.truncate(10);
    let there = match (names.is_empty(), view.nodes.len() - names.len()) {
        (true, _) => "none has joined".to_owned(),
        (false, 0) => format!("there are {}", names.join(", ")),
        (false, more) => format!("there are {} and {more} more", names.join(", ")),
    };
    Failed::refused(harmless(&format!("no node is named `{name}`; {there}"), false))
}

/// The table, and what is wrong below it.
fn all(nodes: &[NodeRow], wide: bool, terminal: &Terminal) -> String {
    if nodes.is_empty() {
        return String::new();
    }
    let mut heads = vec![
        "NODE",
        "STATUS",
        "LOCALITY",
        ">CPU",
        ">MEMORY",
        "GPUS FREE",
        ">GPU MEMORY",
        ">REPLICAS",
        "HEARD",
    ];
    if wide {
        heads.extend(["TAINTS", "LABELS"]);
    }
    let mut table = Table::new(&heads);
    for node in nodes {
        let memory = node.gpus.iter().fold((0, 0), |sum, gpu| (sum.0 + gpu.memory.0, sum.1 + gpu.memory.1));
        let mut cells: Vec<Cell> = vec![
            node.name.as_str().into(),
            Cell::toned(node.status.as_str(), rows::node_tone(&node.status)),
            node.locality.as_deref().unwrap_or_default().into(),
            rows::cores(node.cpu_milli).into(),
            rows::sizes(node.memory).into(),
            rows::cards(&node.gpus).into(),
            if node.gpus.is_empty() { "".into() } else { rows::sizes(memory).into() },
            node.replicas.to_string().into(),
            heard(node).into(),
        ];
        if wide {
            cells.push(node.taints.join(",").into());
            cells.push(labels(node).into());
        }
        table.row(cells);
    }
    let mut text = table.print(terminal);
    let wrong: Vec<String> = nodes
        .iter()
        .flat_map(|node| troubles(node).into_iter().map(move |trouble| format!("{}: {trouble}", node.name)))
        .collect();
    if !wrong.is_empty() {
        text.push('\n');
        for line in wrong {
            let _ = writeln!(text, "{}", terminal.paint(Tone::Bad, &harmless(&line, false)));
        }
    }
    text
}

fn heard(node: &NodeRow) -> String {
    match node.heard_ms {
        None => String::new(),
        Some(0..2000) => "now".into(),
        Some(millis) => format!("{} ago", human::span(millis / 1000)),
    }
}

fn labels(node: &NodeRow) -> String {
    node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// What is wrong there, failed cards too.
fn troubles(node: &NodeRow) -> Vec<String> {
    let failed = node.gpus.iter().filter_map(|gpu| {
        let why = gpu.failed.as_ref()?;
        Some(format!("{} failed: {why}", gpu.id))
    });
    node.troubles.iter().cloned().chain(failed).collect()
}

fn one(detail: &Detail, wide: bool, now: u64, terminal: &Terminal) -> String {
    let node = &detail.node;
    let mut text = String::new();
    let status = terminal.paint(rows::node_tone(&node.status), &harmless(&node.status, false));
    let name = terminal.paint(Tone::Strong, &harmless(&node.name, false));
    let _ = write!(text, "{name}: {status}");
    let heard = heard(node);
    let _ = if heard.is_empty() { writeln!(text) } else { writeln!(text, ", heard {heard}") };
    let most = match node.most_replicas {
        0 => node.replicas.to_string(),
        most => format!("{} of at most {most}", node.replicas),
    };
    let of = |(given, all): (String, String)| format!("{given} of {all} given out");
    let facts = [
        ("locality", node.locality.clone().unwrap_or_default()),
        ("cpu", of((human::cores(node.cpu_milli.0), human::cores(node.cpu_milli.1)))),
        ("memory", of((human::size(node.memory.0), human::size(node.memory.1)))),
        ("replicas", most),
        ("labels", labels(node)),
        ("taints", node.taints.join(",")),
    ];
    for (name, fact) in facts.iter().filter(|(_, fact)| !fact.is_empty()) {
        let _ = writeln!(text, "  {name:<9} {}", harmless(fact, false));
    }
    for trouble in troubles(node) {
        let _ = writeln!(text, "  {}", terminal.paint(Tone::Bad, &harmless(&trouble, false)));
    }
    if !node.gpus.is_empty() {
        let _ = write!(text, "\n{}", gpus(&node.gpus).print(terminal));
    }
    if !detail.replicas.is_empty() {
        let _ = write!(text, "\n{}", rows::replicas(&detail.replicas, wide, now).print(terminal));
    }
    text
}

fn gpus(gpus: &[GpuRow]) -> Table {
    let mut table = Table::new(&[
        "GPU",
        "MODEL",
        "POOL",
        ">GIVEN OUT",
        ">IN USE",
        ">BUSY",
        "SLICES",
        ">REPLICAS",
        "HEALTH",
    ]);
    for gpu in gpus {
        let mut profiles: Vec<&str> = gpu.slices.iter().map(|slice| slice.profile.as_str()).collect();
        profiles.sort_unstable();
        let slices = profiles.chunk_by(|one, other| one == other);
        let slices =
            slices.map(|alike| format!("{}x {}", alike.len(), alike[0])).collect::<Vec<_>>().join(", ");
        table.row([
            gpu.id.as_str().into(),
            rows::model(&gpu.model).into(),
            gpu.pool.as_deref().unwrap_or_default().into(),
            rows::sizes(gpu.memory).into(),
            human::size(gpu.used).into(),
            format!("{} %", gpu.busy_percent).into(),
            slices.into(),
            gpu.replicas.len().to_string().into(),
            gpu.failed.as_deref().map_or_else(|| "good".into(), |why| Cell::toned(why, Tone::Bad)),
        ]);
    }
    table
}
