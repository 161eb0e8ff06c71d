//! Retries as rules ask for them: which failures, how often, after which wait; and never what may have been done.

use std::time::{Duration, Instant};

use pilotfish_testkit::h2::origin::H2Origin;
use pilotfish_testkit::h2::{self, Frame, code, hpack, kind};
use pilotfish_testkit::origin::{Step, When, ok, send};
use pilotfish_testkit::strict::Message;
use pilotfish_testkit::{H1, Nobody, Origin, Sidecar, h1};

use crate::support::{destination_rule, metric, service_with, sidecar, virtual_service, wait_metric};

const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";

/// A sidecar before these ports, whose only rule has these `retries` (YAML in braces) and `more` lines.
fn before(ports: &[u16], retries: &str, more: &str) -> Sidecar {
    let endpoints: Vec<(u16, &str)> = ports.iter().map(|port| (*port, "")).collect();
    let rule = format!("- route: [{{destination: {{host: s.test}}}}]\n  retries: {retries}\n{more}");
    let yaml = service_with("s.test", "HTTP", &endpoints) + &virtual_service("r", "s.test", &rule);
    sidecar().yaml("a.yaml", yaml).start()
}

/// The same with an annotation of ours.
fn annotated(ports: &[u16], retries: &str, annotation: &str) -> Sidecar {
    let endpoints: Vec<(u16, &str)> = ports.iter().map(|port| (*port, "")).collect();
    let rule = format!("- route: [{{destination: {{host: s.test}}}}]\n  retries: {retries}");
    let rule = virtual_service("r", "s.test", &rule)
        .replace("  name: r\n", &format!("  name: r\n  annotations: {{{annotation}}}\n"));
    sidecar().yaml("a.yaml", service_with("s.test", "HTTP", &endpoints) + &rule).start()
}

/// An origin that answers the first `bad` requests with these steps, and later ones with what it saw.
async fn recovering(bad: usize, steps: Vec<Step>) -> Origin {
    recovering_when(When::Whole, bad, steps).await
}

async fn recovering_when(when: When, bad: usize, steps: Vec<Step>) -> Origin {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let script = move |m: &Message, _| match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        n if n < bad => steps.clone(),
        _ => ok(format!("seen {} {}", m.method(), m.target())),
    };
    Origin::start_when(when, script).await
}

fn count(origin: &Origin, target: &str) -> usize {
    origin.requests().iter().filter(|m| m.target() == target).count()
}

async fn get(sidecar: &Sidecar, target: &str) -> h1::Answer {
    h1::get(sidecar.outbound, "s.test", target, &[]).await.unwrap()
}

async fn post(sidecar: &Sidecar, method: &str, target: &str, body: &str) -> h1::Answer {
    let request =
        format!("{method} {target} HTTP/1.1\r\nHost: s.test\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    H1::connect(sidecar.outbound).await.ask(request).await.unwrap()
}

#[tokio::test]
async fn whoever_refuses_a_connection_is_left_for_another_without_any_rule() {
    let origin = Origin::plain().await;
    let nobody = [Nobody::new(), Nobody::new()];
    let endpoints = [(nobody[0].port(), ""), (nobody[1].port(), ""), (origin.port(), "")];
    let sidecar = sidecar().yaml("a.yaml", service_with("s.test", "HTTP", &endpoints)).start();
    for n in 0..10 {
        let target = format!("/{n}");
        let answer = match n % 2 {
            0 => get(&sidecar, &target).await,
            _ => post(&sidecar, "POST", &target, "money").await,
        };
        assert_eq!(answer.status(), 200, "{target}: {}", answer.reason());
        assert_eq!(count(&origin, &target), 1, "{target}");
    }
}

#[tokio::test]
async fn an_answer_is_repeated_for_a_get_and_passed_on_for_a_post() {
    let origin = Origin::start(|_, _| vec![send(UNAVAILABLE)]).await;
    let sidecar = before(&[origin.port()], "{attempts: 3, retryOn: '5xx', backoff: 1ms}", "");
    for (method, times) in [("GET", 4), ("PUT", 4), ("DELETE", 4), ("POST", 1), ("PATCH", 1)] {
        let target = format!("/{method}");
        let answer = post(&sidecar, method, &target, "body").await;
        // The last answer is passed on as it is.
        assert_eq!((answer.status(), answer.text().as_str()), (503, "busy"), "{method}");
        assert_eq!(count(&origin, &target), times, "{method}");
    }
    assert_eq!(origin.ambiguity(), None);
    wait_metric(&sidecar, "pilotfish_retries_total{result=\"failed\"}", 9).await;
}

#[tokio::test]
async fn attempts_and_words_are_those_of_the_rule() {
    for (retries, times) in [
        ("{attempts: 0}", 1),
        ("{attempts: 1, retryOn: '503', backoff: 1ms}", 2),
        ("{attempts: 2, retryOn: 'gateway-error', backoff: 1ms}", 3),
        ("{attempts: 2, retryOn: 'reset,connect-failure,502'}", 1),
        ("{attempts: 2}", 1),
    ] {
        let origin = Origin::start(|_, _| vec![send(UNAVAILABLE)]).await;
        let sidecar = before(&[origin.port()], retries, "");
        assert_eq!(get(&sidecar, "/").await.status(), 503);
        assert_eq!(count(&origin, "/"), times, "{retries}");
    }
}

#[tokio::test]
async fn istios_safety_repeats_a_post_with_its_whole_body() {
    for framing in ["length", "chunked"] {
        let origin = recovering(1, vec![send(UNAVAILABLE)]).await;
        let retries = "{attempts: 2, retryOn: '503', backoff: 1ms}";
        let sidecar = annotated(&[origin.port()], retries, "pilotfish.dev/retry-safety: istio");
        let body = "0123456789".repeat(3000);
        let request = match framing {
            "length" => {
                format!("POST /p HTTP/1.1\r\nHost: s.test\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            }
            _ => format!(
                "POST /p HTTP/1.1\r\nHost: s.test\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            ),
        };
        let answer = H1::connect(sidecar.outbound).await.ask(request).await.unwrap();
        assert_eq!(answer.text(), "seen POST /p", "{framing}: {}", answer.reason());
        let bodies: Vec<Vec<u8>> = origin.requests().into_iter().map(|m| m.body).collect();
        assert_eq!(bodies, vec![body.clone().into_bytes(); 2], "{framing}");
        assert_eq!(origin.ambiguity(), None);
    }
}

#[tokio::test]
async fn a_body_larger_than_what_is_kept_is_not_repeated() {
    for (annotation, bytes, times) in [
        ("pilotfish.dev/retry-buffer-bytes: '65536'", 65_536, 2),
        ("pilotfish.dev/retry-buffer-bytes: '65536'", 65_537, 1),
        ("pilotfish.dev/retry-buffer-bytes: '0'", 1, 1),
        ("pilotfish.dev/retry-buffer-bytes: '300000'", 300_000, 2),
    ] {
        let origin = recovering(1, vec![send(UNAVAILABLE)]).await;
        let sidecar = annotated(&[origin.port()], "{attempts: 2, retryOn: '503', backoff: 1ms}", annotation);
        let answer = post(&sidecar, "PUT", "/big", &"x".repeat(bytes)).await;
        assert_eq!(answer.status(), if times == 2 { 200 } else { 503 }, "{annotation} {bytes}");
        assert_eq!(count(&origin, "/big"), times, "{annotation} {bytes}");
        let refused = metric(&sidecar, "pilotfish_retries_total{result=\"without-body\"}").await;
        assert_eq!(refused, u64::from(times == 1), "{annotation} {bytes}");
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_body_is_repeated_and_the_body_goes_on() {
    let hasty = Origin::start_when(When::Head, |_, _| vec![send(UNAVAILABLE)]).await;
    let patient = Origin::plain().await;
    let retries = "{attempts: 2, retryOn: '503', backoff: 1ms}";
    let sidecar = before(&[hasty.port(), patient.port()], retries, "");
    for n in 0..16 {
        let mut client = H1::connect(sidecar.outbound).await;
        client.send(format!("PUT /{n} HTTP/1.1\r\nHost: s.test\r\nContent-Length: 8\r\n\r\nfour")).await;
        let head = format!("PUT /{n} ");
        while !String::from_utf8_lossy(&patient.connections().concat()).contains(&head) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        client.send("more").await;
        let answer = client.answer("PUT").await.unwrap();
        assert_eq!(answer.text(), format!("seen PUT /{n}"), "{}", answer.reason());
        let seen = patient.requests().into_iter().find(|m| m.target() == format!("/{n}")).unwrap();
        assert_eq!(seen.body, b"fourmore", "{n}");
    }
    assert!(!hasty.connections().is_empty(), "the hasty one was never asked");
    assert_eq!(patient.ambiguity(), None);
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_sends_its_body_once() {
    let hasty = Origin::start_when(When::Head, |_, _| vec![send(UNAVAILABLE), Step::Close]).await;
    let patient = Origin::start_when(When::Head, |m, _| {
        let go_on = send("HTTP/1.1 100 Continue\r\n\r\n");
        vec![go_on, Step::Pause(Duration::from_millis(100))].into_iter().chain(ok(m.target())).collect()
    });
    let patient = patient.await;
    let retries = "{attempts: 2, retryOn: '503', backoff: 1ms}";
    let sidecar = before(&[hasty.port(), patient.port()], retries, "");
    for n in 0..16 {
        let mut client = H1::connect(sidecar.outbound).await;
        let head =
            format!("PUT /{n} HTTP/1.1\r\nHost: s.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
        client.send(head).await;
        let interim = client.read_until(|bytes| bytes.ends_with(b"\r\n\r\n")).await;
        assert!(interim.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&interim));
        client.send("body").await;
        assert_eq!(client.answer("PUT").await.unwrap().text(), format!("/{n}"));
    }
    assert!(!hasty.connections().is_empty(), "the hasty one was never asked");
}

#[tokio::test]
async fn a_try_ends_when_its_answer_does_not_come_in_time() {
    let retries = "{attempts: 1, perTryTimeout: 1500ms, retryOn: 'gateway-error', backoff: 1ms}";
    let origin = recovering(1, vec![Step::Hang]).await;
    let sidecar = before(&[origin.port()], retries, "");
    assert_eq!(get(&sidecar, "/g").await.text(), "seen GET /g");
    assert_eq!(count(&origin, "/g"), 2);
    let origin = recovering(9, vec![Step::Hang]).await;
    let sidecar = before(&[origin.port()], retries, "");
    let answer = post(&sidecar, "POST", "/p", "money").await;
    assert_eq!((answer.status(), answer.reason().as_str()), (504, "try-timeout"));
    assert_eq!(count(&origin, "/p"), 1);
    // What has begun to answer may go on for longer.
    let slow = vec![
        send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"),
        Step::Pause(Duration::from_millis(2500)),
        send("late"),
    ];
    let origin = recovering(9, slow).await;
    let sidecar = before(&[origin.port()], retries, "");
    assert_eq!(get(&sidecar, "/g").await.text(), "late");
}

#[tokio::test]
async fn a_reset_within_a_head_is_repeated_only_for_what_may_be_done_twice() {
    for end in [Step::Close, Step::Reset] {
        let origin = recovering(2, vec![send("HTTP/1.1 200 OK\r\nContent-Le"), end.clone()]).await;
        let sidecar = before(&[origin.port()], "{attempts: 2, retryOn: reset, backoff: 1ms}", "");
        assert_eq!(post(&sidecar, "POST", "/p", "money").await.reason(), "upstream-reset", "{end:?}");
        assert_eq!(count(&origin, "/p"), 1, "{end:?}");
        assert_eq!(get(&sidecar, "/g").await.text(), "seen GET /g", "{end:?}");
        assert_eq!(count(&origin, "/g"), 2, "{end:?}");
    }
}

#[tokio::test]
async fn retry_after_is_waited_for_unless_the_call_would_be_over() {
    let busy = "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    let origin = recovering(1, vec![send(busy)]).await;
    let sidecar = before(&[origin.port()], "{attempts: 2, retryOn: '503'}", "");
    let began = Instant::now();
    assert_eq!(get(&sidecar, "/").await.text(), "seen GET /");
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    let origin = recovering(9, vec![send(busy.replace(": 1\r", ": 30\r"))]).await;
    let sidecar = before(&[origin.port()], "{attempts: 2, retryOn: '503'}", "  timeout: 20s");
    let answer = get(&sidecar, "/").await;
    assert_eq!((answer.status(), answer.header("retry-after").as_deref()), (503, Some("30")));
    assert_eq!(count(&origin, "/"), 1);
    wait_metric(&sidecar, "pilotfish_retries_total{result=\"no-time\"}", 1).await;
    // gRPC's way of saying never.
    let never = "HTTP/1.1 503 Busy\r\ngrpc-retry-pushback-ms: -1\r\nContent-Length: 0\r\n\r\n";
    let origin = recovering(9, vec![send(never)]).await;
    let sidecar = before(&[origin.port()], "{attempts: 2, retryOn: '503'}", "");
    assert_eq!(get(&sidecar, "/").await.status(), 503);
    assert_eq!(count(&origin, "/"), 1);
}

#[tokio::test]
async fn a_client_that_leaves_while_a_retry_waits_is_not_called_for_again() {
    let busy = "HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n";
    let origin = recovering(1, vec![send(busy)]).await;
    let sidecar = before(&[origin.port()], "{attempts: 2, retryOn: '503'}", "");
    let mut client = H1::connect(sidecar.outbound).await;
    client.send("GET /left HTTP/1.1\r\nHost: s.test\r\n\r\n").await;
    while count(&origin, "/left") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(client);
    tokio::time::sleep(Duration::from_millis(2300)).await;
    assert_eq!(count(&origin, "/left"), 1);
}

#[tokio::test]
async fn the_retry_budget_is_a_limit_for_all_calls_of_a_cluster() {
    let origin = Origin::start(|_, _| vec![send(UNAVAILABLE)]).await;
    let endpoints = [(origin.port(), "")];
    let rule = virtual_service(
        "r",
        "s.test",
        "- route: [{destination: {host: s.test}}]\n  retries: {attempts: 2, retryOn: 5xx, backoff: 1ms}",
    );
    let start = |policy: &str| {
        let policy = destination_rule("d", "s.test", &format!("trafficPolicy: {{{policy}}}"));
        sidecar().yaml("a.yaml", service_with("s.test", "HTTP", &endpoints) + &rule + &policy).start()
    };
    for (policy, target, times) in [
        ("retryBudget: {percent: 0, minRetryConcurrency: 0}", "/none", 1),
        ("connectionPool: {http: {maxRetries: 1}}", "/one", 3),
        ("retryBudget: {percent: 100, minRetryConcurrency: 0, budgetInterval: 60s}", "/all", 2),
        ("retryBudget: {percent: 0, minRetryConcurrency: 1}", "/least", 3),
    ] {
        let sidecar = start(policy);
        assert_eq!(get(&sidecar, target).await.status(), 503);
        assert_eq!(count(&origin, target), times, "{policy}");
        let over = metric(&sidecar, "pilotfish_retries_total{result=\"over-budget\"}").await;
        assert_eq!(over, u64::from(times < 3), "{policy}");
    }
}

#[tokio::test]
async fn a_stream_that_an_upstream_never_looked_at_is_sent_again_with_its_body() {
    fn path(fields: &[(String, String)]) -> String {
        fields.iter().find(|f| f.0 == ":path").map(|f| f.1.clone()).unwrap_or_default()
    }
    let goaway = |last: u32| {
        Frame::new(kind::GOAWAY, 0, 0, [last.to_be_bytes(), code::NO_ERROR.to_be_bytes()].concat()).bytes()
    };
    type Frames = fn(u32) -> Vec<u8>;
    let refusals: [(&str, Frames); 2] = [
        ("REFUSED_STREAM", |stream| h2::reset(stream, code::REFUSED_STREAM).bytes()),
        ("GOAWAY", |_| Vec::new()),
    ];
    for (name, refuse) in refusals {
        let seen = std::sync::atomic::AtomicUsize::new(0);
        let origin = H2Origin::start(&[], move |stream, fields, _| {
            match seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 if name == "GOAWAY" => vec![send(goaway(stream - 1)), Step::Close],
                0 => vec![send(refuse(stream))],
                _ => {
                    let head = h2::headers(stream, hpack::block(&[(":status", "200")]), false).bytes();
                    vec![send([head, h2::data(stream, path(fields), true).bytes()].concat())]
                }
            }
        })
        .await;
        let yaml = service_with("s.test", "HTTP2", &[(origin.port(), "")]);
        let sidecar = sidecar().yaml("a.yaml", yaml).start();
        let answer = post(&sidecar, "POST", "/again", &"x".repeat(20_000)).await;
        assert_eq!(answer.text(), "/again", "{name}: {}", answer.reason());
        assert_eq!(origin.requests(), 2, "{name}");
    }
}

#[tokio::test]
async fn a_connection_of_an_answer_that_nobody_sees_is_used_again() {
    let origin = recovering(2, vec![send(UNAVAILABLE)]).await;
    let sidecar = before(&[origin.port()], "{attempts: 2, retryOn: '503', backoff: 1ms}", "");
    assert_eq!(get(&sidecar, "/").await.status(), 200);
    assert_eq!((origin.connections().len(), count(&origin, "/")), (1, 3));
}
