//! `pilotfish man`: manual pages for packages.

use std::path::PathBuf;

use clap::Args;

use super::failed::Failed;

/// Write manual pages of every command to a folder.
#[derive(Debug, Args)]
pub struct Man {
    /// The folder; made when it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Man {
    /// Writes.
    ///
    /// # Errors
    /// The folder is not writable.
    pub fn run(self) -> Result<(), Failed> {
        let cannot = |error| Failed::refused(format!("cannot write to {}: {error}", self.folder.display()));
        std::fs::create_dir_all(&self.folder).map_err(cannot)?;
        clap_mangen::generate_to(super::command(), &self.folder).map_err(cannot)
    }
}
