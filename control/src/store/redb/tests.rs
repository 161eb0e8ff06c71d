//! The file keeps what was acknowledged, and a watch begins where it left off.

use super::*;

fn put(key: &str, value: &'static str) -> Batch {
    Batch { put: vec![(key.to_owned(), Bytes::from_static(value.as_bytes()))], ..Batch::default() }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_and_watches_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let first = {
        let store = RedbStore::open(&path).unwrap();
        let first = store.batch(put("a/1", "one")).await.unwrap();
        store.batch(put("b/1", "other")).await.unwrap();
        let expect = vec![("a/1".to_owned(), Expect::At(first))];
        store.batch(Batch { expect, ..put("a/2", "two") }).await.unwrap();
        let expect = vec![("a/2".to_owned(), Expect::Absent)];
        assert_eq!(store.batch(Batch { expect, ..put("a/3", "never") }).await, Err(StoreError::Conflict));
        first
    };
    let store = reopened(&path).await;
    let listed = store.list("a/").await.unwrap();
    let keys: Vec<&str> = listed.entries.iter().map(|entry| &*entry.key).collect();
    assert_eq!((keys, listed.revision), (vec!["a/1", "a/2"], 3));
    let mut watch = store.watch("a/", first).await.unwrap();
    store.batch(Batch { delete: vec!["a/1".into(), "a/none".into()], ..Batch::default() }).await.unwrap();
    let seen = [watch.recv().await.unwrap().unwrap(), watch.recv().await.unwrap().unwrap()].concat();
    let seen: Vec<(&str, bool)> = seen.iter().map(|change| (&*change.key, change.value.is_some())).collect();
    assert_eq!(seen, [("a/2", true), ("a/1", false)]);
}

/// The thread of the store that was dropped lets go of the file in a moment.
async fn reopened(path: &Path) -> RedbStore {
    for _ in 0..500 {
        match RedbStore::open(path) {
            Ok(store) => return store,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(2)).await,
        }
    }
    panic!("the file stays open")
}

#[tokio::test]
async fn a_second_process_and_a_file_of_another_program_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let _open = RedbStore::open(&path).unwrap();
    let second = RedbStore::open(&path).unwrap_err();
    assert!(second.to_string().contains("another process has it open"), "{second}");
    let other = folder.path().join("other");
    std::fs::write(&other, vec![7; 8192]).unwrap();
    assert!(matches!(RedbStore::open(&other), Err(StoreError::Corrupt(_))), "{:?}", RedbStore::open(&other));
}

#[tokio::test]
async fn a_watch_from_before_the_log_is_told_to_list_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = RedbStore::open(&folder.path().join("store.redb")).unwrap();
    store.batch(put("a", "1")).await.unwrap();
    let mut watch = store.watch("", 17).await.unwrap();
    assert!(matches!(watch.recv().await, Some(Err(StoreError::Unavailable { .. }))));
}
