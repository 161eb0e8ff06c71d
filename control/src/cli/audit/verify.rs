//! `pilotfish audit verify`: whether logs are as they were written; those of the control plane, or folders of this machine.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use pilotfish_audit::folder::{HEAD, stretches};
use pilotfish_audit::reader::hash_at;
use pilotfish_audit::{Finding, Report, verify};
use serde::{Deserialize, Serialize};

use crate::cli::client::{Client, Connection, query};
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
/// with its copies, so that a log that was written anew as a whole is found too. Exit code 1: something is wrong.
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
        let looked = if self.folders.is_empty() { self.stored().await? } else { self.local().await? };
        if looked.is_empty() {
            return Err(Failed::refused("there is no audit log to look at"));
        }
        self.output.print(&looked, |_| table(&looked, &Terminal::stdout()))?;
        let broken = looked.iter().any(|log| !log.chain.findings.is_empty());
        if broken { Err(Failed::told(Why::Refused)) } else { Ok(()) }
    }

    async fn stored(&self) -> Result<Vec<Looked>, Failed> {
        let client = Client::open(&self.connection).await?;
        let chains = ask(&client, self.agent.as_deref()).await?;
        let place = |chain| Looked { chain, place: "control plane".into() };
        Ok(chains.into_iter().map(place).collect())
    }

    async fn local(&self) -> Result<Vec<Looked>, Failed> {
        // The copies first: what is recorded meanwhile is missing there, not here.
        let copies = match Client::open(&self.connection).await {
            Ok(client) => Some(ask(&client, None).await?),
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
            if !report.findings.is_empty() {
                // A line may have been on its way to the disk.
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                report = verify(&folder).map_err(failed)?;
            }
            let agent = report.agent.as_str();
            let short = agent.split_once('/').map_or(agent, |(_, name)| name);
            if self.agent.as_deref().is_some_and(|wanted| wanted != agent && wanted != short) {
                continue;
            }
            if let Some(copies) = &copies {
                report.findings.extend(compare(&folder, &report, copies).map_err(failed)?);
            }
            looked.push(Looked { chain: report, place: folder.display().to_string() });
        }
        Ok(looked)
    }
}

async fn ask(client: &Client, agent: Option<&str>) -> Result<Vec<Report>, Failed> {
    Ok(client.get(&query("/v1/audit/verify", &[("agent", agent)])).await?)
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

/// A log against the control plane's copy. Records hang on each other: when the last one of the copy is the same, all before are.
fn compare(folder: &Path, log: &Report, copies: &[Report]) -> std::io::Result<Option<Finding>> {
    let of_agent: Vec<&Report> = copies.iter().filter(|copy| copy.agent == log.agent).collect();
    let finding = |seq, what| Some(Finding { file: HEAD.into(), line: 0, seq, what });
    let Some(copy) = of_agent.iter().find(|copy| copy.chain == log.chain) else {
        let others = human::count(of_agent.len(), "other log");
        return Ok(match of_agent.len() {
            0 => None,
            _ => finding(
                0,
                format!(
                    "the control plane has {others} of this agent and not this one: it was written anew, or never sent"
                ),
            ),
        });
    };
    let (here, there) = (log, copy);
    if there.last > here.last {
        let what =
            format!("the control plane has records up to {}, this log ends with {}", there.last, here.last);
        return Ok(finding(there.last, what));
    }
    if there.last == 0 || there.last < here.first {
        return Ok(None);
    }
    let same = hash_at(folder, there.last)?.is_some_and(|tip| tip.hash.as_str() == there.hash);
    Ok(if same {
        None
    } else {
        finding(
            there.last,
            "the control plane has another record at this place: one of the two was written anew".into(),
        )
    })
}

fn table(looked: &[Looked], terminal: &Terminal) -> String {
    let mut table = Table::new(&["AGENT", "CHAIN", "RECORDS", "STATE", "WHERE"]);
    let mut words = String::new();
    for Looked { chain: report, place } in looked {
        let (whole, agent) = (report.findings.is_empty(), &report.agent);
        table.row([
            agent.as_str().into(),
            report.chain.get(..8).unwrap_or(&report.chain).into(),
            format!("{}-{}", report.first, report.last).into(),
            if whole { Cell::toned("whole", Tone::Good) } else { Cell::toned("broken", Tone::Bad) },
            place.as_str().into(),
        ]);
        if !whole {
            words.push_str(&format!("\n{}\n", harmless(&format!("{agent}, {place}"), false)));
        }
        for Finding { file, line, seq, what } in &report.findings {
            let line = if *line > 0 { format!(" line {line}") } else { String::new() };
            let seq = if *seq > 0 { format!(", record {seq}") } else { String::new() };
            words.push_str(&format!("  {}\n", harmless(&format!("{file}{line}{seq}: {what}"), false)));
        }
    }
    table.print(terminal).lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>() + &words
}
