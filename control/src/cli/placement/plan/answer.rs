//! What a dry run says: agents, nodes, what has no place.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use pilotfish_config::model::Deployment;
use pilotfish_config::wire::node::GpuShare;
use serde::Serialize;

use crate::cli::human::{self, count};
use crate::cli::placement::rows;
use crate::cli::table::{Cell, Table};
use crate::cli::terminal::{Terminal, Tone, harmless};
use crate::placement::demand::{Demand, Wanted};
use crate::placement::place::{Outcome, Start};
use crate::placement::world::{Machine, Need, World};

/// Nodes that a table shows; `wide` shows all.
const MOST_NODES: usize = 20;

/// Everything; `-o json` shows it as it is.
#[derive(Debug, Serialize)]
pub struct Planned {
    /// Agents, one for each region.
    pub agents: Vec<AgentPlan>,
    /// Nodes by name and number.
    pub nodes: Vec<NodePlan>,
    /// What has no place.
    pub unplaced: Vec<UnplacedPlan>,
    /// Replicas that would start.
    pub starts: Vec<StartPlan>,
    /// Replicas that run now and would end.
    pub stops: Vec<String>,
    /// Replicas that run now and would get another place.
    pub moves: Vec<MovePlan>,
    /// What should be looked at.
    pub notes: Vec<String>,
}

/// One group.
#[derive(Debug, Serialize)]
pub struct AgentPlan {
    group: String,
    cluster: String,
    strategy: &'static str,
    wanted: u32,
    placed: u32,
    /// Why it would have its place and not be started.
    waiting: Option<String>,
}

/// One node.
#[derive(Debug, Serialize)]
pub struct NodePlan {
    name: String,
    locality: String,
    replicas: u32,
    /// Thousandths of a core: given out, all.
    cpu_milli: (u64, u64),
    /// Bytes: given out, all.
    memory: (u64, u64),
    /// Cards: used, all.
    gpus: (usize, usize),
    /// Bytes: given out, all.
    gpu_memory: (u64, u64),
}

/// What of a group has no place.
#[derive(Debug, Serialize)]
pub struct UnplacedPlan {
    group: String,
    count: u32,
    wanted: u32,
    /// What each replica needs.
    need: String,
    /// What all of them need together.
    together: String,
    /// Nodes, and what is wrong with them.
    obstacles: Vec<(u32, String)>,
    hint: Option<String>,
}

/// A replica that would start.
#[derive(Debug, Serialize)]
pub struct StartPlan {
    group: String,
    node: String,
    gpus: Vec<GpuShare>,
}

/// A replica that would get another place.
#[derive(Debug, Serialize)]
pub struct MovePlan {
    replica: String,
    to: StartPlan,
}

impl Planned {
    /// Of a decision.
    pub fn new(demand: &Demand, world: &World, outcome: &Outcome) -> Planned {
        let missing: BTreeMap<&str, u32> =
            outcome.unplaced.iter().map(|one| (&*one.group, one.count)).collect();
        let agents = demand
            .groups
            .iter()
            .map(|wanted| agent(wanted, missing.get(&*wanted.group.id).copied().unwrap_or_default()));
        let unplaced = outcome.unplaced.iter().map(|one| {
            let group = world.groups.iter().find(|group| group.id == one.group);
            UnplacedPlan {
                group: one.group.to_string(),
                count: one.count,
                wanted: group.map_or(0, |group| group.wanted),
                need: group.map(|group| group.need.to_string()).unwrap_or_default(),
                together: group.map(|group| times(&group.need, one.count).to_string()).unwrap_or_default(),
                obstacles: one.reasons.iter().map(|reason| (reason.nodes, reason.why.clone())).collect(),
                hint: one.hint.clone(),
            }
        });
        let moves = outcome.moves.iter();
        Planned {
            agents: agents.collect(),
            nodes: nodes(world, outcome),
            unplaced: unplaced.collect(),
            starts: outcome.starts.iter().map(start).collect(),
            stops: outcome.stops.iter().map(|stop| stop.replica.to_string()).collect(),
            moves: moves
                .map(|one| MovePlan { replica: one.replica.to_string(), to: start(&one.to) })
                .collect(),
            notes: demand.notes.clone(),
        }
    }

    /// For people.
    pub fn text(&self, wide: bool, terminal: &Terminal) -> String {
        let mut text = self.agents().print(terminal);
        let _ = write!(text, "\n{}", self.nodes(wide, terminal));
        for one in &self.unplaced {
            let _ = write!(text, "\n{}", one.text(terminal));
        }
        for (number, what) in [(self.stops.len(), "end"), (self.moves.len(), "move to another node")] {
            if number > 0 {
                let _ = writeln!(text, "\n{} would {what}", count(number, "replica that runs now"));
            }
        }
        let notes: Vec<String> = self.waits().into_iter().chain(self.notes.iter().cloned()).collect();
        if !notes.is_empty() {
            let _ = write!(text, "\n{}", rows::notes(&notes, terminal));
        }
        let (wanted, placed) = self.agents.iter().fold((0u64, 0u64), |(wanted, placed), agent| {
            (wanted + u64::from(agent.wanted), placed + u64::from(agent.placed))
        });
        let (tone, verdict) = match wanted - placed {
            0 => (Tone::Good, format!("all {wanted} replicas have a place")),
            missing => (Tone::Bad, format!("{missing} of {wanted} replicas have no place")),
        };
        let _ = writeln!(text, "\n{}", terminal.paint(tone, &verdict));
        text
    }

    /// Agents that would have their places and not be started.
    fn waits(&self) -> BTreeSet<String> {
        let waits = self.agents.iter().filter_map(|own| {
            let (namespace, agent, _) = rows::parts(&own.group);
            Some(format!("{namespace}/{agent} would wait: {}", own.waiting.as_ref()?))
        });
        waits.collect()
    }

    fn agents(&self) -> Table {
        let regions = self.agents.iter().any(|agent| rows::parts(&agent.group).2.is_some());
        let waits = self.agents.iter().any(|agent| agent.waiting.is_some());
        let mut heads = vec!["AGENT", "NAMESPACE"];
        if regions {
            heads.push("REGION");
        }
        heads.extend(["STRATEGY", ">WANTED", ">PLACED", ">MISSING"]);
        if waits {
            heads.push("WAITING");
        }
        let mut table = Table::new(&heads);
        for own in &self.agents {
            let (namespace, agent, region) = rows::parts(&own.group);
            let mut cells: Vec<Cell> = vec![agent.into(), namespace.into()];
            if regions {
                cells.push(region.unwrap_or_default().into());
            }
            let missing = own.wanted - own.placed;
            let missing = match missing {
                0 => "0".into(),
                _ => Cell::toned(missing.to_string(), Tone::Bad),
            };
            cells.extend([
                own.strategy.into(),
                own.wanted.to_string().into(),
                own.placed.to_string().into(),
                missing,
            ]);
            if waits {
                // What to do about it is said below, once for all regions.
                let why = own.waiting.as_deref().unwrap_or_default();
                cells.push(why.split(':').next().unwrap_or_default().into());
            }
            table.row(cells);
        }
        table
    }

    fn nodes(&self, wide: bool, terminal: &Terminal) -> String {
        let mut table =
            Table::new(&["NODE", "LOCALITY", ">REPLICAS", ">CPU", ">MEMORY", ">GPUS", ">GPU MEMORY"]);
        let most = if wide { usize::MAX } else { MOST_NODES };
        let mut shown: Vec<&NodePlan> = self.nodes.iter().collect();
        if shown.len() > most {
            // Those that have something to say.
            shown.sort_by_key(|node| node.replicas == 0);
        }
        for node in shown.into_iter().take(most) {
            let cards =
                if node.gpus.1 == 0 { String::new() } else { format!("{}/{}", node.gpus.0, node.gpus.1) };
            table.row([
                node.name.as_str().into(),
                node.locality.as_str().into(),
                node.replicas.to_string().into(),
                rows::cores(node.cpu_milli).into(),
                rows::sizes(node.memory).into(),
                cards.into(),
                if node.gpus.1 == 0 { "".into() } else { rows::sizes(node.gpu_memory).into() },
            ]);
        }
        let mut text = table.print(terminal);
        if self.nodes.len() > most {
            let more = count(self.nodes.len() - most, "more node");
            let _ = writeln!(text, "... {more}; -o wide shows all");
        }
        let sum = |of: fn(&NodePlan) -> (u64, u64)| {
            self.nodes.iter().map(of).fold((0, 0), |sum, own| (sum.0 + own.0, sum.1 + own.1))
        };
        let cards = sum(|node| (node.gpus.0 as u64, node.gpus.1 as u64));
        let _ = write!(
            text,
            "{}: {} of {} cores, {} of {}",
            count(self.nodes.len(), "node"),
            human::cores(sum(|node| node.cpu_milli).0),
            human::cores(sum(|node| node.cpu_milli).1),
            human::size(sum(|node| node.memory).0),
            human::size(sum(|node| node.memory).1),
        );
        let _ = match cards.1 {
            0 => writeln!(text, " given out"),
            _ => writeln!(text, ", {} of {} GPUs given out", cards.0, cards.1),
        };
        text
    }
}

impl UnplacedPlan {
    fn text(&self, terminal: &Terminal) -> String {
        let have = if self.count == 1 { "has" } else { "have" };
        let line = format!(
            "{}: {} of {} {have} no place",
            harmless(&self.group, false),
            self.count,
            count(self.wanted as usize, "replica")
        );
        let mut text = format!("{}\n", terminal.paint(Tone::Bad, &line));
        if !self.need.is_empty() {
            let _ = write!(text, "Each needs {}", harmless(&self.need, false));
            let _ = match self.count {
                0 | 1 => writeln!(text, "."),
                _ => writeln!(text, "; together: {}.", harmless(&self.together, false)),
            };
        }
        let reasons = self.obstacles.iter().map(|(nodes, why)| (*nodes, why.as_str()));
        let table = rows::obstacles(reasons);
        if !table.is_empty() {
            text.push_str(&table.print(terminal));
        }
        if let Some(hint) = &self.hint {
            let head = terminal.paint(Tone::Good, "Hint:");
            let _ = writeln!(text, "{head} {}", harmless(hint, false));
        }
        text
    }
}

fn agent(wanted: &Wanted, missing: u32) -> AgentPlan {
    AgentPlan {
        group: wanted.group.id.to_string(),
        cluster: wanted.group.cluster.clone(),
        strategy: match wanted.deployment {
            Deployment::Static => "static",
            Deployment::PreWarmed { .. } => "pre_warmed",
            Deployment::JustInTime(_) => "just_in_time",
        },
        wanted: wanted.group.wanted,
        placed: wanted.group.wanted.saturating_sub(missing),
        waiting: wanted.waiting.clone(),
    }
}

fn start(start: &Start) -> StartPlan {
    StartPlan { group: start.group.to_string(), node: start.node.clone(), gpus: start.gpus.clone() }
}

/// What so many replicas take. Of memory that each of several cards has to have there is no sum.
fn times(need: &Need, count: u32) -> Need {
    let all = |each: u64| each.saturating_mul(count.into());
    Need {
        cpu_milli: all(need.cpu_milli),
        memory: all(need.memory),
        gpus: need.gpus.saturating_mul(count),
        gpu_memory: if need.gpus > 0 { need.gpu_memory } else { all(need.gpu_memory) },
        gpu_slice: need.gpu_slice.as_ref().map(|profile| format!("{profile} x {count}")),
    }
}

/// What is on each node after the decision.
fn nodes(world: &World, outcome: &Outcome) -> Vec<NodePlan> {
    let gone: BTreeSet<&str> = outcome
        .stops
        .iter()
        .map(|stop| &*stop.replica)
        .chain(outcome.moves.iter().map(|one| &*one.replica))
        .collect();
    let needs: BTreeMap<&str, &Need> = world.groups.iter().map(|group| (&*group.id, &group.need)).collect();
    let mut there: BTreeMap<&str, Vec<(&Need, &[GpuShare])>> = BTreeMap::new();
    for held in world.held.iter().filter(|held| !gone.contains(&*held.replica)) {
        there.entry(&held.node).or_default().push((&held.need, &held.gpus));
    }
    for start in outcome.starts.iter().chain(outcome.moves.iter().map(|one| &one.to)) {
        if let Some(need) = needs.get(&*start.group) {
            there.entry(&start.node).or_default().push((need, &start.gpus));
        }
    }
    let mut nodes: Vec<NodePlan> = world
        .nodes
        .iter()
        .map(|machine| node(machine, there.get(machine.name.as_str()).map_or(&[], Vec::as_slice)))
        .collect();
    nodes.sort_by(|one, other| numbered(&one.name).cmp(&numbered(&other.name)));
    nodes
}

/// A name and the number that it ends with: `gpu-2` comes before `gpu-10`.
fn numbered(name: &str) -> (&str, u64) {
    let stem = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    (stem, name[stem.len()..].parse().unwrap_or_default())
}

fn node(machine: &Machine, there: &[(&Need, &[GpuShare])]) -> NodePlan {
    let shares = || there.iter().flat_map(|(_, shares)| *shares);
    let used: BTreeSet<&str> = shares().map(|share| share.gpu.as_str()).collect();
    NodePlan {
        name: machine.name.clone(),
        locality: match (machine.region.as_str(), machine.zone.as_str()) {
            (region, "") => region.to_owned(),
            (region, zone) => format!("{region}/{zone}"),
        },
        replicas: u32::try_from(there.len()).unwrap_or(u32::MAX),
        cpu_milli: (there.iter().map(|(need, _)| need.cpu_milli).sum(), machine.cpu_milli),
        memory: (there.iter().map(|(need, _)| need.memory).sum(), machine.memory),
        gpus: (used.len(), machine.gpus.len()),
        gpu_memory: (
            shares().map(|share| share.memory).sum(),
            machine.gpus.iter().map(|card| card.memory).sum(),
        ),
    }
}
