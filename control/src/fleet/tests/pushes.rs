//! What is pushed, when, and what becomes of it.

use std::time::Duration;

use pilotfish_config::wire::{Hello, RefusedVersion, Resume, State, Status, ToControl};
use tokio::time::Instant;

use super::world::*;

#[tokio::test(start_paused = true)]
async fn only_what_differs_is_sent_after_the_first() {
    let world = World::new();
    world.apply(&[("ServiceEntry.a", &service("a")), ("ServiceEntry.b", &service("b"))]);
    let fleet = world.control("c1").await;
    let mut one = Sidecar::connect(&fleet, "one", 1).await;
    one.settle().await;
    assert_eq!(one.held.documents.len(), 2);
    world.apply(&[("ServiceEntry.a", &service("x")), ("ServiceEntry.c", &service("c"))]);
    let update = one.update().await;
    let names: Vec<&str> = update.documents.iter().map(|document| document.key.name.as_str()).collect();
    assert_eq!((names, update.full), (vec!["serviceentry-a", "serviceentry-c"], false));
    assert_eq!(update.documents_gone.len(), 1);
    assert!(update.endpoints.is_empty() && update.trust.is_none());
    // The same again is no reason to push.
    world.apply(&[("ServiceEntry.a", &service("x")), ("ServiceEntry.c", &service("c"))]);
    assert!(one.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_known_digest_is_gone_on_from_and_any_other_gets_everything() {
    let world = World::new();
    world.apply(&[("ServiceEntry.a", &service("a"))]);
    let fleet = world.control("c1").await;
    let mut one = Sidecar::connect(&fleet, "one", 1).await;
    one.settle().await;
    let back =
        |resume: Option<Resume>| Sidecar::open(&fleet, peer("one"), Hello { resume, ..hello("one", 1) });
    let current = one.held.resume.clone();
    let mut same = back(current.clone()).await;
    same.welcome().await;
    assert!(same.next().await.is_none(), "it has everything");
    drop(same);
    world.apply(&[("ServiceEntry.a", &service("a")), ("ServiceEntry.b", &service("b"))]);
    pass(QUIET).await;
    let mut behind = back(current.clone()).await;
    behind.welcome().await;
    let update = behind.update().await;
    assert_eq!((update.full, update.documents.len()), (false, 1));
    drop(behind);
    let unknown = Resume { digest: "0".repeat(64), ..current.unwrap() };
    let mut lost = back(Some(unknown)).await;
    lost.welcome().await;
    let update = lost.update().await;
    assert_eq!((update.full, update.documents.len()), (true, 2));
}

#[tokio::test(start_paused = true)]
async fn changes_wait_for_quiet_but_not_for_ever() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut one = Sidecar::connect(&fleet, "one", 1).await;
    one.settle().await;
    let start = Instant::now();
    world.apply(&[("ServiceEntry.a", &service("a"))]);
    one.update().await;
    let took = start.elapsed();
    assert!((Duration::from_millis(100)..Duration::from_millis(110)).contains(&took), "{took:?}");
    let start = Instant::now();
    let mut number = 0;
    let burst = async {
        loop {
            number += 1;
            world.apply(&[("ServiceEntry.a", &service(&format!("a{number}")))]);
            pass(Duration::from_millis(50)).await;
        }
    };
    let patient = async {
        loop {
            // Its lease must not run out meanwhile.
            one.beat(Status::Ready).await;
            if let Some(message) = one.next().await {
                break message;
            }
        }
    };
    let update = tokio::select! {
        update = patient => update,
        () = burst => unreachable!(),
    };
    assert!(matches!(update, pilotfish_config::wire::ToSidecar::Update(_)));
    let took = start.elapsed();
    assert!((Duration::from_secs(10)..Duration::from_millis(10_200)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_leaves_does_not_wait_for_a_storm_to_end() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut one = Sidecar::connect(&fleet, "one", 1).await;
    let two = Sidecar::connect(&fleet, "two", 2).await;
    one.settle().await;
    let storm = async {
        for number in 0..40 {
            world.apply(&[("ServiceEntry.a", &service(&format!("a{number}")))]);
            pass(Duration::from_millis(50)).await;
        }
    };
    let start = Instant::now();
    let gone = async {
        two.beat(Status::Quarantined).await;
        let update = one.update().await;
        assert_eq!(update.endpoints_gone, [two.id.as_str()]);
        assert!(start.elapsed() <= Duration::from_millis(600), "{:?}", start.elapsed());
    };
    tokio::join!(storm, gone);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_the_newest_state_and_no_backlog() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut slow = Sidecar::connect(&fleet, "slow", 1).await;
    slow.settle().await;
    for number in 0..20 {
        world.apply(&[("ServiceEntry.a", &service(&format!("a{number}")))]);
        slow.beat(Status::Ready).await;
        pass(Duration::from_secs(1)).await;
    }
    let first = slow.update().await;
    let second = slow.update().await;
    assert!(second.version > first.version + 10);
    assert!(second.documents[0].body.get().contains("a19.example"));
    assert!(slow.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn versions_of_documents_are_shown_through_every_step() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut one = Sidecar::connect(&fleet, "one", 1).await;
    one.settle().await;
    let version = world.apply(&[("ServiceEntry.a", &service("a"))]);
    let update = one.update().await;
    let row = || fleet.status().sidecars[0].clone();
    assert_eq!((row().rendered, row().distributed, row().accepted, row().serving), (version, version, 0, 0));
    let state = |accepted, serving| ToControl::State(State { accepted, serving, refused: None });
    one.send(state(update.version, 0)).await;
    pass(QUIET).await;
    assert_eq!((row().accepted, row().serving), (version, 0));
    one.serves().await;
    pass(QUIET).await;
    assert_eq!(row().serving, version);
    // An endpoint that comes is a new update of the same documents.
    let _two = Sidecar::connect(&fleet, "two", 2).await;
    one.update().await;
    assert_eq!((row().distributed, row().serving), (version, version));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_shown_with_bounded_reasons_and_ends_a_wait_at_once() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut one = Sidecar::connect(&fleet, "one", 1).await;
    one.settle().await;
    let version = world.apply(&[("ServiceEntry.a", &service("a"))]);
    let refuse = async {
        let update = one.update().await;
        let reasons = vec!["x".repeat(100_000); 1000];
        let refused = Some(RefusedVersion { version: update.version, reasons });
        one.send(ToControl::State(State { refused, ..State::default() })).await;
    };
    let start = Instant::now();
    let (waited, ()) = tokio::join!(fleet.wait(version, Duration::from_secs(30)), refuse);
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!((waited.done, waited.concerned, waited.missing.len()), (false, 1, 1));
    let refused = waited.missing[0].refused.clone().unwrap();
    assert_eq!((refused.version, refused.reasons.len(), refused.reasons[0].len()), (version, 20, 1024));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_all_serve_it_or_the_time_is_over() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut one = Sidecar::connect(&fleet, "one", 1).await;
    let mut two = Sidecar::connect(&fleet, "two", 2).await;
    one.settle().await;
    two.settle().await;
    let version = world.apply(&[("ServiceEntry.a", &service("a"))]);
    let one_serves = async {
        one.update().await;
        one.serves().await;
    };
    let (late, ()) = tokio::join!(fleet.wait(version, Duration::from_secs(1)), one_serves);
    assert_eq!((late.done, late.concerned, late.missing.len()), (false, 2, 1));
    assert_eq!(late.missing[0].agent, "two");
    two.update().await;
    two.serves().await;
    let waited = fleet.wait(version, Duration::from_secs(1)).await;
    assert_eq!((waited.done, waited.concerned, waited.missing.len()), (true, 2, 0));
    // What changes nothing concerns nobody.
    let same = world.apply(&[("ServiceEntry.a", &service("a"))]);
    let waited = fleet.wait(same, Duration::from_secs(1)).await;
    assert_eq!((waited.done, waited.concerned), (true, 0));
}
