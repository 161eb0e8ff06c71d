//! A store that forgets everything with its process: for tests of what stands on a store. `serve` never uses it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Answer, Batch, Change, Entry, Expect, Listed, Revision, Store, StoreError, Watch};

/// Batches that a slow watcher may fall behind before it has to list again.
const BEHIND: usize = 1024;

/// Keys and values in memory.
#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    revision: Revision,
    entries: BTreeMap<String, Entry>,
    /// Every batch there ever was, so that a watch may begin in the past.
    history: Vec<Vec<Change>>,
    watchers: Vec<Watcher>,
    failure: Option<StoreError>,
}

#[derive(Debug)]
struct Watcher {
    prefix: String,
    send: mpsc::Sender<Result<Vec<Change>, StoreError>>,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// Answers everything with this error from now on; `None` ends it. Watches stay open and silent.
    pub fn fail(&self, failure: Option<StoreError>) {
        self.lock().failure = failure;
    }

    /// Ends every watch with an error, as a store does that lost its history.
    pub fn break_watches(&self) {
        for watcher in self.lock().watchers.drain(..) {
            let broken = StoreError::Unavailable { why: "the watch broke".into(), unsure: false };
            let _ = watcher.send.try_send(Err(broken));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn working(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.lock();
        match &state.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(state),
        }
    }
}

impl Store for Memory {
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        Box::pin(async move { Ok(self.working()?.entries.get(key).cloned()) })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Listed> {
        Box::pin(async move {
            let state = self.working()?;
            let entries = state.entries.range(prefix.to_owned()..);
            let entries = entries.take_while(|(key, _)| key.starts_with(prefix));
            let entries = entries.map(|(_, entry)| entry.clone()).collect();
            Ok(Listed { entries, revision: state.revision })
        })
    }

    fn batch(&self, batch: Batch) -> Answer<'_, Revision> {
        Box::pin(async move { self.working()?.batch(batch) })
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: Revision) -> Answer<'a, Watch> {
        Box::pin(async move {
            let mut state = self.working()?;
            let (send, receive) = mpsc::channel(BEHIND);
            let watcher = Watcher { prefix: prefix.to_owned(), send };
            let since = usize::try_from(from).unwrap_or(usize::MAX).min(state.history.len());
            let alive = state.history[since..].iter().all(|changes| watcher.tell(changes));
            if alive {
                state.watchers.push(watcher);
            }
            Ok(receive)
        })
    }
}

impl State {
    fn batch(&mut self, batch: Batch) -> Result<Revision, StoreError> {
        let held = batch.expect.iter().all(|(key, expect)| match (self.entries.get(key), expect) {
            (None, Expect::Absent) => true,
            (Some(entry), Expect::At(revision)) => entry.revision == *revision,
            _ => false,
        });
        if !held {
            return Err(StoreError::Conflict);
        }
        let revision = self.revision + 1;
        let mut changes = Vec::new();
        for key in batch.delete {
            if self.entries.remove(&key).is_some() {
                changes.push(Change { key, value: None, revision });
            }
        }
        for (key, value) in batch.put {
            changes.push(self.put(key, value, revision));
        }
        if changes.is_empty() {
            return Ok(self.revision);
        }
        self.revision = revision;
        self.watchers.retain(|watcher| watcher.tell(&changes));
        self.history.push(changes);
        Ok(revision)
    }

    fn put(&mut self, key: String, value: Bytes, revision: Revision) -> Change {
        self.entries.insert(key.clone(), Entry { key: key.clone(), value: value.clone(), revision });
        Change { key, value: Some(value), revision }
    }
}

impl Watcher {
    /// Whether it goes on.
    fn tell(&self, changes: &[Change]) -> bool {
        let own: Vec<_> =
            changes.iter().filter(|change| change.key.starts_with(&self.prefix)).cloned().collect();
        own.is_empty() || self.send.try_send(Ok(own)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &'static str) -> Batch {
        Batch { put: vec![(key.into(), value.into())], ..Batch::default() }
    }

    #[tokio::test]
    async fn expectations_hold_or_nothing_happens() {
        let store = Memory::new();
        assert_eq!(store.batch(put("a/1", "x")).await, Ok(1));
        let absent = |key: &str| vec![(key.to_owned(), Expect::Absent)];
        let twice = Batch { expect: absent("a/1"), ..put("a/2", "y") };
        assert_eq!(store.batch(twice).await, Err(StoreError::Conflict));
        assert_eq!(store.get("a/2").await, Ok(None));
        let stale = Batch { expect: vec![("a/1".into(), Expect::At(0))], ..put("a/1", "z") };
        assert_eq!(store.batch(stale).await, Err(StoreError::Conflict));
        let fresh = Batch { expect: vec![("a/1".into(), Expect::At(1))], ..put("a/1", "z") };
        assert_eq!(store.batch(fresh).await, Ok(2));
        let listed = store.list("a/").await.unwrap();
        assert_eq!((listed.entries.len(), listed.revision, listed.entries[0].revision), (1, 2, 2));
    }

    #[tokio::test]
    async fn a_watch_sees_everything_after_its_revision() {
        let store = Memory::new();
        for key in ["a/1", "b/1", "a/2"] {
            store.batch(put(key, "x")).await.unwrap();
        }
        let mut watch = store.watch("a/", 1).await.unwrap();
        store.batch(Batch { delete: vec!["a/1".into(), "a/9".into()], ..Batch::default() }).await.unwrap();
        let first = watch.recv().await.unwrap().unwrap();
        assert_eq!((first[0].key.as_str(), first[0].revision), ("a/2", 3));
        let second = watch.recv().await.unwrap().unwrap();
        assert_eq!((second.len(), &second[0].value), (1, &None));
        store.break_watches();
        assert!(watch.recv().await.unwrap().is_err());
        assert!(watch.recv().await.is_none());
    }
}
