//! `pilotfish nodes`.

use clap::Args;

use super::failed::Failed;

/// Show the machines that run agents, with their cards.
#[derive(Debug, Args)]
pub struct Nodes {}

impl Nodes {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        Err(Failed::refused("not built yet".to_owned()))
    }
}
