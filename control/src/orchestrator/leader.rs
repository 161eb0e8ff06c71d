//! Who leads: one record in the store, taken by compare-and-set, renewed while its holder lives.
//!
//! No clocks are compared: a follower takes over when the record has not *changed* for a whole lease by its own monotonic clock.
//! The term is the store's revision of the taking over, so it counts up; every write of the leader expects the record as it
//! last wrote it, so one that was overtaken writes nothing any more, and nodes refuse lower terms.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant, timeout};

use crate::store::{Batch, Entry, Expect, Revision, Store, StoreError};

/// Where the record is.
const KEY: &str = "placement/leader";
/// How often the record is renewed, and looked at.
pub const RENEW_EVERY: Duration = Duration::from_secs(1);
/// A record that was not changed for so long is nobody's any more.
pub const LEASE: Duration = Duration::from_secs(5);
/// What a leader trusts its own lease for, from before its last renewal: less than what others wait.
const OWN_LEASE: Duration = Duration::from_millis(4500);
/// A store that takes longer for one call counts as away.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who leads, as the store keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The control plane's name.
    pub control: String,
    /// Where nodes reach it, `https://HOST:PORT`.
    pub address: String,
    /// Counts up with each renewal, so that each changes the record.
    pub counter: u64,
    /// The version of the documents that it acts on: the next leader waits until it has them too.
    #[serde(default)]
    pub documents: u64,
}

/// What this control plane is just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It is not known yet who leads.
    Unknown,
    /// Another one leads.
    Follower {
        /// That one; `None`: nobody, or it cannot be seen.
        leader: Option<Record>,
    },
    /// This one.
    Leader {
        /// The store's revision when it took the lead.
        term: Revision,
    },
    /// This one led and could not renew in time: what runs goes on, nothing is ordered, and if nobody took the lead it leads on.
    Paused {
        /// As before.
        term: Revision,
    },
}

/// Why a batch was not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotWritten {
    /// This control plane does not lead any more.
    Overtaken,
    /// It leads, but the store is away. The batch may have happened; written again it is the same.
    Store(StoreError),
}

/// What a leader holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    term: Revision,
    /// The record's revision, as this one wrote it last.
    revision: Revision,
    /// Before its last renewal was sent.
    renewed: Instant,
    /// A renewal may have happened, or not.
    unsure: bool,
}

/// What a follower sees.
#[derive(Debug, Clone)]
struct Seen {
    record: Record,
    revision: Revision,
    /// When it was seen to change.
    changed: Instant,
}

/// Takes part in the election.
#[derive(Debug)]
pub struct Elector {
    store: Arc<dyn Store>,
    own: Record,
    held: Option<Held>,
    seen: Option<Seen>,
    looked: bool,
    /// The version of the documents that the leader before acted on.
    before: u64,
}

impl Elector {
    /// One of this name; `address` is where nodes reach it.
    pub fn new(store: Arc<dyn Store>, control: String, address: String) -> Elector {
        let own = Record { control, address, ..Record::default() };
        Elector { store, own, held: None, seen: None, looked: false, before: 0 }
    }

    /// Renews, or looks whether somebody else does, and takes the lead when nobody does. To be called every [`RENEW_EVERY`];
    /// `documents` is the version that this control plane acts on. A store that does not answer leaves everything as it is, until
    /// the lease is over.
    pub async fn tick(&mut self, documents: u64) -> Role {
        self.own.documents = documents;
        if self.held.is_some() {
            self.renew().await
        } else {
            self.follow().await
        }
        self.role()
    }

    /// What this control plane is by its own clock.
    pub fn role(&self) -> Role {
        match (&self.held, &self.seen) {
            (Some(held), _) if held.renewed.elapsed() < OWN_LEASE => Role::Leader { term: held.term },
            (Some(held), _) => Role::Paused { term: held.term },
            (None, _) if !self.looked => Role::Unknown,
            (None, Some(seen)) if seen.changed.elapsed() < LEASE => {
                Role::Follower { leader: Some(seen.record.clone()) }
            }
            _ => Role::Follower { leader: None },
        }
    }

    /// Until when [`Elector::role`] holds without another tick: a process that was stopped and goes on knows by it that it does not
    /// lead any more.
    pub fn until(&self) -> Instant {
        self.held.map_or_else(Instant::now, |held| held.renewed + OWN_LEASE)
    }

    /// The version of the documents that the leader before acted on.
    pub fn documents_before(&self) -> u64 {
        self.before
    }

    /// Writes what a leader decided, if it still leads.
    ///
    /// # Errors
    /// It does not, or the store is away.
    pub async fn write(&mut self, mut batch: Batch) -> Result<Revision, NotWritten> {
        if self.held.is_some_and(|held| held.unsure) {
            self.renew().await;
        }
        let Some(held) = self.held else { return Err(NotWritten::Overtaken) };
        if held.renewed.elapsed() >= OWN_LEASE || held.unsure {
            let why = "the lead could not be renewed".into();
            return Err(NotWritten::Store(StoreError::Unavailable { why, unsure: false }));
        }
        batch.expect.push((KEY.into(), Expect::At(held.revision)));
        match patient(self.store.batch(batch)).await {
            Ok(revision) => Ok(revision),
            Err(StoreError::Conflict) => {
                self.overtaken();
                Err(NotWritten::Overtaken)
            }
            Err(error) => Err(NotWritten::Store(error)),
        }
    }

    /// Gives the lead back, so that another takes it at once.
    pub async fn resign(&mut self) {
        if let Some(held) = self.held.take() {
            let expect = vec![(KEY.into(), Expect::At(held.revision))];
            let batch = Batch { expect, delete: vec![KEY.into()], ..Batch::default() };
            let _ = patient(self.store.batch(batch)).await;
        }
    }

    async fn renew(&mut self) {
        let Some(held) = self.held else { return };
        if held.unsure {
            return self.find_out(held).await;
        }
        let before = Instant::now();
        match patient(self.put(Expect::At(held.revision))).await {
            Ok(revision) => self.held = Some(Held { revision, renewed: before, ..held }),
            Err(StoreError::Conflict) => self.overtaken(),
            Err(error) => self.held = Some(Held { unsure: may_have_happened(&error), ..held }),
        }
    }

    /// Whether a renewal happened that was not answered.
    async fn find_out(&mut self, held: Held) {
        let before = Instant::now();
        let Ok(entry) = patient(self.store.get(KEY)).await else { return };
        match entry {
            Some(entry) if entry.revision == held.revision => {
                self.held = Some(Held { unsure: false, ..held });
                // It may still be on its way; then the next renewal is in conflict with it, and finds that out.
                Box::pin(self.renew()).await;
            }
            Some(entry) if read(&entry).is_some_and(|record| record == self.own) => {
                self.held = Some(Held { revision: entry.revision, renewed: before, unsure: false, ..held });
            }
            _ => self.overtaken(),
        }
    }

    async fn follow(&mut self) {
        let Ok(found) = patient(self.store.get(KEY)).await else { return };
        self.looked = true;
        let now = Instant::now();
        let Some(entry) = found else {
            self.seen = None;
            return self.take(Expect::Absent).await;
        };
        let record = read(&entry).unwrap_or_default();
        // An earlier process of this name is gone: its data folder is this one's.
        let mine = record.control == self.own.control;
        let changed = match &self.seen {
            Some(seen) if seen.revision == entry.revision => seen.changed,
            _ => now,
        };
        self.own.counter = self.own.counter.max(record.counter);
        self.before = self.before.max(record.documents);
        self.seen = Some(Seen { record, revision: entry.revision, changed });
        if mine || now.duration_since(changed) >= LEASE {
            self.take(Expect::At(entry.revision)).await;
        }
    }

    async fn take(&mut self, expect: Expect) {
        let before = Instant::now();
        // Else somebody was faster, or it cannot be said: the next look tells. A record of its own name is taken again.
        if let Ok(term) = patient(self.put(expect)).await {
            self.held = Some(Held { term, revision: term, renewed: before, unsure: false });
            self.seen = None;
        }
    }

    fn put(&mut self, expect: Expect) -> crate::store::Answer<'_, Revision> {
        self.own.counter += 1;
        let value = serde_json::to_vec(&self.own).unwrap_or_default();
        let put = vec![(KEY.into(), Bytes::from(value))];
        self.store.batch(Batch { expect: vec![(KEY.into(), expect)], put, delete: Vec::new() })
    }

    fn overtaken(&mut self) {
        self.held = None;
        self.seen = None;
    }
}

fn read(entry: &Entry) -> Option<Record> {
    serde_json::from_slice(&entry.value).ok()
}

fn may_have_happened(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable { unsure: true, .. })
}

/// A store that does not answer is away.
async fn patient<T>(answer: crate::store::Answer<'_, T>) -> Result<T, StoreError> {
    timeout(PATIENCE, answer).await.unwrap_or_else(|_| {
        Err(StoreError::Unavailable { why: "it did not answer within 2 s".into(), unsure: true })
    })
}

#[cfg(test)]
mod tests;
