//! Versions of documents on the real stores.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pilotfish_control::api::types::{File, Submission};
use pilotfish_control::resources::{Refusal, Resources};
use pilotfish_control::store::Store;

fn routes(names: impl Iterator<Item = u32>, status: u32) -> Submission {
    let text: String = names
        .map(|n| {
            format!(
                "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: r{n}}}\nspec:\n  hosts: \
                 [r{n}.example]\n  http: [{{directResponse: {{status: {status}}}}}]\n"
            )
        })
        .collect();
    Submission { files: vec![File { name: "routes.yaml".into(), text }], ..Submission::default() }
}

/// For what takes long on a busy machine, in a debug build.
const LONG: Duration = Duration::from_secs(120);

/// Two control planes on one store.
async fn two(store: Arc<dyn Store>) {
    let (one, other) = (
        Resources::open(store.clone(), None).await.unwrap(),
        Resources::open(store.clone(), None).await.unwrap(),
    );
    let before = Instant::now();
    one.apply(&routes(0..10_000, 200), "ada").await.unwrap();
    let (applied, mut seen) = (before.elapsed(), other.watch());
    tokio::time::timeout(LONG, seen.wait_for(|newest| newest.version == 1)).await.unwrap().unwrap();
    println!("10,000 documents: applied in {applied:?}, seen by another after {:?}", before.elapsed());
    assert_eq!(other.newest().documents.len(), 10_000);
    assert!(applied < LONG, "{applied:?}");
    let before = Instant::now();
    let (ada, bob) = (routes(0..1, 201), routes(0..1, 202));
    let (ada, bob) = tokio::join!(one.apply(&ada, "ada"), other.apply(&bob, "bob"));
    println!("one of them: {:?}", before.elapsed());
    // On two processes they may also come one after the other; never does one vanish.
    match (ada, bob) {
        (Ok(a), Ok(b)) => assert_eq!(a.version.max(b.version), 3),
        (Ok(won), Err(Refusal::Conflict(why))) | (Err(Refusal::Conflict(why)), Ok(won)) => {
            assert!(won.version == 2 && why.contains("version 2 by"), "{why}");
        }
        both => panic!("{both:?}"),
    }
    let again = Resources::open(store, None).await.unwrap();
    assert_eq!(again.newest().documents.len(), 10_000);
    one.rollback(1, "ada").await.unwrap();
    assert!(one.get(None, None, Some("r0"))[0].yaml.contains("200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    two(crate::store::in_file(folder.path())).await;
}

#[cfg(feature = "etcd")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_etcd() {
    let Some(etcd) = crate::store::etcd::Etcd::start(1).await else { return };
    two(etcd.store().await).await;
}

/// Applies go on while a member of etcd is killed; each that was answered is in the history, none twice.
#[cfg(feature = "etcd")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applies_survive_the_leader() {
    let Some(mut etcd) = crate::store::etcd::Etcd::start(3).await else { return };
    let store = etcd.store().await;
    let (one, other) = (
        Resources::open(store.clone(), None).await.unwrap(),
        Resources::open(store.clone(), None).await.unwrap(),
    );
    let writer = tokio::spawn({
        let one = one.clone();
        async move {
            let mut applied = Vec::new();
            let end = std::time::Instant::now() + Duration::from_secs(120);
            for status in (200..600).cycle() {
                if applied.len() == 40 || std::time::Instant::now() > end {
                    break;
                }
                match one.apply(&routes(0..3, status), "ada").await {
                    Ok(done) => applied.push(done.version),
                    Err(Refusal::Store(error)) => println!("not applied: {error}"),
                    Err(other) => panic!("{other}"),
                }
            }
            applied
        }
    });
    tokio::time::timeout(LONG, one.watch().wait_for(|newest| newest.version > 10)).await.unwrap().unwrap();
    etcd.kill_leader().await;
    let applied = writer.await.unwrap();
    assert_eq!(applied.len(), 40, "within two minutes");
    let last = *applied.last().unwrap();
    tokio::time::timeout(LONG, other.watch().wait_for(|newest| newest.version >= last))
        .await
        .unwrap()
        .unwrap();
    let history = other.history(1000).await.unwrap();
    assert_eq!(history.len() as u64, history[0].version);
    assert!(applied.iter().all(|version| history.iter().any(|commit| commit.version == *version)));
}
