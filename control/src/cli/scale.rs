//! `pilotfish scale`: how many replicas of an agent there should be.

use std::time::{Duration, Instant};

use clap::Args;
use pilotfish_config::units;

use super::agent_name::AgentArgs;
use super::client::{Client, Connection};
use super::failed::{Failed, Why};
use super::human;
use super::mark::{ASK, look};
use super::output::Output;
use super::placement::rows;
use super::terminal::{self, Terminal, harmless};
use super::wait::progress;
use crate::api::types::{AgentPlacement, Done, Scale as Wanted};

/// Set how many replicas of an agent there should be.
///
/// It goes before what documents say, until --reset, and is not undone by applying them again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish scale conversation-agent 20 -n production --wait
  pilotfish scale default/conversation_agent 3000 --region us-east
  pilotfish scale production/conversation-agent --reset      # as its documents say

Prints:
  production/conversation-agent: 20 replicas (its documents say 50)")]
pub struct Scale {
    #[command(flatten)]
    agent: AgentArgs,

    /// How many
    #[arg(value_name = "N", required_unless_present = "reset", conflicts_with = "reset")]
    replicas: Option<u32>,

    /// Of this region only
    #[arg(long, value_name = "NAME")]
    region: Option<String>,

    /// As many as its documents say
    #[arg(long)]
    reset: bool,

    /// Return when so many are ready and no others are there, or say what is missing (exit code 5). Alone it means 60s
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "60s", value_parser = units::duration)]
    wait: Option<Duration>,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Scale {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let agent = self.agent.full()?;
        let client = Client::open(&self.connection).await?;
        let wanted = Wanted { agent: agent.clone(), region: self.region.clone(), replicas: self.replicas };
        let done: Done = client.post("/v1/placement/scale", &wanted).await?;
        self.output.print(&done, |_| format!("{}\n", harmless(&done.message, true)))?;
        match self.wait {
            Some(limit) => self.settle(&client, &agent, limit).await,
            None => Ok(()),
        }
    }

    /// Waits until what is wanted is there.
    async fn settle(&self, client: &Client, agent: &str, limit: Duration) -> Result<(), Failed> {
        let terminal = Terminal::stderr();
        let started = Instant::now();
        // What is shown may be of a moment before the change: only what was so twice counts.
        let mut settled = 0;
        let mut last: Vec<AgentPlacement> = Vec::new();
        loop {
            if let Some(mut view) = look(client).await? {
                view.agents.retain(|group| self.concerns(group, agent));
                view.replicas.retain(|replica| view.agents.iter().any(|group| group.group == replica.group));
                let number = view.agents.iter().map(|group| group.wanted as usize).sum::<usize>();
                let all = view.agents.iter().all(|group| group.ready >= group.wanted);
                let done = all && view.replicas.len() == number;
                settled = if done { settled + 1 } else { 0 };
                last = view.agents;
            }
            if settled >= 2 {
                progress(&terminal, "");
                if !self.output.is_data() {
                    terminal::print(&said(&last));
                }
                return Ok(());
            }
            let left = limit.saturating_sub(started.elapsed());
            if left.is_zero() {
                progress(&terminal, "");
                return Err(missing(agent, &last, limit));
            }
            let passed = human::span(started.elapsed().as_secs());
            progress(&terminal, &format!("{} ({passed})", said(&last).trim_end()));
            tokio::time::sleep(ASK.min(left)).await;
        }
    }

    fn concerns(&self, group: &AgentPlacement, agent: &str) -> bool {
        let region = self.region.as_deref();
        rows::is_of(&group.group, agent)
            && region.is_none_or(|name| rows::parts(&group.group).2 == Some(name))
    }
}

fn sums(groups: &[AgentPlacement]) -> (u64, u64) {
    groups.iter().fold((0, 0), |(ready, wanted), group| {
        (ready + u64::from(group.ready), wanted + u64::from(group.wanted))
    })
}

fn said(groups: &[AgentPlacement]) -> String {
    let (ready, wanted) = sums(groups);
    format!("{ready} of {wanted} ready\n")
}

fn missing(agent: &str, groups: &[AgentPlacement], limit: Duration) -> Failed {
    let (ready, wanted) = sums(groups);
    let mut message = format!(
        "{ready} of {wanted} replicas of {} are ready after {}; they go on starting, `pilotfish placement explain {}` says more",
        harmless(agent, false),
        human::span(limit.as_secs()),
        harmless(agent, false)
    );
    for group in groups {
        if let Some(reason) = &group.reason {
            message.push_str(&format!("\n  {}: {}", harmless(&group.group, false), harmless(reason, false)));
        }
    }
    Failed { why: Why::NotServed, message }
}
