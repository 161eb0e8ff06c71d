//! `pilotfish backup`: everything that a control plane needs to start again elsewhere, in one file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::client::{Client, Connection};
use super::failed::Failed;
use super::human;

/// Write everything that the control plane keeps to a file.
///
/// It goes on serving meanwhile. The file is readable by its owner only: whoever has it can be this control plane. `pilotfish restore` makes a data
/// folder of it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish backup mesh-2026-11-21.backup
  pilotfish backup - | age -r RECIPIENT > mesh.backup.age")]
pub struct Backup {
    /// The file; `-` writes to standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Replace a file that is there
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    connection: Connection,
}

impl Backup {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let piped = self.file.as_os_str() == "-";
        if !piped && !self.force && self.file.exists() {
            let file = self.file.display();
            return Err(Failed::refused(format!("{file} is there already; --force replaces it")));
        }
        let client = Client::open(&self.connection).await?;
        let body = client.post_for_bytes("/v1/backup").await?.into_body();
        if piped {
            copy(body, &mut io::stdout().lock()).await?;
            return Ok(());
        }
        let size = self.write(body).await?;
        eprintln!("{}: {}", self.file.display(), human::size(size));
        Ok(())
    }

    /// Writes beside the file first, so that a backup that broke off never looks like one.
    async fn write(&self, body: Incoming) -> Result<u64, Failed> {
        let mut name = self.file.clone().into_os_string();
        name.push(format!(".{:08x}.partial", fastrand::u32(..)));
        let partial = PathBuf::from(name);
        let written = async {
            let mut file = create(&partial)?;
            let size = copy(body, &mut file).await?;
            file.sync_all()
                .and_then(|()| fs::rename(&partial, &self.file))
                .map_err(|error| cannot(&self.file, &error))?;
            Ok(size)
        };
        let written = written.await;
        if written.is_err() {
            let _ = fs::remove_file(&partial);
        }
        written
    }
}

fn create(path: &Path) -> Result<File, Failed> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path).map_err(|error| cannot(path, &error))
}

fn cannot(path: &Path, error: &io::Error) -> Failed {
    Failed::refused(format!("cannot write {}: {error}", path.display()))
}

async fn copy(mut body: Incoming, file: &mut impl Write) -> Result<u64, Failed> {
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failed::unreachable(format!("the backup broke off: {error}")))?;
        if let Ok(bytes) = frame.into_data() {
            size += bytes.len() as u64;
            file.write_all(&bytes)
                .map_err(|error| Failed::refused(format!("cannot write the backup: {error}")))?;
        }
    }
    Ok(size)
}
