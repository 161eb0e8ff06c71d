//! `pilotfish quarantine`, `restrict` and `release`: what an agent is held to at once, in every sidecar.

use std::time::Duration;

use clap::Args;
use pilotfish_config::units;

use super::agent_name::AgentArgs;
use super::client::{Client, Connection};
use super::failed::Failed;
use super::human;
use super::output::Output;
use super::table::Cell;
use super::terminal::{Tone, harmless};
use crate::actions::word;
use crate::api::types::{Act, Done, Held, Hold};

/// Cut an agent off: it calls nobody, and nobody calls it.
///
/// In force in every sidecar within a second, for calls under way too: its connections, streams and tunnels are cut. Its identity
/// stays, so it is back at once when it is released; `pilotfish revoke` takes the identity away as well.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish quarantine chat -n production --for 10m --why 'asks for every customer'
  pilotfish quarantine production/chat
  pilotfish release production/chat       # ends it
  pilotfish status                        # shows who is held, since when and why

Prints:
  production/chat is quarantined: it calls nobody, nobody calls it, and its open connections are
  cut; it ends in 10 min
  `pilotfish release production/chat` undoes it")]
pub struct Quarantine {
    #[command(flatten)]
    holding: Holding,
}

/// Let an agent ask for some capabilities only.
///
/// Each of its calls has to name a capability (`agent-capability`, or the host NAME.capability.mesh), all of them out of the list, and
/// goes only to agents that have one of these. Calls that name none, tunnels and hosts outside of the mesh are refused. Others may
/// still call it. In force in every sidecar within a second; its open connections are cut, and what it still may do connects again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish restrict chat -n production --to natural_language_understanding --for 1h
  pilotfish restrict production/chat --to nlu,translation --why 'until its prompt is looked at'
  pilotfish release production/chat       # ends it

Prints:
  production/chat may only ask for nlu, translation: its other calls are refused, and its open
  connections are cut; it lasts until somebody ends it
  `pilotfish release production/chat` undoes it")]
pub struct Restrict {
    /// The capabilities that it may ask for, in all their versions
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', required = true)]
    to: Vec<String>,

    #[command(flatten)]
    holding: Holding,
}

/// End a quarantine or a restriction.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish release chat -n production

Prints:
  production/chat is free again: it was quarantined")]
pub struct Release {
    #[command(flatten)]
    agent: AgentArgs,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
struct Holding {
    #[command(flatten)]
    agent: AgentArgs,

    /// End it by itself after this time [default: when somebody ends it]
    #[arg(long = "for", value_name = "DURATION", value_parser = units::duration)]
    time: Option<Duration>,

    /// Why, for whoever looks at `pilotfish status`
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    why: String,

    /// Also an agent that is neither registered nor in the documents
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Quarantine {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        self.holding.post(Hold::Quarantine).await
    }
}

impl Restrict {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        self.holding.post(Hold::Restrict(self.to.iter().map(|name| name.trim().to_owned()).collect())).await
    }
}

impl Release {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let agent = self.agent.full()?;
        let act = Act { agent, hold: None, for_seconds: None, why: String::new(), force: false };
        post(&self.connection, self.output, &act).await
    }
}

impl Holding {
    async fn post(self, hold: Hold) -> Result<(), Failed> {
        let for_seconds = match self.time {
            Some(time) if time < Duration::from_secs(1) => {
                return Err(Failed::usage("--for: at least 1s".to_owned()));
            }
            time => time.map(|time| time.as_secs()),
        };
        let agent = self.agent.full()?;
        let act = Act { agent, hold: Some(hold), for_seconds, why: self.why, force: self.force };
        post(&self.connection, self.output, &act).await
    }
}

async fn post(connection: &Connection, output: Output, act: &Act) -> Result<(), Failed> {
    let client = Client::open(connection).await?;
    let done: Done = client.post("/v1/actions", act).await?;
    output.print(&done, |_| format!("{}\n", harmless(&done.message, true)))
}

/// What an agent is held to.
pub fn of<'h>(held: &'h [Held], namespace: &str, name: &str) -> Option<&'h Held> {
    held.iter().find(|own| own.agent.split_once('/') == Some((namespace, name)))
}

/// The word in a column for an agent's status.
pub fn cell(held: &Held) -> Cell {
    let tone = if held.hold == Hold::Quarantine { Tone::Bad } else { Tone::Warn };
    Cell::toned(word(held), tone)
}

/// `production/chat is quarantined since 3 min ago, ends in 7 min, by NAME: WHY`.
pub fn line(held: &Held, now: u64) -> String {
    let mut text = format!("{} is {}", held.agent, word(held));
    if let Hold::Restrict(to) = &held.hold {
        text.push_str(&format!(" to {}", to.join(", ")));
    }
    if held.since > 0 {
        text.push_str(&format!(", for {} so far", human::span(now.saturating_sub(held.since))));
    }
    match held.until {
        Some(until) => {
            text.push_str(&format!(", until {} ({})", human::date(until), human::moment(until, now)))
        }
        None => text.push_str(", until somebody releases it"),
    }
    if !held.by.is_empty() {
        text.push_str(&format!(", by {}", held.by));
    }
    if !held.why.is_empty() {
        text.push_str(&format!(": {}", held.why));
    }
    harmless(&text, false)
}
