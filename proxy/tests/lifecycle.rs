//! Start, reload, drain and end of the process; inbound; what the admin listener says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pilotfish_testkit::{Agent, H1, H2, Sidecar, h1, h2};
use tokio::task::JoinSet;

use crate::support::{
    destination_rule, metric, service, service_with, sidecar, virtual_service, wait_metric,
};

/// For what comes at once, on a machine that does much else.
const SOON: Duration = Duration::from_secs(20);

fn split(v1: u32) -> String {
    let route = format!(
        "- route:\n  - {{ destination: {{ host: s.test, subset: v1 }}, weight: {v1} }}\n  - {{ destination: {{ host: s.test, subset: v2 }}, weight: {} }}",
        100 - v1
    );
    virtual_service("w", "w.test", &route)
}

async fn two() -> (Sidecar, [Agent; 2]) {
    let agents = [Agent::start("v1").await, Agent::start("v2").await];
    let endpoints = [(agents[0].port(), "version: v1"), (agents[1].port(), "version: v2")];
    let subsets =
        "subsets:\n- { name: v1, labels: { version: v1 } }\n- { name: v2, labels: { version: v2 } }";
    let yaml = service_with("s.test", "HTTP", &endpoints) + &destination_rule("s", "s.test", subsets);
    let sidecar = sidecar().yaml("services.yaml", yaml).yaml("split.yaml", split(100)).workers(2).start();
    (sidecar, agents)
}

/// Asks until this agent answers.
async fn until_agent(sidecar: &Sidecar, host: &str, agent: &str) {
    let until = Instant::now() + SOON;
    loop {
        let answer = h1::get(sidecar.outbound, host, "/", &[]).await.unwrap();
        if answer.header("x-agent").as_deref() == Some(agent) {
            return;
        }
        assert!(Instant::now() < until, "{agent} does not answer: {}", answer.text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_weight_edit_under_load_fails_no_request() {
    let (sidecar, agents) = two().await;
    let (addr, stop) = (sidecar.outbound, Arc::new(AtomicUsize::new(0)));
    let mut load = JoinSet::new();
    for i in 0..16 {
        let stop = stop.clone();
        load.spawn(async move {
            let mut h1 = H1::connect(addr).await;
            let mut h2 = H2::open(addr, &[]).await;
            let mut count = 0;
            while stop.load(Ordering::Relaxed) == 0 {
                if i % 4 == 0 {
                    let stream = count * 2 + 1;
                    let outcome = h2.get(stream, "w.test", "/", &[]).await;
                    assert!(matches!(&outcome, h2::Outcome::Answer(a) if a.status == 200), "{outcome:?}");
                } else {
                    let answer = h1.get("w.test", "/", &[]).await.unwrap();
                    assert_eq!(answer.status(), 200, "{}", answer.text());
                }
                count += 1;
            }
            count
        });
    }
    until_agent(&sidecar, "w.test", "v1").await;
    let before = agents[1].requests();
    assert_eq!(before, 0, "all go to v1 at first");
    for weight in [50, 0, 100, 0] {
        let version = metric(&sidecar, "pilotfish_snapshot_version").await;
        sidecar.rewrite("split.yaml", &split(weight));
        wait_metric(&sidecar, "pilotfish_snapshot_version", version + 1).await;
        let served = agents[0].requests() + agents[1].requests();
        let until = Instant::now() + SOON;
        while agents[0].requests() + agents[1].requests() < served + 50 {
            assert!(Instant::now() < until, "the load is stuck");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    // Each of those that ask has had an answer since: what was on its way to v1 has arrived.
    let (v1, v2) = (agents[0].requests(), agents[1].requests());
    let until = Instant::now() + SOON;
    while agents[1].requests() < v2 + 200 {
        assert!(Instant::now() < until, "the load is stuck");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(agents[0].requests(), v1, "nothing goes to v1 any more");
    stop.store(1, Ordering::Relaxed);
    let counts = load.join_all().await;
    assert!(counts.iter().all(|c| *c > 0), "{counts:?}");
}

#[tokio::test]
async fn a_broken_file_leaves_the_last_good_one() {
    let (sidecar, _agents) = two().await;
    until_agent(&sidecar, "w.test", "v1").await;
    sidecar.rewrite("split.yaml", &split(0).replace("weight: 100", "weight: many"));
    let until = Instant::now() + SOON;
    while !sidecar.stderr().iter().any(|l| l.contains("split.yaml")) {
        assert!(Instant::now() < until, "the log does not name the broken file: {:?}", sidecar.stderr());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answer = h1::get(sidecar.outbound, "w.test", "/", &[]).await.unwrap();
    assert_eq!(answer.header("x-agent").as_deref(), Some("v1"));
    let metrics = h1::get(sidecar.admin, "x", "/metrics", &[]).await.unwrap().text();
    assert!(metrics.contains("pilotfish"), "{metrics}");
    sidecar.rewrite("split.yaml", &split(0));
    until_agent(&sidecar, "w.test", "v2").await;
}

#[tokio::test]
async fn files_come_and_go() {
    let (sidecar, agents) = two().await;
    assert_eq!(h1::get(sidecar.outbound, "new.test", "/", &[]).await.unwrap().status(), 404);
    sidecar.rewrite("new.yaml", &service("new.test", agents[1].port()));
    let until = Instant::now() + SOON;
    while h1::get(sidecar.outbound, "new.test", "/", &[]).await.unwrap().status() != 200 {
        assert!(Instant::now() < until, "the new file is not read");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    std::fs::remove_file(sidecar.config().join("new.yaml")).unwrap();
    let until = Instant::now() + SOON;
    while h1::get(sidecar.outbound, "new.test", "/", &[]).await.unwrap().status() != 404 {
        assert!(Instant::now() < until, "the file that went is still in force");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_stream_outlives_a_reload() {
    let (sidecar, _agents) = two().await;
    let mut client = H1::connect(sidecar.outbound).await;
    client.send("GET /stream/30/30 HTTP/1.1\r\nHost: w.test\r\n\r\n").await;
    client.head().await.expect("a head");
    sidecar.rewrite("split.yaml", &split(0));
    until_agent(&sidecar, "w.test", "v2").await;
    let rest = client.read_until(|b| b.ends_with(b"0\r\n\r\n")).await;
    assert!(String::from_utf8_lossy(&rest).contains("data: 29"), "the stream was cut by the reload");
}

#[tokio::test]
async fn sigterm_drains() {
    let agent = Agent::start("app").await;
    let mut sidecar = sidecar()
        .yaml("a.yaml", service("s.test", agent.port()))
        .args(&["--drain", "60s", "--drain-delay", "5s"])
        .start();
    assert_eq!(h1::get(sidecar.admin, "x", "/ready", &[]).await.unwrap().status(), 200);
    assert_eq!(h1::get(sidecar.admin, "x", "/live", &[]).await.unwrap().status(), 200);
    let mut stream = H1::connect(sidecar.outbound).await;
    stream.send("GET /stream/100/80 HTTP/1.1\r\nHost: s.test\r\n\r\n").await;
    stream.head().await.expect("a head");
    let mut two = H2::open(sidecar.outbound, &[]).await;
    two.send(&h2::headers(1, h2::request("GET", "s.test", "/delay/7000", &[]), true)).await;
    let mut idle = H1::connect(sidecar.outbound).await;
    idle.get("s.test", "/", &[]).await.unwrap();
    sidecar.terminate();
    let begin = Instant::now();
    let until = begin + Duration::from_secs(4);
    while h1::get(sidecar.admin, "x", "/ready", &[]).await.unwrap().status() == 200 {
        assert!(Instant::now() < until, "/ready does not fail");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // For so long new work is still taken.
    let new = h1::get(sidecar.outbound, "s.test", "/", &[]).await.unwrap();
    assert_eq!(new.status(), 200);
    let kept = idle.get("s.test", "/", &[]).await.unwrap();
    assert_eq!(kept.status(), 200, "a connection that was idle is served before it is closed");
    let refused = async {
        while tokio::net::TcpStream::connect(sidecar.outbound).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        begin.elapsed()
    };
    let closed = tokio::time::timeout(SOON, refused).await.expect("the listener closes");
    assert!(closed >= Duration::from_millis(4500), "the listener closed after {closed:?}");
    assert!(idle.closed_within(SOON).await, "an idle connection is closed");
    let outcome = two.outcome(1, SOON).await;
    assert!(matches!(&outcome, h2::Outcome::Answer(a) if a.status == 200), "a stream in flight: {outcome:?}");
    assert_eq!(two.goaway(), Some(0), "HTTP/2 connections are told with GOAWAY");
    let rest = stream.read_until(|b| b.ends_with(b"0\r\n\r\n")).await;
    assert!(String::from_utf8_lossy(&rest).contains("data: 99"), "the stream in flight was cut");
    let status = sidecar.exit(SOON).await.expect("it ends when the last stream ended");
    assert!(status.success(), "{status}");
}

/// As the hook of its container asks for it.
#[tokio::test]
async fn the_program_asks_its_sidecar_to_drain() {
    let mut sidecar =
        sidecar().yaml("a.yaml", service("s.test", 9)).args(&["--drain-delay", "100ms"]).start();
    let ask = |socket: &std::path::Path| {
        let mut asking = std::process::Command::new(env!("CARGO_BIN_EXE_pilotfish-proxy"));
        asking.arg("drain").arg(socket).output().unwrap()
    };
    let asked = ask(&sidecar.admin_socket.with_extension("none"));
    let said = String::from_utf8(asked.stderr).unwrap();
    assert_eq!(asked.status.code(), Some(1), "{said}");
    assert!(said.contains("No such file"), "{said}");
    let asked = ask(&sidecar.admin_socket);
    assert!(asked.status.success(), "{asked:?}");
    let status = sidecar.exit(Duration::from_secs(30)).await.expect("it ends after the drain");
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn what_outlasts_the_drain_is_named_and_cut() {
    let agent = Agent::start("app").await;
    let args = ["--drain", "1s", "--drain-delay", "100ms"];
    let mut sidecar = sidecar().yaml("a.yaml", service("s.test", agent.port())).args(&args).start();
    let mut stream = H1::connect(sidecar.outbound).await;
    stream.send("GET /stream/1000/50 HTTP/1.1\r\nHost: s.test\r\n\r\n").await;
    stream.head().await.expect("a head");
    sidecar.terminate();
    let status = sidecar.exit(SOON).await.expect("it ends after the drain");
    assert!(status.success(), "{status}");
    let log = sidecar.stderr().join("\n");
    assert!(log.contains("cut") && log.contains("s-test"), "what was cut is named in the log: {log}");
}

#[tokio::test]
async fn a_second_sigterm_or_nothing_open_ends_at_once() {
    let flags = ["--drain-delay", "0s", "--drain", "120s"];
    let mut sidecar = sidecar().yaml("a.yaml", service("s.test", 9)).args(&flags).start();
    sidecar.terminate();
    let status = sidecar.exit(SOON).await.expect("nothing is open");
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn inbound_goes_to_the_app() {
    let app = Agent::start("app").await;
    let sidecar = sidecar().yaml("a.yaml", service("s.test", 9)).app(app.addr()).start();
    let answer =
        h1::get(sidecar.inbound, "whatever.test", "/x?y", &["x-forwarded-for: 9.9.9.9"]).await.unwrap();
    let seen = answer.json();
    assert_eq!((seen["agent"].as_str(), seen["path"].as_str()), (Some("app"), Some("/x")));
    assert_eq!(seen["headers"]["host"][0], "whatever.test");
    let mut client = H2::open(sidecar.inbound, &[]).await;
    let outcome = client.get(1, "whatever.test", "/y", &[]).await;
    assert!(matches!(&outcome, h2::Outcome::Answer(a) if a.status == 200), "{outcome:?}");
    let mut client = H1::connect(sidecar.inbound).await;
    let switched = client.get("x.test", "/upgrade", &["Upgrade: raw", "Connection: upgrade"]).await.unwrap();
    assert_eq!(switched.status(), 101);
    drop(app);
    let gone = h1::get(sidecar.inbound, "x.test", "/", &[]).await.unwrap();
    assert_eq!((gone.status(), gone.reason().as_str()), (503, "connect-failed"));
}

#[tokio::test]
async fn the_admin_listener_tells_little() {
    let sidecar = sidecar().yaml("a.yaml", service("s.test", 9)).start();
    for (path, status) in [
        ("/ready", 200),
        ("/live", 200),
        ("/metrics", 200),
        ("/config", 404),
        ("/why", 404),
        ("/drain", 404),
        ("/", 404),
    ] {
        let answer = h1::get(sidecar.admin, "x", path, &[]).await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }
}

#[test]
fn strict_mtls_without_an_identity_is_no_start() {
    let policy = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: { name: p }\nspec: { mtls: { mode: STRICT } }\n";
    let (status, stderr) = sidecar().yaml("p.yaml", policy).start_to_fail();
    assert!(!status.success());
    assert!(stderr.contains("PeerAuthentication") && stderr.contains("p.yaml"), "{stderr}");
}

#[test]
fn broken_yaml_is_no_start_and_all_of_it_is_told() {
    let (status, stderr) = sidecar()
        .yaml("a.yaml", virtual_service("v", "v.test", "- rout: []").replace("hosts", "hostz"))
        .yaml("b.yaml", "kind: [")
        .start_to_fail();
    assert!(!status.success());
    for word in ["a.yaml:", "b.yaml:", "rout", "hostz"] {
        assert!(stderr.contains(word), "{word} is not told: {stderr}");
    }
}
