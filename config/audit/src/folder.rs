//! What lies in a chain's folder: its stretches, and how far it goes.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::chain::{Hash, Line, Tip, older, time};

/// The file that says how far the chain goes.
pub const HEAD: &str = "head.json";
/// No line is longer; what is longer is no line.
pub const LONGEST_LINE: usize = 64 << 10;

/// What is said of a log that this version did not write.
pub const OLDER: &str = "the log has the format of an older Pilotfish: its records can be read, and only that Pilotfish can verify them";

/// How far a chain goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its name, 32 hexadecimal digits.
    pub chain: String,
    /// The last record.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
    /// What is left of a copy from which old records were erased hangs on this. A sidecar's own log says that in a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Anchor>,
    /// [`Head::sum`]: the head itself was not changed by accident.
    pub sum: String,
}

/// The last record that was erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Which.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
    /// Why it is not there any more.
    pub why: String,
}

impl Head {
    /// Of a chain that goes so far.
    pub fn new(chain: &str, tip: &Tip, anchor: Option<Anchor>) -> Head {
        let mut head = Head {
            chain: chain.into(),
            seq: tip.seq,
            hash: tip.hash.as_str().into(),
            anchor,
            sum: String::new(),
        };
        head.sum = head.own_sum();
        head
    }

    fn own_sum(&self) -> String {
        Hash::of(self.summed().as_bytes()).as_str().into()
    }

    fn summed(&self) -> String {
        let anchor =
            self.anchor.as_ref().map_or(String::new(), |at| format!("{} {} {}", at.seq, at.hash, at.why));
        format!("{} {} {} {anchor}", self.chain, self.seq, self.hash)
    }

    /// The tip; `None`: the hash is none.
    pub fn tip(&self) -> Option<Tip> {
        Some(Tip { seq: self.seq, hash: Hash::parse(self.hash.as_bytes())? })
    }

    /// Reads a folder's. `Ok(None)`: there is none.
    ///
    /// # Errors
    /// It cannot be read, is not as it was written (`InvalidData`), or is of an older format (`Unsupported`).
    pub fn read(folder: &Path) -> io::Result<Option<Head>> {
        let path = folder.join(HEAD);
        if !regular(&path)? {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(LONGEST_LINE as u64).read_to_end(&mut bytes)?;
        let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("{HEAD} is not as it was written"));
        let head: Head = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        if serde_json::to_vec(&head).ok().as_ref() != Some(&bytes) {
            return Err(bad());
        }
        if head.sum == older::hash(head.summed().as_bytes()) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, OLDER));
        }
        if head.sum == head.own_sum() && head.tip().is_some() { Ok(Some(head)) } else { Err(bad()) }
    }

    /// Replaces a folder's.
    ///
    /// # Errors
    /// The disk's; what was there before is still there.
    pub fn write(&self, folder: &Path, durable: bool) -> io::Result<()> {
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        replace(folder, HEAD, &bytes, durable)
    }
}

/// Replaces a small file as a whole.
///
/// # Errors
/// The disk's; what was there before is still there.
pub fn replace(folder: &Path, name: &str, bytes: &[u8], durable: bool) -> io::Result<()> {
    let beside = folder.join(format!("{name}.new"));
    // Never through a link that somebody put there.
    let open = || File::options().write(true).create_new(true).mode(0o600).open(&beside);
    let file = match open() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&beside).and_then(|()| open())
        }
        opened => opened,
    };
    let written = file.and_then(|mut file| {
        file.write_all(bytes)?;
        if durable { file.sync_all() } else { Ok(()) }
    });
    written.and_then(|()| fs::rename(&beside, folder.join(name)))
}

/// Whether there is such a file; a link, a pipe or a folder in its place is an error.
///
/// # Errors
/// The disk's, or it is no file.
pub fn regular(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => Ok(true),
        Ok(_) => Err(io::Error::other(format!(
            "{} is no file: somebody put a link or something else in its place",
            path.file_name().unwrap_or_default().display()
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A stretch of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Its first record, by its name.
    pub first: u64,
    /// Where it is.
    pub path: PathBuf,
}

impl Stretch {
    /// The one that begins with `first`.
    pub fn of(folder: &Path, first: u64) -> Stretch {
        Stretch { first, path: folder.join(format!("{first:012}.jsonl")) }
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// When its last record was written, nanoseconds since 1970; `None`: nobody can tell.
    pub fn newest(&self) -> Option<u64> {
        time(self.last_line()?.as_slice())
    }

    /// When its first one was.
    pub fn oldest(&self) -> Option<u64> {
        let mut start = [0; 160];
        let read = File::open(&self.path).ok()?.read(&mut start).ok()?;
        time(&start[..read])
    }

    /// The hash of the record before its first one.
    pub fn before(&self) -> Option<Hash> {
        let mut line = Vec::new();
        BufReader::new(File::open(&self.path).ok()?.take(LONGEST_LINE as u64))
            .read_until(b'\n', &mut line)
            .ok()?;
        Line::read(line.strip_suffix(b"\n")?)?.prev
    }

    /// Its last whole line, without its end.
    pub fn last_line(&self) -> Option<Vec<u8>> {
        let mut file = File::open(&self.path).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LONGEST_LINE as u64))).ok()?;
        let mut bytes = Vec::new();
        file.take(LONGEST_LINE as u64).read_to_end(&mut bytes).ok()?;
        let end = bytes.iter().rposition(|byte| *byte == b'\n')?;
        let start = bytes[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        Some(bytes[start..end].to_vec())
    }
}

/// The stretches in a folder, in their order. What has another name, or is no file, is none.
///
/// # Errors
/// The folder cannot be read.
pub fn stretches(folder: &Path) -> io::Result<Vec<Stretch>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".jsonl"));
        if let Some(first) = name.filter(|name| name.len() >= 12).and_then(|name| name.parse().ok())
            && fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file())
        {
            found.push(Stretch { first, path });
        }
    }
    found.sort_by_key(|stretch| stretch.first);
    Ok(found)
}
