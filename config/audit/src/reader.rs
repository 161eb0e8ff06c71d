//! Reads a chain's lines: forward from a place, for whoever sends them on, or back from the end, for whoever searches.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::chain::{Hash, Line, Tip, sealed, seq};
use crate::folder::{LONGEST_LINE, Stretch, stretches};

/// Reads forward.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    /// The record that comes next, and the hash of the one before, as that one says it.
    next: u64,
    before: Option<Hash>,
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
        Reader { folder: folder.to_owned(), next, before: None, at: None }
    }

    /// The lines that come next as they were sealed, whole ones, none after the record `until`; and the hash of the record before
    /// the first of them.
    ///
    /// # Errors
    /// The disk's.
    pub fn read(&mut self, until: u64, most: Most) -> io::Result<(Option<Hash>, Vec<String>)> {
        let (mut lines, mut bytes, mut hangs_on) = (Vec::new(), 0, self.before);
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
                let read = Line::read(&line);
                if seq >= self.next {
                    if lines.is_empty() {
                        hangs_on = read.and_then(|line| line.prev).or(self.before);
                    }
                    self.next = seq + 1;
                    bytes += line.len();
                    lines.push(sealed(&String::from_utf8_lossy(&line)));
                }
                self.before = read.map(|line| line.hash);
            }
            self.at = Some((stretch, offset));
            if full || (lines.len() == from && !self.step()?) {
                break;
            }
        }
        Ok((hangs_on, lines))
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

/// Goes through a chain's lines from the last to the first, a stretch at a time. `look` is told of each line and says
/// whether it wants more; a line from before its time does not end that at once, since clocks jump.
///
/// # Errors
/// The disk's.
pub fn back(folder: &Path, mut look: impl FnMut(&str) -> Look) -> io::Result<()> {
    for stretch in stretches(folder)?.into_iter().rev() {
        let text = match std::fs::read(&stretch.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&text);
        let mut any = false;
        for line in text.lines().rev() {
            match look(line) {
                Look::On => any = true,
                Look::Past => {}
                Look::Enough => return Ok(()),
            }
        }
        if !any {
            break;
        }
    }
    Ok(())
}

/// What somebody who looks through a log says of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Go on.
    On,
    /// It is from before the time that is asked for: nothing is looked for before a stretch that has no other lines.
    Past,
    /// That was all.
    Enough,
}

/// The hash that the record at `seq` says it has; `None`: it is not there.
///
/// # Errors
/// The disk's.
pub fn hash_at(folder: &Path, seq: u64) -> io::Result<Option<Tip>> {
    let line = Reader::new(folder, seq).read(seq, Most { lines: 1, bytes: 0 })?.1.pop();
    let tip = line.and_then(|line| Line::read(line.as_bytes()).map(|line| line.tip()));
    Ok(tip.filter(|tip| tip.seq == seq))
}
