//! `pilotfish revoke` and `pilotfish readmit`: who may be part of the mesh.

use clap::Args;

use super::client::{Client, Connection};
use super::failed::Failed;
use super::output::Output;
use super::terminal::harmless;
use crate::api::types::{AgentName, Done};

/// Take the identity of an agent or of a node away.
///
/// Its certificate is renewed no more, and every sidecar closes its connections within a second. A node that is revoked
/// gets no orders any more: its agents run on there until somebody stops them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish revoke chat -n production
  pilotfish revoke --node gpu-7
  pilotfish readmit chat -n production     # takes it back; it has to join again with a token")]
pub struct Revoke {
    #[command(flatten)]
    member: Member,
}

/// Let an agent or a node that was revoked join again.
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
    #[arg(value_name = "AGENT", required_unless_present = "node")]
    agent: Option<String>,

    /// Its namespace
    #[arg(short = 'n', long, value_name = "NAME", default_value = "default", conflicts_with = "node")]
    namespace: String,

    /// A node instead, by its name
    #[arg(long, value_name = "NAME", conflicts_with = "agent")]
    node: Option<String>,

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
        let name = match self.node {
            Some(node) => AgentName { agent: node, namespace: String::new(), node: true },
            None => {
                AgentName { agent: self.agent.unwrap_or_default(), namespace: self.namespace, node: false }
            }
        };
        let done: Done = client.post(path, &name).await?;
        self.output.print(&done, |_| format!("{}\n", harmless(&done.message, true)))
    }
}
