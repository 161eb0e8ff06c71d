//! Who is held, as every control plane of a store sees it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pilotfish_config::wire::Hold;

use super::*;
use crate::store::memory::Memory;

/// A clock that is set by hand.
#[derive(Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn clock(&self) -> Clock {
        let hand = self.0.clone();
        Arc::new(move || SystemTime::UNIX_EPOCH + Duration::from_secs(hand.load(Relaxed)))
    }
}

fn action(agent: &str, until: Option<u64>) -> Action {
    Action {
        agent: agent.into(),
        hold: Hold::Quarantine,
        until,
        since: 0,
        by: "a test".into(),
        why: String::new(),
    }
}

fn held(actions: &wire::Actions) -> Vec<&str> {
    actions.actions.iter().map(|action| action.agent.as_str()).collect()
}

#[tokio::test]
async fn every_control_plane_of_a_store_says_the_same() {
    let (store, hand) = (Arc::new(Memory::new()), Hand::default());
    let one = Actions::open(store.clone(), hand.clock()).await.unwrap();
    let two = Actions::open(store.clone(), hand.clock()).await.unwrap();
    one.hold(&action("default/a", None)).await.unwrap();
    assert_eq!(held(&one.newest()), ["default/a"]);
    two.watch().wait_for(|actions| held(actions) == ["default/a"]).await.unwrap();
    let restricted = Action { hold: Hold::Restrict(vec!["nlu".into()]), ..action("default/a", None) };
    two.hold(&restricted).await.unwrap();
    one.watch().wait_for(|actions| actions.actions == [restricted.clone()]).await.unwrap();
    assert_eq!(one.release("default/a").await.unwrap(), restricted);
    two.watch().wait_for(|actions| actions.actions.is_empty()).await.unwrap();
    assert_eq!(two.release("default/a").await, Err(NotHeld::Free("default/a".into())));
}

#[tokio::test(start_paused = true)]
async fn it_survives_the_control_plane_and_ends_by_time() {
    let (store, hand) = (Arc::new(Memory::new()), Hand::default());
    let one = Actions::open(store.clone(), hand.clock()).await.unwrap();
    one.hold(&action("default/a", Some(2))).await.unwrap();
    one.hold(&action("default/b", Some(3000))).await.unwrap();
    drop(one);
    let two = Actions::open(store.clone(), hand.clock()).await.unwrap();
    assert_eq!(held(&two.newest()), ["default/a", "default/b"]);
    // Nobody but the clock changes anything.
    hand.0.store(2, Relaxed);
    two.watch().wait_for(|actions| held(actions) == ["default/b"]).await.unwrap();
    let left = || async { store.list(PREFIX).await.unwrap().entries.len() };
    while left().await > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_was_renewed_meanwhile_is_not_removed() {
    let (store, hand) = (Arc::new(Memory::new()), Hand::default());
    let one = Actions::open(store.clone(), hand.clock()).await.unwrap();
    one.hold(&action("default/a", Some(10))).await.unwrap();
    let late = one.lock().known["default/a"].clone();
    one.hold(&action("default/a", Some(100))).await.unwrap();
    // As a control plane that has not heard of it yet.
    one.lock().known.insert("default/a".into(), late);
    hand.0.store(20, Relaxed);
    one.tidy().await;
    assert_eq!(held(&one.newest()), ["default/a"]);
}

#[tokio::test]
async fn what_cannot_be_read_lets_nobody_go() {
    let (store, hand) = (Arc::new(Memory::new()), Hand::default());
    let one = Actions::open(store.clone(), hand.clock()).await.unwrap();
    one.hold(&action("default/a", None)).await.unwrap();
    // As a later version writes it, and damage.
    let put = vec![
        (format!("{PREFIX}default/a"), r#"{"agent":"default/a","hold":{"slow-down":3}}"#.into()),
        (format!("{PREFIX}default/b"), "".into()),
    ];
    store.batch(Batch { put, ..Batch::default() }).await.unwrap();
    one.watch().wait_for(|actions| held(actions) == ["default/a", "default/b"]).await.unwrap();
    let two = Actions::open(store.clone(), hand.clock()).await.unwrap();
    let newest = two.newest();
    assert_eq!(held(&newest), ["default/a", "default/b"]);
    assert!(newest.actions.iter().all(|action| action.hold == Hold::Quarantine));
    assert_eq!(two.release("default/b").await.unwrap().agent, "default/b");
    assert_eq!(held(&two.newest()), ["default/a"]);
}

#[tokio::test]
async fn a_time_is_never_shorter_than_it_says() {
    let clock =
        |millis: u64| -> Clock { Arc::new(move || SystemTime::UNIX_EPOCH + Duration::from_millis(millis)) };
    for (now, seconds, end) in [(5_000, 1, 6), (5_001, 1, 7), (5_999, 1, 7), (5_500, 3600, 3606)] {
        let actions = Actions::open(Arc::new(Memory::new()), clock(now)).await.unwrap();
        assert_eq!(actions.end_of(seconds), end, "{seconds} s after {now} ms");
    }
}
