//! Tokens that are good once, and all the ways in which they are not.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::store::memory::Memory;

struct Mesh {
    tokens: Tokens,
    store: Arc<Memory>,
    time: Arc<AtomicU64>,
    _data: tempfile::TempDir,
}

fn mesh() -> Mesh {
    let data = tempfile::tempdir().unwrap();
    let time = Arc::new(AtomicU64::new(1_800_000_000));
    let seconds = time.clone();
    let clock: Clock =
        Arc::new(move || SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::Relaxed)));
    let authority = Authority::open_at(data.path(), None, clock).unwrap();
    let store = Arc::new(Memory::new());
    Mesh { tokens: Tokens::new(store.clone(), &authority), store, time, _data: data }
}

fn wanted(uses: u32) -> NewToken {
    NewToken { agent: "planner".into(), namespace: "default".into(), ttl_seconds: 3600, uses, node: false }
}

fn planner() -> Bearer<'static> {
    Bearer::Agent { namespace: "default", agent: "planner" }
}

#[tokio::test]
async fn a_token_is_good_once_and_the_store_never_has_it() {
    let mesh = mesh();
    let token = mesh.tokens.create(&wanted(1)).await.unwrap();
    assert_eq!(token.expires, 1_800_003_600);
    assert_eq!(JoinToken::parse(&token.token).unwrap().root, mesh.tokens.root);
    let secret = token.token.split('.').nth(2).unwrap();
    let kept = mesh.store.list("").await.unwrap();
    assert_eq!(kept.entries.len(), 1);
    assert!(!String::from_utf8_lossy(&kept.entries[0].value).contains(secret));
    assert_eq!(mesh.tokens.spend(&token.token, planner()).await, Ok(()));
    let replayed = mesh.tokens.spend(&token.token, planner()).await;
    assert_eq!(replayed, Err(NotSpent::Refused("unknown-or-spent")));
}

#[tokio::test]
async fn every_bad_token_gets_the_same_answer_and_none_is_spent_by_it() {
    let mesh = mesh();
    let good = mesh.tokens.create(&wanted(1)).await.unwrap().token;
    let other = mesh.tokens.create(&wanted(1)).await.unwrap().token;
    let node = NewToken { namespace: String::new(), node: true, ..wanted(1) };
    let node = mesh.tokens.create(&node).await.unwrap().token;
    let mut parts: Vec<_> = good.split('.').collect();
    parts[2] = other.split('.').nth(2).unwrap();
    let mixed = parts.join(".");
    let unknown = JoinToken { id: [9; 8], secret: Zeroizing::new([9; 32]), root: [0; 32] }.to_text();
    let of = |namespace, agent| Bearer::Agent { namespace, agent };
    let tries = [
        ("", planner()),
        ("nonsense", planner()),
        (unknown.as_str(), planner()),
        (mixed.as_str(), planner()),
        (good.as_str(), of("default", "coder")),
        (good.as_str(), of("production", "planner")),
        (good.as_str(), of("", "")),
        (good.as_str(), Bearer::Node("planner")),
        (node.as_str(), planner()),
        (node.as_str(), of("", "planner")),
        (node.as_str(), Bearer::Node("coder")),
    ];
    let mut said = std::collections::BTreeSet::new();
    for (token, whose) in tries {
        let refused = mesh.tokens.spend(token, whose).await.unwrap_err();
        assert!(matches!(refused, NotSpent::Refused(_)), "{token} {whose:?}: {refused:?}");
        said.insert(refused.to_string());
    }
    mesh.time.fetch_add(3600, Ordering::Relaxed);
    said.insert(mesh.tokens.spend(&good, planner()).await.unwrap_err().to_string());
    assert_eq!(said.len(), 1, "{said:?}");
    mesh.time.fetch_sub(1, Ordering::Relaxed);
    assert_eq!(mesh.tokens.spend(&good, planner()).await, Ok(()));
    assert_eq!(mesh.tokens.spend(&node, Bearer::Node("planner")).await, Ok(()));
}

#[tokio::test]
async fn of_many_joins_at_once_only_as_many_succeed_as_there_are_uses() {
    let mesh = Arc::new(mesh());
    let token = mesh.tokens.create(&wanted(3)).await.unwrap().token;
    let joins = (0..20).map(|_| {
        let (mesh, token) = (mesh.clone(), token.clone());
        tokio::spawn(async move { mesh.tokens.spend(&token, planner()).await.is_ok() })
    });
    let mut taken = 0;
    for join in joins.collect::<Vec<_>>() {
        taken += usize::from(join.await.unwrap());
    }
    assert_eq!(taken, 3);
    assert!(mesh.store.list("token/").await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn without_the_store_nobody_joins_and_nothing_is_lost() {
    let mesh = mesh();
    let token = mesh.tokens.create(&wanted(1)).await.unwrap().token;
    let away = StoreError::Unavailable { why: "away".into(), unsure: false };
    mesh.store.fail(Some(away.clone()));
    assert_eq!(mesh.tokens.spend(&token, planner()).await, Err(NotSpent::Store(away.clone())));
    assert_eq!(mesh.tokens.create(&wanted(1)).await.unwrap_err(), NotMade::Store(away));
    mesh.store.fail(None);
    assert_eq!(mesh.tokens.spend(&token, planner()).await, Ok(()));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let mesh = mesh();
    let good = wanted(1);
    for bad in [
        NewToken { agent: String::new(), ..good.clone() },
        NewToken { agent: "a/b".into(), ..good.clone() },
        NewToken { namespace: "..".into(), ..good.clone() },
        NewToken { node: true, ..good.clone() },
        NewToken { node: true, agent: "a/b".into(), namespace: String::new(), ..good.clone() },
        NewToken { ttl_seconds: 0, ..good.clone() },
        NewToken { ttl_seconds: LONGEST + 1, ..good.clone() },
        NewToken { uses: 0, ..good.clone() },
        NewToken { uses: MOST_USES + 1, ..good },
    ] {
        assert!(matches!(mesh.tokens.create(&bad).await, Err(NotMade::Invalid(_))), "{bad:?}");
    }
}

#[tokio::test]
async fn expired_tokens_are_swept() {
    let mesh = mesh();
    for _ in 0..150 {
        mesh.tokens.create(&wanted(1)).await.unwrap();
    }
    mesh.time.fetch_add(1800, Ordering::Relaxed);
    let fresh = mesh.tokens.create(&wanted(1)).await.unwrap();
    assert_eq!(mesh.tokens.sweep().await, Ok(0));
    mesh.time.fetch_add(1800, Ordering::Relaxed);
    assert_eq!(mesh.tokens.sweep().await, Ok(150));
    assert_eq!(mesh.tokens.spend(&fresh.token, planner()).await, Ok(()));
}
