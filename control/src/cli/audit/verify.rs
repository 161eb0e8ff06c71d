//! `pilotfish audit verify`: whether logs are as they were written; those of the control plane, or folders of this machine.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use pilotfish_audit::folder::{HEAD, stretches};
use pilotfish_audit::reader::hash_at;
use pilotfish_audit::{Finding, Report, verify};
use serde::{Deserialize, Serialize};

use super::planes::{Answered, Planes};
use crate::cli::client::{Connection, query};
use crate::cli::failed::{Failed, Why};
use crate::cli::human;
use crate::cli::output::Output;
use crate::cli::table::{Cell, Table};
use crate::cli::terminal::{Terminal, Tone, harmless};

/// How deep below a named folder a log may lie.
const DEEP: usize = 3;

/// Find out whether audit logs are as they were written.
///
/// Any edited byte, any line or file that was removed, moved or cut off is found. Without folders the control plane looks at
/// its own copies. With folders this machine's logs are looked at, also without a control plane; with one they are compared
/// with its copies, so that a log that was written anew as a whole is found too. Several control planes of one store are all asked. Exit code 1: something
/// is wrong; 4: nothing is wrong with what was looked at, and a control plane did not answer.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish audit verify
  pilotfish audit verify --agent default/billing -o json
  pilotfish audit verify ~/.local/state/pilotfish/default-billing/audit

Prints:
  AGENT            CHAIN     RECORDS  STATE   WHERE
  default/billing  5f0c2a91  1-20417  broken  /var/lib/pilotfish/default-billing/audit

  000000000001.jsonl line 17, record 17: the line was changed: its hash is another")]
pub struct Verify {
    /// Only the logs of this agent: NAMESPACE/AGENT, or AGENT in every namespace
    #[arg(long, value_name = "NS/AGENT")]
    agent: Option<String>,

    /// Folders of this machine with logs, or folders of such folders
    #[arg(value_name = "DIR")]
    folders: Vec<PathBuf>,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

/// A log that was looked at.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Looked {
    #[serde(flatten)]
    chain: Report,
    /// Where it is: a folder, or `control plane`.
    place: String,
}

impl Verify {
    /// Does it.
    pub(super) async fn run(self) -> Result<(), Failed> {
        let (looked, missing) =
            if self.folders.is_empty() { self.stored().await? } else { (self.local().await?, 0) };
        if looked.is_empty() {
            return Err(Failed::refused("there is no audit log to look at"));
        }
        self.output.print(&looked, |_| table(&looked, &Terminal::stdout()))?;
        let broken = looked.iter().any(|log| !log.chain.is_whole());
        match (broken, missing) {
            (true, _) => Err(Failed::told(Why::Refused)),
            (false, 0) => Ok(()),
            (false, _) => Err(Failed::told(Why::Unreachable)),
        }
    }

    /// The logs that control planes have, and how many of those did not answer.
    async fn stored(&self) -> Result<(Vec<Looked>, usize), Failed> {
        let mut planes = Planes::open(&self.connection).await?;
        let answered = planes.ask(&query("/v1/audit/verify", &[("agent", self.agent.as_deref())])).await?;
        let looked = answered.into_iter().flat_map(|Answered::<Vec<Report>> { control, answer }| {
            let place = format!("control plane {control}").trim_end().to_owned();
            answer.into_iter().map(move |chain| Looked { chain, place: place.clone() })
        });
        Ok((looked.collect(), planes.say_missing()))
    }

    async fn local(&self) -> Result<Vec<Looked>, Failed> {
        // The copies first: what is recorded meanwhile is missing there, not here.
        let copies = match Planes::open(&self.connection).await {
            Ok(mut planes) => {
                let copies: Vec<Answered<Vec<Report>>> = planes.ask("/v1/audit/verify").await?;
                planes.say_missing();
                Some(copies.into_iter().flat_map(|one| one.answer).collect::<Vec<Report>>())
            }
            Err(failed) if failed.why == Why::Unreachable => {
                eprintln!("not compared with copies of a control plane: {}", failed.message);
                None
            }
            Err(failed) => return Err(failed),
        };
        let mut folders = Vec::new();
        for folder in &self.folders {
            let before = folders.len();
            find(folder, DEEP, &mut folders)?;
            if folders.len() == before {
                return Err(Failed::refused(format!("{}: there is no audit log", folder.display())));
            }
        }
        let mut looked = Vec::new();
        for folder in folders {
            let failed = |error| Failed::refused(format!("{}: {error}", folder.display()));
            let mut report = verify(&folder).map_err(failed)?;
            if !report.is_whole() {
                // A line may have been on its way to the disk.
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                report = verify(&folder).map_err(failed)?;
            }
            let agent = report.agent.as_str();
            let short = agent.split_once('/').map_or(agent, |(_, name)| name);
            if self.agent.as_deref().is_some_and(|wanted| wanted != agent && wanted != short) {
                continue;
            }
            if let Some(copies) = copies.as_ref().filter(|_| report.unverifiable.is_empty()) {
                report.findings.extend(compare(&folder, &report, copies).map_err(failed)?);
            }
            looked.push(Looked { chain: report, place: folder.display().to_string() });
        }
        Ok(looked)
    }
}

/// The folders with logs.
fn find(folder: &Path, deep: usize, found: &mut Vec<PathBuf>) -> Result<(), Failed> {
    let failed = |error| Failed::refused(format!("{}: {error}", folder.display()));
    if folder.join(HEAD).exists() || !stretches(folder).map_err(failed)?.is_empty() {
        found.push(folder.to_owned());
    }
    if deep > 0 {
        let entries = fs::read_dir(folder).map_err(failed)?.flatten();
        let mut folders: Vec<PathBuf> =
            entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink()).collect();
        folders.sort();
        folders.iter().try_for_each(|folder| find(folder, deep - 1, found))?;
    }
    Ok(())
}

/// A log against the control planes' copies. Records hang on each other: when the last one of a copy is the same, all before are.
fn compare(folder: &Path, log: &Report, copies: &[Report]) -> std::io::Result<Option<Finding>> {
    let of_agent: Vec<&Report> = copies.iter().filter(|copy| copy.agent == log.agent).collect();
    let mut of_log = of_agent.iter().filter(|copy| copy.chain == log.chain).peekable();
    if of_log.peek().is_none() && !of_agent.is_empty() {
        let others = human::count(of_agent.len(), "other log");
        return Ok(finding(
            0,
            format!(
                "the control plane has {others} of this agent and not this one: it was written anew, or never sent"
            ),
        ));
    }
    for copy in of_log {
        let found = compare_one(folder, log, copy)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn compare_one(folder: &Path, here: &Report, there: &Report) -> std::io::Result<Option<Finding>> {
    if there.last > here.last {
        let what =
            format!("the control plane has records up to {}, this log ends with {}", there.last, here.last);
        return Ok(finding(there.last, what));
    }
    if there.last == 0 || there.last < here.first {
        return Ok(None);
    }
    if hash_at(folder, there.last)?.is_some_and(|tip| tip.hash.as_str() == there.hash) {
        return Ok(None);
    }
    let what = "the control plane has another record at this place: one of the two was written anew";
    Ok(finding(there.last, what.into()))
}

fn finding(seq: u64, what: String) -> Option<Finding> {
    Some(Finding { file: HEAD.into(), line: 0, seq, what })
}

fn table(looked: &[Looked], terminal: &Terminal) -> String {
    let mut table = Table::new(&["AGENT", "CHAIN", "RECORDS", "STATE", "WHERE"]);
    let mut words = String::new();
    for Looked { chain: report, place } in looked {
        let (whole, agent) = (report.is_whole(), &report.agent);
        table.row([
            agent.as_str().into(),
            report.chain.get(..8).unwrap_or(&report.chain).into(),
            format!("{}-{}", report.first, report.last).into(),
            match (whole, report.findings.is_empty()) {
                (true, _) => Cell::toned("whole", Tone::Good),
                (false, true) => Cell::toned("unknown", Tone::Warn),
                (false, false) => Cell::toned("broken", Tone::Bad),
            },
            place.as_str().into(),
        ]);
        if !whole {
            words.push_str(&format!("\n{}\n", harmless(&format!("{agent}, {place}"), false)));
        }
        if !report.unverifiable.is_empty() {
            words.push_str(&format!("  {}\n", report.unverifiable));
        }
        for Finding { file, line, seq, what } in &report.findings {
            let line = if *line > 0 { format!(" line {line}") } else { String::new() };
            let seq = if *seq > 0 { format!(", record {seq}") } else { String::new() };
            words.push_str(&format!("  {}\n", harmless(&format!("{file}{line}{seq}: {what}"), false)));
        }
    }
    table.print(terminal).lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>() + &words
}
