//! `/metrics` from outside: calls and tries in OpenTelemetry's words, models' tokens, what documents leave out, and how long it takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pilotfish_testkit::origin::{Step, ok, send};
use pilotfish_testkit::{Agent, H1, Origin, h1};
use tokio::sync::Semaphore;

use crate::support::{metric, service, service_with, sidecar, virtual_service, wait_metric};

const SERVER: &str = "http_server_request_duration_seconds_count";
const CLIENT: &str = "http_client_request_duration_seconds_count";

#[tokio::test]
async fn a_call_is_one_of_the_server_and_each_try_one_of_the_client() {
    let origin = Origin::start(|_, n| match n {
        0 => vec![send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")],
        _ => ok("fine"),
    })
    .await;
    let rule = virtual_service(
        "s",
        "s.test",
        "- name: r\n  route: [{destination: {host: s.test}}]\n  retries: {attempts: 2, retryOn: 5xx, backoff: 1ms}",
    );
    let sidecar = sidecar().yaml("a.yaml", service("s.test", origin.port()) + &rule).start();
    let answer = h1::get(sidecar.outbound, "s.test", "/", &[]).await.unwrap();
    assert_eq!(answer.status(), 200);
    let to = "server_address=\"s.test:80\",url_scheme=\"http\",pilotfish_direction=\"outbound\"";
    let server = format!(
        "{SERVER}{{http_request_method=\"GET\",http_response_status_code=\"200\",http_route=\"default/s/r\",\
         network_protocol_version=\"1.1\",url_scheme=\"http\",pilotfish_direction=\"outbound\"}}"
    );
    wait_metric(&sidecar, &server, 1).await;
    for error in ["\"200\"", "\"503\",error_type=\"503\""] {
        let client =
            format!("{CLIENT}{{http_request_method=\"GET\",http_response_status_code={error},{to}}}");
        wait_metric(&sidecar, &client, 1).await;
    }
}

#[tokio::test]
async fn what_callers_make_up_is_told_together() {
    let agent = Agent::start("a").await;
    let sidecar = sidecar().yaml("a.yaml", service("s.test", agent.port())).start();
    let mut client = H1::connect(sidecar.outbound).await;
    for n in 0..30 {
        let answer = client.ask(format!("BREW{n} / HTTP/1.1\r\nHost: s.test\r\n\r\n")).await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    let page = h1::get(sidecar.admin, "x", "/metrics", &[]).await.unwrap().text();
    let odd: Vec<&str> = page.lines().filter(|line| line.starts_with(SERVER)).collect();
    assert_eq!(odd.len(), 1, "{odd:#?}");
    assert!(odd[0].contains("http_request_method=\"_OTHER\""), "{odd:?}");
    assert!(!page.contains("BREW"));
}

#[tokio::test]
async fn a_models_stream_is_heard_and_never_held_back() {
    let gate = Arc::new(Semaphore::new(0));
    let first = "data: {\"id\":\"c\",\"model\":\"m-2026\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let last = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":34}}\n\ndata: [DONE]\n\n";
    let steps = vec![
        send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {}\r\n\r\n{first}",
            first.len() + last.len()
        )),
        Step::Gate(gate.clone()),
        send(last),
    ];
    let origin = Origin::start(move |_, _| steps.clone()).await;
    let sidecar = sidecar().yaml("a.yaml", service("llm.test", origin.port())).start();
    let mut client = H1::connect(sidecar.outbound).await;
    let body = "{\"model\":\"m\",\"stream\":true}";
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: llm.test\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    client.send(request).await;
    // The first event is here while the origin still waits.
    let early = client.read_until(|bytes| String::from_utf8_lossy(bytes).contains("\"a\"")).await;
    assert!(String::from_utf8_lossy(&early).contains("\"a\""));
    gate.add_permits(1);
    client.read_until(|bytes| String::from_utf8_lossy(bytes).contains("[DONE]")).await;
    let model = "gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"openai\"";
    let end = "server_address=\"llm.test:80\"}";
    for (token, sum) in [("input", 12), ("output", 34)] {
        let sample = format!(
            "gen_ai_client_token_usage_sum{{{model},gen_ai_response_model=\"m-2026\",gen_ai_token_type=\"{token}\",{end}"
        );
        wait_metric(&sidecar, &sample, sum).await;
    }
    let name = "gen_ai_client_operation_time_to_first_chunk_seconds_count";
    let sample = format!("{name}{{{model},gen_ai_response_model=\"m-2026\",{end}");
    assert_eq!(metric(&sidecar, &sample).await, 1);
}

#[tokio::test]
async fn a_telemetry_document_takes_metrics_and_labels_out() {
    let agent = Agent::start("a").await;
    let document = "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: t}\nspec:\n  metrics:\n  - overrides:\n    \
                    - match: {metric: REQUEST_COUNT}\n      disabled: true\n    - match: {metric: REQUEST_DURATION}\n      \
                    tagOverrides: {request_method: {operation: REMOVE}}\n---\n";
    let sidecar = sidecar().yaml("a.yaml", service("s.test", agent.port()) + document).start();
    for method in ["GET", "PUT"] {
        let mut client = H1::connect(sidecar.outbound).await;
        let request = format!("{method} / HTTP/1.1\r\nHost: s.test\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.ask(request).await.unwrap().status(), 200);
    }
    let client = format!(
        "{CLIENT}{{http_response_status_code=\"200\",server_address=\"s.test:80\",url_scheme=\"http\",pilotfish_direction=\"outbound\"}}"
    );
    wait_metric(&sidecar, &client, 2).await;
    let page = h1::get(sidecar.admin, "x", "/metrics", &[]).await.unwrap().text();
    assert!(!page.contains("pilotfish_requests_total") && !page.contains("http_request_method"), "{page}");
}

#[tokio::test]
async fn a_thousand_endpoints_are_told_in_no_time() {
    let agent = Agent::start("a").await;
    let mut yaml = String::new();
    for n in 0..100 {
        // Ports that nobody listens on but the first.
        let ports: Vec<(u16, &str)> =
            (0..10).map(|m| (if m == 0 { agent.port() } else { 1000 + n * 10 + m }, "")).collect();
        yaml += &service_with(&format!("s{n}.test"), "HTTP", &ports);
    }
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let mut client = H1::connect(sidecar.outbound).await;
    for n in 0..100 {
        let _ = client.get(&format!("s{n}.test"), "/", &[]).await;
    }
    // A call is counted when its answer has gone down.
    let until = Instant::now() + Duration::from_secs(30);
    let page = || async { h1::get(sidecar.admin, "x", "/metrics", &[]).await.unwrap().text() };
    while !page().await.contains("server_address=\"s99.test:80\"") {
        assert!(Instant::now() < until, "the last call is never counted");
    }
    let mut best = Duration::MAX;
    for _ in 0..10 {
        let began = Instant::now();
        let answer = h1::get(sidecar.admin, "x", "/metrics", &[]).await.unwrap();
        best = best.min(began.elapsed());
        assert!(answer.text().contains("server_address=\"s99.test:80\""));
    }
    eprintln!("/metrics with 1,000 endpoints: {best:?} (debug build)");
    // 20 ms in a release build; this one is slower, and so is a machine under load.
    assert!(best < Duration::from_secs(3), "{best:?}");
}
