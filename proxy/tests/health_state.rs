//! One health state for each endpoint: outlier detection, breakers and active checks, seen from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use pilotfish_testkit::h1::get;
use pilotfish_testkit::origin::{ok, send};
use pilotfish_testkit::{H1, Origin, Sidecar};

use crate::support::{destination_rule, metric, service_with, sidecar, virtual_service, wait_metric};
use crate::tls::setup::{DOMAIN, Mesh, mesh_service};

/// An origin that answers 200 while it is well and 500 while it is not; and what it was asked.
struct Moody {
    origin: Origin,
    well: Arc<AtomicBool>,
    /// Asked for the first path, and for anything else.
    checks: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

impl Moody {
    async fn start(well: bool) -> Moody {
        let well = Arc::new(AtomicBool::new(well));
        let (checks, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (is, asked, called) = (well.clone(), checks.clone(), calls.clone());
        let origin = Origin::start(move |message, _| {
            if message.target() == "/healthz" { &asked } else { &called }.fetch_add(1, SeqCst);
            match is.load(SeqCst) {
                true => ok("well"),
                false => vec![send("HTTP/1.1 500 Not Well\r\ncontent-length: 0\r\n\r\n")],
            }
        })
        .await;
        Moody { origin, well, checks, calls }
    }

    fn set(&self, well: bool) {
        self.well.store(well, SeqCst);
    }

    fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }
}

async fn moody(count: usize, bad: &[usize]) -> Vec<Moody> {
    let mut all = Vec::new();
    for n in 0..count {
        all.push(Moody::start(!bad.contains(&n)).await);
    }
    all
}

fn service(all: &[Moody]) -> String {
    let endpoints: Vec<(u16, &str)> = all.iter().map(|one| (one.origin.port(), "")).collect();
    service_with("s.test", "HTTP", &endpoints)
}

/// The same document with an annotation.
fn annotated(yaml: &str, name: &str, value: &str) -> String {
    yaml.replacen(
        "metadata:\n",
        &format!("metadata:\n  annotations: {{ pilotfish.dev/{name}: \"{value}\" }}\n"),
        1,
    )
}

/// Asks again and again until the time is over, and so many times at least; statuses below 500, and others.
async fn ask_for(sidecar: &Sidecar, time: Duration, least: usize) -> (usize, usize) {
    let until = Instant::now() + time;
    let (mut client, mut good, mut bad) = (H1::connect(sidecar.outbound).await, 0, 0);
    while Instant::now() < until || good + bad < least {
        match client.get("s.test", "/", &[]).await.unwrap().status() {
            ..500 => good += 1,
            _ => bad += 1,
        }
    }
    (good, bad)
}

/// Asks that many times; the statuses.
async fn statuses(sidecar: &Sidecar, times: usize) -> Vec<u16> {
    let (mut client, mut found) = (H1::connect(sidecar.outbound).await, Vec::new());
    for _ in 0..times {
        found.push(client.get("s.test", "/", &[]).await.unwrap().status());
    }
    found
}

fn out(state: &str) -> String {
    format!("pilotfish_endpoints_out{{state=\"{state}\"}}")
}

/// What `/config` says of the endpoint of this port.
async fn reason(sidecar: &Sidecar, port: u16) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::UnixStream::connect(&sidecar.admin_socket).await.unwrap();
    stream.write_all(b"GET /config HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&text[text.find("\r\n\r\n").unwrap()..]).unwrap();
    let clusters = json["plan"]["clusters"].as_array().unwrap();
    let mut endpoints = clusters.iter().flat_map(|cluster| cluster["endpoints"].as_array().unwrap());
    let own = endpoints.find(|own| own["address"].as_str().unwrap().ends_with(&format!(":{port}"))).unwrap();
    own["reason"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn breaker_and_retries_hide_one_of_ten_that_answers_500() {
    let all = moody(10, &[4]).await;
    let rule = annotated(&destination_rule("s", "s.test", ""), "circuit-breaker", "on");
    let retries = virtual_service(
        "s",
        "s.test",
        "- route: [{ destination: { host: s.test } }]\n  retries: { attempts: 2, retryOn: 5xx }",
    );
    let sidecar = sidecar().yaml("a.yaml", service(&all) + &rule + &retries).start();
    let (good, bad) = ask_for(&sidecar, Duration::from_secs(2), 300).await;
    assert!(bad * 200 < good, "{bad} of {} failed", good + bad);
    let (before, began) = (all[4].calls(), Instant::now());
    let (more, bad) = ask_for(&sidecar, Duration::from_secs(2), 300).await;
    assert!(bad * 200 < more, "{bad} of {} failed", more + bad);
    let (probes, seconds) = (all[4].calls() - before, began.elapsed().as_secs_f64());
    assert!(probes as f64 <= 2.0 * seconds.max(2.0), "{probes} calls within {seconds} s of an open breaker");
    assert!(metric(&sidecar, "pilotfish_endpoint_breaker_steps_total{to=\"open\"}").await >= 1);
    let why = reason(&sidecar, all[4].origin.port()).await;
    assert!(why.starts_with("breaker open"), "{why}");
}

#[tokio::test]
async fn breakers_refuse_at_once_when_all_are_open_and_one_probe_closes_them() {
    let all = moody(1, &[0]).await;
    let rule =
        annotated(&destination_rule("s", "s.test", ""), "circuit-breaker", "consecutive=3,open=2s..2s");
    let sidecar = sidecar().workers(2).yaml("a.yaml", service(&all) + &rule).start();
    let found = statuses(&sidecar, 3).await;
    assert_eq!(found, [500; 3]);
    let refused = get(sidecar.outbound, "s.test", "/", &[]).await.unwrap();
    assert_eq!((refused.status(), refused.reason().as_str()), (503, "breaker-open"));
    assert_eq!(all[0].calls(), 3);
    all[0].set(true);
    let until = Instant::now() + Duration::from_secs(10);
    while get(sidecar.outbound, "s.test", "/", &[]).await.unwrap().status() != 200 {
        assert!(Instant::now() < until, "it never closes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(all[0].calls(), 4, "the first that passed was the probe");
    assert_eq!(statuses(&sidecar, 5).await, [200; 5]);
}

#[tokio::test]
async fn max_ejection_percent_holds_when_all_fail_and_ejections_survive_a_reload() {
    let all = moody(4, &[0, 1, 2, 3]).await;
    let outlier = "trafficPolicy:\n  outlierDetection: { consecutive5xxErrors: 3, maxEjectionPercent: 50, baseEjectionTime: 300s }";
    let yaml = service(&all) + &destination_rule("s", "s.test", outlier);
    let sidecar = sidecar().workers(2).yaml("a.yaml", yaml.clone()).start();
    assert_eq!(statuses(&sidecar, 100).await, [500; 100]);
    wait_metric(&sidecar, &out("ejected"), 2).await;
    let ejections = "pilotfish_endpoint_ejections_total{cause=\"consecutive-5xx\"}";
    assert_eq!(metric(&sidecar, ejections).await, 2);
    assert!(metric(&sidecar, "pilotfish_endpoint_ejections_forbidden_total").await > 0);
    let said = |what: &str| sidecar.wait_stderr(Duration::from_secs(10), |line| line.contains(what));
    let line = said("an endpoint is out").expect("a line of the log");
    assert!(line.contains("ejected: 3 consecutive 5xx"), "{line}");
    all.iter().for_each(|one| one.set(true));
    let before: Vec<usize> = all.iter().map(Moody::calls).collect();
    let accepted = metric(&sidecar, "pilotfish_snapshot_version").await;
    sidecar.rewrite("b.yaml", &service_with("other.test", "HTTP", &[(1, "")]));
    wait_metric(&sidecar, "pilotfish_snapshot_version", accepted + 1).await;
    assert_eq!(statuses(&sidecar, 60).await, [200; 60]);
    let called = all.iter().zip(&before).filter(|(one, before)| one.calls() > **before).count();
    assert_eq!(called, 2, "those that were ejected before the reload still are");
    sidecar.rewrite("a.yaml", &service(&all));
    wait_metric(&sidecar, &out("ejected"), 0).await;
    assert_eq!(metric(&sidecar, ejections).await, 2, "what was counted stays");
    said("an endpoint is back").expect("a line of the log");
}

#[tokio::test]
async fn an_http_check_puts_out_and_brings_back_without_calls_and_follows_reloads() {
    let all = moody(2, &[]).await;
    let check = "http:/healthz,interval=100ms,timeout=5s,healthy=2,unhealthy=2";
    let sidecar = sidecar().yaml("a.yaml", annotated(&service(&all), "health-check", check)).start();
    wait_metric(&sidecar, &out("check-failed"), 0).await;
    all[0].set(false);
    wait_metric(&sidecar, &out("check-failed"), 1).await;
    assert_eq!(reason(&sidecar, all[0].origin.port()).await, "health check: it answers 500");
    assert_eq!(statuses(&sidecar, 30).await, [200; 30]);
    assert_eq!((all[0].calls(), all[1].calls()), (0, 30));
    all[0].set(true);
    wait_metric(&sidecar, &out("check-failed"), 0).await;
    assert_eq!(statuses(&sidecar, 60).await, [200; 60]);
    assert!(all[0].calls() > 0);
    // Without the annotation nobody is asked any more, and what checks said is forgotten.
    all[0].set(false);
    wait_metric(&sidecar, &out("check-failed"), 1).await;
    sidecar.rewrite("a.yaml", &service(&all));
    wait_metric(&sidecar, &out("check-failed"), 0).await;
    let asked = all[0].checks.load(SeqCst);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(all[0].checks.load(SeqCst) <= asked + 1, "one may have been under way");
}

#[tokio::test]
async fn a_good_check_ends_an_ejection() {
    let all = moody(2, &[0]).await;
    let outlier = "trafficPolicy:\n  outlierDetection: { consecutive5xxErrors: 2, baseEjectionTime: 300s }";
    let rule = destination_rule("s", "s.test", outlier);
    let sidecar = sidecar().yaml("a.yaml", service(&all) + &rule).start();
    statuses(&sidecar, 40).await;
    wait_metric(&sidecar, &out("ejected"), 1).await;
    all[0].set(true);
    sidecar.rewrite(
        "a.yaml",
        &(annotated(&service(&all), "health-check", "http:/healthz,interval=100ms") + &rule),
    );
    wait_metric(&sidecar, &out("ejected"), 0).await;
}

#[tokio::test]
async fn a_tcp_check_says_why_an_endpoint_is_out() {
    let mut all = moody(2, &[]).await;
    let yaml = annotated(&service(&all), "health-check", "tcp,interval=100ms,unhealthy=1");
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let gone = all.remove(0).origin.port();
    wait_metric(&sidecar, &out("check-failed"), 1).await;
    // A check that waited to be accepted when the listener closed is reset.
    let why = reason(&sidecar, gone).await.to_ascii_lowercase();
    assert!(
        why == "health check: connection refused"
            || why.starts_with("health check: connection reset by peer"),
        "{why}"
    );
    assert!(metric(&sidecar, "pilotfish_endpoint_checks_total{result=\"failed\"}").await > 0);
    assert!(metric(&sidecar, "pilotfish_endpoint_checks_total{result=\"ok\"}").await > 0);
}

#[tokio::test]
async fn a_check_of_another_sidecar_is_mutual_tls_and_reaches_its_agent() {
    let (mesh, agent) = (Mesh::new(), Moody::start(true).await);
    // A check says for whom it is, as every call does.
    let require = ["--delegation", "require"];
    let callee = mesh.sidecar("callee").app(agent.origin.addr()).args(&require).start();
    let check = "http:/healthz,interval=100ms,timeout=5s,unhealthy=1,healthy=1";
    let yaml = annotated(&mesh_service("s.test", "callee", callee.inbound), "health-check", check);
    let caller = mesh.sidecar("caller").yaml("a.yaml", yaml).start();
    wait_metric(&caller, &out("check-failed"), 0).await;
    agent.set(false);
    wait_metric(&caller, &out("check-failed"), 1).await;
    agent.set(true);
    wait_metric(&caller, &out("check-failed"), 0).await;
    let seen = agent.origin.requests();
    let told = seen.first().and_then(|request| request.header("x-forwarded-client-cert")).unwrap();
    assert!(told.ends_with(&format!("URI=spiffe://{DOMAIN}/ns/default/agent/caller")), "{told}");
    // Somebody else at that address is not believed.
    let wrong = annotated(&mesh_service("s.test", "somebody", callee.inbound), "health-check", check);
    caller.rewrite("a.yaml", &wrong);
    wait_metric(&caller, &out("check-failed"), 1).await;
    let why = reason(&caller, callee.inbound.port()).await;
    assert!(why.contains("/agent/callee"), "{why}");
}
