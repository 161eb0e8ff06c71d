//! `pilotfish audit`: what was decided, and whether the log of it is whole.

use clap::Args;

use super::failed::Failed;

/// What was decided: who called whom, for what, and by which policy
#[derive(Debug, Args)]
pub struct Audit {}

impl Audit {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        Err(Failed::refused("not there yet"))
    }
}
