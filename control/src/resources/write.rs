//! A new version: its blobs first, then one batch that moves the head, if nobody else moved it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::objects::{self, HEAD, Head, Record, blob_key, record_key};
use super::plan::Planned;
use super::{Committed, Newest, Refusal, Resources, in_background, sweep, tree};
use crate::api::types::Applied;
use crate::store::{Batch, Expect, Revision, Store, StoreError};

/// The most that one batch holds: see [`Batch`].
const OPERATIONS: usize = 100;
const BYTES: usize = 900 << 10;
/// Batches on their way at once.
const AT_ONCE: usize = 8;
/// How often what may be done twice is tried while the store changes its leader, and the pause between.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(150);
/// The longest summary that is kept, characters.
const SUMMARY: usize = 200;

impl Resources {
    /// Plans a change on the newest version and stores it.
    pub(super) async fn change(
        &self,
        base: Option<u64>,
        author: &str,
        summary: &str,
        plan: impl FnOnce(&Arc<Committed>) -> Result<Planned, Refusal> + Send + 'static,
    ) -> Result<Applied, Refusal> {
        let came = self.newest().version;
        let _one = self.writing.lock().await;
        // Whoever had to wait while another change was made is told of it, as if it had been on another control plane.
        let base = base.or((self.newest().version != came).then_some(came));
        self.catch_up().await?;
        let own = self.now();
        let version = own.committed.version;
        if let Some(base) = base.filter(|base| *base != version) {
            return Err(self.overtaken(base, version).await);
        }
        let before = own.committed.clone();
        let mut planned = in_background(move || plan(&before)).await??;
        if !planned.is_change() {
            return Ok(planned.applied());
        }
        let (changes, warnings) =
            (std::mem::take(&mut planned.changes), std::mem::take(&mut planned.warnings));
        let newest = self.store_version(&own, planned, author, summary).await?;
        let version = newest.committed.version;
        self.publish(newest);
        if version % sweep::EVERY == 0 {
            tokio::spawn(sweep::in_background(self.store.clone()));
        }
        Ok(Applied { version, changes, warnings })
    }

    async fn store_version(
        &self,
        own: &Newest,
        planned: Planned,
        author: &str,
        summary: &str,
    ) -> Result<Newest, Refusal> {
        let committed = planned.committed;
        let pieces = tree::pieces(&committed.documents);
        let record = Record {
            version: committed.version,
            id: format!("{:032x}", fastrand::u128(..)),
            author: one_line(author),
            time: seconds((self.clock)()),
            summary: one_line(summary),
            documents: committed.documents.len(),
            tree: pieces.iter().map(|(digest, _)| digest.clone()).collect(),
        };
        let known: HashSet<&str> = super::by_digest(&own.committed.documents)
            .into_keys()
            .chain(own.record.tree.iter().map(String::as_str))
            .collect();
        let bodies = committed.documents.values().map(|stored| {
            (stored.digest.clone(), Bytes::copy_from_slice(stored.document.body.get().as_bytes()))
        });
        let blobs = bodies.chain(pieces).filter(|(digest, _)| !known.contains(digest.as_str()));
        put_blobs(&*self.store, blobs.collect()).await?;
        let revision = match self.move_head(own, &record).await {
            Err(StoreError::Conflict) => return Err(self.lost(own.committed.version).await),
            done => done?,
        };
        Ok(Newest { committed, revision: Some(revision), record: Arc::new(record) })
    }

    /// Makes a version the newest. An answer that was lost is found out: the record's id tells whose version is there.
    async fn move_head(&self, own: &Newest, record: &Record) -> Result<Revision, StoreError> {
        let key = record_key(record.version);
        let as_json = |error: serde_json::Error| StoreError::Corrupt(error.to_string());
        let value = serde_json::to_vec(record).map_err(as_json)?;
        let head = serde_json::to_vec(&Head { version: record.version }).map_err(as_json)?;
        let batch = Batch {
            expect: vec![
                (HEAD.into(), own.revision.map_or(Expect::Absent, Expect::At)),
                (key.clone(), Expect::Absent),
            ],
            put: vec![(key, value.into()), (HEAD.into(), head.into())],
            delete: Vec::new(),
        };
        let mut left = TRIES;
        let mut unknown = false;
        loop {
            let done = self.store.batch(batch.clone()).await;
            match done {
                Ok(revision) => return Ok(revision),
                Err(StoreError::Conflict) if unknown => return self.found(record).await,
                Err(StoreError::Unavailable { unsure, .. }) if left > 0 && (unsure || unknown) => {
                    (unknown, left) = (true, left - 1);
                    tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// After a write whose answer was lost: whether it was this one that won.
    async fn found(&self, record: &Record) -> Result<Revision, StoreError> {
        let there = objects::record(&*self.store, record.version).await?;
        if there.is_none_or(|there| there.id != record.id) {
            return Err(StoreError::Conflict);
        }
        // Another version may be the newest by now: then the follower brings it.
        let head = objects::head(&*self.store).await?.filter(|(version, _)| *version == record.version);
        let entry = self.store.get(&record_key(record.version)).await?;
        let revision = head.map(|(_, revision)| revision).or(entry.map(|entry| entry.revision));
        revision.ok_or(StoreError::Conflict)
    }

    async fn lost(&self, base: u64) -> Refusal {
        match self.catch_up().await {
            Ok(_) => self.overtaken(base, self.newest().version).await,
            Err(error) => Refusal::Store(error),
        }
    }
}

/// Writes blobs in batches; they mean nothing until a version names them, so a try more does no harm.
async fn put_blobs(store: &dyn Store, blobs: Vec<(String, Bytes)>) -> Result<(), StoreError> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut size = 0;
    let mut written = HashSet::new();
    for (digest, bytes) in blobs {
        if !written.insert(digest.clone()) {
            continue;
        }
        let full =
            batches.last().is_none_or(|batch| batch.put.len() >= OPERATIONS || size + bytes.len() > BYTES);
        if full {
            batches.push(Batch::default());
            size = 0;
        }
        size += bytes.len();
        if let Some(batch) = batches.last_mut() {
            batch.put.push((blob_key(&digest), bytes));
        }
    }
    let done = stream::iter(batches).map(|batch| put_batch(store, batch)).buffer_unordered(AT_ONCE);
    done.try_collect::<()>().await
}

async fn put_batch(store: &dyn Store, batch: Batch) -> Result<(), StoreError> {
    let mut left = TRIES;
    loop {
        match store.batch(batch.clone()).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Unavailable { unsure: true, .. }) if left > 0 => left -= 1,
            Err(error) => return Err(error),
        }
        tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
}

/// Text of people, for a line of a table.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SUMMARY).collect()
}
