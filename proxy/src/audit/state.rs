//! What the audit thread, the workers and the stream to the control plane know of each other.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

use pilotfish_audit::reader::Most;
use pilotfish_audit::{Hash, Line, Tip};
use tokio::sync::watch;

/// Shared by all.
#[derive(Debug)]
pub struct State {
    /// Records were not kept that no record tells of yet, ...
    lost: AtomicU64,
    /// ... the first of them at this time, nanoseconds since 1970.
    lost_since: AtomicU64,
    /// All that were ever lost.
    pub lost_total: AtomicU64,
    /// Connections that were turned away and not told of.
    pub turned: AtomicU64,
    /// Records cannot be kept now.
    pub broken: AtomicBool,
    /// Records that were made.
    pub records: AtomicU64,
    /// Times that something unusual was told.
    pub anomalies: AtomicU64,
    /// Records up to this one are on the disk for certain.
    pub durable: watch::Sender<u64>,
    /// Records up to this one are the control plane's.
    pub acked: AtomicU64,
    /// The chain's name, and its folder.
    chain: OnceLock<(String, Option<PathBuf>)>,
    /// Without a folder: lines that the control plane does not have.
    memory: Mutex<Memory>,
    /// Somebody takes them: a control plane.
    ships: bool,
}

#[derive(Debug, Default)]
struct Memory {
    first: u64,
    /// The hash of the record before the first.
    before: Option<Hash>,
    lines: VecDeque<Box<str>>,
    bytes: usize,
}

impl State {
    /// Nothing is known yet; `ships`: there is a control plane.
    pub fn new(ships: bool) -> State {
        State {
            lost: AtomicU64::new(0),
            lost_since: AtomicU64::new(0),
            lost_total: AtomicU64::new(0),
            turned: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            records: AtomicU64::new(0),
            anomalies: AtomicU64::new(0),
            durable: watch::Sender::new(0),
            acked: AtomicU64::new(0),
            chain: OnceLock::new(),
            memory: Mutex::default(),
            ships,
        }
    }

    /// Whether records up to this one may go to make room: the control plane has them, or there is none.
    pub fn may_go(&self, seq: u64) -> bool {
        !self.ships || seq <= self.acked.load(Relaxed)
    }

    /// The chain is known, and how far it goes.
    pub fn opened(&self, chain: &str, seq: u64, place: Option<&Path>) {
        let acked = place.map_or(0, |place| pilotfish_audit::writer::kept_number(place, super::SHIPPED));
        self.acked.store(acked.min(seq), Relaxed);
        self.memory().before = Some(Tip::origin(chain).hash);
        let _ = self.chain.set((chain.to_owned(), place.map(Path::to_owned)));
        self.durable.send_replace(seq);
    }

    /// The chain's name, and its folder; `None`: nothing was ever recorded.
    pub fn chain(&self) -> Option<&(String, Option<PathBuf>)> {
        self.chain.get()
    }

    /// A record was lost at `now`.
    pub fn lose(&self, now: u64) {
        self.lost_total.fetch_add(1, Relaxed);
        if self.lost.fetch_add(1, Relaxed) == 0 {
            self.lost_since.store(now, Relaxed);
        }
    }

    /// How many records were lost since when, to be told now.
    pub fn found(&self) -> Option<(u64, u64)> {
        if self.lost.load(Relaxed) == 0 {
            return None;
        }
        let since = self.lost_since.load(Relaxed);
        Some((self.lost.swap(0, Relaxed), since))
    }

    /// Keeps lines until the control plane has them.
    ///
    /// # Errors
    /// There is no room.
    pub fn remember(&self, lines: &str, most: usize) -> io::Result<()> {
        if !self.ships {
            return Ok(());
        }
        let mut memory = self.memory();
        if memory.bytes > 0 && memory.bytes + lines.len() > most {
            return Err(io::Error::other(
                "the control plane does not take them, and there is no room for more",
            ));
        }
        for line in lines.lines() {
            memory.bytes += line.len();
            if memory.lines.is_empty() {
                memory.first = pilotfish_audit::chain::seq(line.as_bytes()).unwrap_or(0);
            }
            memory.lines.push_back(line.into());
        }
        Ok(())
    }

    /// Lines from the record `next` on, of those that are remembered, and the hash of the record before the first of them.
    pub fn remembered(&self, next: u64, most: Most) -> (Option<Hash>, Vec<String>) {
        let memory = self.memory();
        let skip = usize::try_from(next.saturating_sub(memory.first)).unwrap_or(usize::MAX);
        let mut bytes = 0;
        #[allow(clippy::borrowed_box, reason = "what an iterator over them gives")]
        let within = |line: &&Box<str>| {
            bytes += line.len();
            bytes <= most.bytes
        };
        let before = match skip.checked_sub(1) {
            None => memory.before,
            Some(at) => memory.lines.get(at).and_then(|line| hash_of(line)),
        };
        let lines = memory.lines.iter().skip(skip).take(most.lines).take_while(within);
        (before, lines.map(|line| line.to_string()).collect())
    }

    /// The control plane has the records up to `seq`.
    pub fn taken(&self, seq: u64) {
        self.acked.fetch_max(seq, Relaxed);
        let mut memory = self.memory();
        while memory.first <= seq
            && let Some(line) = memory.lines.pop_front()
        {
            memory.bytes -= line.len();
            memory.first += 1;
            memory.before = hash_of(&line);
        }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash_of(line: &str) -> Option<Hash> {
    Line::read(line.as_bytes()).map(|line| line.hash)
}
