//! `pilotfish placement explain`: why an agent's replicas are where they are, and why some have no place.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::Args;

use super::rows;
use crate::api::types::Placed;
use crate::cli::agent_name::AgentArgs;
use crate::cli::client::{Client, Connection, query};
use crate::cli::failed::Failed;
use crate::cli::human::{self, count};
use crate::cli::output::Output;
use crate::cli::table::Table;
use crate::cli::terminal::{Terminal, Tone, harmless};

/// Say why an agent's replicas are where they are, and why some have no place
///
/// What each replica needs, how many nodes are not fit for which reason, and what would help.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish placement explain conversation-agent -n production
  pilotfish placement explain production/conversation-agent -o wide      # with every replica

Prints:
  production/conversation-agent: 38 of 50 replicas have a place, 38 are ready
  Each replica needs 2 cores, 4 GiB of memory, 1 GPU.

  12 replicas have no place:
  NODES  WHY NOT
      3  all 8 GPUs are taken
      1  it is cordoned
  Hint: node gpu-4 would have room; it is cordoned: `pilotfish uncordon gpu-4`")]
pub struct Explain {
    #[command(flatten)]
    agent: AgentArgs,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Explain {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let agent = self.agent.full()?;
        let client = Client::open(&self.connection).await?;
        let found: Placed = client.get(&query("/v1/placement/explain", &[("agent", Some(&agent))])).await?;
        self.output.print(&found, |wide| text(&found, wide, human::now(), &Terminal::stdout()))
    }
}

fn text(found: &Placed, wide: bool, now: u64, terminal: &Terminal) -> String {
    let sum = |number: fn(&crate::api::types::AgentPlacement) -> u32| -> u64 {
        found.groups.iter().map(|group| u64::from(number(group))).sum()
    };
    let (wanted, placed, ready) = (sum(|g| g.wanted), sum(|g| g.placed), sum(|g| g.ready));
    let mut text = String::new();
    let are = if ready == 1 { "is" } else { "are" };
    let agent = terminal.paint(Tone::Strong, &harmless(&found.agent, false));
    let _ = writeln!(text, "{agent}: {placed} of {} have a place, {ready} {are} ready", replicas(wanted));
    if !found.need.is_empty() {
        let _ = writeln!(text, "Each replica needs {}.", harmless(&found.need, false).trim_end_matches('.'));
    }
    match found.groups.as_slice() {
        [group] => {
            if let Some(reason) = &group.reason {
                let _ = writeln!(text, "{}", harmless(reason, false));
            }
        }
        groups => {
            let _ = write!(text, "\n{}", rows::agents(groups, wide).print(terminal));
        }
    }
    text.push_str(&missing(found, wanted.saturating_sub(placed), terminal));
    text.push_str(&there(found, wide, now, terminal));
    text
}

/// What has no place, and why.
fn missing(found: &Placed, missing: u64, terminal: &Terminal) -> String {
    let mut text = String::new();
    if missing > 0 {
        let have = if missing == 1 { "has" } else { "have" };
        let line = format!("{} {have} no place:", replicas(missing));
        let _ = writeln!(text, "\n{}", terminal.paint(Tone::Bad, &line));
        let reasons = found.obstacles.iter().map(|(nodes, why)| (*nodes, why.as_str()));
        let table = rows::obstacles(reasons);
        match table.is_empty() {
            true => text.push_str("  no node is known; `pilotfish node` on a machine makes it one\n"),
            false => text.push_str(&table.print(terminal)),
        }
    }
    if let Some(hint) = &found.hint {
        let head = terminal.paint(Tone::Good, "Hint:");
        let _ = writeln!(text, "{head} {}", harmless(hint, false));
    }
    text
}

/// Where the others are: by node, those that are not well, or all if `wide`.
fn there(found: &Placed, wide: bool, now: u64, terminal: &Terminal) -> String {
    if found.replicas.is_empty() {
        return String::new();
    }
    if wide {
        return format!("\n{}", rows::replicas(&found.replicas, true, now).print(terminal));
    }
    let mut nodes: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for replica in &found.replicas {
        let (all, ready) = nodes.entry(replica.node.as_deref().unwrap_or_default()).or_default();
        *all += 1;
        *ready += usize::from(replica.status == "ready");
    }
    let mut table = Table::new(&["NODE", ">REPLICAS", ">READY"]);
    for (node, (all, ready)) in nodes {
        table.row([node.into(), all.to_string().into(), ready.to_string().into()]);
    }
    let mut text = format!("\n{}", table.print(terminal));
    let ill: Vec<_> = found.replicas.iter().filter(|replica| rows::ails(replica)).cloned().collect();
    if !ill.is_empty() {
        let _ = write!(text, "\n{}", rows::replicas(&ill, false, now).print(terminal));
    }
    text
}

fn replicas(number: u64) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), "replica")
}
