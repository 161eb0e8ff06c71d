//! Draining: the word that nobody chooses an agent any more.

use pilotfish_config::wire::{Status, ToSidecar};

use super::world::*;

#[tokio::test(start_paused = true)]
async fn it_comes_when_every_other_serves_a_version_without_it() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut one = Sidecar::connect(&fleet, "one", 1).await;
    let mut two = Sidecar::connect(&fleet, "two", 2).await;
    let mut ending = Sidecar::connect(&fleet, "ending", 3).await;
    for sidecar in [&mut one, &mut two, &mut ending] {
        sidecar.settle().await;
        sidecar.serves().await;
    }
    ending.beat(Status::Draining).await;
    for sidecar in [&mut one, &mut two, &mut ending] {
        assert_eq!(sidecar.update().await.endpoints_gone.len(), 1);
    }
    one.serves().await;
    assert!(ending.next().await.is_none(), "two still serves the old version");
    two.serves().await;
    assert!(matches!(ending.next().await, Some(ToSidecar::Drained {})));
}

#[tokio::test(start_paused = true)]
async fn who_is_gone_is_not_waited_for() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let one = Sidecar::connect(&fleet, "one", 1).await;
    let mut ending = Sidecar::connect(&fleet, "ending", 2).await;
    ending.settle().await;
    ending.beat(Status::Draining).await;
    ending.update().await;
    assert!(ending.next().await.is_none());
    drop(one);
    assert!(matches!(ending.next().await, Some(ToSidecar::Drained {})));
}

#[tokio::test(start_paused = true)]
async fn who_is_alone_or_was_never_chosen_hears_it_at_once() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut other = Sidecar::connect(&fleet, "other", 1).await;
    other.settle().await;
    let hello = pilotfish_config::wire::Hello { status: Status::Draining, ..hello("ending", 2) };
    let mut ending = Sidecar::open(&fleet, peer("ending"), hello).await;
    ending.welcome().await;
    ending.update().await;
    assert!(matches!(ending.next().await, Some(ToSidecar::Drained {})));
    assert!(other.next().await.is_none(), "it was in nobody's set");
}

#[tokio::test(start_paused = true)]
async fn with_another_control_plane_alive_nobody_is_told() {
    let world = World::new();
    let (fleet, _second) = (world.control("c1").await, world.control("c2").await);
    pass(QUIET).await;
    let mut ending = Sidecar::connect(&fleet, "ending", 1).await;
    ending.settle().await;
    ending.beat(Status::Draining).await;
    ending.update().await;
    assert!(ending.next().await.is_none());
}
