//! `pilotfish revoke` and `pilotfish readmit`: who may be part of the mesh.

use clap::Args;

use super::client::{Client, Connection};
use super::failed::Failed;
use super::output::Output;
use super::terminal::harmless;
use crate::api::types::{AgentName, Done};

/// Take an agent's identity away.
///
/// Its certificate is renewed no more, and every sidecar closes its connections within a second.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish revoke chat -n production
  pilotfish readmit chat -n production     # takes it back; it has to join again with a token")]
pub struct Revoke {
    #[command(flatten)]
    member: Member,
}

/// Let an agent that was revoked join again.
///
/// It needs a new token.
#[derive(Debug, Args)]
pub struct Readmit {
    #[command(flatten)]
    member: Member,
}

#[derive(Debug, Args)]
struct Member {
    /// The agent's name
    #[arg(value_name = "AGENT")]
    agent: String,

    /// Its namespace
    #[arg(short = 'n', long, value_name = "NAME", default_value = "default")]
    namespace: String,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Revoke {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        self.member.post("/v1/revoke").await
    }
}

impl Readmit {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        self.member.post("/v1/readmit").await
    }
}

impl Member {
    async fn post(self, path: &str) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        let name = AgentName { agent: self.agent, namespace: self.namespace };
        let done: Done = client.post(path, &name).await?;
        self.output.print(&done, |_| format!("{}\n", harmless(&done.message, true)))
    }
}
