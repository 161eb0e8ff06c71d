//! Several control planes on one store.

use std::time::Duration;

use pilotfish_config::wire::{Hello, Report, Status};

use super::world::*;
use crate::store::Store;

#[tokio::test(start_paused = true)]
async fn each_knows_the_others_sidecars_and_versions_mean_the_same() {
    let world = World::new();
    let (first, second) = (world.control("c1").await, world.control("c2").await);
    world.apply(&[("ServiceEntry.a", &service("a"))]);
    let mut one = Sidecar::connect(&first, "one", 1).await;
    let mut two = Sidecar::connect(&second, "two", 2).await;
    one.settle().await;
    two.settle().await;
    assert_eq!(one.held, two.held);
    assert_eq!(one.held.endpoints.len(), 2);
    // It goes to the other one, and need not be sent anything.
    let resume = Hello { resume: one.held.resume.clone(), ..hello("one", 1) };
    drop(one);
    let mut moved = Sidecar::open(&second, peer("one"), resume).await;
    moved.welcome().await;
    assert!(moved.next().await.is_none());
    let owner = async || {
        let entry = world.store.get("endpoint/default/one/00000000000000000000000000000001").await.unwrap();
        String::from_utf8_lossy(&entry.unwrap().value).contains("\"owner\":\"c2\"")
    };
    assert!(owner().await);
    assert_eq!(first.status().sidecars.len(), 2);
    live(&[&two, &moved], 20).await;
    assert_eq!((first.status().sidecars.len(), second.status().sidecars.len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_dead_control_planes_sidecars_are_kept_by_who_takes_them_and_removed_otherwise() {
    let world = World::new();
    let (first, second) = (world.control("c1").await, world.control("c2").await);
    let mut watcher = Sidecar::connect(&second, "watcher", 1).await;
    let saved = Sidecar::connect(&first, "saved", 2).await;
    let lost = Sidecar::connect(&first, "lost", 3).await;
    watcher.settle().await;
    assert_eq!(watcher.endpoints().len(), 3);
    let (lost, closed) = (lost.id.clone(), lost);
    drop((first, closed));
    drop(saved);
    let saved = Sidecar::connect(&second, "saved", 2).await;
    live(&[&watcher, &saved], 12).await;
    watcher.settle().await;
    assert!(watcher.endpoints().contains(&lost.as_str()), "c1 may be slow");
    watcher.beat(Status::Ready).await;
    live(&[&watcher, &saved], 8).await;
    watcher.settle().await;
    assert_eq!(watcher.endpoints(), [saved.id.as_str(), watcher.id.as_str()]);
    assert_eq!(world.store.list("endpoint/").await.unwrap().entries.len(), 2);
    live(&[&watcher, &saved], 60).await;
    assert_eq!(world.store.list("control/").await.unwrap().entries.len(), 1, "what it left is cleared away");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_runs_out_at_one_is_gone_at_the_other() {
    let world = World::new();
    let (first, second) = (world.control("c1").await, world.control("c2").await);
    let mut watcher = Sidecar::connect(&second, "watcher", 1).await;
    let lost = Sidecar::connect(&first, "lost", 2).await;
    watcher.settle().await;
    assert_eq!(watcher.endpoints().len(), 2);
    drop(lost);
    live(&[&watcher], 11).await;
    watcher.settle().await;
    assert_eq!(watcher.endpoints(), [watcher.id.as_str()]);
}

#[tokio::test(start_paused = true)]
async fn the_newer_stream_wins_wherever_it_is() {
    let world = World::new();
    let (first, second) = (world.control("c1").await, world.control("c2").await);
    let mut old = Sidecar::connect(&first, "one", 1).await;
    pass(QUIET).await;
    let mut new = Sidecar::connect(&second, "one", 1).await;
    old.settle().await;
    assert!(old.is_ended().await);
    assert!(new.next().await.is_none());
    assert!(!first.status().sidecars[0].connected && second.status().sidecars[0].connected);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_broke_misses_nothing() {
    let world = World::new();
    let (first, second) = (world.control("c1").await, world.control("c2").await);
    let mut watcher = Sidecar::connect(&second, "watcher", 1).await;
    let ending = Sidecar::connect(&first, "ending", 2).await;
    watcher.settle().await;
    world.store.break_watches();
    ending.beat(Status::Draining).await;
    drop(ending);
    let new = Sidecar::connect(&first, "new", 3).await;
    watcher.settle().await;
    assert_eq!(watcher.endpoints(), [new.id.as_str(), watcher.id.as_str()]);
}

#[tokio::test(start_paused = true)]
async fn what_sidecars_of_one_measured_reaches_those_of_the_other() {
    let world = World::new();
    let (first, second) = (world.control("c1").await, world.control("c2").await);
    pass(Duration::from_secs(4)).await;
    let mut one = Sidecar::connect(&first, "one", 1).await;
    let mut two = Sidecar::connect(&second, "two", 2).await;
    one.settle().await;
    two.settle().await;
    let report = Report {
        endpoint: two.id.clone(),
        latency_us: 3000,
        success: 0.9,
        in_flight: 4,
        calls: 100,
        health: None,
    };
    one.report(vec![report]).await;
    for _ in 0..4 {
        if let Some(message) = two.next().await {
            let pilotfish_config::wire::ToSidecar::Ranks(ranks) = message else { panic!("{message:?}") };
            assert_eq!((ranks.ranks[0].latency_us, ranks.ranks[0].in_flight), (3000, 4));
            return;
        }
        two.beat(Status::Ready).await;
    }
    panic!("no ranks");
}
