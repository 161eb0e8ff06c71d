//! When a caller goes away, whatever was under way for it ends at once, down the whole chain; and so does what is silent.

use std::time::{Duration, Instant};

use pilotfish_testkit::h1::Gone;
use pilotfish_testkit::{Agent, H1, H2, Origin, Sidecar, h1, h2};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use crate::support::{destination_rule, service, service_with, sidecar, virtual_service};
use crate::tls::setup::{Mesh, mesh_service, metric};

/// Far less than anything else here would take, and far more than 10 ms on a busy machine.
const SOON: Duration = Duration::from_secs(3);
/// For conditions that do come.
const PATIENCE: Duration = Duration::from_secs(15);

/// Waits for a condition; how long that took.
async fn until(what: &str, condition: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}: never");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    start.elapsed()
}

/// Waits until so many requests are served by the sidecar.
async fn active(sidecar: &Sidecar, wanted: u64) -> Duration {
    let start = Instant::now();
    while metric(sidecar, "pilotfish_requests_active{direction=\"outbound\"}").await != wanted {
        assert!(
            start.elapsed() < PATIENCE,
            "never {wanted}, {}",
            metric(sidecar, "pilotfish_requests_active{direction=\"outbound\"}").await
        );
    }
    start.elapsed()
}

/// client -> sidecar -> mTLS -> sidecar -> agent.
async fn chain(mesh: &Mesh) -> (Agent, Sidecar, Sidecar) {
    let agent = Agent::start("worker").await;
    let inner = mesh.sidecar("worker").app(agent.addr()).start();
    let yaml = mesh_service("s.test", "worker", inner.inbound);
    (agent, inner, mesh.sidecar("caller").yaml("a.yaml", yaml).start())
}

/// Sends a request and does not wait for its answer.
async fn ask(to: &Sidecar, path: &str) -> H1 {
    let mut client = H1::connect(to.outbound).await;
    assert!(client.send(format!("GET {path} HTTP/1.1\r\nHost: s.test\r\n\r\n")).await);
    client
}

#[tokio::test]
async fn an_http1_caller_that_goes_while_it_waits_or_reads_ends_the_call_down_the_chain() {
    let mesh = Mesh::new();
    let (agent, _inner, outer) = chain(&mesh).await;
    for path in ["/delay/600000", "/stream/100000/20"] {
        let mut client = ask(&outer, path).await;
        until("the agent is asked", || agent.open() == 1).await;
        if path.starts_with("/stream") {
            client.read_until(|bytes| bytes.windows(7).any(|part| part == b"data: 1")).await;
        }
        drop(client);
        let took = until("the agent learns of it", || agent.open() == 0).await;
        assert!(took < SOON, "{path}: {took:?}");
    }
    // One that resets its connection, too.
    let client = ask(&outer, "/delay/600000").await;
    until("the agent is asked", || agent.open() == 1).await;
    client.reset();
    assert!(until("the agent learns of it", || agent.open() == 0).await < SOON);
}

#[tokio::test]
async fn an_http2_caller_that_resets_its_stream_ends_that_call_down_the_chain_and_no_other() {
    let mesh = Mesh::new();
    let (agent, _inner, outer) = chain(&mesh).await;
    let mut client = H2::open(outer.outbound, &[]).await;
    for (stream, path) in [(1, "/delay/600000"), (3, "/stream/100000/20"), (5, "/stream/100000/20")] {
        client.send(&h2::headers(stream, h2::request("GET", "s.test", path, &[]), true)).await;
    }
    client
        .pump(PATIENCE, |client| client.so_far(3).body.len() > 20 && client.so_far(5).body.len() > 20)
        .await;
    until("the agent is asked", || agent.open() == 3).await;
    for (stream, left) in [(1, 2), (3, 1)] {
        client.send(&h2::reset(stream, h2::code::CANCEL)).await;
        assert!(until("the agent learns of it", || agent.open() == left).await < SOON, "{stream}");
    }
    let before = client.so_far(5).body.len();
    client.pump(PATIENCE, |client| client.so_far(5).body.len() > before + 20).await;
    assert_eq!(agent.open(), 1, "the other stream goes on");
    drop(client);
    assert!(until("the agent learns of it", || agent.open() == 0).await < SOON);
    assert_eq!(agent.connections(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_while_a_connection_is_made_ends_the_attempt() {
    // It takes the connection and never says a word of TLS.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let patient = "trafficPolicy:\n  tls: { mode: SIMPLE, insecureSkipVerify: true }\n  connectionPool:\n    tcp: { connectTimeout: 60s }";
    let yaml =
        service("s.test", mute.local_addr().unwrap().port()) + &destination_rule("s", "s.test", patient);
    let outer = sidecar().yaml("a.yaml", yaml).start();
    let large =
        format!("POST / HTTP/1.1\r\nHost: s.test\r\nContent-Length: 9000000\r\n\r\n{}", "x".repeat(40_000));
    for request in ["GET / HTTP/1.1\r\nHost: s.test\r\n\r\n", &large] {
        let mut client = H1::connect(outer.outbound).await;
        assert!(client.send(request).await);
        let (mut stream, _) = tokio::time::timeout(PATIENCE, mute.accept()).await.unwrap().unwrap();
        let mut hello = [0; 1];
        stream.read_exact(&mut hello).await.unwrap();
        let start = Instant::now();
        drop(client);
        assert!(ended(&mut stream).await < SOON, "{:.10} {:?}", request, start.elapsed());
        active(&outer, 0).await;
    }
}

/// Reads a connection to its end.
async fn ended(stream: &mut TcpStream) -> Duration {
    let start = Instant::now();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("an end");
    start.elapsed()
}

#[tokio::test]
async fn a_caller_that_goes_while_it_waits_for_a_connection_gives_up_its_place() {
    let agent = Agent::start("worker").await;
    let pool = "trafficPolicy:\n  connectionPool:\n    tcp: { maxConnections: 1 }\n    http: { http1MaxPendingRequests: 1 }";
    let yaml = service("s.test", agent.port()) + &destination_rule("s", "s.test", pool);
    let outer = sidecar().yaml("a.yaml", yaml).start();
    let first = ask(&outer, "/delay/600000").await;
    until("the agent is asked", || agent.open() == 1).await;
    for _ in 0..3 {
        let second = ask(&outer, "/waits").await;
        active(&outer, 2).await;
        drop(second);
        assert!(active(&outer, 1).await < SOON);
    }
    drop(first);
    active(&outer, 0).await;
    assert_eq!(agent.requests(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_before_another_try_or_while_it_is_delayed_ends_the_wait() {
    let origin = Origin::fixed("HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n", vec![]).await;
    let rules = "- match: [{ uri: { prefix: /slow } }]
  fault: { delay: { percentage: { value: 100 }, fixedDelay: 600s } }
  route: [{ destination: { host: s.test } }]
- retries: { attempts: 3, retryOn: 5xx, backoff: 1000s }
  route: [{ destination: { host: s.test } }]";
    let yaml = service("s.test", origin.port()) + &virtual_service("s", "s.test", rules);
    let outer = sidecar().yaml("a.yaml", yaml).start();
    let large = format!(
        "POST /slow HTTP/1.1\r\nHost: s.test\r\nContent-Length: 9000000\r\n\r\n{}",
        "x".repeat(40_000)
    );
    for request in
        ["GET / HTTP/1.1\r\nHost: s.test\r\n\r\n", "GET /slow HTTP/1.1\r\nHost: s.test\r\n\r\n", &large]
    {
        let mut client = H1::connect(outer.outbound).await;
        assert!(client.send(request).await);
        active(&outer, 1).await;
        if request.starts_with("GET / ") {
            until("the first try", || origin.requests().len() == 1).await;
        }
        drop(client);
        assert!(active(&outer, 0).await < SOON, "{request:.20}");
    }
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn what_is_silent_for_too_long_is_given_up() {
    let agent = Agent::start("worker").await;
    let rules = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: s
  annotations:
    pilotfish.dev/stream-idle-timeout: 2s
    pilotfish.dev/stream-idle-timeout.patient: 0s
spec:
  hosts: [s.test]
  http:
  - name: patient
    match: [{ headers: { x-rule: { exact: patient } } }]
    route: [{ destination: { host: s.test } }]
  - route: [{ destination: { host: s.test } }]
";
    let yaml = service_with("s.test", "HTTP", &[(agent.port(), "")]) + rules;
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let to = sidecar.outbound;
    let get = async |path: &str, header: &str| h1::get(to, "s.test", path, &[header]).await;
    let (silent, broken, slow, patient) = tokio::join!(
        get("/delay/600000", "a: b"),
        get("/stream/2/600000", "a: b"),
        get("/stream/12/300", "a: b"),
        get("/delay/4000", "x-rule: patient"),
    );
    let silent = silent.unwrap();
    assert_eq!((silent.status(), silent.reason().as_str()), (504, "stream-idle"));
    let Err(Gone::Partial(part)) = broken else { panic!("{broken:?}") };
    assert_eq!(part.body, b"data: 0\n\n");
    assert!(slow.unwrap().text().ends_with("data: 11\n\n"), "what moves goes on");
    assert_eq!(patient.unwrap().status(), 200);
    active(&sidecar, 0).await;
    assert_eq!(metric(&sidecar, "pilotfish_refusals_total{reason=\"stream-idle\"}").await, 2);
}
