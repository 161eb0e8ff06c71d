//! `pilotfish logs`.

use clap::Args;

use super::failed::Failed;

/// Show the last lines that an agent printed.
#[derive(Debug, Args)]
pub struct Logs {}

impl Logs {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        Err(Failed::refused("not built yet".to_owned()))
    }
}
