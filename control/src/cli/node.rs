//! `pilotfish node`.

use clap::Args;

use super::failed::Failed;

/// Run agents on this machine: joins the mesh, reports what the machine has, starts and stops agents with their sidecars.
#[derive(Debug, Args)]
pub struct Node {}

impl Node {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub fn run(self) -> Result<(), Failed> {
        Err(Failed::refused("not built yet".to_owned()))
    }
}
