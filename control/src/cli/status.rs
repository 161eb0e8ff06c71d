//! `pilotfish status`: every sidecar and the version that it serves.

mod watch;

use std::fmt::Write as _;

use clap::Args;

use super::client::{Client, Connection};
use super::failed::Failed;
use super::hold;
use super::human::{self, count};
use super::output::Output;
use super::placement::rows;
use super::table::{Cell, Table};
use super::terminal::{Terminal, Tone, harmless};
use super::wait::short;
use crate::api::types::{FleetStatus, Held, PlacementView, SidecarStatus};
use pilotfish_config::wire::Status as AgentStatus;

/// Show every sidecar and the version that it serves.
///
/// A version is RENDERED (made for this sidecar), DISTRIBUTED (sent), ACCEPTED (validated and written down by it) and
/// SERVING (used for every new request).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish status
  pilotfish status -n production --watch
  pilotfish status -o json

Prints:
  AGENT  NAMESPACE   STATUS  RENDERED  DISTRIBUTED  ACCEPTED  SERVING  CONTACT  CERTIFICATE
  chat   production  ready          7            7         7        7  1 s ago  in 21 h
  web    production  ready          7            7         6        6  2 s ago  in 23 h

  production/web refused version 7:
    routes.yaml:12:9: error: ...

  production/chat is quarantined, for 3 min so far, until 2026-11-21 13:20:05 UTC (in 7 min), by
  admin: asks for every customer

  2 sidecars, documents version 7, 1 behind
  4 nodes, 38 of 40 GPUs used; 48 of 60 replicas are ready; see pilotfish placement --problems,
  pilotfish nodes")]
pub struct Status {
    /// Only this namespace
    #[arg(short = 'n', long, value_name = "NAME")]
    namespace: Option<String>,

    /// Go on: redrawn in place on a terminal, one line for each change when piped. Ctrl-C ends it
    #[arg(short = 'w', long)]
    watch: bool,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Status {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        if self.watch {
            return watch::watch(&client, self.namespace.as_deref(), self.output).await;
        }
        let status = fetch(&client, self.namespace.as_deref()).await?;
        let placement = if self.output.is_data() { String::new() } else { placement(&client).await };
        let terminal = Terminal::stdout();
        self.output.print(&status, |wide| screen(&status, wide, human::now(), &terminal) + &placement)
    }
}

/// A line about placement, when anything is placed; empty when nobody can say.
async fn placement(client: &Client) -> String {
    let Ok(view) = client.get::<PlacementView>("/v1/placement").await else { return String::new() };
    if view.nodes.is_empty() && view.agents.is_empty() {
        return String::new();
    }
    let problems = view.agents.iter().filter(|group| rows::lacks(group)).count()
        + view.replicas.iter().filter(|replica| rows::ails(replica)).count()
        + view.nodes.iter().filter(|node| !node.troubles.is_empty() || node.status == "lost").count();
    let more = if problems == 0 { "" } else { "; see pilotfish placement --problems, pilotfish nodes" };
    format!("{}{more}\n", rows::summary(&view))
}

/// The status, of one namespace if so wished.
async fn fetch(client: &Client, namespace: Option<&str>) -> Result<FleetStatus, Failed> {
    let mut status: FleetStatus = client.get("/v1/status").await?;
    status.sidecars.retain(|sidecar| namespace.is_none_or(|name| name == sidecar.namespace));
    let own = namespace.map(|name| format!("{name}/"));
    status.actions.retain(|held| own.as_ref().is_none_or(|own| held.agent.starts_with(own)));
    Ok(status)
}

/// The table, what needs a word below it, and a summary.
fn screen(status: &FleetStatus, wide: bool, now: u64, terminal: &Terminal) -> String {
    let mut text = String::new();
    if !status.sidecars.is_empty() {
        text.push_str(&table(status, wide, now).print(terminal));
    }
    text.push_str(&remarks(status, now, terminal));
    let behind = status.sidecars.iter().filter(|sidecar| sidecar.serving < sidecar.rendered).count();
    let _ =
        write!(text, "{}, documents version {}", count(status.sidecars.len(), "sidecar"), status.documents);
    let _ = match behind {
        0 => writeln!(text),
        _ => writeln!(text, ", {behind} behind"),
    };
    text
}

fn table(status: &FleetStatus, wide: bool, now: u64) -> Table {
    let mut heads = vec![
        "AGENT",
        "NAMESPACE",
        "STATUS",
        ">RENDERED",
        ">DISTRIBUTED",
        ">ACCEPTED",
        ">SERVING",
        "CONTACT",
        "CERTIFICATE",
    ];
    if wide {
        heads.extend(["INSTANCE", "ADDRESS", "BUILD"]);
    }
    let mut table = Table::new(&heads);
    for sidecar in &status.sidecars {
        let mut cells = row(sidecar, &status.actions, now);
        if wide {
            cells.push(short(&sidecar.instance).into());
            cells.push(sidecar.address.as_deref().unwrap_or_default().into());
            cells.push(sidecar.build.as_str().into());
        }
        table.row(cells);
    }
    table
}

fn row(sidecar: &SidecarStatus, actions: &[Held], now: u64) -> Vec<Cell> {
    let step = |version: u64| {
        let text = version.to_string();
        if version < sidecar.rendered { Cell::toned(text, Tone::Warn) } else { text.into() }
    };
    let certificate = match sidecar.certificate_expires {
        Some(at) if at <= now => Cell::toned(human::expiry(at, now), Tone::Bad),
        Some(at) => human::expiry(at, now).into(),
        None => "".into(),
    };
    vec![
        sidecar.agent.as_str().into(),
        sidecar.namespace.as_str().into(),
        condition(sidecar, actions),
        step(sidecar.rendered),
        step(sidecar.distributed),
        step(sidecar.accepted),
        step(sidecar.serving),
        human::moment(sidecar.last_contact.min(now), now).into(),
        certificate,
    ]
}

/// How it is, in a word.
fn condition(sidecar: &SidecarStatus, actions: &[Held]) -> Cell {
    if !sidecar.connected {
        return Cell::toned("away", Tone::Bad);
    }
    match hold::of(actions, &sidecar.namespace, &sidecar.agent) {
        Some(held) => hold::cell(held),
        None => Cell::toned(sidecar.status.word(), status_tone(sidecar.status)),
    }
}

/// The colour of a status.
pub fn status_tone(status: AgentStatus) -> Tone {
    match status {
        AgentStatus::Ready => Tone::Good,
        AgentStatus::Initializing | AgentStatus::Degraded | AgentStatus::Draining => Tone::Warn,
        AgentStatus::Quarantined => Tone::Bad,
    }
}

/// Whose sidecars are too old to say for whom their agents call; of many the first.
fn unsigned(sidecars: &[SidecarStatus]) -> String {
    const SHOWN: usize = 5;
    let old: Vec<&SidecarStatus> = sidecars.iter().filter(|own| own.connected && own.unsigned).collect();
    let names: Vec<String> = old
        .iter()
        .take(SHOWN)
        .map(|own| format!("{}/{} ({})", own.namespace, own.agent, own.build))
        .collect();
    let more = if old.len() > SHOWN { ", ..." } else { "" };
    match old.len() {
        0 => String::new(),
        number => format!(
            "{} too old to sign for whom its agent calls: {}{more}; where that is required (--delegation require, delegation_required) \
             its calls are refused\n",
            if number == 1 { "1 sidecar is".to_owned() } else { format!("{number} sidecars are") },
            harmless(&names.join(", "), false)
        ),
    }
}

/// Who is held to what, refusals with reasons, and why agents are not well.
fn remarks(status: &FleetStatus, now: u64, terminal: &Terminal) -> String {
    let mut text = String::new();
    if status.default_deny {
        text.push_str("default deny: nobody may call an agent whom no ALLOW policy lets in\n");
    }
    for held in &status.actions {
        let _ = writeln!(text, "{}", terminal.paint(Tone::Bad, &hold::line(held, now)));
    }
    for sidecar in &status.sidecars {
        let name = harmless(&format!("{}/{}", sidecar.namespace, sidecar.agent), false);
        if let Some(refused) = &sidecar.refused {
            let line = format!("{name} refused version {}:", refused.version);
            let _ = writeln!(text, "{}", terminal.paint(Tone::Bad, &line));
            for reason in &refused.reasons {
                let _ = writeln!(text, "  {}", harmless(reason, true).replace('\n', "\n    "));
            }
        }
        if let Some(detail) = sidecar.detail.as_ref().filter(|_| sidecar.status != AgentStatus::Ready) {
            let _ = writeln!(text, "{name} is {}: {}", sidecar.status.word(), harmless(detail, false));
        }
    }
    text.push_str(&unsigned(&status.sidecars));
    if text.is_empty() || (status.sidecars.is_empty() && status.actions.is_empty()) {
        text
    } else {
        format!("\n{text}\n")
    }
}
