//! The time that a call has: told by its caller, shortened by rules, passed on smaller, and enforced at each hop.

use pilotfish_testkit::h1::Gone;
use pilotfish_testkit::h2::{Outcome, code};
use pilotfish_testkit::{Agent, H1, H2, Sidecar, h1};

use crate::support::{destination_rule, h1_upstreams, service, service_with, sidecar, virtual_service};
use crate::tls::setup::{counted, metric};

/// Rules for `s.test`: what a rule's name is, its path begins with.
const RULES: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: s
  annotations:
    pilotfish.dev/response-header-timeout.heads: 1500ms
    pilotfish.dev/max-priority.modest: default
spec:
  hosts: [s.test]
  http:
  - name: heads
    match: [{ headers: { x-rule: { exact: heads } } }]
    route: [{ destination: { host: s.test } }]
  - name: modest
    match: [{ headers: { x-rule: { exact: modest } } }]
    route: [{ destination: { host: s.test } }]
  - name: short
    match: [{ headers: { x-rule: { exact: short } } }]
    timeout: 5s
    route: [{ destination: { host: s.test } }]
  - route: [{ destination: { host: s.test } }]
---
";

/// An agent behind its own sidecar, and the caller's sidecar.
async fn chain() -> (Agent, Sidecar, Sidecar) {
    let agent = Agent::start("worker").await;
    let inner = sidecar().agent("worker").app(agent.addr()).start();
    let rules = format!("{}{RULES}", service("s.test", inner.inbound.port()));
    let outer = sidecar().yaml("a.yaml", rules).start();
    (agent, inner, outer)
}

/// A header as the agent saw it.
fn seen(echo: &serde_json::Value, name: &str) -> Option<String> {
    echo["headers"][name][0].as_str().map(str::to_owned)
}

#[tokio::test]
async fn an_expired_call_is_refused_before_it_is_sent() {
    let (agent, _inner, outer) = chain().await;
    let answer = h1::get(outer.outbound, "s.test", "/", &["agent-deadline-ms: 0"]).await.unwrap();
    assert_eq!((answer.status(), answer.reason().as_str()), (504, "deadline-exceeded"));
    let grpc = ["content-type: application/grpc", "grpc-timeout: 0m"];
    let answer = h1::get(outer.outbound, "s.test", "/", &grpc).await.unwrap();
    assert_eq!((answer.status(), answer.header("grpc-status").as_deref()), (200, Some("4")));
    assert_eq!(agent.requests(), 0);
}

#[tokio::test]
async fn what_is_no_number_is_refused_and_a_bad_grpc_timeout_is_ignored() {
    let (agent, _inner, outer) = chain().await;
    for bad in ["agent-deadline-ms: soon", "agent-deadline-ms: -1", "agent-deadline-ms: 1.5"] {
        let answer = h1::get(outer.outbound, "s.test", "/", &[bad]).await.unwrap();
        assert_eq!((answer.status(), answer.reason().as_str()), (400, "bad-request"), "{bad}");
    }
    assert_eq!(agent.requests(), 0);
    let grpc = ["content-type: application/grpc", "grpc-timeout: soon"];
    assert_eq!(h1::get(outer.outbound, "s.test", "/", &grpc).await.unwrap().status(), 200);
}

#[tokio::test]
async fn what_is_left_shrinks_from_hop_to_hop_and_never_grows() {
    let (_agent, _inner, outer) = chain().await;
    let ask = async |headers: &[&str]| h1::get(outer.outbound, "s.test", "/", headers).await.unwrap().json();
    let left = |echo: &serde_json::Value| seen(echo, "agent-deadline-ms").unwrap().parse::<u64>().unwrap();
    let own = ask(&["agent-deadline-ms: 60000"]).await;
    assert!((1..60_000).contains(&left(&own)), "{own}");
    let by_rule = ask(&["agent-deadline-ms: 60000", "x-rule: short"]).await;
    assert!((1..5000).contains(&left(&by_rule)), "{by_rule}");
    let smallest = ask(&["agent-deadline-ms: 60000", "agent-deadline-ms: 3000"]).await;
    assert!((1..3000).contains(&left(&smallest)), "{smallest}");
    assert_eq!(smallest["headers"]["agent-deadline-ms"].as_array().unwrap().len(), 1);
    assert_eq!(seen(&ask(&[]).await, "agent-deadline-ms"), None);
    let grpc = ask(&["content-type: application/grpc", "grpc-timeout: 1H", "agent-deadline-ms: 20000"]).await;
    let timeout = seen(&grpc, "grpc-timeout").unwrap();
    let micros = timeout.strip_suffix('u').unwrap().parse::<u64>().unwrap();
    assert!((1..20_000_000).contains(&micros) && left(&grpc) < 20_000, "{grpc}");
}

#[tokio::test]
async fn a_deadline_covers_the_answers_body() {
    let (agent, _inner, outer) = chain().await;
    let mut client = H1::connect(outer.outbound).await;
    let answer = client.get("s.test", "/stream/1000/50", &["agent-deadline-ms: 2500"]).await;
    let Err(Gone::Partial(part)) = answer else { panic!("{answer:?}") };
    assert!(part.body.starts_with(b"data: 0\n\n"));
    let late = h1::get(outer.outbound, "s.test", "/delay/60000", &["agent-deadline-ms: 1500"]).await.unwrap();
    assert_eq!((late.status(), late.reason().as_str()), (504, "deadline-exceeded"));
    assert_eq!(agent.requests(), 2);
}

#[tokio::test]
async fn the_head_of_an_answer_has_a_time_of_its_own() {
    let (_agent, _inner, outer) = chain().await;
    let heads = ["x-rule: heads"];
    let late = h1::get(outer.outbound, "s.test", "/delay/60000", &heads).await.unwrap();
    assert_eq!((late.status(), late.reason().as_str()), (504, "try-timeout"));
    // The body may take longer than that.
    let stream = h1::get(outer.outbound, "s.test", "/stream/5/600", &heads).await.unwrap();
    assert!(stream.text().ends_with("data: 4\n\n"));
}

#[tokio::test]
async fn over_http2_a_deadline_resets_the_stream_that_has_begun() {
    let agent = Agent::start("worker").await;
    let yaml = format!("{}{}", service("s.test", agent.port()), h1_upstreams("s.test"));
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let mut client = H2::open(sidecar.outbound, &[]).await;
    let grpc = [("content-type", "application/grpc"), ("grpc-timeout", "300m")];
    let Outcome::Answer(answer) = client.get(1, "s.test", "/delay/60000", &grpc).await else { panic!() };
    assert_eq!(answer.header("grpc-status"), Some("4"));
    let outcome = client.get(3, "s.test", "/stream/1000/50", &[("agent-deadline-ms", "2500")]).await;
    assert!(matches!(outcome, Outcome::Reset(code::CANCEL | code::INTERNAL_ERROR)), "{outcome:?}");
}

#[tokio::test]
async fn a_priority_is_capped_by_the_rule() {
    let (_agent, _inner, outer) = chain().await;
    let table = [
        (&["agent-priority: critical"][..], Some("critical")),
        (&["agent-priority: critical", "x-rule: modest"], Some("default")),
        (&["agent-priority: Sheddable", "x-rule: modest"], Some("sheddable")),
        (&["agent-priority: highest"], Some("default")),
        (&[], None),
    ];
    for (headers, expected) in table {
        let echo = h1::get(outer.outbound, "s.test", "/", headers).await.unwrap().json();
        assert_eq!(seen(&echo, "agent-priority").as_deref(), expected, "{headers:?}");
    }
}

#[tokio::test]
async fn a_rules_time_counts_against_the_endpoint_and_a_callers_impatience_does_not() {
    let slow = Agent::start("slow").await;
    let policy = "trafficPolicy:\n  outlierDetection: { consecutiveGatewayErrors: 1, baseEjectionTime: 600s, maxEjectionPercent: 100 }";
    let rules = "- timeout: 2s\n  retries: { attempts: 0 }\n  route: [{ destination: { host: s.test } }]";
    let yaml = service_with("s.test", "HTTP", &[(slow.port(), "")])
        + &destination_rule("s", "s.test", policy)
        + &virtual_service("s", "s.test", rules);
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let get = async |path: &str, headers: &[&str]| h1::get(sidecar.outbound, "s.test", path, headers).await;
    let ejected = "pilotfish_endpoints_out{state=\"ejected\"}";
    for _ in 0..3 {
        let late = get("/delay/60000", &["agent-deadline-ms: 100"]).await.unwrap();
        assert_eq!((late.status(), late.reason().as_str()), (504, "deadline-exceeded"));
    }
    assert_eq!(get("/", &[]).await.unwrap().status(), 200);
    assert_eq!(metric(&sidecar, ejected).await, 0);
    let late = get("/delay/60000", &[]).await.unwrap();
    assert_eq!((late.status(), late.reason().as_str()), (504, "timeout"));
    counted(&sidecar, ejected, 1).await;
}
