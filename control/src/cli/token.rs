//! `pilotfish token`: what a sidecar or a node joins with.

use std::time::Duration;

use clap::{Args, Subcommand};
use pilotfish_config::units;

use super::client::{Client, Connection};
use super::failed::Failed;
use super::human;
use super::output::Output;
use crate::api::types;

/// Make tokens with which sidecars and nodes join.
#[derive(Debug, Args)]
pub struct Token {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    Create(Create),
}

/// Make a token with which a sidecar or a node gets its identity.
///
/// The token is for one agent of one namespace, or for one node. It is printed alone on standard output, this once; the control plane
/// keeps a hash of it. It carries the authority's fingerprint, so who joins needs nothing else to know its
/// control plane.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish token create --agent chat --namespace production > chat.token
  pilotfish token create --agent worker --namespace batch --uses 20 --ttl 24h > worker.token
  pilotfish-proxy --control https://mesh.example:15012 --token-file chat.token \\
      --agent chat --namespace production --app 127.0.0.1:8000
  pilotfish token create --node gpu-7 > node.token
  pilotfish node --control https://mesh.example:15012 --token-file node.token --name gpu-7")]
struct Create {
    /// The agent that it is for
    #[arg(long, value_name = "NAME", required_unless_present = "node", requires = "namespace")]
    agent: Option<String>,

    /// Its namespace
    #[arg(short = 'n', long, value_name = "NAME", conflicts_with = "node")]
    namespace: Option<String>,

    /// The node that it is for, instead of an agent
    #[arg(long, value_name = "NAME", conflicts_with = "agent")]
    node: Option<String>,

    /// How long it may be used, at most 30 days
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = ttl)]
    ttl: Duration,

    /// How often it may be used: one for each instance of the agent
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

fn ttl(text: &str) -> Result<Duration, String> {
    days_or_duration(text, 30)
}

/// `1h`, `30m`, and days as people write them: `7d`; from a second to `most` days.
pub(super) fn days_or_duration(text: &str, most: u32) -> Result<Duration, String> {
    let of_days = |days: u32| Duration::from_secs(u64::from(days) * 86_400);
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    let ttl = match days {
        Some(days) => of_days(days),
        None => units::duration(text)?,
    };
    if ttl < Duration::from_secs(1) || ttl > of_days(most) {
        return Err(format!("expected 1s to {most}d"));
    }
    Ok(ttl)
}

impl Token {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        match self.command {
            TokenCommand::Create(create) => create.run().await,
        }
    }
}

impl Create {
    async fn run(self) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        let wanted = types::NewToken {
            agent: self.node.clone().or_else(|| self.agent.clone()).unwrap_or_default(),
            namespace: self.namespace.clone().unwrap_or_default(),
            ttl_seconds: self.ttl.as_secs(),
            uses: self.uses,
            node: self.node.is_some(),
        };
        let token: types::Token = client.post("/v1/tokens", &wanted).await?;
        self.output.print(&token, |_| format!("{}\n", token.token))?;
        self.hint(&client, &wanted, token.expires);
        Ok(())
    }

    /// What to do with it, without repeating it: standard error ends in logs.
    fn hint(&self, client: &Client, wanted: &types::NewToken, expires: u64) {
        let url = client.url().unwrap_or_else(|| format!("https://HOST:{}", crate::paths::PORT));
        let uses = if self.uses == 1 { "once".into() } else { format!("{} times", self.uses) };
        let until = format!("{} ({})", human::date(expires), human::moment(expires, human::now()));
        let (name, namespace) = (&wanted.agent, &wanted.namespace);
        if wanted.node {
            eprintln!(
                "For the node {name}, {uses}, until {until}. With it in a file, on that machine:\n  pilotfish node \
                 --control {url} --token-file FILE --name {name}"
            );
            return;
        }
        eprintln!(
            "For {namespace}/{name}, {uses}, until {until}. With it in a file, beside the agent:\n  pilotfish-proxy \
             --control {url} --token-file FILE --agent {name} --namespace {namespace} --app 127.0.0.1:PORT"
        );
    }
}
