//! `pilotfish apply`: stores documents under one new version.

use clap::Args;
use serde::Serialize;

use super::changes;
use super::client::{Client, Connection};
use super::failed::Failed;
use super::files::{Files, warn};
use super::output::Output;
use super::terminal::{self, Terminal};
use super::wait::{self, Wait};
use crate::api::types::{Action, Applied, Change, PlacementView, Waited};

/// Validate documents and store all of them, or none.
///
/// They are stored under one new version. The control plane validates them together with what it has, and compiles them as sidecars do: what a sidecar would
/// refuse is refused here, with file, line and column. Sidecars that they concern get them at once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish apply -f routes.yaml --wait          # returns when every sidecar concerned serves it
  pilotfish apply -f mesh/ -n production -m 'half of the traffic to v2'
  pilotfish apply -f mesh/ --prune --dry-run     # what would go, too
  generate-routes | pilotfish apply -f -

Prints:
  VirtualService production/chat changed
  DestinationRule production/chat unchanged
  version 7")]
pub struct Apply {
    #[command(flatten)]
    files: Files,

    /// Validate and say what would change; store nothing
    #[arg(long)]
    dry_run: bool,

    /// Remove what is stored and not in the files, within the namespaces that the files touch
    #[arg(long)]
    prune: bool,

    /// What this is for, for `pilotfish history` [default: the names of the files]
    #[arg(short = 'm', long, value_name = "SUMMARY")]
    message: Option<String>,

    #[command(flatten)]
    wait: Wait,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

/// What was done, and what came of waiting.
#[derive(Debug, Serialize)]
pub struct Outcome {
    #[serde(flatten)]
    applied: Applied,
    #[serde(skip_serializing_if = "Option::is_none")]
    waited: Option<Waited>,
}

impl Apply {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let mut submission = self.files.submission()?;
        submission.dry_run = self.dry_run;
        submission.prune = self.prune;
        if let Some(message) = &self.message {
            submission.summary.clone_from(message);
        }
        let client = Client::open(&self.connection).await?;
        let applied: Applied = client.post("/v1/apply", &submission).await?;
        let wait = if self.dry_run { Wait::default() } else { self.wait };
        finish(&client, applied, self.dry_run, &wait, self.output).await
    }
}

/// Whether placement follows a change.
fn places(change: &Change) -> bool {
    change.action != Action::Unchanged && change.key.kind == "AgentCluster"
}

/// Whether this control plane places anything.
async fn placed_here(client: &Client) -> bool {
    let view = client.get::<PlacementView>("/v1/placement").await;
    view.is_ok_and(|view| !view.nodes.is_empty() || !view.agents.is_empty())
}

/// Prints what was done, waits if asked to, and judges.
///
/// # Errors
/// See [`Failed`].
pub async fn finish(
    client: &Client,
    applied: Applied,
    dry_run: bool,
    wait: &Wait,
    output: Output,
) -> Result<(), Failed> {
    warn(&applied.warnings);
    let version = applied.version;
    if output.is_data() {
        let waited = wait.run(client, version).await?;
        let outcome = Outcome { applied, waited };
        output.print(&outcome, |_| String::new())?;
        return outcome.waited.map_or(Ok(()), |waited| wait::verdict(&waited, version));
    }
    // Before the waiting: who interrupts it knows what was stored.
    terminal::print(&changes::applied(&applied, dry_run, &Terminal::stdout()));
    if !dry_run && applied.changes.iter().any(places) && placed_here(client).await {
        eprintln!("pilotfish placement shows where its agents run, and what waits");
    }
    let Some(waited) = wait.run(client, version).await? else { return Ok(()) };
    wait::verdict(&waited, version)?;
    terminal::print(&wait::served(&waited));
    Ok(())
}
