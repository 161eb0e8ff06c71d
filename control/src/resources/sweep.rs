//! Removes what no kept version needs.
//!
//! A blob goes when no kept version names it and it was written before the newest version: what somebody is writing for
//! a version to come was written after it, because that version only happens if the newest one still is.

use std::collections::HashSet;
use std::sync::Arc;

use super::objects::{self, blob_key, record_key};
use super::tree::leaves;
use crate::log;
use crate::store::{Batch, Store, StoreError};

/// Versions that are kept, so that a rollback to them is possible.
pub(super) const KEPT: u64 = 1000;
/// The sweep comes once in so many versions.
pub(super) const EVERY: u64 = 100;
/// Removals in one batch.
const AT_ONCE: usize = 100;

pub(super) async fn in_background(store: Arc<dyn Store>) {
    if let Err(error) = sweep(&*store, KEPT).await {
        log::warn!("old versions of the documents were not removed this time", why = error);
    }
}

/// Removes versions older than the newest `kept`, and blobs that nothing names any more; says how many keys went.
pub(super) async fn sweep(store: &dyn Store, kept: u64) -> Result<usize, StoreError> {
    let Some((newest, revision)) = objects::head(store).await? else { return Ok(0) };
    // One more record: what the oldest kept version changed is its difference to that one.
    let oldest = newest.saturating_sub(kept);
    let records = store.list("commit/").await?.entries;
    let old = records.iter().filter(|entry| entry.key < record_key(oldest));
    let old: Vec<String> = old.map(|entry| entry.key.clone()).collect();
    let mut removed = remove(store, old).await?;
    let mut named: HashSet<String> = HashSet::new();
    let mut read: HashSet<String> = HashSet::new();
    for version in oldest.max(1)..=newest {
        let Some(record) = objects::record(store, version).await? else { continue };
        for piece in record.tree {
            if !read.insert(piece.clone()) {
                continue;
            }
            let key = blob_key(&piece);
            let bytes = store.get(&key).await?.map(|entry| entry.value).unwrap_or_default();
            let leaves = leaves(&bytes).map_err(|why| StoreError::Corrupt(format!("{key}: {why}")))?;
            named.extend(leaves.into_iter().map(|leaf| blob_key(leaf.digest())));
            named.insert(key);
        }
    }
    for part in 0..=0xff_u8 {
        let entries = store.list(&format!("blob/{part:02x}")).await?.entries;
        let garbage =
            entries.into_iter().filter(|blob| blob.revision < revision && !named.contains(&blob.key));
        removed += remove(store, garbage.map(|blob| blob.key).collect()).await?;
    }
    Ok(removed)
}

async fn remove(store: &dyn Store, keys: Vec<String>) -> Result<usize, StoreError> {
    for some in keys.chunks(AT_ONCE) {
        store.batch(Batch { delete: some.to_vec(), ..Batch::default() }).await?;
    }
    Ok(keys.len())
}
