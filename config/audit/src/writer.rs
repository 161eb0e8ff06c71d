//! Appends to a chain's folder: whole lines only, a new stretch now and then, and `head.json` after each batch.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::chain::{Line, Tip};
use crate::folder::{Anchor, HEAD, Head, Stretch, replace, stretches};

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
    /// A log whose head was lost lies in this folder now.
    pub aside: Option<PathBuf>,
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
    chain: String,
    tip: Tip,
    anchor: Option<Anchor>,
    current: Option<Current>,
    /// The next line begins a stretch, whatever there is.
    fresh: bool,
    head_is_old: bool,
    unsynced: bool,
}

#[derive(Debug)]
struct Current {
    file: File,
    bytes: u64,
    oldest: u64,
}

impl Writer {
    /// Goes on with a folder's chain, or begins one that is called `chain`. What no writer would have left is said, not mended:
    /// the chain goes on behind what the head says, so that what is missing stays visible.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(folder: &Path, chain: &str) -> io::Result<(Writer, Opened)> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut opened = Opened::default();
        let head = match Head::read(folder) {
            Err(error) if error.kind() != io::ErrorKind::InvalidData => return Err(error),
            Ok(Some(head)) => Some(head),
            Err(_) | Ok(None) => {
                opened.aside = set_aside(folder)?;
                opened.fresh = opened.aside.is_none();
                None
            }
        };
        let head = head.unwrap_or_else(|| Head::new(chain, &Tip::origin(chain), None));
        let tip = head.tip().unwrap_or_else(|| Tip::origin(chain));
        let mut writer = Writer {
            folder: folder.to_owned(),
            chain: head.chain,
            tip,
            anchor: head.anchor,
            current: None,
            fresh: false,
            head_is_old: true,
            unsynced: true,
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
        let Some(last) = stretches(&self.folder)?.pop() else {
            opened.missing =
                (self.tip.seq > 0).then_some((1, self.tip.seq)).filter(|_| self.anchor.is_none());
            return Ok(());
        };
        let mut bytes = Vec::new();
        File::open(&last.path)?.take(1 << 30).read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            opened.torn = (bytes.len() - whole) as u64;
            File::options().write(true).open(&last.path)?.set_len(whole as u64)?;
        }
        let mut seen = last.first.saturating_sub(1);
        for line in bytes[..whole].split(|byte| *byte == b'\n') {
            let Some(line) = Line::read(line) else { continue };
            seen = seen.max(line.seq);
            if line.follows(&self.tip) {
                self.tip = line.tip();
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
        let too_long = |current: &Current| {
            current.bytes >= limits.bytes
                || u128::from(now.saturating_sub(current.oldest)) >= limits.age.as_nanos()
        };
        if self.current.as_ref().is_some_and(too_long) {
            self.end_stretch();
        }
        let mut current = match self.current.take() {
            Some(current) => current,
            None => self.next_stretch(first, now, too_long)?,
        };
        if let Err(error) = current.file.write_all(lines) {
            let _ = current.file.set_len(current.bytes);
            return Err(error);
        }
        current.bytes += lines.len() as u64;
        (self.current, self.tip, self.unsynced, self.fresh) = (Some(current), tip, true, false);
        self.head_is_old = self.head().write(&self.folder, false).is_err();
        Ok(())
    }

    fn head(&self) -> Head {
        Head::new(&self.chain, &self.tip, self.anchor.clone())
    }

    /// The newest stretch when it goes on, else another.
    fn next_stretch(&self, first: u64, now: u64, too_long: impl Fn(&Current) -> bool) -> io::Result<Current> {
        let open = |path: &Path| File::options().append(true).create(true).mode(0o600).open(path);
        if !self.fresh
            && let Some(last) = stretches(&self.folder)?.pop()
        {
            let file = open(&last.path)?;
            let bytes = file.metadata()?.len();
            let current = Current { file, bytes, oldest: last.oldest().unwrap_or(now) };
            if !too_long(&current) {
                return Ok(current);
            }
        }
        let file = open(&Stretch::of(&self.folder, first).path)?;
        let bytes = file.metadata()?.len();
        Ok(Current { file, bytes, oldest: now })
    }

    /// The next line begins another stretch.
    pub fn end_stretch(&mut self) {
        if let Some(current) = self.current.take() {
            let _ = current.file.sync_data();
        }
        self.fresh = true;
    }

    /// Waits until all of it is on the disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&mut self) -> io::Result<()> {
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

    /// The stretches from the first on whose last record is not younger than `until`, nanoseconds since 1970.
    pub fn older(&self, until: u64) -> Option<Old> {
        self.first_while(|stretch| stretch.newest().is_some_and(|at| at <= until))
    }

    /// The chain begins behind a record that is not here.
    pub fn hang_on(&mut self, tip: Tip, why: &str) {
        self.anchor = Some(Anchor { seq: tip.seq, hash: tip.hash.as_str().into(), why: why.into() });
        self.tip = tip;
    }

    /// The first stretch.
    pub fn oldest(&self) -> Option<Old> {
        let mut one = true;
        self.first_while(|_| std::mem::take(&mut one))
    }

    fn first_while(&self, mut old: impl FnMut(&Stretch) -> bool) -> Option<Old> {
        let stretches: Vec<Stretch> =
            stretches(&self.folder).ok()?.into_iter().take_while(|stretch| old(stretch)).collect();
        let last = Line::read(&stretches.last()?.last_line()?)?.tip();
        Some(Old { first: stretches.first()?.first, last, stretches })
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
            self.end_stretch();
        }
        old.stretches.iter().try_for_each(|stretch| fs::remove_file(&stretch.path))
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
