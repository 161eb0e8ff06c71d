//! Leases: who is heard stays, who is not goes.

use std::time::Duration;

use pilotfish_config::wire::Status;

use super::world::*;
use crate::store::{Store, StoreError};

#[tokio::test(start_paused = true)]
async fn heartbeats_renew_and_silence_expires_within_a_second_of_the_lease() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut watcher = Sidecar::connect(&fleet, "watcher", 1).await;
    let planner = Sidecar::connect(&fleet, "planner", 2).await;
    watcher.settle().await;
    live(&[&watcher, &planner], 30).await;
    assert_eq!(fleet.status().sidecars.len(), 2);
    live(&[&watcher], 9).await;
    assert_eq!(fleet.status().sidecars.len(), 2, "its last heartbeat is not a lease ago");
    live(&[&watcher], 1).await;
    assert_eq!(fleet.status().sidecars.len(), 1);
    watcher.settle().await;
    assert_eq!(watcher.endpoints(), [watcher.id.as_str()]);
    // It was only slow: with its next heartbeat it is back.
    planner.beat(Status::Ready).await;
    watcher.settle().await;
    assert!(watcher.endpoints().contains(&planner.id.as_str()));
}

#[tokio::test(start_paused = true)]
async fn a_closed_stream_keeps_its_lease_and_a_drained_one_leaves_at_once() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut watcher = Sidecar::connect(&fleet, "watcher", 1).await;
    let planner = Sidecar::connect(&fleet, "planner", 2).await;
    let coder = Sidecar::connect(&fleet, "coder", 3).await;
    watcher.settle().await;
    let (lost, left) = (planner.id.clone(), coder.id.clone());
    coder.beat(Status::Draining).await;
    pass(QUIET).await;
    drop(coder);
    drop(planner);
    watcher.settle().await;
    watcher.beat(Status::Ready).await;
    assert!(watcher.endpoints().contains(&lost.as_str()) && !watcher.endpoints().contains(&left.as_str()));
    let rows = fleet.status().sidecars;
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().any(|row| row.agent == "planner" && !row.connected));
    live(&[&watcher], 9).await;
    watcher.settle().await;
    assert_eq!(watcher.endpoints(), [watcher.id.as_str()]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_closed_in_the_end() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut planner = Sidecar::connect(&fleet, "planner", 1).await;
    pass(Duration::from_secs(29)).await;
    planner.settle().await;
    assert!(planner.is_ended().await);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_everybody_has_a_full_lease_and_the_same_version() {
    let world = World::new();
    let fleet = world.control("c1").await;
    world.apply(&[("ServiceEntry.a", &service("a"))]);
    let mut planner = Sidecar::connect(&fleet, "planner", 1).await;
    planner.settle().await;
    let before = planner.held.clone();
    pass(Duration::from_secs(1)).await;
    drop(fleet);
    drop(planner);
    pass(Duration::from_secs(3600)).await;
    let fleet = world.control("c1").await;
    let watcher = Sidecar::connect(&fleet, "watcher", 2).await;
    assert!(watcher.held.endpoints.len() == 1, "who was registered is there before it is back");
    pass(Duration::from_secs(9)).await;
    assert_eq!(fleet.status().sidecars.len(), 2);
    // What it holds is known by its digest: it is sent what is new, not everything.
    let resume = pilotfish_config::wire::Hello { resume: before.resume, ..hello("planner", 1) };
    let mut back = Sidecar::open(&fleet, peer("planner"), resume).await;
    back.held = planner_held(&before.documents, before.endpoints);
    back.welcome().await;
    let update = back.update().await;
    assert_eq!(update.endpoints.len(), 1);
    live(&[&back], 5).await;
    assert_eq!(fleet.status().sidecars.len(), 1, "the watcher said nothing");
}

fn planner_held(
    documents: &std::collections::BTreeMap<pilotfish_config::wire::Key, String>,
    endpoints: std::collections::BTreeMap<String, pilotfish_config::wire::Endpoint>,
) -> Held {
    Held { documents: documents.clone(), endpoints, ..Held::default() }
}

#[tokio::test(start_paused = true)]
async fn heartbeats_are_not_stored_and_changes_are() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let planner = Sidecar::connect(&fleet, "planner", 1).await;
    pass(QUIET).await;
    let stored = async || world.store.list("endpoint/").await.unwrap().entries;
    let first = stored().await;
    assert_eq!(first.len(), 1);
    live(&[&planner], 20).await;
    assert_eq!(stored().await, first);
    planner.beat(Status::Degraded).await;
    pass(QUIET).await;
    let second = stored().await;
    assert!(String::from_utf8_lossy(&second[0].value).contains("degraded"));
    planner.beat(Status::Draining).await;
    drop(planner);
    pass(QUIET).await;
    assert!(stored().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_store_stops_neither_heartbeats_nor_pushing() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut watcher = Sidecar::connect(&fleet, "watcher", 1).await;
    let away = StoreError::Unavailable { why: "test".into(), unsure: false };
    world.store.fail(Some(away));
    world.store.break_watches();
    let planner = Sidecar::connect(&fleet, "planner", 2).await;
    watcher.settle().await;
    assert!(watcher.endpoints().contains(&planner.id.as_str()));
    live(&[&watcher, &planner], 60).await;
    assert_eq!(fleet.status().sidecars.len(), 2);
    world.apply(&[("ServiceEntry.a", &service("a"))]);
    assert_eq!(watcher.update().await.documents.len(), 1);
    world.store.fail(None);
    live(&[&watcher, &planner], 5).await;
    assert_eq!(world.store.list("endpoint/").await.unwrap().entries.len(), 2);
    assert_eq!(fleet.status().sidecars.len(), 2);
}
