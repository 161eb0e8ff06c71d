//! `pilotfish policy report`: what policies say, and what of it is enforced.

use clap::Args;

use super::failed::Failed;

/// What security policies say, and what of it is enforced
#[derive(Debug, Args)]
pub struct Policy {}

impl Policy {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        Err(Failed::refused("not there yet"))
    }
}
