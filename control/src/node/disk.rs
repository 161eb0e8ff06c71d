//! The node's folder: everything in it is for its owner only, and a file is replaced as a whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest file of ours that is read.
const LONGEST: u64 = 4 << 20;

/// An error that names the file.
pub(super) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Makes a folder that only this user can read, and those above it that are missing.
///
/// # Errors
/// It cannot be made, or belongs to somebody else.
pub(super) fn private_folder(path: &Path) -> io::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| named(path, &error))?;
    let meta = fs::metadata(path).map_err(|error| named(path, &error))?;
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(named(path, &io::Error::other("it belongs to another user")));
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(|error| named(path, &error))?;
    }
    Ok(())
}

/// Replaces a file (0600); after that it survives a crash of the machine.
///
/// # Errors
/// The disk's, with the file's name; what was there before is still there.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let write = || {
        let _ = fs::remove_file(&beside);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&beside, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&beside);
        named(path, &error)
    })
}

/// [`replace`] with JSON.
///
/// # Errors
/// As there.
pub(super) fn replace_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    replace(path, &serde_json::to_vec(value).map_err(io::Error::other)?)
}

/// A file's bytes; `None`: there is no such file.
///
/// # Errors
/// It cannot be read, or is longer than any of ours.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(named(path, &error)),
    };
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(|error| named(path, &error))?;
    if bytes.len() as u64 > LONGEST {
        return Err(named(path, &io::Error::other("it is too long")));
    }
    Ok(Some(bytes))
}

/// A file's value; `None`: there is none, or it is not what was written.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&read(path).ok()??).ok()
}

/// The end of a file, at most so many bytes of it.
///
/// # Errors
/// It cannot be read.
pub(super) fn end_of(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The folder belongs to one process at a time. Freed when this is dropped, and with the process.
#[derive(Debug)]
pub(super) struct Lock(#[allow(dead_code, reason = "held, not used")] File);

impl Lock {
    /// Takes it.
    ///
    /// # Errors
    /// Another process has it, or the disk's.
    pub(super) fn take(path: &Path) -> io::Result<Lock> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        let file = file.map_err(|error| named(path, &error))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| named(path, &io::Error::other("another `pilotfish node` uses this folder")))?;
        Ok(Lock(file))
    }
}

/// The highest term whose set was taken. Two slots are written in turn, in place: that needs no room on a full disk, and a crash
/// within a write leaves the other one.
#[derive(Debug)]
pub(super) struct Term {
    file: File,
    path: PathBuf,
    slots: [u64; 2],
}

/// Digits, a space, the same digits again, a line's end.
const SLOT: usize = 42;
/// Slots are in different sectors.
const APART: u64 = 4096;

impl Term {
    /// Reads what was kept; 0 when nothing was.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn open(path: &Path) -> io::Result<Term> {
        let open =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path);
        let file = open.map_err(|error| named(path, &error))?;
        let mut slots = [0; 2];
        for (at, slot) in slots.iter_mut().enumerate() {
            *slot = read_slot(&file, at as u64 * APART);
        }
        let mut term = Term { file, path: path.to_owned(), slots };
        if term.seen() == 0 {
            // Room is taken now, while there is some.
            term.write(0, 0)?;
            term.write(1, 0)?;
        }
        Ok(term)
    }

    /// The highest that was kept.
    pub(super) fn seen(&self) -> u64 {
        self.slots[0].max(self.slots[1])
    }

    /// Keeps a higher one; on the disk when this returns.
    ///
    /// # Errors
    /// The disk's; then the term is not kept.
    pub(super) fn keep(&mut self, term: u64) -> io::Result<()> {
        if term <= self.seen() {
            return Ok(());
        }
        let older = usize::from(self.slots[0] > self.slots[1]);
        self.write(older, term)
    }

    fn write(&mut self, slot: usize, term: u64) -> io::Result<()> {
        let text = format!("{term:020} {term:020}\n");
        let written = self.file.write_all_at(text.as_bytes(), slot as u64 * APART);
        written.and_then(|()| self.file.sync_data()).map_err(|error| named(&self.path, &error))?;
        self.slots[slot] = term;
        Ok(())
    }
}

/// 0 for one that is not there or was written in part.
fn read_slot(file: &File, at: u64) -> u64 {
    let mut bytes = [0; SLOT];
    if file.read_exact_at(&mut bytes, at).is_err() {
        return 0;
    }
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    match text.trim_end().split_once(' ') {
        Some((once, twice)) if once == twice => once.parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_only_rises_and_a_torn_write_loses_one_step_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("term");
        let mut term = Term::open(&path).unwrap();
        assert_eq!(term.seen(), 0);
        for (kept, seen) in [(7, 7), (3, 7), (9, 9), (12, 12)] {
            term.keep(kept).unwrap();
            assert_eq!(Term::open(&path).unwrap().seen(), seen);
        }
        // 12 replaced 7; torn, 9 is what is left.
        let newest = if term.slots[0] == 12 { 0 } else { APART };
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .write_all_at(b"00000000000000000013", newest)
            .unwrap();
        assert_eq!(Term::open(&path).unwrap().seen(), 9);
    }

    #[test]
    fn a_folder_is_one_process_s_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        private_folder(&inner).unwrap();
        assert_eq!(fs::metadata(&inner).unwrap().mode() & 0o777, 0o700);
        let lock = Lock::take(&inner.join("lock")).unwrap();
        assert!(Lock::take(&inner.join("lock")).is_err());
        drop(lock);
        Lock::take(&inner.join("lock")).unwrap();
    }

    #[test]
    fn files_are_replaced_and_their_ends_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.json");
        assert_eq!(read_json::<u32>(&path), None);
        replace_json(&path, &12).unwrap();
        replace_json(&path, &34).unwrap();
        assert_eq!(read_json::<u32>(&path), Some(34));
        assert_eq!(end_of(&path, 1).unwrap(), b"4");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
}
