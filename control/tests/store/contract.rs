//! What every store has to do, alone and under random changes beside a map in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pilotfish_control::store::{Batch, Change, Expect, Revision, Store, StoreError, Watch};

type Map = BTreeMap<String, (Revision, Bytes)>;

pub fn put(key: &str, value: &str) -> Batch {
    Batch { put: vec![(key.into(), value.to_owned().into())], ..Batch::default() }
}

fn delete(key: &str) -> Batch {
    Batch { delete: vec![key.into()], ..Batch::default() }
}

fn expecting(key: &str, expect: Expect, batch: Batch) -> Batch {
    Batch { expect: vec![(key.into(), expect)], ..batch }
}

pub async fn next(watch: &mut Watch) -> Result<Vec<Change>, StoreError> {
    tokio::time::timeout(Duration::from_secs(30), watch.recv())
        .await
        .expect("a change")
        .expect("an open watch")
}

/// The whole contract.
pub async fn keeps(store: Arc<dyn Store>) {
    expectations(&*store).await;
    many(&*store).await;
    watches(&*store).await;
    one_of_many_wins(&store).await;
    for seed in 0..4 {
        random(&*store, seed).await;
    }
}

async fn expectations(store: &dyn Store) {
    assert_eq!(store.get("e/1").await.unwrap(), None);
    let first = store.batch(expecting("e/1", Expect::Absent, put("e/1", "x"))).await.unwrap();
    assert!(first > 0);
    let entry = store.get("e/1").await.unwrap().unwrap();
    assert_eq!((entry.key.as_str(), &entry.value[..], entry.revision), ("e/1", &b"x"[..], first));
    let again = store.batch(expecting("e/1", Expect::Absent, put("e/2", "y"))).await;
    assert_eq!(again, Err(StoreError::Conflict));
    assert_eq!(store.get("e/2").await.unwrap(), None, "nothing of a refused batch happens");
    let second = store.batch(expecting("e/1", Expect::At(first), put("e/1", "z"))).await.unwrap();
    assert!(second > first);
    let stale = store.batch(expecting("e/1", Expect::At(first), delete("e/1"))).await;
    assert_eq!(stale, Err(StoreError::Conflict));
    let missing = store.batch(expecting("e/9", Expect::At(second), put("e/9", "x"))).await;
    assert_eq!(missing, Err(StoreError::Conflict));
    let nothing = store.batch(delete("e/9")).await.unwrap();
    assert_eq!(nothing, second, "what changes nothing counts nothing");
    store.batch(delete("e/1")).await.unwrap();
    store.batch(expecting("e/1", Expect::Absent, put("e/1", ""))).await.unwrap();
    let empty = store.get("e/1").await.unwrap().unwrap();
    assert!(empty.value.is_empty());
    let listed = store.list("e/").await.unwrap();
    assert_eq!((listed.entries.len(), listed.revision), (1, empty.revision));
    assert!(store.list("e0").await.unwrap().entries.is_empty());
}

async fn many(store: &dyn Store) {
    let keys: Vec<String> = (0..250).map(|n| format!("g/{n:03}")).collect();
    for some in keys.chunks(100) {
        let put = some.iter().filter(|key| !key.ends_with('7')).map(|key| (key.clone(), key.clone().into()));
        store.batch(Batch { put: put.collect(), ..Batch::default() }).await.unwrap();
    }
    let found = store.get_many(&keys).await.unwrap();
    assert_eq!(found.len(), keys.len());
    for (key, found) in keys.iter().zip(found) {
        assert_eq!(
            found.map(|found| (found.key.clone(), found.value)),
            (!key.ends_with('7')).then(|| (key.clone(), key.clone().into()))
        );
    }
}

async fn watches(store: &dyn Store) {
    let start = store.list("").await.unwrap().revision;
    store.batch(put("w/1", "a")).await.unwrap();
    store.batch(put("x/1", "a")).await.unwrap();
    let both = Batch { put: vec![("w/2".into(), "b".into()), ("w/3".into(), "c".into())], ..delete("w/1") };
    let both = store.batch(both).await.unwrap();
    let mut past = store.watch("w/", start).await.unwrap();
    let mut now = store.watch("w/", both).await.unwrap();
    let last = store.batch(delete("w/2")).await.unwrap();
    assert_eq!(next(&mut past).await.unwrap()[0].value.as_deref(), Some(&b"a"[..]));
    let mut batch = next(&mut past).await.unwrap();
    batch.sort_by(|a, b| a.key.cmp(&b.key));
    let keys: Vec<_> = batch.iter().map(|change| (change.key.as_str(), change.value.is_some())).collect();
    assert_eq!(keys, [("w/1", false), ("w/2", true), ("w/3", true)], "a batch is one message");
    for watch in [&mut past, &mut now] {
        assert_eq!(next(watch).await.unwrap(), [Change { key: "w/2".into(), value: None, revision: last }]);
    }
    drop(now);
    store.batch(put("w/4", "d")).await.unwrap();
    assert_eq!(next(&mut past).await.unwrap()[0].key, "w/4");
}

async fn one_of_many_wins(store: &Arc<dyn Store>) {
    let tries = (0..16).map(|n| {
        let store = store.clone();
        let own = expecting("r/1", Expect::Absent, put("r/1", &n.to_string()));
        tokio::spawn(async move { store.batch(own).await })
    });
    let mut won = 0;
    for done in tries.collect::<Vec<_>>() {
        match done.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(error, StoreError::Conflict),
        }
    }
    assert_eq!(won, 1);
}

/// Random batches against a map; a watch has to tell how the one becomes the other.
async fn random(store: &dyn Store, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let prefix = format!("m{seed}/");
    let start = store.list("").await.unwrap().revision;
    let mut model = Map::new();
    let mut watch = store.watch(&prefix, start).await.unwrap();
    for _ in 0..60 {
        let batch = a_batch(&mut random, &prefix, &model);
        let holds = batch.expect.iter().all(|(key, expect)| match (model.get(key), expect) {
            (None, Expect::Absent) => true,
            (Some((own, _)), Expect::At(revision)) => own == revision,
            _ => false,
        });
        match store.batch(batch.clone()).await {
            Err(error) => assert_eq!((error, holds), (StoreError::Conflict, false)),
            Ok(revision) => {
                assert!(holds, "{batch:?}");
                batch.delete.iter().for_each(|key| drop(model.remove(key)));
                model.extend(batch.put.into_iter().map(|(key, value)| (key, (revision, value))));
            }
        }
    }
    let listed = store.list(&prefix).await.unwrap();
    let found: Map =
        listed.entries.into_iter().map(|entry| (entry.key, (entry.revision, entry.value))).collect();
    assert_eq!(found, model);
    let end = store.batch(put(&format!("{prefix}end"), "")).await.unwrap();
    let (mut seen, mut before) = (Map::new(), 0);
    while before < end {
        let changes = next(&mut watch).await.unwrap();
        assert!(
            changes.iter().all(|change| change.revision == changes[0].revision && change.revision > before)
        );
        before = changes[0].revision;
        for change in changes {
            match change.value {
                Some(value) => drop(seen.insert(change.key, (change.revision, value))),
                None => drop(seen.remove(&change.key)),
            }
        }
    }
    seen.remove(&format!("{prefix}end"));
    assert_eq!(seen, model);
}

fn a_batch(random: &mut fastrand::Rng, prefix: &str, model: &Map) -> Batch {
    let mut batch = Batch::default();
    for _ in 0..random.usize(0..3) {
        let key = format!("{prefix}{}", random.u8(0..12));
        let expect = match model.get(&key) {
            Some((revision, _)) if random.u8(0..8) > 0 => Expect::At(*revision),
            Some(_) => Expect::Absent,
            None if random.u8(0..8) > 0 => Expect::Absent,
            None => Expect::At(1),
        };
        batch.expect.push((key, expect));
    }
    let mut keys: Vec<u8> = (0..12).collect();
    random.shuffle(&mut keys);
    for key in keys.iter().take(random.usize(0..5)) {
        let key = format!("{prefix}{key}");
        if random.bool() {
            batch.put.push((key, vec![random.u8(..); random.usize(0..2000)].into()));
        } else {
            batch.delete.push(key);
        }
    }
    batch
}

/// What is too large for one store is refused by all, and the largest is taken.
pub async fn limits(store: Arc<dyn Store>) {
    let large = |count: usize, size: usize| Batch {
        put: (0..count).map(|n| (format!("l/{n}"), vec![b'x'; size].into())).collect(),
        ..Batch::default()
    };
    store.batch(large(100, 10_000)).await.unwrap();
    assert!(matches!(store.batch(large(101, 1)).await, Err(StoreError::Unavailable { unsure: false, .. })));
    assert!(matches!(
        store.batch(large(2, 600_000)).await,
        Err(StoreError::Unavailable { unsure: false, .. })
    ));
    store
        .batch(Batch { put: vec![("l/0".into(), vec![b'y'; 1_000_000].into())], ..Batch::default() })
        .await
        .unwrap();
    let listed = store.list("l/").await.unwrap();
    assert_eq!((listed.entries.len(), listed.entries[0].value.len()), (100, 1_000_000));
}
