//! Collectors that are away, slow or hostile: the calls do not notice, what is dropped is counted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pilotfish_testkit::origin::{Step, ok, send};
use pilotfish_testkit::sidecar::Builder;
use pilotfish_testkit::{Agent, Nobody, Origin, Sidecar, h1};

use super::PATIENCE;
use crate::support::{metric, service, sidecar, wait_metric};

/// Longer than a good answer takes on a busy machine.
const LONG: &str = "20s";

/// A sidecar that waits so long for its collector's answer.
fn traced(agent: &Agent, endpoint: &str, timeout: &str) -> Builder {
    sidecar()
        .yaml("a.yaml", service("s.test", agent.port()))
        .args(&["--trace-sampling", "100%", "--otlp-endpoint", endpoint, "--otlp-timeout", timeout])
        .env("OTEL_BSP_SCHEDULE_DELAY", "20")
        .env("OTEL_METRICS_EXPORTER", "none")
}

async fn calls(sidecar: &Sidecar, count: usize) {
    for _ in 0..count {
        assert_eq!(h1::get(sidecar.outbound, "s.test", "/", &[]).await.unwrap().status(), 200);
    }
}

fn dropped(reason: &str) -> String {
    format!("pilotfish_telemetry_dropped_total{{signal=\"traces\",reason=\"{reason}\"}}")
}

const SENT: &str = "pilotfish_telemetry_sent_total{signal=\"traces\"}";

/// Waits until some were dropped for this reason.
async fn until_dropped(sidecar: &Sidecar, reason: &str) {
    let until = Instant::now() + PATIENCE;
    while metric(sidecar, &dropped(reason)).await == 0 {
        assert!(Instant::now() < until, "nothing was dropped: {reason}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn one_that_accepts_and_never_answers() {
    let agent = Agent::start("a").await;
    let collector = Origin::start(|_, _| vec![Step::Hang]).await;
    let mut sidecar = traced(&agent, &format!("http://{}", collector.addr()), "300ms")
        .env("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
        .env("OTEL_BSP_MAX_QUEUE_SIZE", "4")
        .args(&["--drain-delay", "0s"])
        .start();
    calls(&sidecar, 50).await;
    until_dropped(&sidecar, "target-slow").await;
    assert_eq!(metric(&sidecar, SENT).await, 0);
    let said: Vec<String> =
        sidecar.stderr().into_iter().filter(|line| line.contains("telemetry cannot be sent now")).collect();
    assert!(said.len() <= 1, "once for as long as it lasts: {said:?}");
    // Its end is late by two seconds at most for it, not by the collector's patience.
    sidecar.terminate();
    assert!(sidecar.exit(PATIENCE).await.is_some_and(|status| status.success()));
}

#[tokio::test]
async fn one_that_is_not_there() {
    let agent = Agent::start("a").await;
    let nobody = Nobody::new();
    let sidecar = traced(&agent, &format!("http://{}", nobody.addr()), LONG).start();
    calls(&sidecar, 5).await;
    let said = sidecar.wait_stderr(PATIENCE, |line| line.contains("telemetry cannot be sent now"));
    assert!(said.is_some_and(|line| line.contains("refused")));
    calls(&sidecar, 5).await;
}

/// A collector whose first answers are `bad`, and the spans that a sidecar got to it in the end.
async fn recovers(bad: usize, steps: Vec<Step>) {
    let agent = Agent::start("a").await;
    let count = AtomicUsize::new(0);
    let collector = Origin::start(move |_, _| match count.fetch_add(1, Ordering::SeqCst) {
        n if n < bad => steps.clone(),
        _ => ok(""),
    })
    .await;
    let sidecar = traced(&agent, &format!("http://{}", collector.addr()), LONG).start();
    calls(&sidecar, 1).await;
    wait_metric(&sidecar, SENT, 2).await;
    assert_eq!(collector.requests().len(), bad + 1);
    let bodies: Vec<_> = collector.requests().iter().map(|request| request.body.clone()).collect();
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "the same batch again");
    assert_eq!(metric(&sidecar, &dropped("failed")).await, 0);
}

#[tokio::test]
async fn one_that_is_busy_gets_it_again_when_it_said() {
    let busy = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
    let began = Instant::now();
    recovers(1, vec![send(busy)]).await;
    assert!(began.elapsed() >= Duration::from_secs(1), "not before the time that it asked for");
}

#[tokio::test]
async fn one_that_closes_or_answers_garbage_gets_it_again() {
    tokio::join!(
        recovers(1, vec![Step::Close]),
        recovers(1, vec![send("\0\x01garbage\r\n\r\n"), Step::Close])
    );
}

#[tokio::test]
async fn one_that_refuses_gets_it_once() {
    let agent = Agent::start("a").await;
    let refuse = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let collector = Origin::start(move |_, _| vec![send(refuse)]).await;
    let sidecar = traced(&agent, &format!("http://{}", collector.addr()), LONG).start();
    calls(&sidecar, 1).await;
    wait_metric(&sidecar, &dropped("failed"), 2).await;
    assert_eq!(collector.requests().len(), 1);
    wait_metric(&sidecar, "pilotfish_telemetry_batches_failed_total{signal=\"traces\"}", 1).await;
}

#[tokio::test]
async fn one_whose_answer_has_no_end() {
    let agent = Agent::start("a").await;
    let endless = format!("HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n{}", "x".repeat(1_000_000));
    let collector = Origin::start(move |_, _| vec![send(&endless), Step::Hang]).await;
    let sidecar = traced(&agent, &format!("http://{}", collector.addr()), "300ms").start();
    calls(&sidecar, 1).await;
    let said = sidecar.wait_stderr(PATIENCE, |line| line.contains("telemetry cannot be sent now"));
    // Too long, or too late on a busy machine; never read to the end.
    assert!(
        said.is_some_and(|line| line.contains("length limit exceeded") || line.contains("no answer within"))
    );
}

#[test]
fn a_wrong_setting_is_refused_at_the_start() {
    let (status, stderr) = sidecar().args(&["--otlp-endpoint", "collector:4318"]).start_to_fail();
    assert_eq!(status.code(), Some(2));
    assert!(
        stderr.contains("error: --otlp-endpoint: expected a URL: http://HOST:PORT or https://HOST:PORT"),
        "{stderr}"
    );
    let (status, stderr) = sidecar()
        .env("OTEL_EXPORTER_OTLP_HEADERS", "hush")
        .env("OTEL_TRACES_EXPORTER", "otlp")
        .start_to_fail();
    assert_eq!(status.code(), Some(2));
    assert!(stderr.contains("error: OTEL_EXPORTER_OTLP_HEADERS: entry 1: expected NAME=VALUE"), "{stderr}");
    assert!(!stderr.contains("hush"), "{stderr}");
}
