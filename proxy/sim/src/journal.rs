//! What happened, line by line, and a hash of it: two runs of one seed are the same when their hashes are.

use std::fmt;
use std::time::Duration;

/// All events of one run.
#[derive(Debug)]
pub struct Journal {
    lines: Vec<String>,
    hash: u64,
}

impl Default for Journal {
    fn default() -> Self {
        Journal { lines: Vec::new(), hash: 0xcbf2_9ce4_8422_2325 }
    }
}

impl Journal {
    /// Notes an event at this simulated time.
    pub fn note(&mut self, at: Duration, event: fmt::Arguments<'_>) {
        let line = format!("{:>10.3} ms  {event}", at.as_secs_f64() * 1e3);
        // FNV-1a.
        for byte in line.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.lines.push(line);
    }

    /// The events as text.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The hash of all events so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}
