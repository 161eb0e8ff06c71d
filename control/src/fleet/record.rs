//! Registrations into the store, when they change. Heartbeats stay in memory.
//!
//! What is to be stored is a set of names; what is written is what is known when it is written. So an outage of the
//! store makes no backlog, and nobody waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::time::{Duration, sleep};

use super::registration::Record;
use super::{Shared, share};
use crate::log;
use crate::store::{Batch, Expect, Revision, StoreError};

/// Where registrations are: `endpoint/<namespace>/<agent>/<instance>`.
pub(super) const PREFIX: &str = "endpoint/";
/// At most this many in a batch, and so many bytes: the store's bounds are 100 operations and 1 MiB.
const MOST: usize = 32;
const MOST_BYTES: usize = 512 << 10;
/// How long a store that failed is left alone.
const REST: Duration = Duration::from_secs(1);

/// The store's revision of each registration, as the watch last said.
#[derive(Debug, Default)]
pub(super) struct Revisions(Mutex<HashMap<Arc<str>, Revision>>);

impl Revisions {
    pub(super) fn set(&self, id: &str, revision: Revision) {
        self.lock().insert(id.into(), revision);
    }

    pub(super) fn remove(&self, id: &str) {
        self.lock().remove(id);
    }

    pub(super) fn ids(&self) -> Vec<Arc<str>> {
        self.lock().keys().cloned().collect()
    }

    fn get(&self, id: &str) -> Option<Revision> {
        self.lock().get(id).copied()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Revision>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stores what changes, until the task is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut away = false;
    loop {
        let ids = shared.registry.take_unstored(MOST);
        if ids.is_empty() {
            shared.registry.to_store.notified().await;
            continue;
        }
        match store(&shared, &ids).await {
            Ok(()) => away = false,
            Err(error) => {
                if !std::mem::replace(&mut away, true) {
                    log::warn!("registrations cannot be stored; they are served all the same", why = error);
                }
                ids.iter().for_each(|id| shared.registry.to_be_stored(id));
                sleep(REST).await;
            }
        }
    }
}

/// Stores these as they are: those that are registered here are written, those that are not are removed.
async fn store(shared: &Shared, ids: &[Arc<str>]) -> Result<(), StoreError> {
    let (mut put, mut bytes, mut gone) = (Vec::new(), 0, Vec::new());
    for id in ids {
        let Some(registration) = shared.registry.get(id) else {
            gone.extend(shared.revisions.get(id).map(|revision| (id, revision)));
            continue;
        };
        let record = registration.record();
        if *record.owner != *shared.id {
            continue;
        }
        let value = written(&record)?;
        if bytes + value.len() > MOST_BYTES {
            shared.registry.to_be_stored(id);
            continue;
        }
        bytes += value.len();
        put.push((format!("{PREFIX}{id}"), value));
    }
    if !put.is_empty() {
        shared.store.batch(Batch { put, ..Batch::default() }).await?;
    }
    remove(shared, &gone).await
}

fn written(record: &Record) -> Result<Bytes, StoreError> {
    serde_json::to_vec(record).map(Bytes::from).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// Removes these, each only if nobody wrote it meanwhile: then it was taken over, and the watch says so.
async fn remove(shared: &Shared, gone: &[(&Arc<str>, Revision)]) -> Result<(), StoreError> {
    if gone.is_empty() {
        return Ok(());
    }
    match shared.store.batch(removal(shared, gone)).await {
        Err(StoreError::Conflict) if gone.len() > 1 => {}
        Err(StoreError::Conflict) => return Ok(()),
        other => return other.map(|_| ()),
    }
    for one in gone {
        match shared.store.batch(removal(shared, std::slice::from_ref(one))).await {
            Ok(_) | Err(StoreError::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn removal(shared: &Shared, gone: &[(&Arc<str>, Revision)]) -> Batch {
    let key = |id: &Arc<str>| format!("{PREFIX}{id}");
    Batch {
        expect: gone.iter().map(|(id, revision)| (key(id), Expect::At(*revision))).collect(),
        put: Vec::new(),
        delete: gone.iter().flat_map(|(id, _)| [key(id), share::key(&shared.id, id)]).collect(),
    }
}
