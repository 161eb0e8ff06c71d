//! The log of changes: what a watch that begins in the past is told. It is bounded; who is behind it lists again.

use std::collections::VecDeque;

use redb::{ReadableTable, Table};

use super::{At, Logged};
use crate::store::{Change, Revision};

/// Revisions that are kept.
const REVISIONS: usize = 10_000;
/// Bytes of keys and values that are kept, whichever ends first.
const BYTES: usize = 64 << 20;

/// The table of the log.
pub(super) type Changes<'t> = Table<'t, At, Logged>;

/// How much there is of each revision, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Sizes {
    revisions: VecDeque<(Revision, usize)>,
    bytes: usize,
}

impl Sizes {
    /// What a table holds.
    pub(super) fn of(log: &impl ReadableTable<At, Logged>) -> Result<Sizes, redb::Error> {
        let mut sizes = Sizes::default();
        for found in log.iter()? {
            let (at, change) = found?;
            let (key, value) = change.value();
            sizes.add(at.value().0, key.len() + value.map_or(0, <[u8]>::len));
        }
        Ok(sizes)
    }

    fn add(&mut self, revision: Revision, bytes: usize) {
        self.bytes += bytes;
        match self.revisions.back_mut() {
            Some((last, size)) if *last == revision => *size += bytes,
            _ => self.revisions.push_back((revision, bytes)),
        }
    }

    /// Writes the changes of one revision.
    pub(super) fn append(&mut self, log: &mut Changes<'_>, changes: &[Change]) -> Result<(), redb::Error> {
        for (number, change) in (0_u32..).zip(changes) {
            let value = change.value.as_deref();
            log.insert((change.revision, number), (change.key.as_str(), value))?;
            self.add(change.revision, change.key.len() + value.map_or(0, <[u8]>::len));
        }
        Ok(())
    }

    /// Removes what is too much; gives the newest revision that went.
    pub(super) fn trim(&mut self, log: &mut Changes<'_>) -> Result<Option<Revision>, redb::Error> {
        let mut gone = None;
        while self.revisions.len() > REVISIONS || (self.bytes > BYTES && self.revisions.len() > 1) {
            let Some((revision, bytes)) = self.revisions.pop_front() else { break };
            self.bytes -= bytes;
            log.retain_in((revision, 0)..=(revision, u32::MAX), |_, _| false)?;
            gone = Some(revision);
        }
        Ok(gone)
    }
}
