//! Words and tables about placement that several commands use.

use std::collections::BTreeMap;

use pilotfish_config::wire::node::GpuShare;

use crate::api::types::{AgentPlacement, GpuRow, PlacementView, ReplicaRow};
use crate::cli::human::{self, count};
use crate::cli::table::{Cell, Table};
use crate::cli::terminal::{Terminal, Tone, harmless};

/// A group's namespace, agent and region: `namespace/agent@region`.
pub fn parts(group: &str) -> (&str, &str, Option<&str>) {
    let (agent, region) = match group.split_once('@') {
        Some((agent, region)) => (agent, Some(region)),
        None => (group, None),
    };
    let (namespace, name) = agent.split_once('/').unwrap_or(("", agent));
    (namespace, name, region)
}

/// Whether a group is of this agent, `namespace/name`.
pub fn is_of(group: &str, agent: &str) -> bool {
    group.split('@').next() == Some(agent)
}

/// The colour of a node's status.
pub fn node_tone(status: &str) -> Tone {
    match status {
        "ready" => Tone::Good,
        "lost" => Tone::Bad,
        _ => Tone::Warn,
    }
}

/// The colour of a replica's status.
pub fn replica_tone(status: &str) -> Tone {
    match status {
        "ready" => Tone::Good,
        "crash-loop" | "failed" | "lost" => Tone::Bad,
        _ => Tone::Warn,
    }
}

/// Whether somebody should look at a group.
pub fn lacks(group: &AgentPlacement) -> bool {
    group.ready < group.wanted || group.reason.is_some()
}

/// Whether somebody should look at a replica.
pub fn ails(replica: &ReplicaRow) -> bool {
    replica.reason.is_some()
        || matches!(replica.status.as_str(), "waiting" | "crash-loop" | "failed" | "lost")
}

/// Cores: given out, all: `4/32`.
pub fn cores((given, all): (u64, u64)) -> String {
    format!("{}/{}", human::cores(given), human::cores(all))
}

/// Bytes: given out, all: `16 GiB/64 GiB`.
pub fn sizes((given, all): (u64, u64)) -> String {
    format!("{}/{}", human::size(given), human::size(all))
}

/// Whole cards that are free, of all, by model: `3/4 A100-SXM4-80GB, 1 failed`.
pub fn cards(gpus: &[GpuRow]) -> String {
    let mut models: BTreeMap<&str, (usize, usize, usize)> = BTreeMap::new();
    for gpu in gpus {
        let (free, all, failed) = models.entry(model(&gpu.model)).or_default();
        *all += 1;
        match gpu.failed {
            Some(_) => *failed += 1,
            None if gpu.memory.0 == 0 && gpu.replicas.is_empty() => *free += 1,
            None => {}
        }
    }
    let words = models.into_iter().map(|(model, (free, all, failed))| match failed {
        0 => format!("{free}/{all} {model}"),
        failed => format!("{free}/{all} {model} ({failed} failed)"),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// A card's model without the maker, which all share.
pub fn model(name: &str) -> &str {
    name.strip_prefix("NVIDIA ").unwrap_or(name)
}

/// Cards of a replica: their ids, cut to what tells them apart; in full with their memory if `wide`.
pub fn shares(shares: &[GpuShare], wide: bool) -> String {
    let word = |share: &GpuShare| {
        let id = share.slice.as_deref().unwrap_or(&share.gpu);
        if wide { format!("{id} ({})", human::size(share.memory)) } else { id.chars().take(12).collect() }
    };
    shares.iter().map(word).collect::<Vec<_>>().join(",")
}

/// Groups as a table. Regions are a column when there are some.
pub fn agents(groups: &[AgentPlacement], wide: bool) -> Table {
    let regions = groups.iter().any(|group| parts(&group.group).2.is_some());
    let mut heads = vec!["AGENT", "NAMESPACE"];
    if regions {
        heads.push("REGION");
    }
    heads.extend(["STRATEGY", ">WANTED", ">PLACED", ">READY"]);
    if wide {
        heads.push("CLUSTER");
    }
    heads.push("REASON");
    let mut table = Table::new(&heads);
    for group in groups {
        let (namespace, agent, region) = parts(&group.group);
        let mut cells: Vec<Cell> = vec![agent.into(), namespace.into()];
        if regions {
            cells.push(region.unwrap_or_default().into());
        }
        cells.extend([
            group.strategy.as_str().into(),
            group.wanted.to_string().into(),
            short_of(group.placed, group.wanted),
            short_of(group.ready, group.wanted),
        ]);
        if wide {
            cells.push(group.cluster.as_str().into());
        }
        cells.push(group.reason.as_deref().unwrap_or_default().into());
        table.row(cells);
    }
    table
}

fn short_of(number: u32, wanted: u32) -> Cell {
    if number < wanted { Cell::toned(number.to_string(), Tone::Warn) } else { number.to_string().into() }
}

/// Replicas as a table.
pub fn replicas(rows: &[ReplicaRow], wide: bool, now: u64) -> Table {
    let mut heads = vec!["REPLICA", "STATUS", "NODE", "GPUS", ">CPU", ">MEMORY"];
    if wide {
        heads.extend([">GPU-MEMORY", ">GPU-BUSY", "REGION"]);
    }
    heads.extend([">RESTARTS", "SINCE", "REASON"]);
    let mut table = Table::new(&heads);
    for row in rows {
        let measured = |text: &dyn Fn(&pilotfish_config::wire::node::Usage) -> String| -> Cell {
            row.usage.as_ref().map(text).unwrap_or_default().into()
        };
        let mut cells: Vec<Cell> = vec![
            row.id.as_str().into(),
            Cell::toned(row.status.as_str(), replica_tone(&row.status)),
            row.node.as_deref().unwrap_or_default().into(),
            shares(&row.gpus, wide).into(),
            measured(&|usage| human::cores(usage.cpu_milli.into())),
            measured(&|usage| human::size(usage.memory)),
        ];
        if wide {
            cells.extend([
                measured(&|usage| human::size(usage.gpu_memory)),
                measured(&|usage| format!("{} %", usage.gpu_percent)),
                parts(&row.group).2.unwrap_or_default().into(),
            ]);
        }
        let restarts = row.restarts.to_string();
        cells.extend([
            if row.restarts > 0 { Cell::toned(restarts, Tone::Warn) } else { restarts.into() },
            if row.since == 0 { "".into() } else { human::moment(row.since.min(now), now).into() },
            row.reason.as_deref().unwrap_or_default().into(),
        ]);
        table.row(cells);
    }
    table
}

/// Why nodes are not fit, the most frequent reason first.
pub fn obstacles<'o>(rows: impl IntoIterator<Item = (u32, &'o str)>) -> Table {
    let mut table = Table::new(&[">NODES", "WHY NOT"]);
    for (nodes, why) in rows {
        table.row([nodes.to_string().into(), why.into()]);
    }
    table
}

/// Notes, one a line, with `note:` before each.
pub fn notes(notes: &[String], terminal: &Terminal) -> String {
    let line = |note: &String| format!("{} {}\n", terminal.paint(Tone::Warn, "note:"), harmless(note, false));
    notes.iter().map(line).collect()
}

/// All of it in one line: `4 nodes (1 lost), 38 of 40 GPUs given out; 48 of 60 replicas are ready`.
pub fn summary(view: &PlacementView) -> String {
    let mut odd: BTreeMap<&str, usize> = BTreeMap::new();
    for node in view.nodes.iter().filter(|node| node.status != "ready") {
        *odd.entry(harmless_word(&node.status)).or_default() += 1;
    }
    let odd: Vec<String> = odd.into_iter().map(|(status, number)| format!("{number} {status}")).collect();
    let mut text = count(view.nodes.len(), "node");
    if !odd.is_empty() {
        text.push_str(&format!(" ({})", odd.join(", ")));
    }
    let gpus: Vec<&GpuRow> = view.nodes.iter().flat_map(|node| &node.gpus).collect();
    if !gpus.is_empty() {
        let given = gpus.iter().filter(|gpu| gpu.memory.0 > 0 || !gpu.replicas.is_empty()).count();
        text.push_str(&format!(", {given} of {} used", count(gpus.len(), "GPU")));
    }
    let (ready, wanted) = view.agents.iter().fold((0u64, 0u64), |(ready, wanted), group| {
        (ready + u64::from(group.ready), wanted + u64::from(group.wanted))
    });
    text.push_str(&format!("; {ready} of {wanted} replicas are ready"));
    text
}

/// A status word of the control plane; anything else is not repeated.
fn harmless_word(status: &str) -> &str {
    match status {
        "silent" | "lost" | "cordoned" | "draining" => status,
        _ => "not ready",
    }
}
