//! The data folder: made on the first start, used by one process at a time, readable by its owner only.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Failure;

/// The folder, locked for as long as this lives; the kernel gives the lock back when the process ends, however it does.
#[derive(Debug)]
pub(super) struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Makes the folder when it is not there, and locks it.
    ///
    /// # Errors
    /// It cannot be written, belongs to somebody else, or another process uses it.
    pub(super) fn open(path: &Path) -> Result<DataFolder, Failure> {
        let failed = |error: io::Error| {
            Failure(format!(
                "cannot use the data folder {}: {error}; --data needs a folder that this user can write",
                path.display()
            ))
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let found = std::fs::metadata(path).map_err(failed)?;
        let own = rustix::process::geteuid().as_raw();
        if found.uid() != own {
            let why = format!("it belongs to user {}, and this process is user {own}", found.uid());
            return Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, why)));
        }
        if found.mode() & 0o077 != 0 {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path.join("lock"));
        let mut lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(path)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed)?;
        Ok(DataFolder { path: path.to_owned(), _lock: lock })
    }

    /// The path of a file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The name of this control plane: what the flag says, else one that is made once and kept.
    ///
    /// # Errors
    /// It cannot be read or kept.
    pub(super) fn control_id(&self, flag: Option<&str>) -> Result<String, Failure> {
        if let Some(id) = flag {
            return Ok(id.to_owned());
        }
        let path = self.file("id");
        let failed = |error: io::Error| {
            Failure(format!("cannot keep this control plane's name in {}: {error}", path.display()))
        };
        match std::fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let id = format!("{}-{:04x}", host_name(), fastrand::u16(..));
        let beside = self.file("id.new");
        std::fs::write(&beside, &id).and_then(|()| std::fs::rename(&beside, &path)).map_err(failed)?;
        Ok(id)
    }
}

fn in_use(path: &Path) -> Failure {
    let pid = std::fs::read_to_string(path.join("lock")).unwrap_or_default();
    let pid = pid.trim().parse::<u32>().map(|pid| format!(" (process {pid})")).unwrap_or_default();
    Failure(format!(
        "the data folder {} is in use by another `pilotfish serve`{pid}; stop that one, or give this one another --data",
        path.display()
    ))
}

/// The machine's name, up to its first dot, with nothing that a key of the store cannot hold.
pub(super) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let first: String = name
        .chars()
        .take_while(|c| *c != '.')
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(40)
        .collect();
    if first.is_empty() { "control".into() } else { first }
}
