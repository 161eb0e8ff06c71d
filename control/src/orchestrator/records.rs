//! What the store holds of placement: one value for each node, with everything that was decided for it, and the numbers that people
//! set. So a start is one write, and a thousand starts are as many writes as nodes have changed, a hundred in a batch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use pilotfish_config::wire::node::{GpuShare, Inventory};
use serde::{Deserialize, Serialize};

use super::Mark;
use crate::log;
use crate::placement::world::Need;
use crate::store::{Batch, Store, StoreError};

/// Where nodes are: `placement/node/<name>`.
const NODES: &str = "placement/node/";
/// Where numbers are that people set: `placement/scale/<namespace>/<agent>[@region]`.
const SCALES: &str = "placement/scale/";
/// Operations in a batch; the leader's own expectation is one more.
const MOST: usize = 90;
/// Bytes in a batch, of the store's 1 MiB.
const MOST_BYTES: usize = 900 << 10;

/// What is kept of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// What people said of it.
    #[serde(default)]
    pub mark: Mark,
    /// What it said it has, last.
    #[serde(default)]
    pub inventory: Inventory,
    /// What runs there, or is to run there.
    #[serde(default)]
    pub assignments: Vec<Assigned>,
    /// What was told to stop there and may not have yet: what it has is nobody else's before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stopping: Vec<Assigned>,
}

/// A replica with its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Assigned {
    /// `<namespace>/<agent>/<replica>`.
    pub replica: Arc<str>,
    /// Its group.
    pub group: Arc<str>,
    /// What it was started with.
    pub generation: String,
    /// What is counted for it.
    pub need: Need,
    /// Its cards.
    pub gpus: Vec<GpuShare>,
    /// When it was ordered, seconds since 1970.
    pub since: u64,
    /// The one that ends once this one is ready.
    pub replaces: Option<Arc<str>>,
}

/// An [`Assigned`] as JSON.
#[derive(Serialize, Deserialize)]
struct Written {
    replica: String,
    group: String,
    generation: String,
    cpu: u64,
    memory: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    whole_gpus: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    gpu_memory: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gpu_slice: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gpus: Vec<GpuShare>,
    since: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaces: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<Written> for Assigned {
    fn from(written: Written) -> Assigned {
        let need = Need {
            cpu_milli: written.cpu,
            memory: written.memory,
            gpus: u32::try_from(written.whole_gpus).unwrap_or(u32::MAX),
            gpu_memory: written.gpu_memory,
            gpu_slice: written.gpu_slice,
        };
        Assigned {
            replica: written.replica.into(),
            group: written.group.into(),
            generation: written.generation,
            need,
            gpus: written.gpus,
            since: written.since,
            replaces: written.replaces.map(Arc::from),
        }
    }
}

impl From<Assigned> for Written {
    fn from(assigned: Assigned) -> Written {
        let need = assigned.need;
        Written {
            replica: assigned.replica.to_string(),
            group: assigned.group.to_string(),
            generation: assigned.generation,
            cpu: need.cpu_milli,
            memory: need.memory,
            whole_gpus: need.gpus.into(),
            gpu_memory: need.gpu_memory,
            gpu_slice: need.gpu_slice,
            gpus: assigned.gpus,
            since: assigned.since,
            replaces: assigned.replaces.map(|replaces| replaces.to_string()),
        }
    }
}

/// Everything that the store holds.
#[derive(Debug, Default)]
pub struct Loaded {
    /// By name.
    pub nodes: BTreeMap<String, NodeRecord>,
    /// By `namespace/agent` or `namespace/agent@region`.
    pub scales: BTreeMap<String, u32>,
}

/// Reads everything. What cannot be read is left out, and the log says so.
///
/// # Errors
/// The store is away.
pub async fn load(store: &Arc<dyn Store>) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded::default();
    for entry in store.list(NODES).await?.entries {
        let Some(name) = entry.key.strip_prefix(NODES) else { continue };
        match serde_json::from_slice(&entry.value) {
            Ok(record) => drop(loaded.nodes.insert(name.to_owned(), record)),
            Err(error) => log::warn!("the record of a node cannot be read", node = name, why = error),
        }
    }
    for entry in store.list(SCALES).await?.entries {
        let Some(name) = entry.key.strip_prefix(SCALES) else { continue };
        if let Ok(count) = serde_json::from_slice(&entry.value) {
            loaded.scales.insert(name.to_owned(), count);
        }
    }
    Ok(loaded)
}

/// The batches that write these nodes as they are now: a node without a record is removed. With each batch come the names of its
/// nodes.
pub fn batches<'r>(
    names: &BTreeSet<String>,
    record: impl Fn(&str) -> Option<&'r NodeRecord>,
) -> Vec<(Vec<String>, Batch)> {
    let mut batches = Vec::new();
    let (mut batch, mut members, mut bytes) = (Batch::default(), Vec::new(), 0);
    for name in names {
        let key = format!("{NODES}{name}");
        let value = record(name).map(|record| serde_json::to_vec(record).unwrap_or_default());
        let size = key.len() + value.as_ref().map_or(0, Vec::len);
        if members.len() >= MOST || (bytes + size > MOST_BYTES && !members.is_empty()) {
            batches.push((std::mem::take(&mut members), std::mem::take(&mut batch)));
            bytes = 0;
        }
        bytes += size;
        match value {
            Some(value) => batch.put.push((key, Bytes::from(value))),
            None => batch.delete.push(key),
        }
        members.push(name.clone());
    }
    if !members.is_empty() {
        batches.push((members, batch));
    }
    batches
}

/// The batch that sets a number, or forgets it.
pub fn scale(name: &str, count: Option<u32>) -> Batch {
    let key = format!("{SCALES}{name}");
    match count {
        Some(count) => {
            Batch { put: vec![(key, Bytes::from(count.to_string().into_bytes()))], ..Batch::default() }
        }
        None => Batch { delete: vec![key], ..Batch::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(number: usize) -> Assigned {
        let need = Need { cpu_milli: 500, memory: 4 << 30, gpus: 1, ..Need::default() };
        Assigned {
            replica: format!("production/summarizer/{number:010}").into(),
            group: "production/summarizer@eu-west".into(),
            generation: "0123456789abcdef".into(),
            need,
            gpus: vec![GpuShare { gpu: format!("GPU-{number:032}"), slice: None, memory: 80 << 30 }],
            since: 1_800_000_000,
            replaces: None,
        }
    }

    #[tokio::test]
    async fn ten_thousand_replicas_are_few_batches_that_every_store_takes() {
        let store: Arc<dyn Store> = Arc::new(crate::store::memory::Memory::new());
        let nodes: BTreeMap<String, NodeRecord> = (0..1000)
            .map(|node| {
                let assignments = (0..10).map(|number| assigned(node * 10 + number)).collect();
                (format!("node-{node}"), NodeRecord { assignments, ..NodeRecord::default() })
            })
            .collect();
        let names = nodes.keys().cloned().collect();
        let batches = batches(&names, |name| nodes.get(name));
        assert!(batches.len() <= 12, "{}", batches.len());
        for (_, batch) in batches {
            store.batch(batch).await.unwrap();
        }
        store.batch(scale("production/summarizer", Some(3))).await.unwrap();
        let loaded = load(&store).await.unwrap();
        assert_eq!(loaded.nodes, nodes);
        assert_eq!(loaded.scales["production/summarizer"], 3);
        // Large ones are spread over more batches.
        let large = |_: &str| Some(&nodes["node-1"]);
        let many: BTreeSet<String> = (0..5).map(|n| format!("{n}{}", "x".repeat(400 << 10))).collect();
        assert_eq!(super::batches(&many, large).len(), 3);
    }
}
