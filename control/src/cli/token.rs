//! `pilotfish token`: what a sidecar joins with.

use std::time::Duration;

use clap::{Args, Subcommand};
use pilotfish_config::units;

use super::client::{Client, Connection};
use super::failed::Failed;
use super::human;
use super::output::Output;
use crate::api::types;

/// Make tokens with which sidecars join.
#[derive(Debug, Args)]
pub struct Token {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    Create(Create),
}

/// Make a token with which a sidecar gets its identity.
///
/// The token is for one agent of one namespace. It is printed alone on standard output, this once; the control plane
/// keeps a hash of it. It carries the authority's fingerprint, so the sidecar needs nothing else to know its control
/// plane.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish token create --agent chat --namespace production > chat.token
  pilotfish token create --agent worker --namespace batch --uses 20 --ttl 24h > worker.token
  pilotfish-proxy --control https://mesh.example:15012 --token-file chat.token \\
      --agent chat --namespace production --app 127.0.0.1:8000")]
struct Create {
    /// The agent that it is for
    #[arg(long, value_name = "NAME")]
    agent: String,

    /// Its namespace
    #[arg(short = 'n', long, value_name = "NAME")]
    namespace: String,

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
            agent: self.agent.clone(),
            namespace: self.namespace.clone(),
            ttl_seconds: self.ttl.as_secs(),
            uses: self.uses,
            node: false,
        };
        let token: types::Token = client.post("/v1/tokens", &wanted).await?;
        self.output.print(&token, |_| format!("{}\n", token.token))?;
        self.hint(&client, token.expires);
        Ok(())
    }

    /// What to do with it, without repeating it: standard error ends in logs.
    fn hint(&self, client: &Client, expires: u64) {
        let url = client.url().unwrap_or_else(|| format!("https://HOST:{}", crate::paths::PORT));
        let uses = if self.uses == 1 { "once".into() } else { format!("{} times", self.uses) };
        eprintln!(
            "For {}/{}, {uses}, until {} ({}). With it in a file, beside the agent:\n  pilotfish-proxy --control {url} \
             --token-file FILE --agent {} --namespace {} --app 127.0.0.1:PORT",
            self.namespace,
            self.agent,
            human::date(expires),
            human::moment(expires, human::now()),
            self.agent,
            self.namespace,
        );
    }
}
