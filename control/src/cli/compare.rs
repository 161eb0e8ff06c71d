//! `pilotfish compare`: what changed since another time.

use clap::Args;

use super::client::{Client, Connection, query};
use super::failed::Failed;
use super::human;
use super::output::Output;
use super::table::{Cell, Table};
use super::terminal::{Terminal, Tone};
use crate::api::analysis::{Calls, Change, ChangeKind, Comparison, Operation};

/// Show what changed between two windows of time: what is slower, fails, is new, is gone.
///
/// Reads the newest 2,000 traces of each window. A change is told only when there are enough calls on both sides and
/// chance alone would make it in less than one of a hundred cases.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish compare
  pilotfish compare --window 15m --against 1h
  pilotfish compare --all -o wide

Prints:
  CHANGE   AGENT            OPERATION   FINDING
  failing  default/booking  POST /book  12.4 % of 321 calls fail, before 0.3 % of 298 calls
  slower   default/search   GET /       p50 180 ms, before 42 ms")]
pub struct Compare {
    /// How long each window is
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    window: String,

    /// How long ago the window ended that the newest is compared with
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    against: String,

    /// Also operations that did not change
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Compare {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        let pairs = [("window", Some(self.window.as_str())), ("since", Some(self.against.as_str()))];
        let answer: Comparison = client.get(&query("/v1/changes", &pairs)).await?;
        if !self.output.is_data() {
            say(&answer);
        }
        let all = self.all;
        self.output.print(&answer, |wide| {
            let terminal = Terminal::stdout();
            let mut parts = vec![changes(&answer.changes), operations(&answer.operations, wide)];
            parts.truncate(if all { 2 } else { 1 });
            let parts = parts.iter().filter(|table| !table.is_empty());
            parts.map(|table| table.print(&terminal)).collect::<Vec<_>>().join("\n")
        })
    }
}

fn say(answer: &Comparison) {
    let traces = |count: usize, more: bool| {
        let newest = if more { " (the newest)" } else { "" };
        format!("{}{newest}", human::count(count, "trace"))
    };
    let (now, before) = (&answer.now, &answer.before);
    eprintln!("{} now, {} before", traces(now.traces, now.more), traces(before.traces, before.more));
    if now.traces == 0 || before.traces == 0 {
        eprintln!("there is nothing to compare: try another --window or --against");
    } else if answer.changes.is_empty() {
        eprintln!("nothing changed that chance does not explain");
    }
}

fn changes(rows: &[Change]) -> Table {
    let mut table = Table::new(&["CHANGE", "AGENT", "OPERATION", "FINDING"]);
    for row in rows {
        table.row([
            kind(row.kind),
            row.operation.agent.as_str().into(),
            row.operation.name.as_str().into(),
            row.finding.as_str().into(),
        ]);
    }
    table
}

fn kind(kind: ChangeKind) -> Cell {
    match kind {
        ChangeKind::Failing => Cell::toned("failing", Tone::Bad),
        ChangeKind::Slower => Cell::toned("slower", Tone::Warn),
        ChangeKind::Vanished => Cell::toned("vanished", Tone::Warn),
        ChangeKind::New => "new".into(),
        ChangeKind::Recovered => Cell::toned("recovered", Tone::Good),
        ChangeKind::Faster => Cell::toned("faster", Tone::Good),
    }
}

fn operations(rows: &[Operation], wide: bool) -> Table {
    let mut heads = vec!["AGENT", "OPERATION", ">CALLS", ">BEFORE", ">ERRORS", ">BEFORE", ">P95", ">BEFORE"];
    if wide {
        heads.extend([">P50", ">BEFORE"]);
    }
    let mut table = Table::new(&heads);
    let rate = |calls: &Calls| {
        if calls.count == 0 { String::new() } else { crate::alerts::rules::percent(calls.error_rate) }
    };
    let time =
        |calls: &Calls, of: u64| if calls.count == 0 { String::new() } else { human::latency(of / 1000) };
    for row in rows {
        let (now, before) = (&row.now, &row.before);
        let mut cells: Vec<Cell> = vec![
            row.agent.as_str().into(),
            row.name.as_str().into(),
            now.count.to_string().into(),
            before.count.to_string().into(),
            rate(now).into(),
            rate(before).into(),
            time(now, now.p95_ns).into(),
            time(before, before.p95_ns).into(),
        ];
        if wide {
            cells.extend([time(now, now.p50_ns).into(), time(before, before.p50_ns).into()]);
        }
        table.row(cells);
    }
    table
}
