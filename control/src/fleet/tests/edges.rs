//! What sidecars report of their calls, and agents that go without a word.

use std::time::Duration;

use pilotfish_config::wire::{EDGE_BOUNDS, Edge, Heartbeat, Status, ToControl};

use super::world::*;

#[tokio::test(start_paused = true)]
async fn edges_of_heartbeats_are_added_up_by_the_callers_certificate() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let sidecars =
        [Sidecar::connect(&fleet, "planner", 1).await, Sidecar::connect(&fleet, "planner", 2).await];
    let edge = Edge {
        to: "default/coder".into(),
        capability: Some("code".into()),
        calls: 3,
        errors: 1,
        sum_us: 30_000,
        buckets: vec![3; 1],
    };
    for sidecar in &sidecars {
        let heartbeat = Heartbeat { edges: vec![edge.clone()], ..beat(Status::Ready) };
        sidecar.send(ToControl::Heartbeat(heartbeat)).await;
    }
    pass(Duration::from_millis(10)).await;
    let rows = fleet.edges(Duration::from_secs(60));
    assert_eq!(rows.len(), 1);
    assert_eq!((&*rows[0].from, &*rows[0].to), ("default/planner", "default/coder"));
    assert_eq!((rows[0].traffic.calls, rows[0].traffic.errors, rows[0].traffic.buckets[0]), (6, 2, 6));
    assert_eq!(rows[0].traffic.quantile(1.0), Some(EDGE_BOUNDS[0]));
    live(&[&sidecars[0]], 90).await;
    assert_eq!(fleet.edges(Duration::from_secs(60))[0].traffic.calls, 0);
    assert_eq!(fleet.edges(Duration::from_secs(3600))[0].traffic.calls, 6);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_said_good_bye_is_not_lost() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let watcher = Sidecar::connect(&fleet, "watcher", 1).await;
    let (lost, left) =
        (Sidecar::connect(&fleet, "planner", 2).await, Sidecar::connect(&fleet, "coder", 3).await);
    left.beat(Status::Draining).await;
    pass(QUIET).await;
    drop((left, lost));
    live(&[&watcher], 12).await;
    let seen = |fleet: &crate::fleet::Fleet| -> Vec<(String, bool, u32)> {
        let row = |own: crate::fleet::presence::Presence| (own.agent, own.lost.is_some(), own.routable);
        fleet.presence().into_iter().map(row).collect()
    };
    let (planner, watching) = ("default/planner".to_owned(), "default/watcher".to_owned());
    assert_eq!(seen(&fleet), [(planner.clone(), true, 0), (watching.clone(), false, 1)]);
    let _back = Sidecar::connect(&fleet, "planner", 4).await;
    assert_eq!(seen(&fleet), [(planner, false, 1), (watching, false, 1)]);
}
