//! Versions as they lie in the store: blobs, records, and the key that says which is the newest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use pilotfish_config::wire::Key;
use serde::{Deserialize, Serialize};

use super::tree::{Leaf, digest_of, leaves};
use super::{Stored, by_digest, loaded};
use crate::api::types::{Action, Change, Commit};
use crate::store::{Entry, Revision, Store, StoreError};

/// The key that names the newest version.
pub(super) const HEAD: &str = "head";
/// Blobs that are read by one call, and calls at once.
const TOGETHER: usize = 100;
const PARTS: usize = 4;
/// Versions that are read at once.
const AT_ONCE: usize = 32;

/// A version.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its number.
    pub(super) version: u64,
    /// Random: tells whether a write whose answer was lost happened.
    pub(super) id: String,
    pub(super) author: String,
    /// Seconds since 1970.
    pub(super) time: u64,
    pub(super) summary: String,
    /// How many documents it has.
    pub(super) documents: usize,
    /// Digests of the pieces of its list of documents.
    pub(super) tree: Vec<String>,
}

/// What [`HEAD`] holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) version: u64,
}

/// The key of a version.
pub(super) fn record_key(version: u64) -> String {
    format!("commit/{version:020}")
}

/// The key of a blob.
pub(super) fn blob_key(digest: &str) -> String {
    format!("blob/{digest}")
}

fn unreadable(key: &str, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("{key}: {why}"))
}

/// The newest version and the revision that made it so; `None` before the first.
pub(super) async fn head(store: &dyn Store) -> Result<Option<(u64, Revision)>, StoreError> {
    let Some(entry) = store.get(HEAD).await? else { return Ok(None) };
    let head: Head = serde_json::from_slice(&entry.value).map_err(|error| unreadable(HEAD, &error))?;
    Ok(Some((head.version, entry.revision)))
}

/// A version; `None` when it is not there (any more).
pub(super) async fn record(store: &dyn Store, version: u64) -> Result<Option<Record>, StoreError> {
    let key = record_key(version);
    let Some(entry) = store.get(&key).await? else { return Ok(None) };
    serde_json::from_slice(&entry.value).map(Some).map_err(|error| unreadable(&key, &error))
}

/// The bytes under some digests, which they are checked against.
async fn some(store: &dyn Store, digests: Vec<String>) -> Result<Vec<(String, Bytes)>, StoreError> {
    let keys: Vec<String> = digests.iter().map(|digest| blob_key(digest)).collect();
    let found = store.get_many(&keys).await?;
    let checked = |((digest, key), entry): ((String, &String), Option<Entry>)| {
        let entry = entry.ok_or_else(|| unreadable(key, &"it is missing"))?;
        if digest_of(&entry.value) != digest {
            return Err(unreadable(key, &"its bytes are not those of its digest"));
        }
        Ok((digest, entry.value))
    };
    digests.into_iter().zip(&keys).zip(found).map(checked).collect()
}

/// Many blobs, by digest.
async fn blobs(
    store: &dyn Store,
    digests: impl IntoIterator<Item = String>,
) -> Result<HashMap<String, Bytes>, StoreError> {
    let digests: HashSet<String> = digests.into_iter().collect();
    let digests: Vec<String> = digests.into_iter().collect();
    let parts: Vec<Vec<String>> = digests.chunks(TOGETHER).map(<[String]>::to_vec).collect();
    let read = stream::iter(parts).map(|part| some(store, part)).buffer_unordered(PARTS);
    let read: Vec<Vec<(String, Bytes)>> = read.try_collect().await?;
    Ok(read.into_iter().flatten().collect())
}

/// The documents of some pieces of a version's list.
pub(super) async fn listed(store: &dyn Store, tree: &[String]) -> Result<Vec<Leaf>, StoreError> {
    let pieces = blobs(store, tree.iter().cloned()).await?;
    let mut all = Vec::new();
    for digest in tree {
        let piece = pieces.get(digest).map(|bytes| leaves(bytes)).unwrap_or_else(|| Ok(Vec::new()));
        all.extend(piece.map_err(|error| unreadable(&blob_key(digest), &error))?);
    }
    Ok(all)
}

/// The documents of a version; those that `known` has too are taken from there.
pub(super) async fn documents(
    store: &dyn Store,
    record: &Record,
    known: &BTreeMap<Key, Arc<Stored>>,
) -> Result<BTreeMap<Key, Arc<Stored>>, StoreError> {
    let leaves = listed(store, &record.tree).await?;
    let by_digest = by_digest(known);
    let wanted = leaves.iter().filter(|leaf| !by_digest.contains_key(leaf.digest()));
    let bodies = blobs(store, wanted.map(|leaf| leaf.digest().to_owned())).await?;
    let document = |leaf: &Leaf| {
        let key = leaf.key();
        if let Some(own) = known.get(&key).filter(|own| loaded::is(own, leaf)) {
            return Ok((key, own.clone()));
        }
        let known = by_digest.get(leaf.digest()).map(|own| own.document.body.get().to_owned());
        let body = known.map_or_else(
            || String::from_utf8(bodies.get(leaf.digest()).map(|body| body.to_vec()).unwrap_or_default()),
            Ok,
        );
        let stored = body.map_err(|error| error.to_string()).and_then(|body| loaded::stored(leaf, body));
        stored.map(|stored| (key, Arc::new(stored))).map_err(|why| unreadable(&blob_key(leaf.digest()), &why))
    };
    leaves.iter().map(document).collect()
}

/// Up to `limit` versions, the newest first.
pub(super) async fn history(store: &dyn Store, newest: u64, limit: usize) -> Result<Vec<Commit>, StoreError> {
    // One more than asked for: what the last one changed is its difference to the one before.
    let oldest = newest.saturating_sub(u64::try_from(limit).unwrap_or(u64::MAX));
    let versions: Vec<u64> = (oldest.max(1)..=newest).rev().collect();
    let records: Vec<Option<Record>> =
        stream::iter(versions).map(|version| record(store, version)).buffered(AT_ONCE).try_collect().await?;
    let records: Vec<Record> = records.into_iter().map_while(|record| record).collect();
    let mut commits = Vec::new();
    for (at, own) in records.iter().enumerate().take(limit) {
        let before = records.get(at + 1);
        let changes = match before {
            None if own.version > 1 => Vec::new(),
            _ => changes(store, before.map_or(&[], |before| &before.tree), &own.tree).await?,
        };
        commits.push(Commit {
            version: own.version,
            author: own.author.clone(),
            time: own.time,
            summary: own.summary.clone(),
            documents: own.documents,
            changes,
        });
    }
    Ok(commits)
}

/// What differs between two lists; pieces that both have are not read.
async fn changes(store: &dyn Store, before: &[String], after: &[String]) -> Result<Vec<Change>, StoreError> {
    let only = |own: &[String], other: &[String]| -> Vec<String> {
        own.iter().filter(|digest| !other.contains(digest)).cloned().collect()
    };
    let by_key = |leaves: Vec<Leaf>| -> BTreeMap<Key, String> {
        leaves.into_iter().map(|leaf| (leaf.key(), leaf.3)).collect()
    };
    let old = by_key(listed(store, &only(before, after)).await?);
    let new = by_key(listed(store, &only(after, before)).await?);
    let gone = old.keys().filter(|key| !new.contains_key(key)).map(|key| (key, Action::Removed));
    let came = new.iter().filter_map(|(key, digest)| match old.get(key) {
        None => Some((key, Action::Created)),
        Some(own) if own != digest => Some((key, Action::Changed)),
        Some(_) => None,
    });
    let mut changes: Vec<Change> =
        gone.chain(came).map(|(key, action)| Change { key: key.clone(), action }).collect();
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(changes)
}
