//! Reports of sidecars, and the ranks that are made of them.

use std::time::Duration;

use pilotfish_config::wire::{EndpointHealth, Hello, Report, Status};

use super::world::*;

fn report(of: &Sidecar, latency_us: u64, success: f32, in_flight: u32, calls: u32) -> Report {
    Report { endpoint: of.id.clone(), latency_us, success, in_flight, calls, health: None }
}

#[tokio::test(start_paused = true)]
async fn reports_are_weighed_by_calls_and_pushed_when_they_are_news() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut one = Sidecar::connect(&fleet, "one", 1).await;
    let mut two = Sidecar::connect(&fleet, "two", 2).await;
    let target = Sidecar::connect(&fleet, "target", 3).await;
    one.settle().await;
    two.settle().await;
    one.report(vec![report(&target, 1000, 1.0, 1, 30)]).await;
    two.report(vec![report(&target, 5000, 0.6, 2, 10)]).await;
    let ranks = one.ranks().await.ranks;
    assert_eq!(ranks.len(), 1);
    assert!((1950..2050).contains(&ranks[0].latency_us), "{ranks:?}");
    assert!((ranks[0].success - 0.9).abs() < 0.01 && ranks[0].in_flight == 3);
    assert_eq!(two.ranks().await.ranks[0].endpoint, target.id);
    // A little more is no news, much more is.
    one.report(vec![report(&target, 1200, 1.0, 2, 30)]).await;
    assert!(one.next().await.is_none());
    one.report(vec![report(&target, 1200, 1.0, 9, 0)]).await;
    assert!(one.ranks().await.ranks[0].in_flight > 5);
}

#[tokio::test(start_paused = true)]
async fn the_only_reporter_does_not_hear_itself() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut one = Sidecar::connect(&fleet, "one", 1).await;
    let mut two = Sidecar::connect(&fleet, "two", 2).await;
    one.settle().await;
    two.settle().await;
    one.report(vec![report(&two, 1000, 1.0, 0, 30)]).await;
    assert_eq!(two.ranks().await.ranks.len(), 1);
    assert!(one.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn only_endpoints_of_its_own_set_and_only_sense() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut one = Sidecar::connect(&fleet, "one", 1).await;
    let hidden = Hello { status: Status::Initializing, ..hello("hidden", 2) };
    let hidden = Sidecar::open(&fleet, peer("hidden"), hidden).await;
    let target = Sidecar::connect(&fleet, "target", 3).await;
    let mut two = Sidecar::connect(&fleet, "two", 4).await;
    one.settle().await;
    two.settle().await;
    one.report(vec![
        report(&hidden, 1000, 1.0, 0, 30),
        Report { endpoint: "default/nobody/x".into(), ..report(&target, 1, 1.0, 0, 1) },
        report(&target, u64::MAX, 1.0, 0, 30),
        report(&target, 1000, f32::NAN, 0, 30),
    ])
    .await;
    assert!(two.next().await.is_none());
    one.report(vec![report(&target, 1000, 7.0, 0, 30)]).await;
    assert!((two.ranks().await.ranks[0].success - 1.0).abs() < 0.01);
}

#[tokio::test(start_paused = true)]
async fn ranks_come_at_most_once_a_second_and_to_newcomers_at_once() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let one = Sidecar::connect(&fleet, "one", 1).await;
    let target = Sidecar::connect(&fleet, "target", 2).await;
    let mut two = Sidecar::connect(&fleet, "two", 3).await;
    two.settle().await;
    let start = tokio::time::Instant::now();
    for step in 1..=20 {
        one.report(vec![report(&target, step * step * 1000, 1.0, 0, 100)]).await;
        pass(Duration::from_millis(100)).await;
    }
    two.ranks().await;
    two.ranks().await;
    assert!(two.next().await.is_none() && start.elapsed() >= Duration::from_secs(2));
    let mut late = Sidecar::connect(&fleet, "late", 4).await;
    let mut seen = false;
    while let Some(message) = late.next().await {
        seen |= matches!(message, pilotfish_config::wire::ToSidecar::Ranks(_));
    }
    assert!(seen);
}

#[tokio::test(start_paused = true)]
async fn agents_are_ranked_by_cost_and_others_say_why_not() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let able = |name: &str, number, capability: &str| Hello {
        capabilities: vec![capability.into()],
        labels: [("tier".to_owned(), "gold".to_owned())].into(),
        ..hello(name, number)
    };
    let one = Sidecar::open(&fleet, peer("one"), able("one", 1, "plan@1.0")).await;
    let two = Sidecar::open(&fleet, peer("two"), able("two", 2, "plan@2.0")).await;
    let _three = Sidecar::open(&fleet, peer("three"), able("three", 3, "code")).await;
    let four = Sidecar::open(&fleet, peer("four"), able("four", 4, "plan@2.1")).await;
    pass(QUIET).await;
    four.beat(Status::Quarantined).await;
    one.report(vec![report(&one, 50_000, 1.0, 0, 30), report(&two, 2_000, 0.99, 1, 30)]).await;
    pass(QUIET).await;
    let agents = fleet.agents(Some("plan"), None).unwrap();
    let names =
        |rows: &[crate::api::types::AgentRow]| rows.iter().map(|row| row.agent.clone()).collect::<Vec<_>>();
    assert_eq!(names(&agents.agents), ["two", "one"]);
    assert_eq!(agents.agents[0].rank, Some(1));
    assert!(agents.agents[0].latency_us.unwrap() > 1_900 && agents.agents[0].in_flight == 1);
    let why =
        |name: &str| agents.others.iter().find(|row| row.agent == name).unwrap().why_not.clone().unwrap();
    assert!(why("three").contains("lacks the capability"));
    assert_eq!(why("four"), "it is quarantined");
    let fast = fleet.agents(Some("plan@1"), Some("latency<10ms, tier=gold")).unwrap();
    assert!(fast.agents.is_empty());
    assert_eq!(names(&fleet.agents(Some("plan"), Some("latency<10ms")).unwrap().agents), ["two"]);
    assert!(fleet.agents(Some("pl an"), None).is_err());
    assert!(fleet.agents(None, Some("colour=red")).unwrap_err().contains("colour"));
    assert_eq!(fleet.agents(None, None).unwrap().agents.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn explain_answers_as_the_agents_sidecar_would() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let able = Hello { capabilities: vec!["plan".into()], ..hello("planner", 1) };
    let planner = Sidecar::open(&fleet, peer("planner"), able).await;
    world.apply(&[("ServiceEntry.a", &service("a"))]);
    pass(QUIET).await;
    planner.report(vec![report(&planner, 7_000, 1.0, 0, 30)]).await;
    pass(QUIET).await;
    let question = |url: &str, capability: &str| crate::api::types::Question {
        agent: "asker".into(),
        namespace: "default".into(),
        method: "GET".into(),
        url: url.into(),
        headers: vec![("agent-capability".into(), capability.into())],
        body: None,
    };
    let told = fleet.explain(&question("http://plan.capability.mesh/x", "plan")).unwrap();
    assert_eq!(told.candidates.len(), 1, "{told:?}");
    assert!(
        told.candidates[0].0.contains("10.0.0.1:1001") && told.candidates[0].1.contains("7.0 ms"),
        "{told:?}"
    );
    let none = fleet.explain(&question("http://fly.capability.mesh/x", "fly")).unwrap();
    assert!(none.refused.is_some(), "{none:?}");
    let host = fleet.explain(&question("http://a.example/x", "")).unwrap();
    assert!(host.rule.is_some(), "{host:?}");
    assert!(fleet.explain(&question("ftp://a", "")).is_err());
}

#[tokio::test(start_paused = true)]
async fn why_sidecars_send_nothing_is_told_with_how_many_and_forgotten_in_time() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut one = Sidecar::connect(&fleet, "one", 1).await;
    let mut two = Sidecar::connect(&fleet, "two", 2).await;
    let target = Sidecar::connect(&fleet, "target", 3).await;
    one.settle().await;
    two.settle().await;
    let out = |reason: &str| Report {
        health: Some(EndpointHealth { state: "ejected".into(), reason: reason.into() }),
        ..report(&target, 1, 1.0, 0, 0)
    };
    let said = || {
        let all = fleet.agents(None, None).unwrap().agents;
        all.into_iter().find(|row| row.agent == "target").and_then(|row| row.health)
    };
    assert_eq!(said(), None);
    one.report(vec![out("ejected: 5 consecutive 5xx")]).await;
    settled().await;
    assert_eq!(said().as_deref(), Some("ejected: 5 consecutive 5xx (1 sidecar)"));
    tokio::time::advance(Duration::from_secs(1)).await;
    two.report(vec![out(&format!("a\n{}", "b".repeat(1000)))]).await;
    settled().await;
    let both = said().unwrap();
    assert!(both.starts_with("abbb") && both.ends_with("bb (2 sidecars)") && both.len() < 220, "{both}");
    two.report(vec![report(&target, 1, 1.0, 0, 1)]).await;
    settled().await;
    assert_eq!(
        said().as_deref(),
        Some("ejected: 5 consecutive 5xx (1 sidecar)"),
        "the second one is content"
    );
    for _ in 0..4 {
        // Alive, but it says nothing more of it.
        tokio::time::advance(Duration::from_secs(5)).await;
        one.report(Vec::new()).await;
        settled().await;
    }
    assert_eq!(said(), None);
}

/// Lets the other tasks run; no time passes.
async fn settled() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
