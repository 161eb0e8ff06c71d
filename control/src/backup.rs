//! A backup: everything that a control plane keeps, in one file; and a data folder made from it.
//!
//! The file is one line of text with the format's number, one line of JSON that says what follows, the bytes of the files
//! and of the store's entries, and the SHA-256 of all that. It holds keys: it is for its owner only.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::store::redb::RedbStore;
use crate::store::{Entry, Listed, Store, StoreError, open::FILE};

/// The first line.
const FIRST: &[u8] = b"pilotfish-backup 1\n";
/// What the first line starts with in any format.
const ANY: &[u8] = b"pilotfish-backup ";
/// Bytes of the sum at the end.
const SUM: usize = 32;
/// Files of the data folder that are kept; of folders, the files in them.
const KEPT: [&str; 2] = ["id", "ca"];
/// Revisions that are left out when a store is made from a backup: what was written after the backup had some of them,
/// and no number may mean two things.
const AFTER: u64 = 1 << 20;

/// Why a backup cannot be made or used.
#[derive(Debug)]
pub enum BackupError {
    /// The store does not answer, or does not take it.
    Store(StoreError),
    /// A file or folder cannot be read or written.
    File(PathBuf, io::Error),
    /// It is not a whole backup of a format that this build reads.
    Unreadable(String),
    /// The folder has something in it.
    NotEmpty(PathBuf),
}

impl fmt::Display for BackupError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::Store(error) => error.fmt(out),
            BackupError::File(path, error) => write!(out, "{}: {error}", path.display()),
            BackupError::Unreadable(why) => write!(out, "not a backup that can be used: {why}"),
            BackupError::NotEmpty(path) => {
                write!(
                    out,
                    "{} is not empty: a backup is restored into an empty or new folder",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for BackupError {}

impl From<StoreError> for BackupError {
    fn from(error: StoreError) -> BackupError {
        BackupError::Store(error)
    }
}

/// The second line.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    /// The program that wrote it.
    build: String,
    /// Seconds since 1970.
    made: u64,
    /// The store's revision.
    revision: u64,
    /// Paths within the data folder, and how many bytes each has.
    files: Vec<(String, usize)>,
    /// Keys, revisions, and how many bytes each value has.
    entries: Vec<(String, u64, usize)>,
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Entries of the store.
    pub entries: usize,
    /// Files beside it.
    pub files: usize,
    /// When it was made, seconds since 1970.
    pub made: u64,
}

/// A backup of a store, as it is at one revision, and of the files of a data folder.
///
/// # Errors
/// The store does not answer; a file cannot be read.
pub async fn write(store: &dyn Store, data: &Path) -> Result<Bytes, BackupError> {
    let listed = store.list("").await?;
    let files = files(data)?;
    let manifest = Manifest {
        build: env!("CARGO_PKG_VERSION").to_owned(),
        made: SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default(),
        revision: listed.revision,
        files: files.iter().map(|(name, bytes)| (name.clone(), bytes.len())).collect(),
        entries: listed.entries.iter().map(|own| (own.key.clone(), own.revision, own.value.len())).collect(),
    };
    let manifest =
        serde_json::to_vec(&manifest).map_err(|error| BackupError::Unreadable(error.to_string()))?;
    let mut out = FIRST.to_vec();
    out.extend_from_slice(&manifest);
    out.push(b'\n');
    files.iter().for_each(|(_, bytes)| out.extend_from_slice(bytes));
    listed.entries.iter().for_each(|entry| out.extend_from_slice(&entry.value));
    let sum = digest(&SHA256, &out);
    out.extend_from_slice(sum.as_ref());
    Ok(out.into())
}

/// The files to keep, by path within the folder.
fn files(data: &Path) -> Result<Vec<(String, Vec<u8>)>, BackupError> {
    let mut files = Vec::new();
    for name in KEPT {
        let path = data.join(name);
        if path.is_dir() {
            let failed = |error| BackupError::File(path.clone(), error);
            for entry in fs::read_dir(&path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let inner = entry.file_name().to_string_lossy().into_owned();
                if entry.path().is_file() && !inner.ends_with(".new") {
                    files.push((format!("{name}/{inner}"), read(&entry.path())?));
                }
            }
        } else if path.is_file() {
            files.push((name.to_owned(), read(&path)?));
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>, BackupError> {
    fs::read(path).map_err(|error| BackupError::File(path.to_owned(), error))
}

/// Makes a data folder from a backup: `serve --data` on it goes on where the backup was made.
///
/// # Errors
/// It is not a whole backup; the folder has something in it, or cannot be written: then nothing is left in it.
pub fn restore(backup: &[u8], folder: &Path) -> Result<Restored, BackupError> {
    let (manifest, files, entries) = parse(backup)?;
    let failed = |error| BackupError::File(folder.to_owned(), error);
    let is_new = !folder.try_exists().map_err(failed)?;
    if !is_new && fs::read_dir(folder).map_err(failed)?.next().is_some() {
        return Err(BackupError::NotEmpty(folder.to_owned()));
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let restored = Restored { entries: entries.len(), files: files.len(), made: manifest.made };
    let listed = Listed { entries, revision: manifest.revision.saturating_add(AFTER) };
    let done = files
        .iter()
        .try_for_each(|(name, bytes)| put(&folder.join(name), bytes))
        // The store comes last: a folder without it is no restored one.
        .and_then(|()| Ok(RedbStore::create(&folder.join(FILE), &listed)?));
    if done.is_err() {
        empty(folder, is_new);
    }
    done.map(|()| restored)
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    let write = || {
        let parent = path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| BackupError::File(path.to_owned(), error))
}

/// Takes back what a failed restore wrote; the folder was empty before.
fn empty(folder: &Path, is_new: bool) {
    for name in KEPT {
        let _ = fs::remove_file(folder.join(name));
        let _ = fs::remove_dir_all(folder.join(name));
    }
    if is_new {
        let _ = fs::remove_dir(folder);
    }
}

type Parts<'b> = (Manifest, Vec<(String, &'b [u8])>, Vec<Entry>);

fn parse(backup: &[u8]) -> Result<Parts<'_>, BackupError> {
    let bad = |why: &str| BackupError::Unreadable(why.to_owned());
    if !backup.starts_with(FIRST) {
        let other = backup.starts_with(ANY);
        return Err(bad(if other {
            "it was written by another release"
        } else {
            "it is another kind of file"
        }));
    }
    let (body, sum) = backup.split_at_checked(backup.len().saturating_sub(SUM)).unwrap_or_default();
    if digest(&SHA256, body).as_ref() != sum {
        return Err(bad("it is damaged or not whole: its sum is wrong"));
    }
    let rest = body.get(FIRST.len()..).unwrap_or_default();
    let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| bad("its list is missing"))?;
    let (line, rest) = rest.split_at(end);
    let manifest: Manifest =
        serde_json::from_slice(line).map_err(|error| BackupError::Unreadable(error.to_string()))?;
    let mut rest = rest.get(1..).unwrap_or_default();
    let mut take = |length: usize| {
        let (part, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(part)
    };
    let mut files = Vec::new();
    for (name, length) in &manifest.files {
        let bytes = take(*length).ok_or_else(|| bad("it is shorter than its list says"))?;
        if !is_kept(name) {
            return Err(bad("it names a file that does not belong into a data folder"));
        }
        files.push((name.clone(), bytes));
    }
    let mut entries = Vec::new();
    for (key, revision, length) in &manifest.entries {
        let bytes = take(*length).ok_or_else(|| bad("it is shorter than its list says"))?;
        let value = Bytes::copy_from_slice(bytes);
        entries.push(Entry { key: key.clone(), value, revision: *revision });
    }
    Ok((manifest, files, entries))
}

/// Whether a file is one of those that are kept: nothing else is written, wherever the backup came from.
fn is_kept(name: &str) -> bool {
    let plain = |part: &str| {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(good)
    };
    match name.split_once('/') {
        Some((folder, file)) => KEPT.contains(&folder) && plain(file),
        None => KEPT.contains(&name),
    }
}
