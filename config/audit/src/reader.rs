//! Reads a chain's lines: forward from a place, for whoever sends them on, or back from the end, for whoever searches.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::chain::{Tip, seq};
use crate::folder::{LONGEST_LINE, Stretch, stretches};

/// Reads forward.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    /// The record that comes next.
    next: u64,
    /// The stretch that it is looked for in, and from where.
    at: Option<(Stretch, u64)>,
}

/// How much is read at a time.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// Lines.
    pub lines: usize,
    /// Bytes, apart from the first line.
    pub bytes: usize,
}

impl Reader {
    /// From this record on.
    pub fn new(folder: &Path, next: u64) -> Reader {
        Reader { folder: folder.to_owned(), next, at: None }
    }

    /// The record that it reads next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The lines that come next, whole ones, none after the record `until`.
    ///
    /// # Errors
    /// The disk's.
    pub fn read(&mut self, until: u64, most: Most) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut bytes = 0;
        while self.next <= until && lines.len() < most.lines {
            let Some((stretch, offset)) = self.find()? else { break };
            let Ok(file) = File::open(&stretch.path) else {
                self.at = None;
                break;
            };
            let mut reader = BufReader::with_capacity(64 << 10, file);
            reader.seek(SeekFrom::Start(offset))?;
            let (from, mut offset, mut full) = (lines.len(), offset, false);
            let mut line = Vec::new();
            loop {
                line.clear();
                (&mut reader).take(LONGEST_LINE as u64).read_until(b'\n', &mut line)?;
                if line.pop() != Some(b'\n') {
                    break;
                }
                let seq = seq(&line).unwrap_or(0);
                full = lines.len() >= most.lines || (!lines.is_empty() && bytes + line.len() > most.bytes);
                if seq > until || full {
                    full = true;
                    break;
                }
                offset += line.len() as u64 + 1;
                if seq >= self.next {
                    self.next = seq + 1;
                    bytes += line.len();
                    lines.push(String::from_utf8_lossy(&line).into_owned());
                }
            }
            self.at = Some((stretch, offset));
            if full || (lines.len() == from && !self.step()?) {
                break;
            }
        }
        Ok(lines)
    }

    /// Where the next record may be.
    fn find(&mut self) -> io::Result<Option<(Stretch, u64)>> {
        if self.at.is_none() {
            let mut all = stretches(&self.folder)?;
            let after = all.partition_point(|stretch| stretch.first <= self.next);
            if !all.is_empty() {
                self.at = Some((all.swap_remove(after.saturating_sub(1)), 0));
            }
        }
        Ok(self.at.clone())
    }

    /// Goes on with the stretch after this one, when there is one.
    fn step(&mut self) -> io::Result<bool> {
        let Some((here, _)) = &self.at else { return Ok(false) };
        let after = stretches(&self.folder)?.into_iter().find(|stretch| stretch.first > here.first);
        let Some(after) = after else { return Ok(false) };
        self.at = Some((after, 0));
        Ok(true)
    }
}

/// Goes through a chain's lines from the last to the first, a stretch at a time, until `look` has seen enough (`false`).
///
/// # Errors
/// The disk's.
pub fn back(folder: &Path, mut look: impl FnMut(&str) -> bool) -> io::Result<()> {
    for stretch in stretches(folder)?.into_iter().rev() {
        let text = match std::fs::read(&stretch.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&text);
        for line in text.lines().rev() {
            if !look(line) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The hash that the record at `seq` says it has; `None`: it is not there.
///
/// # Errors
/// The disk's.
pub fn hash_at(folder: &Path, seq: u64) -> io::Result<Option<Tip>> {
    let line = Reader::new(folder, seq).read(seq, Most { lines: 1, bytes: 0 })?.pop();
    let line = line.and_then(|line| crate::Line::read(line.as_bytes()));
    Ok(line.filter(|line| line.seq == seq).map(|line| line.tip()))
}
