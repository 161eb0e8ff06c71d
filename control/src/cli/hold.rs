//! `pilotfish quarantine`, `restrict` and `release`: what an agent is held to at once, in every sidecar.

use clap::Args;

use super::failed::Failed;

/// Cut an agent off: it calls nobody, and nobody calls it
#[derive(Debug, Args)]
pub struct Quarantine {}

impl Quarantine {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        Err(Failed::refused("not there yet"))
    }
}

/// Let an agent ask for some capabilities only
#[derive(Debug, Args)]
pub struct Restrict {}

impl Restrict {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        Err(Failed::refused("not there yet"))
    }
}

/// End a quarantine or a restriction
#[derive(Debug, Args)]
pub struct Release {}

impl Release {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        Err(Failed::refused("not there yet"))
    }
}
