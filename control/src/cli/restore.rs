//! `pilotfish restore`: a data folder from a backup.

use std::path::PathBuf;

use clap::Args;

use super::failed::Failed;
use super::human;
use crate::backup::{BackupError, restore};

/// Make a data folder of a backup.
///
/// `pilotfish serve --data DIR` then goes on where the backup was made: the same authority, documents and members; tokens
/// that were spent stay spent. The backup of a control plane with --store etcd://... becomes a store in the folder;
/// etcd itself is restored with its own snapshots.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish restore mesh-2026-11-21.backup --data /var/lib/pilotfish
  age -d -i KEY mesh.backup.age | pilotfish restore - --data /var/lib/pilotfish")]
pub struct Restore {
    /// The backup; `-` reads standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The folder: a new or an empty one
    #[arg(long, env = "PILOTFISH_DATA", value_name = "DIR")]
    data: PathBuf,
}

impl Restore {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub fn run(self) -> Result<(), Failed> {
        let read = if self.file.as_os_str() == "-" {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes).map(|_| bytes)
        } else {
            std::fs::read(&self.file)
        };
        let file = self.file.display();
        let bytes = read.map_err(|error| Failed::refused(format!("{file}: {error}")))?;
        let restored = restore(&bytes, &self.data).map_err(|error| {
            Failed::refused(match error {
                BackupError::Unreadable(_) => format!("{file}: {error}"),
                other => other.to_string(),
            })
        })?;
        eprintln!(
            "{}: {} entries of the store and {} files, {}",
            self.data.display(),
            restored.entries,
            restored.files,
            human::size(bytes.len() as u64)
        );
        Ok(())
    }
}
