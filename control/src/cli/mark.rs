//! `pilotfish cordon`, `uncordon` and `drain`: whether replicas may come to a node, and whether those that are there leave.

use clap::Args;

use super::failed::Failed;

/// Let nothing new come to a node.
#[derive(Debug, Args)]
pub struct Cordon {}

impl Cordon {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        Err(Failed::refused("not built yet".to_owned()))
    }
}

/// Let replicas come to a node again.
#[derive(Debug, Args)]
pub struct Uncordon {}

impl Uncordon {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        Err(Failed::refused("not built yet".to_owned()))
    }
}

/// Move what runs on a node elsewhere.
#[derive(Debug, Args)]
pub struct Drain {}

impl Drain {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        Err(Failed::refused("not built yet".to_owned()))
    }
}
