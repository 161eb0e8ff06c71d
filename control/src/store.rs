//! Where the control plane keeps what must survive it: one small trait, an embedded file or etcd behind it.
//!
//! Keys are `/`-separated texts, values are bytes. Every change has a revision; revisions count up over the whole store.

#[cfg(feature = "etcd")]
pub mod etcd;
pub mod memory;
pub mod open;
pub mod redb;

pub use open::{Tls, open};

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use tokio::sync::mpsc;

/// Counts up with every batch that changed something. 0 is the empty store.
pub type Revision = u64;

/// What an asynchronous call of the store gives.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A value with the revision of its last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Bytes,
    /// The revision that wrote it.
    pub revision: Revision,
}

/// What a prefix held at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Entries, by key.
    pub entries: Vec<Entry>,
    /// The store's revision when they were read: watching from it misses nothing.
    pub revision: Revision,
}

/// What must hold of a key for a batch to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// It is not there.
    Absent,
    /// It was last written by this revision.
    At(Revision),
}

/// Changes that happen together or not at all. At most 100 operations and 1 MiB together: etcd's limits.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// What must hold.
    pub expect: Vec<(String, Expect)>,
    /// What is written.
    pub put: Vec<(String, Bytes)>,
    /// What is removed; a key that is not there is no error.
    pub delete: Vec<String>,
}

/// The most operations and bytes that a batch may have.
const OPERATIONS: usize = 100;
const BYTES: usize = 1 << 20;

impl Batch {
    /// Whether every store takes it: what is too large for one of them is refused by all.
    ///
    /// # Errors
    /// It has too many operations, or too many bytes.
    pub fn check(&self) -> Result<(), StoreError> {
        let operations = self.expect.len().max(self.put.len() + self.delete.len());
        let bytes: usize = self.put.iter().map(|(key, value)| key.len() + value.len()).sum();
        if operations <= OPERATIONS && bytes <= BYTES {
            return Ok(());
        }
        let why = format!(
            "a batch of {operations} operations and {bytes} bytes is too large (at most {OPERATIONS} and {BYTES})"
        );
        Err(StoreError::Unavailable { why, unsure: false })
    }

    /// What is written: of several values for one key, the last.
    fn written(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        let later = |at: usize, key: &String| self.put[at + 1..].iter().any(|(other, _)| other == key);
        let last = self.put.iter().enumerate().filter(move |(at, (key, _))| !later(*at, key));
        last.map(|(_, (key, value))| (key.as_str(), value))
    }

    /// What is removed, each key once; what is written too is not.
    fn deleted(&self) -> impl Iterator<Item = &str> {
        let again = |at: usize, key: &String| self.delete[at + 1..].contains(key);
        let written = |key: &String| self.put.iter().any(|(other, _)| other == key);
        let gone = self.delete.iter().enumerate().filter(move |(at, key)| !again(*at, key) && !written(key));
        gone.map(|(_, key)| key.as_str())
    }
}

/// One change that a watch saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its new value; `None`: removed.
    pub value: Option<Bytes>,
    /// The revision that did it.
    pub revision: Revision,
}

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// An expectation of a batch does not hold; nothing was changed.
    Conflict,
    /// It cannot be reached now, or it is full, or not writable: whether a batch happened is not known when `unsure`.
    Unavailable {
        /// For people.
        why: String,
        /// Whether the change may have happened all the same.
        unsure: bool,
    },
    /// What it holds cannot be read.
    Corrupt(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Conflict => out.write_str("something else changed it meanwhile"),
            StoreError::Unavailable { why, .. } => write!(out, "the store is not available: {why}"),
            StoreError::Corrupt(why) => write!(out, "the store holds something unreadable: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// Changes under a prefix, in order; each batch of changes of one revision comes as one message. Ends with an error
/// when changes may have been missed: then list again.
pub type Watch = mpsc::Receiver<Result<Vec<Change>, StoreError>>;

/// A store. What a batch acknowledged survives a crash of the process and of the machine.
pub trait Store: Send + Sync + fmt::Debug {
    /// The value of a key.
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>>;
    /// The values of many keys, in the order of `keys`; not necessarily of one revision.
    fn get_many<'a>(&'a self, keys: &'a [String]) -> Answer<'a, Vec<Option<Entry>>> {
        Box::pin(async move {
            let mut found = Vec::with_capacity(keys.len());
            for key in keys {
                found.push(self.get(key).await?);
            }
            Ok(found)
        })
    }
    /// All keys that start with `prefix`.
    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Listed>;
    /// Does a batch, if what it expects holds.
    fn batch(&self, batch: Batch) -> Answer<'_, Revision>;
    /// Every change under `prefix` after `from`.
    fn watch<'a>(&'a self, prefix: &'a str, from: Revision) -> Answer<'a, Watch>;
}
