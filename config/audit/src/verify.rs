//! Whether a chain is as it was written: any edited byte, any line or file that is missing, moved or cut off is found.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use pilotfish_config::wire::{AuditRecord, AuditWhat};
use serde::{Deserialize, Serialize};

use crate::chain::{Hash, Line, Tip, older, prefix, seq};
use crate::folder::{HEAD, Head, LONGEST_LINE, OLDER, stretches};
use crate::reader::hash_at;

/// So many findings are told; a file of noise has as many as it has lines.
const MOST: usize = 100;

/// Something that is not as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// In which file of the folder.
    pub file: String,
    /// In which line, from 1; 0: no line in particular.
    #[serde(default)]
    pub line: u64,
    /// At which record; 0: nobody can tell.
    #[serde(default)]
    pub seq: u64,
    /// What.
    pub what: String,
}

/// What a look at a chain came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The chain's name.
    pub chain: String,
    /// Whose it is, by its first record that says so.
    pub agent: String,
    /// How many lines there are.
    pub lines: u64,
    /// The first record that is there.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// Its hash.
    pub hash: String,
    /// Records up to this were erased, and a record (or the copy's head) says so.
    pub erased: u64,
    /// Why it cannot be verified, though nobody may have done anything to it: an older Pilotfish wrote it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unverifiable: String,
    /// What is wrong; empty: nothing.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether it is as it was written.
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty() && self.unverifiable.is_empty()
    }
}

/// What is known while the lines go by.
struct Look {
    report: Report,
    head: Option<Head>,
    /// What the next line has to hang on: the line before, as that says it.
    tip: Option<Tip>,
    /// When the line before has another hash than it should have: that.
    reckoned: Option<Hash>,
    /// What the first line that is there hangs on, if it is not the chain's first.
    hangs_on: Option<Tip>,
    /// Findings about records that are missing before a line, and the line: perhaps they were erased before a copy got them.
    gaps: Vec<(usize, Vec<u8>)>,
    /// Erased records, as records say: the last one and its hash.
    erased: Vec<(u64, String)>,
}

/// Looks at every line of a folder. What another version wrote is not looked at: [`Report::unverifiable`].
///
/// # Errors
/// The disk's.
pub fn verify(folder: &Path) -> io::Result<Report> {
    let unverifiable = || Ok(Report { unverifiable: OLDER.into(), ..Report::default() });
    // The head first: lines that come meanwhile are behind it.
    let (head, problem) = match Head::read(folder) {
        Ok(Some(head)) => (Some(head), None),
        Ok(None) => (None, Some("it is missing: nobody can say whether the end was cut off")),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            (None, Some("it is not as it was written"))
        }
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return unverifiable(),
        Err(error) => return Err(error),
    };
    let chain = head.as_ref().map(|head| head.chain.clone()).unwrap_or_default();
    // A control plane's copies are in folders that are called as their chain.
    let is_copy = folder.file_name().is_some_and(|name| name.as_encoded_bytes() == chain.as_bytes());
    let mut look = Look {
        tip: None,
        reckoned: None,
        hangs_on: None,
        erased: Vec::new(),
        gaps: Vec::new(),
        report: Report { chain, ..Report::default() },
        head,
    };
    if let Some(what) = problem {
        look.find(HEAD, 0, 0, what.into());
    }
    let anchor = look.head.as_mut().filter(|_| !is_copy).and_then(|head| head.anchor.take());
    if let Some(anchor) = anchor {
        let what = "it says that records were erased: a sidecar says that in a record, and only a control plane's copy, whose folder \
                    is called as its chain, in its head";
        look.find(HEAD, 0, anchor.seq, what.into());
    }
    let stretches = stretches(folder)?;
    let last = stretches.last().and_then(|stretch| stretch.last_line());
    if look.head.is_none() && last.is_some_and(|line| older::is_line(&line)) {
        return unverifiable();
    }
    let count = stretches.len();
    for (at, stretch) in stretches.into_iter().enumerate() {
        let file = match File::open(&stretch.path) {
            Ok(file) => file,
            // Erased meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        look.stretch(&stretch.name(), stretch.first, file, at + 1 == count)?;
    }
    look.end(folder)
}

impl Look {
    fn find(&mut self, file: &str, line: u64, seq: u64, what: String) {
        if self.report.findings.len() < MOST {
            self.report.findings.push(Finding { file: file.into(), line, seq, what });
        }
    }

    fn stretch(&mut self, name: &str, first: u64, file: File, is_last: bool) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(64 << 10, file);
        let (mut text, mut number) = (Vec::new(), 0);
        loop {
            text.clear();
            (&mut reader).take(LONGEST_LINE as u64).read_until(b'\n', &mut text)?;
            if text.is_empty() {
                break;
            }
            number += 1;
            if text.last() != Some(&b'\n') {
                if !(is_last && self.is_torn(&text)) {
                    self.find(name, number, 0, "the line is not whole".into());
                }
                break;
            }
            text.pop();
            self.report.lines += 1;
            self.line(name, number, &text);
            if number == 1 && seq(&text) != Some(first) {
                self.find(name, 1, 0, format!("the file's name says that it begins with record {first}"));
            }
        }
        if number == 0 && !(is_last && first == self.report.last + 1 && self.is_torn(b"")) {
            self.find(name, 0, 0, "the file is empty".into());
        }
        Ok(())
    }

    /// Whether this is how a process leaves the end of the log that is killed while it writes: the beginning of the next line,
    /// behind the last one that the head knows.
    fn is_torn(&self, text: &[u8]) -> bool {
        let next = |hash: &Hash| {
            let line = format!("{{\"seq\":{},", self.report.last + 1);
            [prefix(hash) + &line[1..], line]
        };
        let is_begun = |line: &String| {
            let length = line.len().min(text.len());
            line.as_bytes()[..length] == text[..length]
        };
        let (Some(head), Some(tip)) = (&self.head, self.tip.or_else(|| self.head.as_ref()?.tip())) else {
            return false;
        };
        self.report.last >= head.seq && next(&tip.hash).iter().any(is_begun)
    }

    fn line(&mut self, file: &str, number: u64, text: &[u8]) {
        let Some(line) = Line::read(text).filter(|line| number == 1 || line.prev.is_none()) else {
            let said = seq(text).unwrap_or(0);
            self.find(file, number, said, "the line was changed: it is no record any more".into());
            // What comes next hangs on what was written here, which nobody knows any more.
            (self.tip, self.reckoned) = (None, None);
            return;
        };
        let changed = "the line was changed: its hash is another";
        // What it has to hang on, as far as that is known.
        let before = match self.tip {
            Some(tip) if line.seq == tip.seq + 1 => Some(tip.hash),
            Some(tip) if line.seq > tip.seq => {
                let what = format!("records {} to {} are missing before it", tip.seq + 1, line.seq - 1);
                self.gaps.push((self.report.findings.len(), text.to_owned()));
                self.find(file, number, line.seq, what);
                // A copy's file may say on which record it hangs that is here.
                line.prev.filter(|prev| *prev != tip.hash)
            }
            Some(tip) => {
                self.find(file, number, line.seq, format!("it stands behind record {}", tip.seq));
                line.prev
            }
            None => line.prev,
        };
        let reckoned =
            before.filter(|before| !line.is_behind(before)).map(|before| line.hash_behind(&before));
        // A line before of which nothing but the hash was changed is told of once.
        let excused = self.reckoned.is_some_and(|before| line.is_behind(&before));
        if reckoned.is_some() && !excused {
            self.find(file, number, line.seq, changed.into());
        } else if number == 1 && line.prev.is_none() {
            let what = "the line was changed: the first one of a file says on which record it hangs";
            self.find(file, number, line.seq, what.into());
        } else if line.prev.is_some() && before.is_some() && line.prev != before && !excused {
            let what = "the file says that it hangs on another record than the last one of the file before";
            self.find(file, number, line.seq, what.into());
        }
        self.reckoned = reckoned.filter(|_| !excused);
        if let Some(prev) = line.prev.filter(|_| self.report.lines == 1) {
            self.hangs_on = Some(Tip { seq: line.seq.saturating_sub(1), hash: prev });
        }
        if let Some(head) = &self.head
            && head.seq == line.seq
            && head.hash != line.hash.as_str()
        {
            let what = format!("{HEAD} says that another record was written here");
            self.find(file, number, line.seq, what);
        }
        self.record(text, line.seq);
        if self.report.first == 0 {
            self.report.first = line.seq;
        }
        if line.seq > self.report.last {
            (self.report.last, self.report.hash) = (line.seq, line.hash.as_str().into());
        }
        self.tip = Some(line.tip());
    }

    fn record(&mut self, text: &[u8], seq: u64) {
        let wanted = self.report.agent.is_empty() || contains(text, b"\"what\":\"erased\"");
        let Some(record) = wanted.then(|| serde_json::from_slice::<AuditRecord>(text).ok()).flatten() else {
            return;
        };
        if self.report.agent.is_empty() {
            self.report.agent.clone_from(&record.agent);
        }
        if record.what == AuditWhat::Erased
            && let Some(last) = erased(&record).filter(|last| *last < seq)
        {
            self.erased.push((last, record.policy));
        }
    }

    fn end(mut self, folder: &Path) -> io::Result<Report> {
        for (at, text) in std::mem::take(&mut self.gaps).into_iter().rev() {
            let Some(line) = Line::read(&text) else { continue };
            let hangs_on = |(last, hash): &(u64, String)| {
                last + 1 == line.seq && Hash::parse(hash.as_bytes()).is_some_and(|hash| line.is_behind(&hash))
            };
            if at < self.report.findings.len() && self.erased.iter().any(hangs_on) {
                self.report.findings.remove(at);
                self.report.erased = self.report.erased.max(line.seq - 1);
            }
        }
        if let Some(on) = self.hangs_on {
            self.beginning(folder, on)?;
        }
        if let Some(head) = &self.head {
            let (head_seq, last) = (head.seq, self.report.last);
            let gone = head.anchor.as_ref().is_some_and(|anchor| anchor.seq >= head_seq);
            if last < head_seq && !gone {
                let what = format!("records {} to {head_seq} are missing at the end", last + 1);
                self.find(HEAD, 0, head_seq, what);
            }
        }
        Ok(self.report)
    }

    /// The first line that is there has to be the chain's first, or hang on what was erased.
    fn beginning(&mut self, folder: &Path, on: Tip) -> io::Result<()> {
        let head = self.head.as_ref();
        if on.seq == 0 {
            if head.is_some_and(|head| on.hash != Tip::origin(&head.chain).hash) {
                self.find(HEAD, 0, 1, "the first record is of another chain".into());
            }
            return Ok(());
        }
        let anchor =
            head.and_then(|head| head.anchor.as_ref()).map(|anchor| (anchor.seq, anchor.hash.clone()));
        let mut said = false;
        for (last, hash) in self.erased.iter().cloned().chain(anchor) {
            said |= match last.cmp(&on.seq) {
                Ordering::Less => false,
                Ordering::Equal => hash == on.hash.as_str(),
                // Who erased them did not come to the last of their files.
                Ordering::Greater => hash_at(folder, last)?.is_some_and(|tip| tip.hash.as_str() == hash),
            };
        }
        if said {
            self.report.erased = self.report.erased.max(on.seq);
        } else {
            let what = format!("records 1 to {} are missing, and nothing says that they were erased", on.seq);
            self.find(HEAD, 0, on.seq, what);
        }
        Ok(())
    }
}

/// What an `erased` record says of itself: `resource` is `FIRST-LAST`, and `policy` the hash of the last.
fn erased(record: &AuditRecord) -> Option<u64> {
    record.resource.split_once('-')?.1.parse().ok()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests;
