//! Faults that a rule injects: what the caller sees of them, and that the agent sees nothing.

use std::time::{Duration, Instant};

use pilotfish_testkit::h1::Gone;
use pilotfish_testkit::h2::{self, Outcome, code};
use pilotfish_testkit::origin::{Origin, Step};
use pilotfish_testkit::{Agent, H1, H2, Sidecar, h1};

use crate::support::{metric, service, sidecar, virtual_service, wait_metric};

const RULES: &str = r#"
- match: [{uri: {prefix: /http/404}}]
  fault: {abort: {percentage: {value: 100}, httpStatus: 404}}
  route: [{destination: {host: s.test}}]
- match: [{uri: {prefix: /http/503}}]
  fault: {abort: {percentage: {value: 100}, httpStatus: 503}}
  route: [{destination: {host: s.test}}]
- match: [{uri: {prefix: /grpc/name}}]
  fault: {abort: {percentage: {value: 100}, grpcStatus: RESOURCE_EXHAUSTED}}
  route: [{destination: {host: s.test}}]
- match: [{uri: {prefix: /grpc/number}}]
  fault: {abort: {percentage: {value: 100}, grpcStatus: "5"}}
  route: [{destination: {host: s.test}}]
- match: [{uri: {prefix: /reset}}]
  fault: {abort: {percentage: {value: 100}, http2Error: ENHANCE_YOUR_CALM}}
  route: [{destination: {host: s.test}}]
- match: [{uri: {prefix: /slow}}]
  timeout: 50ms
  fault: {delay: {percentage: {value: 100}, fixedDelay: 200ms}}
  route: [{destination: {host: s.test}}]
- match: [{uri: {prefix: /half}}]
  fault: {abort: {percentage: {value: 50}, httpStatus: 500}}
  route: [{destination: {host: s.test}}]
- match: [{uri: {prefix: /both}}]
  fault:
    delay: {percent: 100, fixedDelay: 200ms}
    abort: {percentage: {value: 100}, httpStatus: 599}
  route: [{destination: {host: s.test}}]
- match: [{uri: {prefix: /never}}]
  fault:
    delay: {fixedDelay: 1000s}
    abort: {percentage: {value: 0}, httpStatus: 500}
  route: [{destination: {host: s.test}}]
- match: [{uri: {prefix: /ages}}]
  fault: {delay: {percentage: {value: 100}, fixedDelay: 1000s}}
  route: [{destination: {host: s.test}}]
- match: [{uri: {prefix: /retries}}]
  retries: {attempts: 3, retryOn: "5xx,reset,connect-failure"}
  fault: {delay: {percentage: {value: 0.0001}, fixedDelay: 1ms}}
  route: [{destination: {host: dead.test}}]
- route: [{destination: {host: s.test}}]
"#;

async fn start() -> (Agent, Sidecar) {
    let agent = Agent::start("a").await;
    let sidecar = beside(agent.port(), agent.port());
    (agent, sidecar)
}

fn beside(port: u16, dead: u16) -> Sidecar {
    let yaml = service("s.test", port)
        + &service("dead.test", dead)
        + &virtual_service("rules", "s.test", RULES.trim_start());
    sidecar().yaml("a.yaml", yaml).start()
}

#[tokio::test]
async fn an_abort_has_the_rules_status_and_the_agent_never_sees_the_call() {
    let (agent, sidecar) = start().await;
    for (path, status) in [("/http/404", 404), ("/http/503", 503), ("/grpc/name", 429), ("/grpc/number", 404)]
    {
        let answer = h1::get(sidecar.outbound, "s.test", path, &[]).await.unwrap();
        assert_eq!((answer.status(), answer.reason().as_str()), (status, "fault-injected"), "{path}");
        assert_eq!(answer.json()["status"], status, "{path}");
    }
    assert_eq!(agent.requests(), 0);
    assert_eq!(metric(&sidecar, r#"pilotfish_faults_total{fault="abort"}"#).await, 4);
    // Counted when a call has ended, which may be after its answer arrived.
    wait_metric(&sidecar, r#"pilotfish_refusals_total{reason="fault-injected"}"#, 4).await;
}

#[tokio::test]
async fn a_grpc_caller_gets_a_status_of_grpc_and_nothing_else() {
    let (agent, sidecar) = start().await;
    let mut client = H2::open(sidecar.outbound, &[]).await;
    for (stream, path, status) in
        [(1, "/grpc/name", "8"), (3, "/grpc/number", "5"), (5, "/http/404", "12"), (7, "/http/503", "14")]
    {
        let Outcome::Answer(answer) =
            client.get(stream, "s.test", path, &[("content-type", "application/grpc")]).await
        else {
            panic!("{path}: no answer");
        };
        assert_eq!((answer.status, answer.header("grpc-status")), (200, Some(status)), "{path}");
        assert_eq!(answer.header("pilotfish-reason"), Some("fault-injected"));
        // Trailers-only: the fields of the status are the head.
        assert!(answer.body.is_empty() && answer.trailers.is_empty(), "{path}");
    }
    assert_eq!(agent.requests(), 0);
}

#[tokio::test]
async fn an_error_of_http2_resets_the_stream_and_closes_an_http1_connection() {
    let (agent, sidecar) = start().await;
    let mut client = H2::open(sidecar.outbound, &[]).await;
    assert!(matches!(client.get(1, "s.test", "/reset", &[]).await, Outcome::Reset(code::ENHANCE_YOUR_CALM)));
    // The connection goes on.
    assert!(
        matches!(client.get(3, "s.test", "/fine", &[]).await, Outcome::Answer(answer) if answer.status == 200)
    );
    let mut client = H1::connect(sidecar.outbound).await;
    assert_eq!(client.get("s.test", "/fine", &[]).await.unwrap().status(), 200);
    assert!(matches!(client.get("s.test", "/reset", &[]).await, Err(Gone::Closed)));
    assert_eq!(agent.requests(), 2);
    wait_metric(&sidecar, r#"pilotfish_requests_active{direction="outbound"}"#, 0).await;
}

#[tokio::test]
async fn a_delay_comes_before_the_call_and_the_rules_timeout_is_not_applied() {
    let (agent, sidecar) = start().await;
    let began = Instant::now();
    let answer = h1::get(sidecar.outbound, "s.test", "/slow", &[]).await.unwrap();
    assert_eq!((answer.status(), agent.requests()), (200, 1));
    assert!(began.elapsed() >= Duration::from_millis(200));
    let began = Instant::now();
    let answer = h1::get(sidecar.outbound, "s.test", "/both", &[]).await.unwrap();
    assert_eq!((answer.status(), answer.reason().as_str(), agent.requests()), (599, "fault-injected", 1));
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!(metric(&sidecar, r#"pilotfish_faults_total{fault="delay"}"#).await, 2);
}

#[tokio::test]
async fn a_delay_ends_when_its_caller_goes_away() {
    let (agent, sidecar) = start().await;
    let active = r#"pilotfish_requests_active{direction="outbound"}"#;
    let mut old = H1::connect(sidecar.outbound).await;
    old.send("GET /ages HTTP/1.1\r\nHost: s.test\r\n\r\n").await;
    let mut half = H1::connect(sidecar.outbound).await;
    half.send("POST /ages HTTP/1.1\r\nHost: s.test\r\nContent-Length: 5\r\n\r\nmo").await;
    let mut new = H2::open(sidecar.outbound, &[]).await;
    new.send(&h2::headers(1, h2::request("GET", "s.test", "/ages", &[]), true)).await;
    wait_metric(&sidecar, active, 3).await;
    half.reset();
    wait_metric(&sidecar, active, 2).await;
    new.send(&h2::reset(1, code::CANCEL)).await;
    wait_metric(&sidecar, active, 1).await;
    old.reset();
    wait_metric(&sidecar, active, 0).await;
    assert_eq!(agent.requests(), 0);
}

#[tokio::test]
async fn half_of_the_calls_are_about_half() {
    let (_agent, sidecar) = start().await;
    let mut client = H1::connect(sidecar.outbound).await;
    let mut aborted = 0;
    for _ in 0..200 {
        let answer = client.get("s.test", "/half", &[]).await.unwrap();
        aborted += usize::from(answer.reason() == "fault-injected");
        assert!([200, 500].contains(&answer.status()));
        assert_eq!(client.get("s.test", "/never", &[]).await.unwrap().status(), 200);
    }
    // Seven standard deviations.
    assert!((50..=150).contains(&aborted), "{aborted} of 200");
}

#[tokio::test]
async fn retries_are_not_applied_where_faults_are_injected() {
    let origin = Origin::start(|_, _| vec![Step::Close]).await;
    let sidecar = beside(origin.port(), origin.port());
    let answer = h1::get(sidecar.outbound, "s.test", "/retries", &[]).await.unwrap();
    assert_eq!((answer.status(), answer.reason().as_str()), (502, "upstream-reset"));
    assert_eq!(origin.requests().len(), 1);
}
