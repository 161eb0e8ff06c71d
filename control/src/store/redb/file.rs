//! The file of the embedded store: made whole or not at all, opened by one process, and what its errors mean.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, StorageError, TableHandle};

use super::{ENTRIES, FORMAT, FORMAT_1, LOG, META, OLDEST, REVISION, unavailable};
use crate::store::{Listed, StoreError};

/// What every file of redb starts with.
const MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";
/// Memory for pages, bytes.
const CACHE: usize = 32 << 20;

/// Opens the file, or makes it and its folder.
pub(super) fn open(path: &Path) -> Result<Database, StoreError> {
    if !path.try_exists().map_err(|error| cannot(path, &error))? {
        make(path, &Listed { entries: Vec::new(), revision: 0 }).map_err(|error| failed(path, error))?;
    }
    is_ours(path)?;
    // A file that was changed from outside is found here, instead of anywhere later; when that check cannot be made
    // because the disk is full, the file is still good for reading.
    let database = match Builder::new().set_cache_size(CACHE).set_check_integrity_on_open(true).open(path) {
        Err(DatabaseError::Storage(StorageError::Io(error))) if is_full(&error) => again(path)?,
        opened => opened.map_err(|error| failed(path, error.into()))?,
    };
    check_format(path, &database)?;
    Ok(database)
}

/// Opens the file after an error.
pub(super) fn again(path: &Path) -> Result<Database, StoreError> {
    Builder::new().set_cache_size(CACHE).open(path).map_err(|error| failed(path, error.into()))
}

/// Makes a store beside the path and renames it, so that a store that was not finished is never found.
pub(super) fn make(path: &Path, listed: &Listed) -> Result<(), redb::Error> {
    let folder = folder(path);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let made = fill(&beside, listed).and_then(|()| {
        fs::rename(&beside, path)?;
        File::open(&folder)?.sync_all()?;
        Ok(())
    });
    if made.is_err() {
        let _ = fs::remove_file(&beside);
    }
    made
}

fn fill(path: &Path, listed: &Listed) -> Result<(), redb::Error> {
    let database = Builder::new().set_cache_size(CACHE).create(path)?;
    let writing = database.begin_write()?;
    {
        let mut meta = writing.open_table(META)?;
        for (name, value) in [(FORMAT, FORMAT_1), (REVISION, listed.revision), (OLDEST, listed.revision)] {
            meta.insert(name, value)?;
        }
        let mut entries = writing.open_table(ENTRIES)?;
        for entry in &listed.entries {
            entries.insert(entry.key.as_str(), (entry.revision, &*entry.value))?;
        }
        writing.open_table(LOG)?;
    }
    writing.commit()?;
    Ok(())
}

fn folder(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Looks at the first bytes, so that a file of another program is not even opened for writing.
fn is_ours(path: &Path) -> Result<(), StoreError> {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut start));
    read.map_err(|error| cannot(path, &error))?;
    if start == MAGIC { Ok(()) } else { Err(not_ours(path)) }
}

fn not_ours(path: &Path) -> StoreError {
    StoreError::Corrupt(format!(
        "{} is no store of Pilotfish's; move it away, or restore a backup into an empty folder",
        path.display()
    ))
}

fn check_format(path: &Path, database: &Database) -> Result<(), StoreError> {
    let format = || -> Result<Option<u64>, redb::Error> {
        let reading = database.begin_read()?;
        if !reading.list_tables()?.any(|table| table.name() == META.name()) {
            return Ok(None);
        }
        Ok(reading.open_table(META)?.get(FORMAT)?.map(|found| found.value()))
    };
    match format() {
        Ok(Some(FORMAT_1)) => Ok(()),
        Ok(Some(other)) => Err(StoreError::Corrupt(format!(
            "{} has format {other}, and this build reads {FORMAT_1}: use the version that wrote it",
            path.display()
        ))),
        Ok(None) | Err(redb::Error::TableTypeMismatch { .. }) => Err(not_ours(path)),
        Err(error) => Err(failed(path, error)),
    }
}

/// Why nothing can be read.
pub(super) fn closed(path: &Path) -> String {
    format!("{} could not be opened again after an error of its disk", path.display())
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn cannot(path: &Path, error: &io::Error) -> StoreError {
    let path = path.display();
    unavailable(match error.kind() {
        _ if is_full(error) => {
            format!("the disk has no room for {path} ({error}): free some; nothing was changed meanwhile")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            format!("{path} cannot be written ({error}): this user needs to write it and its folder")
        }
        _ => format!("{path}: {error}"),
    })
}

/// What an error of redb means to people.
pub(super) fn failed(path: &Path, error: redb::Error) -> StoreError {
    let shown = path.display();
    match error {
        redb::Error::Io(error) => cannot(path, &error),
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => unavailable(format!(
            "another process uses {shown}; stop that one, or give this one a folder of its own"
        )),
        redb::Error::Corrupted(why) => {
            StoreError::Corrupt(format!("{shown} is damaged ({why}); restore a backup into an empty folder"))
        }
        redb::Error::UpgradeRequired(format) => StoreError::Corrupt(format!(
            "{shown} was written in format {format} of its database, which this build cannot read"
        )),
        other => unavailable(format!("{shown}: {other}")),
    }
}
