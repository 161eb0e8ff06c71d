//! Rate limits from outside: what gets through is counted at the origin. Limits are by the hour, so that a slow machine
//! changes nothing.

use std::net::SocketAddr;
use std::time::Duration;

use pilotfish_testkit::{H1, H2, Origin, Sidecar, h1};
use tokio::task::JoinSet;

use crate::support::{service, sidecar, virtual_service};
use crate::tls::setup::{Mesh, counted, mesh_service};

fn limit(name: &str, amount: &str, spec: &str) -> String {
    format!(
        "apiVersion: pilotfish.dev/v1\nkind: RateLimit\nmetadata: {{name: {name}}}\nspec: {{limit: {{per: 1h, {amount}}}, {spec}}}\n---\n"
    )
}

/// How many of `tries` GETs on one connection are answered 200; all others have to be 429.
async fn through(addr: SocketAddr, host: &str, tries: usize, headers: &[&str]) -> usize {
    let (mut client, mut count) = (H1::connect(addr).await, 0);
    for _ in 0..tries {
        let answer = client.get(host, "/", headers).await.unwrap();
        match answer.status() {
            200 => count += 1,
            429 => assert_eq!(answer.reason(), "rate-limited"),
            other => panic!("{other} {}", answer.text()),
        }
    }
    count
}

/// Rewrites the configuration and waits until it serves.
async fn reload(sidecar: &Sidecar, yaml: &str) {
    let version = || async {
        let page = h1::get(sidecar.admin, "admin", "/metrics", &[]).await.unwrap().text();
        let line = page.lines().find_map(|line| line.strip_prefix("pilotfish_snapshot_version "));
        line.and_then(|value| value.parse::<u64>().ok()).unwrap()
    };
    let before = version().await;
    sidecar.rewrite("a.yaml", yaml);
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while version().await == before {
        assert!(tokio::time::Instant::now() < until, "{:?}", sidecar.stderr());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_limit_holds_for_all_workers_together() {
    let origin = Origin::plain().await;
    let yaml = service("s.test", origin.port()) + &limit("l", "requests: 60", "targets: [{host: s.test}]");
    let sidecar = sidecar().yaml("a.yaml", yaml).workers(4).start();
    let mut clients = JoinSet::new();
    for _ in 0..16 {
        let addr = sidecar.outbound;
        clients.spawn(async move { through(addr, "s.test", 10, &[]).await });
    }
    let mut count = 0;
    while let Some(one) = clients.join_next().await {
        count += one.unwrap();
    }
    assert_eq!((count, origin.requests().len()), (60, 60));
    counted(&sidecar, "pilotfish_rate_limit_total{limit=\"default/l\",result=\"allowed\"}", 60).await;
    counted(&sidecar, "pilotfish_rate_limit_total{limit=\"default/l\",result=\"limited\"}", 100).await;
    counted(&sidecar, "pilotfish_refusals_total{reason=\"rate-limited\"}", 100).await;
}

#[tokio::test]
async fn a_reload_keeps_what_was_spent() {
    let origin = Origin::plain().await;
    let with = |requests: u32| {
        let amount = format!("requests: {requests}");
        service("s.test", origin.port()) + &limit("l", &amount, "targets: [{host: s.test}]")
    };
    let sidecar = sidecar().yaml("a.yaml", with(5)).workers(2).start();
    assert_eq!(through(sidecar.outbound, "s.test", 8, &[]).await, 5);
    reload(&sidecar, &with(8)).await;
    assert_eq!(through(sidecar.outbound, "s.test", 8, &[]).await, 3);
    reload(
        &sidecar,
        &(with(8)
            + "# the same limit\n"
            + &virtual_service("v", "v.test", "- directResponse: {status: 200}")),
    )
    .await;
    assert_eq!(through(sidecar.outbound, "s.test", 8, &[]).await, 0);
    assert_eq!(through(sidecar.outbound, "v.test", 8, &[]).await, 8);
    reload(&sidecar, &with(7)).await;
    assert_eq!(through(sidecar.outbound, "s.test", 8, &[]).await, 0);
    assert_eq!(origin.requests().len(), 8);
}

#[tokio::test]
async fn a_refusal_says_why_and_when_to_come_back() {
    let origin = Origin::plain().await;
    let yaml =
        service("s.test", origin.port()) + &limit("l", "requests: 2, burst: 1", "targets: [{host: s.test}]");
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let mut client = H1::connect(sidecar.outbound).await;
    let first = client.get("s.test", "/", &[]).await.unwrap();
    assert_eq!((first.status(), first.header("ratelimit")), (200, None));
    let answer = client.get("s.test", "/", &[]).await.unwrap();
    assert_eq!((answer.status(), answer.reason().as_str()), (429, "rate-limited"));
    let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    // Half an hour; buckets count in parts of a call, which round up.
    assert!((1700..=1801).contains(&after), "{after}");
    assert_eq!(answer.header("ratelimit-policy").as_deref(), Some("\"default/l\";q=2;w=3600"));
    assert_eq!(answer.header("ratelimit"), Some(format!("\"default/l\";r=0;t={after}")));
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.starts_with("RateLimit default/l: 2 requests in 3600s, 1 at once"), "{detail}");
    // To gRPC it is RESOURCE_EXHAUSTED.
    let mut grpc = H2::open(sidecar.outbound, &[]).await;
    let outcome = format!("{:?}", grpc.get(1, "s.test", "/", &[("content-type", "application/grpc")]).await);
    assert!(outcome.contains("\"grpc-status\", \"8\"") && outcome.contains("\"retry-after\""), "{outcome}");
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn each_header_value_has_its_own_and_a_dry_run_refuses_nobody() {
    let origin = Origin::plain().await;
    let by = "targets: [{host: s.test}], by: [{header: X-Tenant}]";
    let yaml = service("s.test", origin.port())
        + &limit("tenants", "requests: 3", by)
        + &limit("dry", "requests: 1", "targets: [{host: s.test}], dryRun: true");
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    for headers in [&["x-tenant: a"][..], &["X-TENANT: b"], &[]] {
        assert_eq!(through(sidecar.outbound, "s.test", 6, headers).await, 3, "{headers:?}");
    }
    counted(&sidecar, "pilotfish_rate_limit_keys{limit=\"default/tenants\"}", 3).await;
    counted(&sidecar, "pilotfish_rate_limit_total{limit=\"default/dry\",result=\"would-limit\"}", 8).await;
}

#[tokio::test]
async fn ten_thousand_tenants_and_then_one_bucket_for_all() {
    let origin = Origin::plain().await;
    let yaml = service("s.test", origin.port())
        + &virtual_service("v", "v.test", "- directResponse: {status: 200}")
        + &limit("l", "requests: 1", "targets: [{host: v.test}], by: [{header: x-tenant}]");
    let sidecar = sidecar().yaml("a.yaml", yaml).workers(2).start();
    let before = sidecar.rss();
    let mut clients = JoinSet::new();
    for client in 0..8 {
        let addr = sidecar.outbound;
        clients.spawn(async move {
            let (mut h1, mut count) = (H1::connect(addr).await, 0);
            for number in 0..1400 {
                let tenant = format!("x-tenant: {}{client}-{number}", "long".repeat(50));
                count += usize::from(h1.get("v.test", "/", &[&tenant]).await.unwrap().status() == 200);
            }
            count
        });
    }
    let mut count = 0;
    while let Some(one) = clients.join_next().await {
        count += one.unwrap();
    }
    assert_eq!(count, 10_001, "10,000 have a bucket, and the others share one");
    counted(&sidecar, "pilotfish_rate_limit_keys{limit=\"default/l\"}", 10_000).await;
    let grown = sidecar.rss().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes for 11,200 tenants");
}

#[tokio::test]
async fn each_caller_has_its_own_at_the_agents_sidecar() {
    let (mesh, origin) = (Mesh::new(), Origin::plain().await);
    let inbound = limit("l", "requests: 4", "direction: inbound, by: [caller]");
    let callee = mesh.sidecar("callee").app(origin.addr()).workers(2).yaml("l.yaml", inbound).start();
    let yaml = mesh_service("s.test", "callee", callee.inbound);
    let callers = ["one", "two"].map(|agent| mesh.sidecar(agent).yaml("a.yaml", yaml.clone()).start());
    for caller in &callers {
        // Nobody can take another caller's part by what it says of itself.
        let spoofed = "x-forwarded-client-cert: URI=spiffe://mesh.test/ns/default/agent/two";
        assert_eq!(through(caller.outbound, "s.test", 7, &[spoofed]).await, 4);
    }
    assert_eq!(origin.requests().len(), 8);
    counted(&callee, "pilotfish_rate_limit_keys{limit=\"default/l\"}", 2).await;
}

#[tokio::test]
async fn several_limits_of_one_call_all_hold() {
    let origin = Origin::plain().await;
    let rules = "- name: narrow\n  match: [{uri: {prefix: /narrow}}]\n  route: [{destination: {host: s.test}}]\n\
                 - route: [{destination: {host: s.test}}]\n";
    let yaml = service("s.test", origin.port())
        + &virtual_service("v", "v.test", rules)
        + &limit("narrow", "requests: 2", "targets: [{route: v/narrow}]")
        + &limit("wide", "requests: 5", "targets: [{host: v.test}]");
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let mut client = H1::connect(sidecar.outbound).await;
    let mut statuses = Vec::new();
    for path in ["/narrow", "/narrow", "/narrow", "/narrow", "/", "/", "/", "/"] {
        statuses.push(client.get("v.test", path, &[]).await.unwrap().status());
    }
    // What the narrow limit refused was not taken from the wide one.
    assert_eq!(statuses, [200, 200, 429, 429, 200, 200, 200, 429]);
}
