//! `pilotfish ui`: a link to the page.

use clap::Args;

use super::client::{Client, Connection};
use super::failed::Failed;
use super::output::Output;
use super::terminal::harmless;
use crate::api::types::Link;

/// Print a link that opens the control plane's page once.
///
/// For a browser on its machine: the link makes a session and is then spent; nothing is opened for you. From elsewhere, forward the port first:
/// ssh -L 15014:127.0.0.1:15014 HOST
#[derive(Debug, Args)]
pub struct Ui {
    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Ui {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        let link: Link = client.post("/v1/ui", &serde_json::json!({})).await?;
        self.output.print(&link, |_| format!("{}\n", harmless(&link.url, false)))
    }
}
