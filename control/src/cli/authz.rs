//! `pilotfish authz explain` and `matrix`: who may call whom, and why.

use clap::Args;

use super::failed::Failed;

/// Who may call whom, and by which rule
#[derive(Debug, Args)]
pub struct Authz {}

impl Authz {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        Err(Failed::refused("not there yet"))
    }
}
