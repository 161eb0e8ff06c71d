//! Copies of calls: what arrives at a mirror, and that the call itself knows nothing of it.

use std::time::{Duration, Instant};

use pilotfish_testkit::h2::{self, Outcome};
use pilotfish_testkit::origin::{Origin, Step, ok, send};
use pilotfish_testkit::strict::Message;
use pilotfish_testkit::{Agent, H1, H2, Nobody, Sidecar, h1};

use crate::support::{service, sidecar, virtual_service, wait_metric};

/// A sidecar whose calls to `s.test` go to the agent, with copies by `mirrors`.
fn mirrored(agent: u16, mirror: u16, mirrors: &str) -> Sidecar {
    let rule = format!("- route: [{{destination: {{host: s.test}}}}]\n{mirrors}");
    let yaml =
        service("s.test", agent) + &service("m.test", mirror) + &virtual_service("rules", "s.test", &rule);
    sidecar().yaml("a.yaml", yaml).start()
}

const ALL: &str = "  mirrors: [{destination: {host: m.test}}]\n";

fn count(end: &str) -> String {
    format!("pilotfish_mirrors_total{{result=\"{end}\"}}")
}

/// Waits until so many requests have come, each whole.
async fn requests(origin: &Origin, wanted: usize) -> Vec<Message> {
    for _ in 0..500 {
        let requests = origin.requests();
        if requests.len() >= wanted && requests.iter().all(|m| m.complete) {
            return requests;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} requests came, not {wanted}", origin.requests().len());
}

#[tokio::test]
async fn a_copy_is_the_call_with_a_host_that_says_so() {
    let (agent, mirror) = (Origin::plain().await, Origin::plain().await);
    let sidecar = mirrored(agent.port(), mirror.port(), ALL);
    let mut client = H1::connect(sidecar.outbound).await;
    let more = "X-Own: a\r\nIdempotency-Key: k\r\nX-Envoy-Retry-On: 5xx\r\nX-Request-Id: id-1\r\n";
    let get = format!("GET /a?b=c HTTP/1.1\r\nHost: s.test\r\n{more}\r\n");
    assert_eq!(client.ask(get).await.unwrap().text(), "seen GET /a?b=c");
    let post = format!("POST /p HTTP/1.1\r\nHost: s.test:80\r\n{more}Content-Length: 5\r\n\r\nmoney");
    assert_eq!(client.ask(post).await.unwrap().text(), "seen POST /p");
    let chunks = "PUT /c HTTP/1.1\r\nHost: s.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(client.ask(chunks).await.unwrap().text(), "seen PUT /c");
    let mut copies = requests(&mirror, 3).await;
    copies.sort_by_key(|m| m.target().to_owned());
    let seen: Vec<_> =
        copies.iter().map(|m| (m.method(), m.target(), m.header("host").unwrap(), &*m.body)).collect();
    assert_eq!(
        seen,
        [
            ("GET", "/a?b=c", "s.test-shadow".into(), &b""[..]),
            ("PUT", "/c", "s.test-shadow".into(), b"abcde"),
            ("POST", "/p", "s.test-shadow:80".into(), b"money"),
        ]
    );
    for copy in [&copies[0], &copies[2]] {
        assert_eq!(copy.header("x-own").as_deref(), Some("a"));
        assert_eq!(copy.header("x-request-id").as_deref(), Some("id-1"));
        assert_eq!((copy.header("idempotency-key"), copy.header("x-envoy-retry-on")), (None, None));
    }
    // The call itself is as it was.
    let own = agent.requests();
    assert_eq!(own[0].header("host").as_deref(), Some("s.test"));
    assert_eq!(own[0].header("idempotency-key").as_deref(), Some("k"));
    assert_eq!((agent.ambiguity(), mirror.ambiguity()), (None, None));
    wait_metric(&sidecar, &count("answered"), 3).await;
}

#[tokio::test]
async fn a_mirror_that_fails_or_sleeps_takes_nothing_from_the_call() {
    let agent = Agent::start("a").await;
    let dead = Nobody::new();
    let silent = Origin::start(|_, _| vec![Step::Hang]).await;
    let endless = Origin::start(|_, _| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
        vec![send(head), send([b'x'; 100_000]), Step::Hang]
    });
    let endless = endless.await;
    let cut = Origin::start(|_, _| vec![Step::Reset]).await;
    for (port, end) in [
        (dead.port(), Some("failed")),
        (cut.port(), Some("failed")),
        (endless.port(), Some("answered")),
        (silent.port(), None),
    ] {
        let sidecar = mirrored(agent.port(), port, ALL);
        let began = Instant::now();
        for _ in 0..5 {
            let answer = h1::get(sidecar.outbound, "s.test", "/", &[]).await.unwrap();
            assert_eq!((answer.status(), answer.reason().as_str()), (200, ""));
        }
        assert!(began.elapsed() < Duration::from_secs(10), "the calls waited for their copies");
        if let Some(end) = end {
            wait_metric(&sidecar, &count(end), 5).await;
        }
        wait_metric(&sidecar, "pilotfish_requests_active{direction=\"outbound\"}", 0).await;
    }
}

#[tokio::test]
async fn a_drain_does_not_wait_for_copies() {
    let (agent, silent) = (Agent::start("a").await, Origin::start(|_, _| vec![Step::Hang]).await);
    let mut sidecar = mirrored(agent.port(), silent.port(), &format!("{ALL}  timeout: 60s\n"));
    assert_eq!(h1::get(sidecar.outbound, "s.test", "/", &[]).await.unwrap().status(), 200);
    requests(&silent, 1).await;
    let began = Instant::now();
    sidecar.terminate();
    assert!(sidecar.exit(Duration::from_secs(30)).await.is_some());
    assert!(began.elapsed() < Duration::from_secs(20), "the drain waited for copies");
}

#[tokio::test]
async fn each_mirror_is_drawn_by_its_own_percentage() {
    let (agent, mirror, other) = (Agent::start("a").await, Origin::plain().await, Origin::plain().await);
    let rule = "- route: [{destination: {host: s.test}}]\n  mirrors:\n  - {destination: {host: m.test}, percentage: \
         {value: 50}}\n  - {destination: {host: n.test}}\n  - {destination: {host: n.test, port: {number: 80}}, \
         percentage: {value: 0}}\n  - {destination: {host: unknown.test}}\n";
    let yaml = service("s.test", agent.port())
        + &service("m.test", mirror.port())
        + &service("n.test", other.port())
        + &virtual_service("rules", "s.test", rule);
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let mut client = H1::connect(sidecar.outbound).await;
    for number in 1..=100 {
        assert_eq!(client.get("s.test", "/", &[]).await.unwrap().status(), 200);
        // So that no copy finds all places taken on a machine that does much else.
        if number % 20 == 0 {
            wait_metric(&sidecar, &count("no-endpoint"), number).await;
            requests(&other, number as usize).await;
        }
    }
    wait_metric(&sidecar, &count("no-endpoint"), 100).await;
    assert_eq!(requests(&other, 100).await.len(), 100);
    let half = mirror.requests().len();
    // Five standard deviations.
    assert!((25..=75).contains(&half), "{half} of 100");
}

#[tokio::test]
async fn a_body_that_does_not_fit_is_not_copied() {
    let (agent, mirror) = (Agent::start("a").await, Origin::plain().await);
    let sidecar = mirrored(agent.port(), mirror.port(), ALL);
    let mut client = H1::connect(sidecar.outbound).await;
    let body = "x".repeat(65 * 1024);
    let post = format!("POST /echo HTTP/1.1\r\nHost: s.test\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert_eq!(client.ask(post).await.unwrap().status(), 200);
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let post = format!("POST /echo HTTP/1.1\r\nHost: s.test\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
    assert_eq!(client.ask(post).await.unwrap().status(), 200);
    wait_metric(&sidecar, &count("without-body"), 2).await;
    let body = "x".repeat(64 * 1024);
    let post = format!("POST /echo HTTP/1.1\r\nHost: s.test\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert_eq!(client.ask(post).await.unwrap().status(), 200);
    assert_eq!(requests(&mirror, 1).await[0].body.len(), 64 * 1024);
}

#[tokio::test]
async fn a_call_that_is_tried_again_is_copied_once_and_whole() {
    let agent = Origin::start(|m, n| match (m.method(), n) {
        ("PUT", 0) => vec![Step::Reset],
        _ => ok("done"),
    });
    let (agent, mirror) = (agent.await, Origin::plain().await);
    let retries = format!("{ALL}  retries: {{attempts: 2, retryOn: reset, backoff: 1ms}}\n");
    let sidecar = mirrored(agent.port(), mirror.port(), &retries);
    // The agent resets whatever comes first on a connection, so both tries fail.
    let put = "PUT /once HTTP/1.1\r\nHost: s.test\r\nContent-Length: 5\r\n\r\nmoney";
    assert_eq!(H1::connect(sidecar.outbound).await.ask(put).await.unwrap().status(), 502);
    assert_eq!(agent.requests().len(), 3);
    let copies = requests(&mirror, 1).await;
    assert_eq!((copies.len(), &*copies[0].body), (1, &b"money"[..]));
    wait_metric(&sidecar, &count("answered"), 1).await;
}

#[tokio::test]
async fn copies_under_way_have_a_bound() {
    let (agent, silent) = (Agent::start("a").await, Origin::start(|_, _| vec![Step::Hang]).await);
    let sidecar = mirrored(agent.port(), silent.port(), &format!("{ALL}  timeout: 60s\n"));
    let mut client = H1::connect(sidecar.outbound).await;
    for _ in 0..120 {
        assert_eq!(client.get("s.test", "/", &[]).await.unwrap().status(), 200);
    }
    wait_metric(&sidecar, &count("dropped"), 20).await;
    assert_eq!(requests(&silent, 100).await.len(), 100);
}

#[tokio::test]
async fn a_grpc_call_is_copied_with_its_trailers_awaited_by_nobody() {
    let (agent, mirror) = (Agent::start("a").await, Agent::start("m").await);
    let sidecar = mirrored(agent.port(), mirror.port(), ALL);
    let mut client = H2::open(sidecar.outbound, &[]).await;
    let more = [("content-type", "application/grpc"), ("te", "trailers")];
    client.send(&h2::headers(1, h2::request("POST", "s.test", "/echo", &more), false)).await;
    client.send(&h2::data(1, *b"\0\0\0\0\0", true)).await;
    let Outcome::Answer(answer) = client.outcome(1, Duration::from_secs(10)).await else {
        panic!("no answer")
    };
    assert_eq!(answer.status, 200);
    wait_metric(&sidecar, &count("answered"), 1).await;
    assert_eq!((agent.requests(), mirror.requests()), (1, 1));
}
