//! Limits: slow clients, idle ones, `connectionPool` over all workers, and a good client that is served throughout.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pilotfish_testkit::{Agent, H1, H2, Nobody, Sidecar, h1};
use tokio::task::{JoinHandle, JoinSet};

use crate::overload::Gated;
use crate::support::{destination_rule, service, service_with, sidecar};

/// A client that asks again and again; how often it was served, and its slowest answer.
pub struct GoodClient {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<(usize, Duration), String>>,
}

impl GoodClient {
    /// Starts to ask this host, on one connection for HTTP/1 and one request per 5 ms.
    pub fn start(addr: SocketAddr, host: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut client, mut count, mut slowest) = (H1::connect(addr).await, 0, Duration::ZERO);
            while !stopped.load(Ordering::Relaxed) {
                let begin = Instant::now();
                let answer =
                    client.get(host, "/good", &[]).await.map_err(|gone| format!("after {count}: {gone}"))?;
                if answer.status() != 200 {
                    return Err(format!("after {count}: {} {}", answer.status(), answer.reason()));
                }
                (count, slowest) = (count + 1, slowest.max(begin.elapsed()));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok((count, slowest))
        });
        Self { stop, task }
    }

    /// Stops it; fails the test when an answer failed or took longer than `most`.
    pub async fn finish(self, most: Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let (count, slowest) =
            self.task.await.unwrap().unwrap_or_else(|e| panic!("the good client failed {e}"));
        assert!(count > 0 && slowest < most, "{count} answers, the slowest after {slowest:?}");
    }
}

/// The slowest answer to a good client. What holds it up does so for ever; a machine that is busy with others takes some seconds.
pub const SLOWEST: Duration = Duration::from_secs(19);

fn start(agent: &Agent) -> Sidecar {
    sidecar().yaml("a.yaml", service("s.test", agent.port())).start()
}

#[tokio::test]
async fn slow_headers_are_cut_after_ten_seconds_and_others_are_served() {
    let agent = Agent::start("good").await;
    let sidecar = start(&agent);
    let addr = sidecar.outbound;
    let good = GoodClient::start(addr, "s.test");
    let mut slow = JoinSet::new();
    for i in 0..40 {
        slow.spawn(async move {
            let mut client = H1::connect(addr).await.patience(Duration::from_secs(40));
            let begin = Instant::now();
            client.send("GET / HTTP/1.1\r\nHost: s.test\r\n").await;
            let mut open = true;
            while open && begin.elapsed() < Duration::from_secs(30) {
                client.send(format!("X-{i}: a\r\n")).await;
                open = !client.closed_within(Duration::from_millis(500)).await;
            }
            (open, begin.elapsed(), client.answer("GET").await)
        });
    }
    // A connection that sends nothing at all, and half an HTTP/2 preface: they are cut as well, or told.
    let mut silent = H1::connect(addr).await;
    let mut half = H2::connect(addr).await;
    half.send_raw(b"PRI * HTTP/2.0\r\n").await;
    while let Some(result) = slow.join_next().await {
        let (open, took, answer) = result.unwrap();
        assert!(!open, "slow headers were still read after {took:?}");
        assert!((9..20).contains(&took.as_secs()), "cut after {took:?}");
        if let Ok(answer) = answer {
            assert_eq!((answer.status(), answer.reason().as_str()), (408, "header-timeout"));
        }
    }
    half.pump(Duration::from_secs(20), |_| false).await;
    assert!(half.closed(), "half a preface holds a connection");
    assert!(!silent.closed_within(Duration::from_millis(1)).await || silent.surplus().is_empty());
    // Not only when the slow ones were cut.
    good.finish(Duration::from_secs(9)).await;
}

#[tokio::test]
async fn a_slow_body_holds_up_nobody() {
    let agent = Agent::start("good").await;
    let sidecar = start(&agent);
    let addr = sidecar.outbound;
    let good = GoodClient::start(addr, "s.test");
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut client = H1::connect(addr).await;
        client.send("POST / HTTP/1.1\r\nHost: s.test\r\nContent-Length: 1000\r\n\r\n").await;
        slow.push(client);
    }
    for _ in 0..10 {
        for client in &mut slow {
            assert!(client.send("x").await, "a slow but moving body is no fault");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    good.finish(SLOWEST).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_costs_no_memory() {
    let agent = Agent::start("big").await;
    let sidecar = start(&agent);
    for _ in 0..20 {
        h1::get(sidecar.outbound, "s.test", "/bytes/100000", &[]).await.unwrap();
    }
    let before = sidecar.rss();
    let good = GoodClient::start(sidecar.outbound, "s.test");
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut client = H1::connect(sidecar.outbound).await;
        client.send("GET /bytes/30000000 HTTP/1.1\r\nHost: s.test\r\n\r\n").await;
        held.push(client);
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    // On a loaded machine not all of them have come to their end by then.
    let grown = || sidecar.rss().saturating_sub(before);
    let settled = tokio::time::Instant::now() + Duration::from_secs(10);
    while grown() >= 16 << 20 && tokio::time::Instant::now() < settled {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert!(grown() < 16 << 20, "{} KiB more for 100 clients that do not read", grown() >> 10);
    good.finish(SLOWEST).await;
}

/// `connectionPool` limits hold for the whole process, not for each worker.
async fn pool(spec: &str, workers: usize) -> (Sidecar, Agent) {
    let agent = Agent::start("pooled").await;
    (pool_before(agent.port(), spec, workers), agent)
}

fn pool_before(port: u16, spec: &str, workers: usize) -> Sidecar {
    let policy = format!("trafficPolicy:\n  connectionPool:\n{spec}");
    let yaml = service("s.test", port) + &destination_rule("s", "s.test", &policy);
    sidecar().yaml("a.yaml", yaml).workers(workers).start()
}

/// Asks at once on connections of their own; the statuses and reasons.
fn burst(addr: SocketAddr, n: usize, target: &'static str) -> JoinSet<(u16, String)> {
    let mut all = JoinSet::new();
    for _ in 0..n {
        all.spawn(async move {
            let answer = h1::get(addr, "s.test", target, &[]).await.unwrap();
            (answer.status(), answer.reason())
        });
    }
    all
}

#[tokio::test]
async fn max_connections_holds_for_all_workers() {
    let agent = Gated::start().await;
    let limits = "    tcp: { maxConnections: 3 }\n    http: { http1MaxPendingRequests: 5 }";
    let sidecar = pool_before(agent.origin.port(), limits, 4);
    let mut calls = burst(sidecar.outbound, 40, "/");
    // Three go at once and five wait: all others are told, while nothing moves.
    for _ in 0..32 {
        assert_eq!(calls.join_next().await.unwrap().unwrap(), (503, "connection-pool-overflow".into()));
    }
    agent.has_begun(3).await;
    assert_eq!(agent.begun().len(), 3);
    agent.release(9);
    assert!(calls.join_all().await.iter().all(|answer| answer.0 == 200), "those that waited go afterwards");
    let later = burst(sidecar.outbound, 1, "/").join_all().await;
    assert_eq!(later[0].0, 200, "places are given back");
}

#[tokio::test]
async fn max_requests_holds_for_all_workers() {
    let (sidecar, agent) = pool("    http: { http2MaxRequests: 4 }", 4).await;
    let answers = burst(sidecar.outbound, 40, "/delay/300").join_all().await;
    assert!(agent.most_at_once() <= 4, "{} at once", agent.most_at_once());
    let good = answers.iter().filter(|a| a.0 == 200).count();
    assert!(good >= 4, "{answers:?}");
    assert!(
        answers.iter().all(|a| a.0 == 200 || *a == (503, "connection-pool-overflow".into())),
        "{answers:?}"
    );
}

#[tokio::test]
async fn max_requests_per_connection_renews_connections() {
    let (sidecar, agent) = pool("    http: { maxRequestsPerConnection: 2 }", 1).await;
    let mut client = H1::connect(sidecar.outbound).await;
    for _ in 0..10 {
        assert_eq!(client.get("s.test", "/", &[]).await.unwrap().status(), 200);
    }
    assert_eq!(agent.connections(), 5);
}

#[tokio::test]
async fn connections_are_reused_and_idle_ones_are_not_trusted() {
    let place = Nobody::new();
    let agent = Agent::start_on("pooled", &place.addr().to_string()).await;
    let sidecar = start(&agent);
    let mut client = H1::connect(sidecar.outbound).await;
    for _ in 0..50 {
        client.get("s.test", "/", &[]).await.unwrap();
    }
    assert_eq!(agent.connections(), 1, "one connection serves one client's requests");
    drop(agent);
    // Its place is free when it has gone, with its connections.
    let until = Instant::now() + SLOWEST;
    let listener = loop {
        match tokio::net::TcpListener::bind(place.addr()).await {
            Ok(listener) => break listener,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::task::yield_now().await;
    };
    let _again = Agent::listening("again", listener);
    let answer = client.get("s.test", "/", &[]).await.unwrap();
    assert_eq!(answer.header("x-agent").as_deref(), Some("again"), "{}", answer.text());
}

#[tokio::test]
async fn a_dead_endpoint_among_good_ones_is_told_or_avoided() {
    let agent = Agent::start("alive").await;
    let nobody = Nobody::new();
    let yaml = service_with("s.test", "HTTP", &[(agent.port(), ""), (nobody.port(), "")]);
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    for _ in 0..20 {
        let answer = h1::get(sidecar.outbound, "s.test", "/", &[]).await.unwrap();
        let told = (answer.status(), answer.reason());
        assert!(told == (200, String::new()) || told == (503, "connect-failed".into()), "{told:?}");
    }
}
