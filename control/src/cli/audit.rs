//! `pilotfish audit`: what was decided, and whether the log of it is whole.

mod planes;
mod verify;

use std::collections::HashSet;
use std::time::Duration;

use clap::{Args, Subcommand};
use pilotfish_config::wire::{AuditRecord, AuditWhat};

use super::client::{Connection, query};
use super::failed::Failed;
use super::human;
use super::output::Output;
use super::table::{Cell, Table};
use super::terminal::{self, Terminal, Tone};
use crate::audit::Row;
use planes::{Answered, Planes};
use verify::Verify;

/// Between two looks with `--follow`.
const EVERY: Duration = Duration::from_secs(1);
/// Records that one look of `--follow` shows at most.
const MOST: u32 = 1000;

/// Show what was decided: who called whom, for what, and by which policy.
///
/// Each sidecar keeps a log of its decisions, chained by hashes, and sends it here. By default it records what is refused,
/// what AUDIT policies match and what dry runs would decide otherwise; `audit_all_actions` of an AgentSecurityPolicy, or
/// `pilotfish-proxy --audit all`, records everything. -o wide has each refusal's sentence too. No payload, no query and no header is
/// in it. When several control planes share a store all of them are asked; one that does not answer is named.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  pilotfish audit
  pilotfish audit --denied --since 1h
  pilotfish audit --agent default/billing --caller planner -f
  pilotfish audit --trace 4bf92f3577b34da6 -o json
  pilotfish audit verify
  pilotfish audit verify /var/lib/pilotfish/default-billing/audit

Prints:
  TIME     AGENT        OUTCOME  CALLER                          ACTION     POLICY   WHY
  3 s ago  shop/ledger  denied   cluster.local/ns/shop/agent/ui  POST /pay  shop/ro  access-denied"
)]
pub struct Audit {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(Verify),
}

#[derive(Debug, Args)]
struct List {
    /// Only what the sidecar of this agent decided: NAMESPACE/AGENT, or AGENT in every namespace
    #[arg(long, value_name = "NS/AGENT")]
    agent: Option<String>,

    /// Only calls of somebody whose identity, or token's owner, contains this
    #[arg(long, value_name = "TEXT")]
    caller: Option<String>,

    /// Only what was refused
    #[arg(long)]
    denied: bool,

    /// Only of the last `1h`, or since a time such as 2026-11-21T18:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,

    /// Only before; as --since
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    until: Option<String>,

    /// Only of this trace; the first digits are enough
    #[arg(long, value_name = "ID")]
    trace: Option<String>,

    /// Only what a policy decided whose name contains this
    #[arg(long, value_name = "TEXT")]
    policy: Option<String>,

    /// At most so many, the newest; up to 10000
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,

    /// Go on with what comes, the newest last
    #[arg(short, long)]
    follow: bool,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Audit {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        match self.command {
            Some(Command::Verify(verify)) => verify.run().await,
            None => self.list.run().await,
        }
    }
}

impl List {
    async fn run(self) -> Result<(), Failed> {
        let mut planes = Planes::open(&self.connection).await?;
        let found = self.ask(&mut planes, self.since.as_deref(), self.limit).await?;
        if self.follow {
            return self.follow(&mut planes, found).await;
        }
        if found.is_empty() && !self.output.is_data() {
            eprintln!("no record is known for which this holds");
        }
        self.output.print(&found, |wide| table(&found, wide, &Terminal::stdout(), human::now()))
    }

    /// The newest records of all control planes; what several have is there once.
    async fn ask(&self, planes: &mut Planes, since: Option<&str>, limit: u32) -> Result<Vec<Row>, Failed> {
        let text = limit.to_string();
        let pairs = [
            ("agent", self.agent.as_deref()),
            ("caller", self.caller.as_deref()),
            ("denied", self.denied.then_some("true")),
            ("since", since),
            ("until", self.until.as_deref()),
            ("trace", self.trace.as_deref()),
            ("policy", self.policy.as_deref()),
            ("limit", Some(text.as_str())),
        ];
        let answered: Vec<Answered<Vec<Row>>> = planes.ask(&query("/v1/audit", &pairs)).await?;
        planes.say_missing();
        let mut found: Vec<Row> = answered.into_iter().flat_map(|one| one.answer).collect();
        let mut known = HashSet::new();
        found.retain(|row| known.insert((row.log.clone(), row.record.seq)));
        found.sort_by_key(|row| std::cmp::Reverse((row.record.time_ns, row.record.seq)));
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(found)
    }

    /// Shows what is there, the newest last, then what comes, until nobody wants more.
    async fn follow(&self, planes: &mut Planes, mut found: Vec<Row>) -> Result<(), Failed> {
        let (mut shown, mut headed) = (HashSet::new(), false);
        loop {
            found.retain(|row| !shown.contains(&(row.log.clone(), row.record.seq)));
            found.reverse();
            if self.output.is_data() {
                for row in &found {
                    let line = serde_json::to_string(row);
                    terminal::print(&(line.map_err(|error| Failed::refused(error.to_string()))? + "\n"));
                }
            } else if !found.is_empty() {
                let text = table(&found, false, &Terminal::stdout(), human::now());
                let from = if headed { text.find('\n').map_or(0, |at| at + 1) } else { 0 };
                terminal::print(&text[from..]);
                headed = true;
            }
            // What was shown is asked for again for a while: records of several agents come as they like.
            shown.extend(found.drain(..).map(|row| (row.log, row.record.seq)));
            tokio::select! {
                biased;
                _ = tokio::signal::ctrl_c() => return Ok(()),
                () = tokio::time::sleep(EVERY) => {}
            }
            found = self.ask(planes, Some("1m"), MOST).await?;
        }
    }
}

fn table(found: &[Row], wide: bool, terminal: &Terminal, now: u64) -> String {
    if found.is_empty() {
        return String::new();
    }
    let mut heads = vec!["TIME", "AGENT", "OUTCOME", "CALLER", "ACTION", "POLICY", "WHY"];
    if wide {
        heads.extend(["PERMISSION", "RESOURCE", "CHAIN", "TRACE", "SEQ"]);
    }
    let mut table = Table::new(&heads);
    for Row { record, .. } in found {
        let at = record.time_ns / 1_000_000_000;
        let mut cells: Vec<Cell> = vec![
            if wide { human::date(at) } else { human::moment(at, now) }.into(),
            record.agent.as_str().into(),
            outcome(record),
            caller(record).into(),
            action(record).into(),
            if record.what == AuditWhat::Erased { "" } else { record.policy.as_str() }.into(),
            why(record, wide).into(),
        ];
        if wide {
            cells.extend([
                record.permission.as_str().into(),
                record.resource.as_str().into(),
                record.chain.join(" > ").into(),
                record.trace.as_str().into(),
                record.seq.to_string().into(),
            ]);
        }
        table.row(cells);
    }
    table.print(terminal).lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn outcome(record: &AuditRecord) -> Cell {
    let word = serde_json::to_value(record.what).unwrap_or_default();
    let word = word.as_str().unwrap_or_default();
    match (record.outcome.as_str(), record.what) {
        ("denied", AuditWhat::Answer) => Cell::toned("held back", Tone::Bad),
        ("denied", _) => Cell::toned("denied", Tone::Bad),
        ("", AuditWhat::Anomaly | AuditWhat::Gap) => Cell::toned(word, Tone::Warn),
        ("", _) => Cell::toned(word, Tone::Dim),
        ("allowed", _) => Cell::toned("allowed", Tone::Good),
        (other, _) => Cell::toned(other, Tone::Warn),
    }
}

fn caller(record: &AuditRecord) -> String {
    match record.request_principal.as_str() {
        "" => record.caller.clone(),
        token => format!("{} ({token})", record.caller),
    }
}

/// What was asked for; of whom, where the record is not of the one that was called.
fn action(record: &AuditRecord) -> String {
    match (record.direction.as_str(), record.host.as_str()) {
        ("outbound", host) if !host.is_empty() => format!("{} to {host}", record.action),
        _ => record.action.clone(),
    }
}

fn why(record: &AuditRecord, wide: bool) -> String {
    match (record.reason.as_str(), record.detail.as_str()) {
        ("", detail) => detail.to_owned(),
        (reason, detail) if wide && !detail.is_empty() => format!("{reason}: {detail}"),
        (reason, _) => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_record() {
        let record = AuditRecord {
            seq: 7,
            time_ns: 97_000_000_000,
            agent: "default/billing".into(),
            caller: "mesh/ns/default/agent/chat".into(),
            action: "POST /refund".into(),
            policy: "default/viewers".into(),
            outcome: "denied".into(),
            reason: "access-denied".into(),
            ..AuditRecord::default()
        };
        let start = AuditRecord {
            what: AuditWhat::Start,
            detail: "the log begins".into(),
            agent: "default/billing".into(),
            time_ns: 90_000_000_000,
            ..AuditRecord::default()
        };
        let outbound = AuditRecord {
            time_ns: 98_000_000_000,
            agent: "default/chat".into(),
            direction: "outbound".into(),
            host: "billing".into(),
            caller: "127.0.0.1".into(),
            policy: String::new(),
            reason: "quarantined".into(),
            ..record.clone()
        };
        let rows = [outbound, record, start].map(|record| Row { log: "c".into(), record });
        assert_eq!(
            table(&rows, false, &Terminal::PIPE, 100),
            "TIME      AGENT            OUTCOME  CALLER                      ACTION                   POLICY           WHY\n\
             2 s ago   default/chat     denied   127.0.0.1                   POST /refund to billing  -                quarantined\n\
             3 s ago   default/billing  denied   mesh/ns/default/agent/chat  POST /refund             default/viewers  access-denied\n\
             10 s ago  default/billing  start    -                           -                        -                the log begins\n"
        );
    }
}
