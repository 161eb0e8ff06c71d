//! Appends to a chain's folder: whole lines only, a new stretch now and then, and `head.json` with each sync.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::chain::{Line, Tip, prefix, time};
use crate::folder::{Anchor, HEAD, Head, LONGEST_LINE, Stretch, regular, replace, stretches};

/// When a stretch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// As soon as it is so long, bytes (16 MiB).
    pub bytes: u64,
    /// Or its first record is so old (1 h).
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bytes: 16 << 20, age: Duration::from_secs(3600) }
    }
}

impl Limits {
    /// So that no record outlives its time by more than a tenth, nor by more than an hour: only whole stretches are erased.
    pub fn within(retention: Option<Duration>) -> Limits {
        let usual = Limits::default();
        let age = retention.map_or(usual.age, |kept| (kept / 10).clamp(Duration::from_secs(1), usual.age));
        Limits { age, ..usual }
    }

    /// Whether a record of `now` does not go into a stretch that began at `oldest` any more, nanoseconds since 1970.
    pub fn ends(&self, oldest: u64, now: u64) -> bool {
        u128::from(now.saturating_sub(oldest)) >= self.age.as_nanos() || oldest.saturating_sub(now) >= JUMP
    }
}

/// What was found when a folder was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// There was no log.
    pub fresh: bool,
    /// Its last line, when there is one.
    pub last: Option<String>,
    /// So many bytes of a line that was not written to its end were cut.
    pub torn: u64,
    /// Records that the head knows and the files do not have.
    pub missing: Option<(u64, u64)>,
    /// A log that cannot go on lies in this folder now ...
    pub aside: Option<PathBuf>,
    /// ... because an older Pilotfish wrote it; else because its head was lost.
    pub older: bool,
}

/// Records that are old enough to be erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Old {
    /// The first of them.
    pub first: u64,
    /// The last.
    pub last: Tip,
    /// Their stretches.
    stretches: Vec<Stretch>,
}

/// Appends to a folder. There is one for each folder at a time.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    /// Of the folder itself, as long as it is open.
    lock: File,
    chain: String,
    tip: Tip,
    anchor: Option<Anchor>,
    current: Option<Current>,
    /// The next line begins a stretch, whatever there is.
    fresh: bool,
    head_is_old: bool,
    unsynced: bool,
    was_taken: bool,
}

#[derive(Debug)]
struct Current {
    file: File,
    path: PathBuf,
    bytes: u64,
    oldest: u64,
    /// So much of it was at its place when that was looked at last, and this was its last record.
    seen: (u64, Tip),
    /// What could not be written as a whole could not be cut either.
    torn: bool,
}

/// A clock that is set back by more than this begins another stretch, so that each has a time that means something, nanoseconds.
const JUMP: u64 = 60_000_000_000;

impl Writer {
    /// Goes on with a folder's chain, or begins one that is called `chain`. What no writer would have left is said, not mended:
    /// the chain goes on behind what the head says, so that what is missing stays visible.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(folder: &Path, chain: &str) -> io::Result<(Writer, Opened)> {
        let lock = locked(folder)?;
        let mut opened = Opened::default();
        let head = match Head::read(folder) {
            Ok(Some(head)) => Some(head),
            Err(error)
                if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::Unsupported) =>
            {
                return Err(error);
            }
            found => {
                opened.aside = set_aside(folder)?;
                opened.older = found.is_err_and(|error| error.kind() == io::ErrorKind::Unsupported);
                opened.fresh = opened.aside.is_none();
                None
            }
        };
        // There before any line, so that no line is ever without it.
        let head = match head {
            Some(head) => head,
            None => {
                let head = Head::new(chain, &Tip::origin(chain), None);
                head.write(folder, false)?;
                head
            }
        };
        let tip = head.tip().unwrap_or_else(|| Tip::origin(chain));
        let mut writer = Writer {
            folder: folder.to_owned(),
            lock,
            chain: head.chain,
            tip,
            anchor: head.anchor,
            current: None,
            fresh: false,
            head_is_old: true,
            unsynced: true,
            was_taken: false,
        };
        writer.look_at_the_end(&mut opened)?;
        Ok((writer, opened))
    }

    /// The chain's name.
    pub fn chain(&self) -> &str {
        &self.chain
    }

    /// How far it goes.
    pub fn tip(&self) -> Tip {
        self.tip
    }

    /// What is left hangs on this.
    pub fn anchor(&self) -> Option<&Anchor> {
        self.anchor.as_ref()
    }

    /// Goes on behind lines that the head does not know yet, and cuts a line that was not written to its end.
    fn look_at_the_end(&mut self, opened: &mut Opened) -> io::Result<()> {
        let all = stretches(&self.folder)?;
        let Some(last) = all.last() else {
            opened.missing =
                (self.tip.seq > 0).then_some((1, self.tip.seq)).filter(|_| self.anchor.is_none());
            return Ok(());
        };
        let from = all.partition_point(|stretch| stretch.first <= self.tip.seq).saturating_sub(1);
        let mut seen = all[from].first.saturating_sub(1);
        for stretch in &all[from..] {
            let mut reader = BufReader::with_capacity(64 << 10, File::open(&stretch.path)?);
            let (mut text, mut at, mut whole) = (Vec::new(), 0, 0);
            loop {
                text.clear();
                let read = (&mut reader).take(LONGEST_LINE as u64).read_until(b'\n', &mut text)?;
                at += read as u64;
                match text.pop() {
                    Some(b'\n') => whole = at,
                    // Something longer than any line: what is behind it may be lines again.
                    Some(_) if read == LONGEST_LINE => continue,
                    _ => break,
                }
                let Some(line) = Line::read(&text) else { continue };
                seen = seen.max(line.seq);
                if line.follows(&self.tip) {
                    self.tip = line.tip();
                }
            }
            let length = stretch.path.metadata()?.len();
            if stretch == last && whole < length {
                opened.torn = length - whole;
                File::options().write(true).open(&stretch.path)?.set_len(whole)?;
            }
        }
        if seen < self.tip.seq {
            opened.missing = Some((seen + 1, self.tip.seq));
        }
        opened.last = last.last_line().and_then(|line| String::from_utf8(line).ok());
        Ok(())
    }

    /// Appends whole lines, of which the first has the place `first` and the last is `tip`; they were made at `now`, nanoseconds
    /// since 1970.
    ///
    /// # Errors
    /// The disk's: then none of them is there, and they may be appended again.
    pub fn append(
        &mut self,
        lines: &[u8],
        first: u64,
        tip: Tip,
        now: u64,
        limits: &Limits,
    ) -> io::Result<()> {
        let too_long = |current: &Current| current.bytes >= limits.bytes || limits.ends(current.oldest, now);
        if self.current.as_ref().is_some_and(too_long) {
            self.end_stretch()?;
        }
        self.put(lines, first, tip, time(lines).unwrap_or(now), too_long)
    }

    /// Writes lines into the stretch that is open, else into one that is not too long, else into another. The first of them is of
    /// `oldest`.
    fn put(
        &mut self,
        lines: &[u8],
        first: u64,
        tip: Tip,
        oldest: u64,
        too_long: impl Fn(&Current) -> bool,
    ) -> io::Result<()> {
        let current = match &mut self.current {
            Some(current) => current,
            none => none.insert(next_stretch(&self.folder, self.fresh, first, oldest, self.tip, too_long)?),
        };
        if current.torn {
            current.file.set_len(current.bytes)?;
            current.torn = false;
        }
        // The first line of a file says on which record it hangs.
        let start = if current.bytes == 0 { prefix(&self.tip.hash) } else { String::new() };
        let lines = if start.is_empty() { lines } else { lines.strip_prefix(b"{").unwrap_or(lines) };
        if let Err(error) = write_both(&mut current.file, start.as_bytes(), lines) {
            current.torn = current.file.set_len(current.bytes).is_err();
            return Err(error);
        }
        current.bytes += (start.len() + lines.len()) as u64;
        // The head follows with the next sync: to put a new file in the place of the old one with each batch costs more than its lines.
        (self.tip, self.unsynced, self.fresh, self.head_is_old) = (tip, true, false, true);
        Ok(())
    }

    fn head(&self) -> Head {
        Head::new(&self.chain, &self.tip, self.anchor.clone())
    }

    /// The next line begins another stretch.
    ///
    /// # Errors
    /// The disk's: what the stretch holds is nowhere else, so it goes on.
    pub fn end_stretch(&mut self) -> io::Result<()> {
        self.stay()?;
        if let Some(current) = &self.current {
            current.file.sync_data()?;
        }
        (self.current, self.fresh) = (None, true);
        Ok(())
    }

    /// Looks whether the file that is written is where it was. When somebody took it away or put another one there, what came since
    /// the last look goes into a file of its own, so that no more is missing than what was taken; that is verification's to find.
    fn stay(&mut self) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        if is_same(&current.file, fs::symlink_metadata(&current.path))? {
            current.seen = (current.bytes, self.tip);
            return Ok(());
        }
        if !is_same(&self.lock, fs::metadata(&self.folder))? {
            self.lock = locked(&self.folder)?;
        }
        let (from, before) = current.seen;
        let mut lines = vec![0; usize::try_from(current.bytes - from).unwrap_or_default()];
        current.file.read_exact_at(&mut lines, from)?;
        let begun = prefix(&before.hash);
        if lines.starts_with(begun.as_bytes()) {
            lines.splice(..begun.len(), *b"{");
        }
        let (oldest, tip, taken) = (current.oldest, self.tip, self.current.take());
        (self.tip, self.fresh, self.head_is_old, self.unsynced) = (before, true, true, true);
        if !lines.is_empty()
            && let Err(error) = self.put(&lines, before.seq + 1, tip, oldest, |_| false)
        {
            (self.current, self.tip) = (taken, tip);
            return Err(error);
        }
        self.was_taken = true;
        Ok(())
    }

    /// Whether the file was taken away that was written, since this was asked last.
    pub fn was_taken(&mut self) -> bool {
        std::mem::take(&mut self.was_taken)
    }

    /// Waits until all of it is on the disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.unsynced || self.head_is_old {
            self.stay()?;
        }
        if self.unsynced {
            if let Some(current) = &self.current {
                current.file.sync_data()?;
            }
            self.unsynced = false;
        }
        if self.head_is_old {
            self.head().write(&self.folder, false)?;
            self.head_is_old = false;
        }
        Ok(())
    }

    /// What the chain's files take, bytes.
    pub fn bytes(&self) -> u64 {
        let all = stretches(&self.folder).unwrap_or_default();
        all.iter().filter_map(|stretch| fs::metadata(&stretch.path).ok()).map(|file| file.len()).sum()
    }

    /// What [`older`] says of its folder.
    pub fn older(&self, until: u64, now: u64) -> Option<Old> {
        older(&self.folder, until, now)
    }

    /// The chain begins behind a record that is not here.
    pub fn hang_on(&mut self, tip: Tip, why: &str) {
        self.anchor = Some(Anchor { seq: tip.seq, hash: tip.hash.as_str().into(), why: why.into() });
        self.tip = tip;
        self.head_is_old = self.head().write(&self.folder, false).is_err();
    }

    /// The first stretch.
    pub fn oldest(&self) -> Option<Old> {
        let mut stretches = stretches(&self.folder).ok()?;
        stretches.truncate(1);
        Old::of(stretches)
    }

    /// Erases them. A sidecar has said so in a record before; a copy says it in its head (`why`).
    ///
    /// # Errors
    /// The disk's.
    pub fn erase(&mut self, old: &Old, why: Option<&str>) -> io::Result<()> {
        if let Some(why) = why {
            let hash = old.last.hash.as_str().into();
            self.anchor = Some(Anchor { seq: old.last.seq, hash, why: why.into() });
            self.head().write(&self.folder, true)?;
        }
        let newest = stretches(&self.folder)?.pop();
        if newest.is_some_and(|newest| old.stretches.contains(&newest)) {
            self.end_stretch()?;
        }
        old.stretches.iter().try_for_each(|stretch| fs::remove_file(&stretch.path))
    }
}

impl Old {
    fn of(stretches: Vec<Stretch>) -> Option<Old> {
        let last = stretches.last()?.last_line()?;
        let last = Line::read(&last)?.tip();
        Some(Old { first: stretches.first()?.first, last, stretches })
    }
}

/// The stretches of a folder, from the first on, whose last record is not younger than `until`, now being `now`, nanoseconds since
/// 1970. A stretch of a time to come was written while the clock was wrong: it is as old as the next one that is not.
pub fn older(folder: &Path, until: u64, now: u64) -> Option<Old> {
    let mut stretches = stretches(folder).ok()?;
    let (mut old, mut time) = (0, None);
    for (at, stretch) in stretches.iter().enumerate().rev() {
        time = stretch.newest().filter(|time| *time <= now).or(time);
        match time {
            Some(time) if time <= until => old = old.max(at + 1),
            _ => old = 0,
        }
    }
    stretches.truncate(old);
    Old::of(stretches)
}

/// Erases the stretches of logs that were set aside whose last record is not younger than `until`, nanoseconds since 1970.
///
/// # Errors
/// The disk's.
pub fn erase_aside(folder: &Path, until: u64) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let aside = entry?;
        if !aside.file_name().as_encoded_bytes().starts_with(b"aside-") || !aside.file_type()?.is_dir() {
            continue;
        }
        let (old, left): (Vec<Stretch>, _) =
            stretches(&aside.path())?.into_iter().partition(|one| one.newest().is_some_and(|at| at <= until));
        old.iter().try_for_each(|one| fs::remove_file(&one.path))?;
        if left.is_empty() {
            fs::remove_dir_all(aside.path())?;
        }
    }
    Ok(())
}

/// The newest stretch when it goes on, else another.
fn next_stretch(
    folder: &Path,
    fresh: bool,
    first: u64,
    oldest: u64,
    tip: Tip,
    too_long: impl Fn(&Current) -> bool,
) -> io::Result<Current> {
    let open = |path: PathBuf, oldest| {
        regular(&path)?;
        let file = File::options().read(true).append(true).create(true).mode(0o600).open(&path)?;
        let bytes = file.metadata()?.len();
        Ok::<_, io::Error>(Current { file, path, bytes, oldest, seen: (bytes, tip), torn: false })
    };
    if !fresh && let Some(last) = stretches(folder)?.pop() {
        let begun = last.oldest().unwrap_or(oldest);
        let current = open(last.path, begun)?;
        if !too_long(&current) {
            return Ok(current);
        }
    }
    open(Stretch::of(folder, first).path, oldest)
}

/// A folder that is nobody else's as long as what is given is open; made, if there is none.
fn locked(folder: &Path) -> io::Result<File> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let lock = File::open(folder)?;
    // A file system that knows no locks has none to respect.
    if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
        return Err(io::Error::other("another process keeps its log there"));
    }
    Ok(lock)
}

/// Whether this is what is at its place.
fn is_same(file: &File, there: io::Result<fs::Metadata>) -> io::Result<bool> {
    match there {
        Ok(there) => {
            let here = file.metadata()?;
            Ok((here.dev(), here.ino()) == (there.dev(), there.ino()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes one behind the other, with one call if the disk takes it.
fn write_both(file: &mut File, start: &[u8], rest: &[u8]) -> io::Result<()> {
    if start.is_empty() {
        return file.write_all(rest);
    }
    let written = file.write_vectored(&[IoSlice::new(start), IoSlice::new(rest)])?;
    match written.checked_sub(start.len()) {
        Some(written) => file.write_all(&rest[written..]),
        None => file.write_all(&start[written..]).and_then(|()| file.write_all(rest)),
    }
}

/// Files of a chain that nobody knows any more go into a folder of their own. `None`: there are none.
fn set_aside(folder: &Path) -> io::Result<Option<PathBuf>> {
    let found = stretches(folder)?;
    let head = folder.join(HEAD);
    if found.is_empty() && !head.exists() {
        return Ok(None);
    }
    let aside = (1..10_000).map(|n| folder.join(format!("aside-{n}"))).find(|path| !path.exists());
    let aside = aside.ok_or_else(|| io::Error::other("too many logs were set aside"))?;
    fs::DirBuilder::new().mode(0o700).create(&aside)?;
    for stretch in found {
        fs::rename(&stretch.path, aside.join(stretch.name()))?;
    }
    if head.exists() {
        fs::rename(&head, aside.join(HEAD))?;
    }
    Ok(Some(aside))
}

/// Keeps a number in a small file beside a chain.
///
/// # Errors
/// The disk's.
pub fn keep_number(folder: &Path, name: &str, number: u64) -> io::Result<()> {
    replace(folder, name, number.to_string().as_bytes(), false)
}

/// Reads such a number; 0 when there is none.
pub fn kept_number(folder: &Path, name: &str) -> u64 {
    fs::read_to_string(folder.join(name)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
