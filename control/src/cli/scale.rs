//! `pilotfish scale`.

use clap::Args;

use super::failed::Failed;

/// Set how many replicas of an agent there should be.
#[derive(Debug, Args)]
pub struct Scale {}

impl Scale {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        Err(Failed::refused("not built yet".to_owned()))
    }
}
