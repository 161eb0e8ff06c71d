//! One contract for every store: in memory, in a file, on etcd.

mod contract;
#[cfg(feature = "etcd")]
pub mod etcd;
mod faults;
mod killed;

use std::path::Path;
use std::sync::Arc;

use pilotfish_control::store::Store;
use pilotfish_control::store::memory::Memory;
use pilotfish_control::store::redb::RedbStore;

/// A new store in a file of the folder.
pub fn in_file(folder: &Path) -> Arc<dyn Store> {
    Arc::new(RedbStore::open(&folder.join("store.redb")).unwrap())
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    contract::keeps(Arc::new(Memory::new())).await;
}

#[tokio::test]
async fn a_file_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    contract::keeps(in_file(folder.path())).await;
    contract::limits(in_file(&folder.path().join("another"))).await;
}
