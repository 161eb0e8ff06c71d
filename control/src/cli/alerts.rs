//! `pilotfish alerts`: what somebody has to look at.

use clap::Args;

use super::client::{Client, Connection};
use super::failed::Failed;
use super::human;
use super::output::Output;
use super::table::{Cell, Table};
use super::terminal::{Terminal, Tone};
use crate::api::types::{AlertRow, AlertRuleRow, Alerts as Answer};

/// Show what somebody has to look at: rules that hold, and for how long.
///
/// Four rules are there by default; AlertRule documents add others or take their place (`pilotfish get alertrules`,
/// `pilotfish schema AlertRule`). A rule that holds is pending; it fires when it held for as long as it says, and is
/// resolved when it was over for a minute. `pilotfish serve --alert-webhook URL` sends alerts on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish alerts
  pilotfish alerts --all
  pilotfish alerts -o json | jq '.alerts[] | select(.state == \"firing\")'

Prints:
  STATE    SINCE      SEVERITY  RULE                         AGENT            VALUE   THRESHOLD
  firing   3 min ago  critical  pilotfish-system/error-rate  default/booking  12.4 %  5 %
  pending  40 s ago   warning   pilotfish-system/latency     default/search   7.5 s   5 s")]
pub struct Alerts {
    /// Also what was resolved within 15 minutes, and every rule
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Alerts {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        let mut answer: Answer = client.get("/v1/alerts").await?;
        if !self.all {
            answer.alerts.retain(|alert| alert.state != "resolved");
        }
        if answer.alerts.is_empty() && !self.output.is_data() {
            let active = answer.rules.iter().filter(|rule| !rule.disabled).count();
            eprintln!("nothing to look at: {} evaluated", said(active));
        }
        let all = self.all;
        self.output.print(&answer, |wide| text(&answer, all, wide, human::now(), &Terminal::stdout()))
    }
}

fn said(rules: usize) -> String {
    format!("{} {}", human::count(rules, "rule"), if rules == 1 { "is" } else { "are" })
}

fn text(answer: &Answer, all: bool, wide: bool, now: u64, terminal: &Terminal) -> String {
    let mut parts = Vec::new();
    if !answer.alerts.is_empty() {
        parts.push(alerts(&answer.alerts, wide, now).print(terminal));
    }
    if all {
        parts.push(rules(&answer.rules).print(terminal));
    }
    parts.join("\n")
}

fn alerts(rows: &[AlertRow], wide: bool, now: u64) -> Table {
    let mut heads = vec!["STATE", "SINCE", "SEVERITY", "RULE", "AGENT", "VALUE", "THRESHOLD"];
    if wide {
        heads.push("SUMMARY");
    }
    let mut table = Table::new(&heads);
    for row in rows {
        let mut cells: Vec<Cell> = vec![
            state(&row.state, &row.severity),
            human::moment(row.since, now).into(),
            row.severity.as_str().into(),
            row.rule.as_str().into(),
            row.agent.as_str().into(),
            row.shown.as_str().into(),
            row.shown_threshold.as_str().into(),
        ];
        if wide {
            cells.push(row.annotations.get("summary").unwrap_or(&row.summary).as_str().into());
        }
        table.row(cells);
    }
    table
}

fn state(state: &str, severity: &str) -> Cell {
    match (state, severity) {
        ("firing", "critical") => Cell::toned(state, Tone::Bad),
        ("firing" | "pending", _) => Cell::toned(state, Tone::Warn),
        ("resolved", _) => Cell::toned(state, Tone::Good),
        _ => state.into(),
    }
}

fn rules(rows: &[AlertRuleRow]) -> Table {
    let mut table = Table::new(&["RULE", "STATE", "SEVERITY", "WHEN", "FROM"]);
    for row in rows {
        let own = if row.disabled { "disabled" } else { row.state.as_str() };
        table.row([
            row.name.as_str().into(),
            state(own, &row.severity),
            row.severity.as_str().into(),
            row.condition.as_str().into(),
            if row.default { "default" } else { "document" }.into(),
        ]);
    }
    table
}
