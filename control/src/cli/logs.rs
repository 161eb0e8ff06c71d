//! `pilotfish logs`: the last lines that an agent printed.

use std::time::Duration;

use clap::Args;

use super::agent_name::full;
use super::client::{Client, Connection, Trouble, query};
use super::failed::{Failed, Why};
use super::human::count;
use super::placement::rows;
use super::terminal::{Terminal, Tone, harmless, print};
use crate::api::types::{PlacementView, TailLines};

/// How often new lines are asked for.
const FOLLOW: Duration = Duration::from_secs(1);
/// Replicas that are shown together, at most.
const MOST_REPLICAS: usize = 10;
/// Lines that are asked for while following: more in a second are not all seen.
const MOST_LINES: u32 = 1000;

/// Show the last lines that an agent printed.
///
/// The node of a replica keeps what it wrote to standard output and standard error. Of an agent with several replicas, lines
/// of each have its short name before them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish logs production/conversation-agent/qmvkzh2a7b  # of `placement --replicas`
  pilotfish logs conversation-agent -n production --lines 20
  pilotfish logs production/conversation-agent --follow

Prints:
  qmvkzh2a7b  listening on 127.0.0.1:40123
  xk3c9d2mfe  Traceback (most recent call last):")]
pub struct Logs {
    /// NAMESPACE/AGENT/REPLICA, or all replicas of an agent: NAMESPACE/AGENT, or AGENT with -n
    #[arg(value_name = "REPLICA|AGENT")]
    what: String,

    /// The agent's namespace [default: default]
    #[arg(short = 'n', long, value_name = "NAME")]
    namespace: Option<String>,

    /// So many lines of each
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    lines: u32,

    /// Go on with new lines, asked for every second. Ctrl-C ends it
    #[arg(short = 'f', long)]
    follow: bool,

    #[command(flatten)]
    connection: Connection,
}

/// A replica whose lines are shown.
struct Source {
    id: String,
    /// What was seen last.
    seen: Vec<String>,
}

impl Logs {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        let mut sources: Vec<Source> = self.replicas(&client).await?;
        let terminal = Terminal::stdout();
        let several = sources.len() > 1;
        let mut failed = None;
        // While following, the same number is asked for each time: so ends line up with beginnings.
        let asked = if self.follow { self.lines.max(MOST_LINES) } else { self.lines };
        for source in &mut sources {
            match tail(&client, &source.id, asked).await {
                Ok(lines) => {
                    let skipped = lines.len().saturating_sub(self.lines as usize);
                    show(&source.id, &lines[skipped..], several, &terminal);
                    source.seen = lines;
                }
                Err(trouble) if several => {
                    let trouble = Failed::from(trouble);
                    eprintln!("{}: {}", harmless(&source.id, false), trouble.message);
                    failed = Some(Failed::told(trouble.why));
                }
                Err(trouble) => return Err(trouble.into()),
            }
        }
        if !self.follow {
            return failed.map_or(Ok(()), Err);
        }
        loop {
            tokio::time::sleep(FOLLOW).await;
            for source in &mut sources {
                match tail(&client, &source.id, asked).await {
                    Ok(lines) => {
                        show(&source.id, newer(&source.seen, &lines), several, &terminal);
                        source.seen = lines;
                    }
                    Err(Trouble::Refused { status: http::StatusCode::NOT_FOUND, .. }) if several => {}
                    Err(Trouble::Refused { status: http::StatusCode::MISDIRECTED_REQUEST, .. }) => {}
                    Err(Trouble::Failed(failed)) if failed.why == Why::Unreachable => {}
                    Err(trouble) => return Err(trouble.into()),
                }
            }
        }
    }

    /// The replicas that are meant.
    async fn replicas(&self, client: &Client) -> Result<Vec<Source>, Failed> {
        if self.what.matches('/').count() == 2 {
            return Ok(vec![Source { id: self.what.clone(), seen: Vec::new() }]);
        }
        let agent = full(&self.what, self.namespace.as_deref())?;
        let view: PlacementView = client.get("/v1/placement").await?;
        let mut found: Vec<Source> = view
            .replicas
            .into_iter()
            .filter(|replica| rows::is_of(&replica.group, &agent) && replica.node.is_some())
            .map(|replica| Source { id: replica.id, seen: Vec::new() })
            .collect();
        let agent = harmless(&agent, false);
        if found.is_empty() {
            return Err(Failed::refused(format!(
                "no replica of {agent} has a place; `pilotfish placement explain {agent}` says why"
            )));
        }
        if found.len() > MOST_REPLICAS {
            eprintln!("{} of {agent}; the first {MOST_REPLICAS} are shown", count(found.len(), "replica"));
            found.truncate(MOST_REPLICAS);
        }
        Ok(found)
    }
}

async fn tail(client: &Client, replica: &str, lines: u32) -> Result<Vec<String>, Trouble> {
    let lines = lines.to_string();
    let path = query("/v1/replicas/tail", &[("replica", Some(replica)), ("lines", Some(&lines))]);
    let answer: TailLines = client.get(&path).await?;
    Ok(answer.lines)
}

/// Prints lines; what an agent printed does not steer the terminal.
fn show(id: &str, lines: &[String], several: bool, terminal: &Terminal) {
    let short = id.rsplit('/').next().unwrap_or(id);
    let before =
        if several { terminal.paint(Tone::Dim, &harmless(short, false)) + "  " } else { String::new() };
    print(&lines.iter().map(|line| format!("{before}{}\n", harmless(line, false))).collect::<String>());
}

/// Those of `now` that `before` had not: what comes after the longest end of `before` that `now` begins with.
fn newer<'l>(before: &[String], now: &'l [String]) -> &'l [String] {
    let overlap = (0..=before.len()).rev().find(|kept| now.starts_with(&before[before.len() - kept..]));
    &now[overlap.unwrap_or_default()..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.chars().map(String::from).collect()
    }

    #[test]
    fn only_what_is_new_is_shown() {
        for (before, now, new) in [
            ("", "abc", "abc"),
            ("abc", "abc", ""),
            ("abc", "abcd", "d"),
            ("abc", "bcde", "de"),
            ("abc", "xyz", "xyz"),
            ("aaa", "aaaa", "a"),
            ("abab", "ababab", "ab"),
            ("xab", "abab", "ab"),
        ] {
            assert_eq!(newer(&lines(before), &lines(now)).concat(), new, "{before} {now}");
        }
    }
}
