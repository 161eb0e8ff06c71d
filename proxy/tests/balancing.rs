//! Which destination and endpoint a request reaches: weights, subsets, affinity, the mesh file as it was given to us.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use pilotfish_testkit::{Agent, H1, Sidecar};

use crate::support::{destination_rule, service_with, sidecar, virtual_service};

/// The owners' example, as it is.
const MESH: &str = include_str!("balancing/agent-service-mesh.yaml");

/// Agents and the labels of their endpoints.
async fn agents(names: &[&str]) -> Vec<Agent> {
    let mut all = Vec::new();
    for name in names {
        all.push(Agent::start(name).await);
    }
    all
}

fn endpoints<'a>(agents: &[Agent], labels: &[&'a str]) -> Vec<(u16, &'a str)> {
    agents.iter().zip(labels).map(|(a, l)| (a.port(), *l)).collect()
}

/// Asks `n` times on one connection; which agent answered how often.
async fn spread(
    addr: SocketAddr,
    host: &str,
    n: usize,
    headers: impl Fn(usize) -> Vec<String>,
) -> BTreeMap<String, usize> {
    let (mut client, mut counts) = (H1::connect(addr).await, BTreeMap::new());
    for i in 0..n {
        let headers = headers(i);
        let lines: Vec<&str> = headers.iter().map(String::as_str).collect();
        let answer = client.get(host, "/", &lines).await.unwrap();
        assert_eq!(answer.status(), 200, "{:?} {}", answer.reason(), answer.text());
        *counts.entry(answer.header("x-agent").unwrap_or_default()).or_default() += 1;
    }
    counts
}

fn share(counts: &BTreeMap<String, usize>, names: &[&str]) -> f64 {
    let of: usize = names.iter().filter_map(|n| counts.get(*n)).sum();
    of as f64 / counts.values().sum::<usize>() as f64
}

struct Mesh {
    sidecar: Sidecar,
    _agents: Vec<Agent>,
}

/// The mesh file with endpoints that only carry the labels `version: v1|v2`.
async fn mesh() -> Mesh {
    let agents = agents(&["v1a", "v1b", "v2a", "stream"]).await;
    let nlp = endpoints(&agents[..3], &["version: v1", "version: v1", "version: v2"]);
    let yaml = service_with("nlp-agent-service", "HTTP", &nlp)
        + &service_with("streaming-agent-service", "HTTP", &[(agents[3].port(), "")]);
    let sidecar = sidecar().yaml("mesh.yaml", MESH).yaml("services.yaml", yaml).start();
    Mesh { sidecar, _agents: agents }
}

#[tokio::test]
async fn the_mesh_file_splits_80_to_20() {
    let mesh = mesh().await;
    let typed = |i: usize| vec!["agent-type: nlp-agent".into(), format!("agent-affinity-key: key-{i}")];
    let counts = spread(mesh.sidecar.outbound, "agent-communication", 2000, typed).await;
    let v1 = share(&counts, &["v1a", "v1b"]);
    // Four standard deviations of a fair draw of 2000.
    assert!((v1 - 0.8).abs() < 0.036, "{counts:?}");
    let plain =
        spread(mesh.sidecar.outbound, "agent-communication", 1000, |_| vec!["agent-type: nlp-agent".into()])
            .await;
    assert!(
        (share(&plain, &["v1a", "v1b"]) - 0.8).abs() < 0.051,
        "without a key the weights hold too: {plain:?}"
    );
}

#[tokio::test]
async fn the_mesh_file_sends_streams_elsewhere_and_refuses_the_rest() {
    let mesh = mesh().await;
    let counts = spread(mesh.sidecar.outbound, "agent-communication", 5, |_| {
        vec!["communication-pattern: streaming".into()]
    })
    .await;
    assert_eq!(counts.get("stream"), Some(&5));
    let answer =
        pilotfish_testkit::h1::get(mesh.sidecar.outbound, "agent-communication", "/", &[]).await.unwrap();
    assert_eq!((answer.status(), answer.reason().as_str()), (404, "no-route"));
}

#[tokio::test]
async fn the_mesh_file_keeps_a_conversation_on_one_agent() {
    let mesh = mesh().await;
    let mut seen = BTreeSet::new();
    for key in 0..20 {
        let line =
            move |_| vec!["agent-type: nlp-agent".into(), format!("agent-affinity-key: conversation-{key}")];
        let counts = spread(mesh.sidecar.outbound, "agent-communication", 10, line).await;
        assert_eq!(counts.len(), 1, "key {key} went to {counts:?}");
        seen.extend(counts.into_keys());
    }
    assert_eq!(seen.len(), 3, "twenty keys reach all three agents: {seen:?}");
}

#[tokio::test]
async fn strict_istio_leaves_the_mesh_file_dead() {
    let agents = agents(&["v1"]).await;
    let yaml = service_with("nlp-agent-service", "HTTP", &[(agents[0].port(), "version: v1")]);
    let sidecar =
        sidecar().yaml("mesh.yaml", MESH).yaml("services.yaml", yaml).args(&["--strict-istio"]).start();
    let answer =
        pilotfish_testkit::h1::get(sidecar.outbound, "agent-communication", "/", &["agent-type: nlp-agent"])
            .await;
    assert_eq!(answer.unwrap().status(), 503);
}

#[tokio::test]
async fn weights_and_subsets_are_kept() {
    let agents = agents(&["a", "b", "c"]).await;
    let yaml = [
        service_with(
            "s.test",
            "HTTP",
            &endpoints(&agents, &["version: one", "version: two", "version: two"]),
        ),
        destination_rule(
            "s",
            "s.test",
            "subsets:\n- { name: one, labels: { version: one } }\n- { name: two, labels: { version: two } }",
        ),
        virtual_service(
            "w",
            "w.test",
            "
- match: [{ uri: { prefix: / }, headers: { never: { exact: 'no' } } }]
  route: [{ destination: { host: s.test } }]
- route:
  - { destination: { host: s.test, subset: one }, weight: 10 }
  - { destination: { host: s.test, subset: two }, weight: 90 }
  - { destination: { host: s.test, subset: gone }, weight: 0 }",
        ),
    ];
    let sidecar = sidecar().yaml("a.yaml", yaml.concat()).start();
    let counts = spread(sidecar.outbound, "w.test", 1000, |_| vec![]).await;
    assert!((share(&counts, &["a"]) - 0.1).abs() < 0.04, "{counts:?}");
    let direct = spread(sidecar.outbound, "s.test", 300, |_| vec![]).await;
    assert_eq!(direct.len(), 3, "a known host has a default route: {direct:?}");
}

#[tokio::test]
async fn round_robin_goes_round() {
    let agents = agents(&["a", "b", "c"]).await;
    let yaml = service_with("s.test", "HTTP", &endpoints(&agents, &["", "", ""]))
        + &destination_rule("s", "s.test", "trafficPolicy: { loadBalancer: { simple: ROUND_ROBIN } }");
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let counts = spread(sidecar.outbound, "s.test", 30, |_| vec![]).await;
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [10, 10, 10]);
}

#[tokio::test]
async fn every_hash_key_sticks() {
    let agents = agents(&["a", "b", "c", "d"]).await;
    let policies = [
        ("header.test", "httpHeaderName: x-key"),
        ("query.test", "httpQueryParameterName: key"),
        ("source.test", "useSourceIp: true"),
        ("maglev.test", "httpHeaderName: x-key\n      maglev: { tableSize: 251 }"),
        ("ring.test", "httpHeaderName: x-key\n      ringHash: { minimumRingSize: 512 }"),
    ];
    let yaml: String = policies
        .iter()
        .map(|(host, hash)| {
            let policy = format!("trafficPolicy:\n  loadBalancer:\n    consistentHash:\n      {hash}");
            service_with(host, "HTTP", &endpoints(&agents, &["", "", "", ""]))
                + &destination_rule(&host.replace('.', "-"), host, &policy)
        })
        .collect();
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let mut client = H1::connect(sidecar.outbound).await;
    for (host, _) in policies {
        let mut reached = BTreeSet::new();
        for key in 0..24 {
            let (target, line) = (format!("/?key=k{key}"), format!("x-key: k{key}"));
            let mut agents = BTreeSet::new();
            for _ in 0..4 {
                let answer = client.get(host, &target, &[&line]).await.unwrap();
                agents.insert(answer.header("x-agent").unwrap_or_default());
            }
            assert_eq!(agents.len(), 1, "{host}: key {key} moved: {agents:?}");
            reached.extend(agents);
        }
        let want = if host == "source.test" { 1..2 } else { 3..5 };
        assert!(want.contains(&reached.len()), "{host} reached {reached:?}");
    }
}

#[tokio::test]
async fn a_cookie_is_issued_once_and_sticks() {
    let agents = agents(&["a", "b", "c", "d"]).await;
    let policy = "trafficPolicy:\n  loadBalancer:\n    consistentHash:\n      httpCookie: { name: agent, path: /here, ttl: 60s }";
    let yaml = service_with("s.test", "HTTP", &endpoints(&agents, &["", "", "", ""]))
        + &destination_rule("s", "s.test", policy);
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let mut client = H1::connect(sidecar.outbound).await;
    let mut cookies = BTreeSet::new();
    for _ in 0..6 {
        let first = client.get("s.test", "/", &[]).await.unwrap();
        let cookie = first.header("set-cookie").expect("a cookie is issued");
        let lower = cookie.to_ascii_lowercase();
        assert!(
            lower.starts_with("agent=") && lower.contains("path=/here") && lower.contains("max-age=60"),
            "{cookie}"
        );
        let pair = cookie.split(';').next().unwrap_or("").to_owned();
        for _ in 0..5 {
            let again = client.get("s.test", "/", &[&format!("Cookie: x=y; {pair}")]).await.unwrap();
            assert_eq!(again.header("x-agent"), first.header("x-agent"), "{pair} moved");
            assert_eq!(again.header("set-cookie"), None);
        }
        cookies.insert(pair);
    }
    assert!(cookies.len() > 1, "every newcomer gets a cookie of its own");
}
