//! Bytes to lines, and how many of them there may be.

use std::time::{Duration, Instant};

/// The longest line that is kept whole.
pub const LONGEST: usize = 16 << 10;
/// Lines a second.
pub const LINES: u64 = 2_000;
/// Bytes a second.
pub const BYTES: usize = 1 << 20;
const WINDOW: Duration = Duration::from_secs(1);
/// How often it is said that lines are dropped.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// The line that has begun.
#[derive(Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
    /// Bytes of it that are not kept.
    cut: usize,
}

impl Lines {
    /// Takes what was read; each line that ends is told, without its end.
    pub fn feed(&mut self, mut bytes: &[u8], tell: &mut impl FnMut(&[u8])) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.begun.is_empty() && line.len() <= LONGEST {
                tell(line);
            } else {
                self.add(line);
                self.finish(tell);
            }
        }
        self.add(bytes);
    }

    /// Nothing comes after: what has begun is a line.
    pub fn end(&mut self, tell: &mut impl FnMut(&[u8])) {
        if !self.begun.is_empty() {
            self.finish(tell);
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        let kept = bytes.len().min(LONGEST - self.begun.len());
        self.begun.extend_from_slice(&bytes[..kept]);
        self.cut += bytes.len() - kept;
    }

    fn finish(&mut self, tell: &mut impl FnMut(&[u8])) {
        let mut line = std::mem::take(&mut self.begun);
        if self.cut > 0 {
            line.extend_from_slice(format!(" [{} bytes more]", self.cut).as_bytes());
            self.cut = 0;
        }
        tell(&line);
    }
}

/// What is left of this second.
#[derive(Debug)]
pub struct Budget {
    began: Instant,
    lines: u64,
    bytes: usize,
    dropped: u64,
    said: Option<Instant>,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { began: Instant::now(), lines: LINES, bytes: BYTES, dropped: 0, said: None }
    }
}

impl Budget {
    /// Whether a line of this length may go on.
    pub fn allows(&mut self, length: usize) -> bool {
        if (self.lines == 0 || self.bytes < length) && self.began.elapsed() >= WINDOW {
            *self = Budget { dropped: self.dropped, said: self.said, ..Budget::default() };
        }
        if self.lines == 0 || self.bytes < length {
            // No more of this second: a short line must not slip through among long ones that do not.
            self.lines = 0;
            self.dropped += 1;
            return false;
        }
        self.lines -= 1;
        self.bytes -= length;
        true
    }

    /// Lines that were dropped before this one, to be said once, and not too often.
    pub fn owed(&mut self) -> Option<u64> {
        if self.dropped == 0 || self.said.is_some_and(|said| said.elapsed() < SAY_EVERY) {
            return None;
        }
        self.said = Some(Instant::now());
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut told) = (Lines::default(), Vec::new());
        let mut tell = |line: &[u8]| told.push(String::from_utf8_lossy(line).into_owned());
        for chunk in chunks {
            lines.feed(chunk, &mut tell);
        }
        lines.end(&mut tell);
        told
    }

    #[test]
    fn lines_are_the_same_however_they_come() {
        assert_eq!(lines(&[b"a\nb", b"c\n\nd"]), ["a", "bc", "", "d"]);
        assert_eq!(lines(&[b"a", b"\n"]), ["a"]);
        let text = b"one\ntwo three\n\nfour\nfive";
        let whole = lines(&[text]);
        for at in 0..text.len() {
            assert_eq!(lines(&[&text[..at], &text[at..]]), whole, "cut at {at}");
        }
    }

    #[test]
    fn a_line_without_an_end_takes_no_more_memory() {
        let mut line = Lines::default();
        let mut told = Vec::new();
        for _ in 0..100 {
            line.feed(&[b'x'; 60_000], &mut |line: &[u8]| told.push(line.to_vec()));
            assert!(line.begun.capacity() <= 2 * LONGEST);
        }
        line.feed(b"\nshort\n", &mut |line: &[u8]| told.push(line.to_vec()));
        assert_eq!(told[1], b"short");
        let cut = format!(" [{} bytes more]", 6_000_000 - LONGEST);
        assert!(told[0].ends_with(cut.as_bytes()) && told[0].len() == LONGEST + cut.len());
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let mut budget = Budget::default();
        let allowed = (0..5_000).filter(|_| budget.allows(10)).count();
        assert_eq!(allowed as u64, LINES);
        budget.began = Instant::now().checked_sub(WINDOW).unwrap();
        assert!(budget.allows(10));
        assert_eq!((budget.owed(), budget.owed()), (Some(5_000 - LINES), None));
        assert!(!budget.allows(BYTES));
        assert!(!budget.allows(1), "after a long one that did not fit");
    }
}
