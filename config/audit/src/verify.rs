//! Whether a chain is as it was written: any edited byte, any line or file that is missing, moved or cut off is found.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use pilotfish_config::wire::{AuditRecord, AuditWhat};
use serde::{Deserialize, Serialize};

use crate::chain::{Line, Tip, seq};
use crate::folder::{HEAD, Head, LONGEST_LINE, stretches};

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
    /// What is wrong; empty: nothing.
    pub findings: Vec<Finding>,
}

/// What is known while the lines go by.
struct Look {
    report: Report,
    head: Option<Head>,
    /// What the next line has to hang on.
    tip: Option<Tip>,
    /// What the first line that is there hangs on, if it is not the chain's first.
    hangs_on: Option<Tip>,
    /// Erased records, as records say: the last one and its hash.
    erased: Vec<(u64, String)>,
}

/// Looks at every line of a folder.
///
/// # Errors
/// The disk's.
pub fn verify(folder: &Path) -> io::Result<Report> {
    // The head first: lines that come meanwhile are behind it.
    let (head, problem) = match Head::read(folder) {
        Ok(Some(head)) => (Some(head), None),
        Ok(None) => (None, Some("it is missing: nobody can say whether the end was cut off")),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            (None, Some("it is not as it was written"))
        }
        Err(error) => return Err(error),
    };
    let chain = head.as_ref().map(|head| head.chain.clone()).unwrap_or_default();
    let mut look = Look {
        tip: None,
        hangs_on: None,
        erased: Vec::new(),
        report: Report { chain, ..Report::default() },
        head,
    };
    if let Some(what) = problem {
        look.find(HEAD, 0, 0, what.into());
    }
    for stretch in stretches(folder)? {
        let file = match File::open(&stretch.path) {
            Ok(file) => file,
            // Erased meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        look.stretch(&stretch.name(), stretch.first, file)?;
    }
    Ok(look.end())
}

impl Look {
    fn find(&mut self, file: &str, line: u64, seq: u64, what: String) {
        if self.report.findings.len() < MOST {
            self.report.findings.push(Finding { file: file.into(), line, seq, what });
        }
    }

    fn stretch(&mut self, name: &str, first: u64, file: File) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(64 << 10, file);
        let (mut text, mut number) = (Vec::new(), 0);
        loop {
            text.clear();
            (&mut reader).take(LONGEST_LINE as u64).read_until(b'\n', &mut text)?;
            if text.is_empty() {
                break;
            }
            number += 1;
            self.report.lines += 1;
            if text.pop() != Some(b'\n') {
                self.find(name, number, 0, "the line is not whole".into());
                break;
            }
            self.line(name, number, &text);
            if number == 1 && seq(&text) != Some(first) {
                self.find(name, 1, 0, format!("the file's name says that it begins with record {first}"));
            }
        }
        if number == 0 {
            self.find(name, 0, 0, "the file is empty".into());
        }
        Ok(())
    }

    fn line(&mut self, file: &str, number: u64, text: &[u8]) {
        let Some(line) = Line::read(text) else {
            let said = seq(text).unwrap_or(0);
            self.find(file, number, said, "the line was changed: its hash is another".into());
            // What comes next hangs on what was written here, which nobody knows any more.
            self.tip = None;
            return;
        };
        match self.tip {
            Some(tip) if line.follows(&tip) => {}
            Some(tip) if line.seq > tip.seq + 1 => {
                let what = format!("records {} to {} are missing before it", tip.seq + 1, line.seq - 1);
                self.find(file, number, line.seq, what);
            }
            Some(tip) if line.seq <= tip.seq => {
                self.find(file, number, line.seq, format!("it stands behind record {}", tip.seq));
            }
            Some(_) => self.find(file, number, line.seq, "it was written behind another record".into()),
            None if self.report.first > 0 || self.report.lines > 1 => {}
            None => self.hangs_on = Some(Tip { seq: line.seq.saturating_sub(1), hash: line.prev }),
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

    fn end(mut self) -> Report {
        if let Some(on) = self.hangs_on {
            self.beginning(on);
        }
        if let Some(head) = &self.head {
            let (head_seq, last) = (head.seq, self.report.last);
            let gone = head.anchor.as_ref().is_some_and(|anchor| anchor.seq >= head_seq);
            if last < head_seq && !gone {
                let what = format!("records {} to {head_seq} are missing at the end", last + 1);
                self.find(HEAD, 0, head_seq, what);
            }
        }
        self.report
    }

    /// The first line that is there has to be the chain's first, or hang on what was erased.
    fn beginning(&mut self, on: Tip) {
        let head = self.head.as_ref();
        if on.seq == 0 {
            if head.is_some_and(|head| on.hash != Tip::origin(&head.chain).hash) {
                self.find(HEAD, 0, 1, "the first record is of another chain".into());
            }
            return;
        }
        let hash = on.hash.as_str();
        let anchored = head.and_then(|head| head.anchor.as_ref());
        let said = self.erased.iter().any(|(last, of)| *last == on.seq && of == hash)
            || anchored.is_some_and(|anchor| anchor.seq == on.seq && anchor.hash == hash);
        if said {
            self.report.erased = on.seq;
        } else {
            let what = format!("records 1 to {} are missing, and nothing says that they were erased", on.seq);
            self.find(HEAD, 0, on.seq, what);
        }
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
