//! `pilotfish agents`: who can do something, the best first.

use clap::Args;

use super::client::{Client, Connection, query};
use super::failed::Failed;
use super::hold;
use super::human;
use super::output::Output;
use super::status::status_tone;
use super::table::{Cell, Table};
use super::terminal::{Terminal, Tone};
use super::wait::short;
use crate::api::types::{AgentRow, Agents as Answer, Held};

/// Show who is able to do something, the best first.
///
/// Ranked by what sidecars measured: latency, success and calls in flight.
/// A sidecar that calls also counts what it measured itself, so its own order may differ; `pilotfish explain` shows
/// it. Those who cannot are listed below with the reason.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish agents
  pilotfish agents --capability natural_language_understanding
  pilotfish agents --capability nlu,translation --constraint 'latency<200ms, region=eu'

Prints:
  RANK  AGENT  NAMESPACE   STATUS  CAPABILITIES  LATENCY  SUCCESS  IN-FLIGHT
     1  nlu-b  production  ready   nlu             42 ms    100 %          3
     2  nlu-a  production  ready   nlu            180 ms   99.2 %          0

  AGENT  NAMESPACE   STATUS    WHY NOT
  nlu-c  production  draining  it is draining")]
pub struct Agents {
    /// What they have to be able to do: `a`, or `a,b` for both; `a@^1.2` for a version
    #[arg(long, value_name = "NAME")]
    capability: Option<String>,

    /// Narrower, as in the header `agent-constraint`: `latency<200ms, region=eu, tier in (gold|silver)`
    #[arg(long, value_name = "CONSTRAINT")]
    constraint: Option<String>,

    /// Only this namespace
    #[arg(short = 'n', long, value_name = "NAME")]
    namespace: Option<String>,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Agents {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        let pairs = [("capability", self.capability.as_deref()), ("constraint", self.constraint.as_deref())];
        let mut answer: Answer = client.get(&query("/v1/agents", &pairs)).await?;
        let here = |row: &AgentRow| self.namespace.as_ref().is_none_or(|name| *name == row.namespace);
        answer.agents.retain(here);
        answer.others.retain(here);
        let own = self.namespace.as_ref().map(|name| format!("{name}/"));
        answer.actions.retain(|held| own.as_ref().is_none_or(|own| held.agent.starts_with(own)));
        if answer.agents.is_empty() && !self.output.is_data() {
            eprintln!(
                "{}",
                if answer.others.is_empty() { "no agent is registered" } else { "nobody qualifies" }
            );
        }
        self.output.print(&answer, |wide| tables(&answer, wide, &Terminal::stdout()))
    }
}

/// How it is, in a word.
fn condition(row: &AgentRow, actions: &[Held]) -> Cell {
    match hold::of(actions, &row.namespace, &row.agent) {
        Some(held) => hold::cell(held),
        None => Cell::toned(row.status.word(), status_tone(row.status)),
    }
}

fn tables(answer: &Answer, wide: bool, terminal: &Terminal) -> String {
    let (able, others) =
        (able(&answer.agents, &answer.actions, wide), others(&answer.others, &answer.actions));
    let mut parts = Vec::new();
    for table in [able, others] {
        if !table.is_empty() {
            parts.push(table.print(terminal));
        }
    }
    let now = human::now();
    let held: String = answer.actions.iter().map(|held| format!("{}\n", hold::line(held, now))).collect();
    if !held.is_empty() {
        parts.push(held);
    }
    parts.join("\n")
}

fn able(rows: &[AgentRow], actions: &[Held], wide: bool) -> Table {
    let mut heads =
        vec![">RANK", "AGENT", "NAMESPACE", "STATUS", "CAPABILITIES", ">LATENCY", ">SUCCESS", ">IN-FLIGHT"];
    // Most of the time there is nothing to say.
    let health = rows.iter().any(|row| row.health.is_some());
    if health {
        heads.push("HEALTH");
    }
    if wide {
        heads.extend([">CPU", ">MEMORY", "ADDRESS", "LOCALITY", "LABELS", "INSTANCE"]);
    }
    let mut table = Table::new(&heads);
    for row in rows {
        let mut cells: Vec<Cell> = vec![
            row.rank.map(|rank| rank.to_string()).unwrap_or_default().into(),
            row.agent.as_str().into(),
            row.namespace.as_str().into(),
            condition(row, actions),
            row.capabilities.join(",").into(),
            row.latency_us.map(human::latency).unwrap_or_default().into(),
            success(row.success),
            row.in_flight.to_string().into(),
        ];
        if health {
            cells.push(row.health.as_deref().map_or_else(|| "".into(), |why| Cell::toned(why, Tone::Warn)));
        }
        if wide {
            let labels: Vec<String> =
                row.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            cells.extend([
                row.usage.map(|usage| human::cores(usage.cpu_milli.into())).unwrap_or_default().into(),
                row.usage.map(|usage| human::size(usage.memory)).unwrap_or_default().into(),
                row.address.as_str().into(),
                row.locality.as_str().into(),
                labels.join(",").into(),
                short(&row.instance).into(),
            ]);
        }
        table.row(cells);
    }
    table
}

fn success(share: Option<f32>) -> Cell {
    match share {
        None => "".into(),
        Some(share) if share < 0.9 => Cell::toned(human::share(share), Tone::Warn),
        Some(share) => human::share(share).into(),
    }
}

fn others(rows: &[AgentRow], actions: &[Held]) -> Table {
    let mut table = Table::new(&["AGENT", "NAMESPACE", "STATUS", "WHY NOT"]);
    for row in rows {
        table.row([
            row.agent.as_str().into(),
            row.namespace.as_str().into(),
            condition(row, actions),
            row.why_not.as_deref().unwrap_or_default().into(),
        ]);
    }
    table
}
