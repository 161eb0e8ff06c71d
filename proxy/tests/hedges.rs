//! A try beside the first: only where it may be, only within the budget, and the faster answer wins.

use std::time::Duration;

use pilotfish_testkit::origin::{Step, ok};
use pilotfish_testkit::{H1, Origin, Sidecar, h1};

use crate::support::{destination_rule, metric, service_with, sidecar, virtual_service};

/// Falls silent on `/stuck...` and answers everything else.
async fn moody() -> Origin {
    Origin::start(|m, _| match m.target().starts_with("/stuck") {
        true => vec![Step::Hang],
        false => ok(format!("moody {}", m.target())),
    })
    .await
}

fn before(ports: &[u16], annotation: &str, policy: &str) -> Sidecar {
    let endpoints: Vec<(u16, &str)> = ports.iter().map(|port| (*port, "")).collect();
    let rule = virtual_service("r", "s.test", "- route: [{destination: {host: s.test}}]\n  timeout: 20s")
        .replace(
            "  name: r\n",
            &format!("  name: r\n  annotations: {{pilotfish.dev/hedge: {annotation}}}\n"),
        );
    let policy = match policy {
        "" => String::new(),
        policy => destination_rule("d", "s.test", &format!("trafficPolicy: {{{policy}}}")),
    };
    sidecar().yaml("a.yaml", service_with("s.test", "HTTP", &endpoints) + &rule + &policy).start()
}

fn count(origin: &Origin, target: &str) -> usize {
    origin.requests().iter().filter(|m| m.target() == target).count()
}

async fn hedges(sidecar: &Sidecar, result: &str) -> u64 {
    metric(sidecar, &format!("pilotfish_hedges_total{{result=\"{result}\"}}")).await
}

#[tokio::test]
async fn a_stuck_get_is_answered_by_another_endpoint_and_nobody_is_asked_three_times() {
    let (stuck, well) = (moody().await, Origin::plain().await);
    let sidecar = before(&[stuck.port(), well.port()], "50ms", "");
    for n in 0..12 {
        let target = format!("/stuck/{n}");
        let mut client = H1::connect(sidecar.outbound).await;
        let answer = client.get("s.test", &target, &[]).await.unwrap();
        assert_eq!(answer.text(), format!("seen GET {target}"), "{}", answer.reason());
        assert!(count(&stuck, &target) <= 1 && count(&well, &target) == 1, "{target}");
        // The client's connection is as good as before.
        assert_eq!(client.get("s.test", "/fast", &[]).await.unwrap().status(), 200);
    }
    let stuck_calls: usize = (0..12).map(|n| count(&stuck, &format!("/stuck/{n}"))).sum();
    assert!(stuck_calls > 0, "the stuck one was never asked");
    // A busy machine may make other calls slow enough for a hedge, too.
    assert!(hedges(&sidecar, "won").await >= stuck_calls as u64);
}

#[tokio::test]
async fn calls_that_are_not_safe_or_have_a_body_are_never_hedged() {
    let slow = || async {
        Origin::start(|m, _| [vec![Step::Pause(Duration::from_millis(300))], ok(m.target())].concat()).await
    };
    let (a, b) = (slow().await, slow().await);
    let sidecar = before(&[a.port(), b.port()], "20ms", "");
    for (method, body) in [("POST", ""), ("POST", "x"), ("PUT", ""), ("DELETE", ""), ("GET", "x")] {
        let target = format!("/{method}{body}");
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: s.test\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = H1::connect(sidecar.outbound).await.ask(request).await.unwrap();
        assert_eq!(answer.text(), target);
        assert_eq!(count(&a, &target) + count(&b, &target), 1, "{target}");
    }
    assert_eq!(hedges(&sidecar, "sent").await, 0);
}

#[tokio::test]
async fn there_is_no_hedge_beyond_the_retry_budget_nor_to_the_same_endpoint() {
    let slow = || async {
        Origin::start(|m, _| [vec![Step::Pause(Duration::from_millis(200))], ok(m.target())].concat()).await
    };
    let (a, b) = (slow().await, slow().await);
    let none = before(&[a.port(), b.port()], "20ms", "retryBudget: {percent: 0, minRetryConcurrency: 0}");
    assert_eq!(h1::get(none.outbound, "s.test", "/none", &[]).await.unwrap().status(), 200);
    assert_eq!((hedges(&none, "sent").await, hedges(&none, "over-budget").await), (0, 1));
    assert_eq!(count(&a, "/none") + count(&b, "/none"), 1);
    let alone = before(&[a.port()], "20ms", "");
    assert_eq!(h1::get(alone.outbound, "s.test", "/alone", &[]).await.unwrap().status(), 200);
    assert_eq!((hedges(&alone, "sent").await, count(&a, "/alone")), (0, 1));
}

#[tokio::test]
async fn p95_hedges_only_once_it_knows_enough() {
    let (stuck, well) = (moody().await, Origin::plain().await);
    let sidecar = before(&[stuck.port(), well.port()], "p95", "");
    let mut client = H1::connect(sidecar.outbound).await;
    for _ in 0..10 {
        assert_eq!(client.get("s.test", "/fast", &[]).await.unwrap().status(), 200);
    }
    assert_eq!(hedges(&sidecar, "sent").await, 0);
    for _ in 0..30 {
        assert_eq!(client.get("s.test", "/fast", &[]).await.unwrap().status(), 200);
    }
    for n in 0..12 {
        let target = format!("/stuck/{n}");
        assert_eq!(client.get("s.test", &target, &[]).await.unwrap().text(), format!("seen GET {target}"));
    }
    let stuck_calls: usize = (0..12).map(|n| count(&stuck, &format!("/stuck/{n}"))).sum();
    assert!(stuck_calls > 0 && hedges(&sidecar, "won").await >= stuck_calls as u64);
}
