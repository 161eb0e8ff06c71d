//! `pilotfish placement`.

use clap::Args;

use super::failed::Failed;

/// What runs where, why, and what would: list, explain, plan, rebalance.
#[derive(Debug, Args)]
pub struct Placement {}

impl Placement {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        Err(Failed::refused("not built yet".to_owned()))
    }
}
