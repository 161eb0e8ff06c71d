//! Asking for a capability instead of a host: by header, by host, with constraints, and what is said when nobody has it.

use pilotfish_testkit::{Agent, Sidecar, h1};
use tokio::task::JoinSet;

use crate::support::{service_with, sidecar};

const CLUSTER: &str = include_str!("capabilities/cluster.yaml");

async fn start() -> (Sidecar, Vec<Agent>) {
    let mut agents = Vec::new();
    for name in ["nlp", "vision", "both"] {
        agents.push(Agent::start(name).await);
    }
    let labels = [
        "pilotfish.dev/agent: nlp-agent, region: eu, version: 1.2.0",
        "pilotfish.dev/agent: vision-agent, region: us, version: 2.0.0",
        "pilotfish.dev/agent: both-agent, region: us, version: 1.9.0",
    ];
    let yaml: String = ["nlp", "vision", "both"]
        .iter()
        .zip(&agents)
        .zip(labels)
        .map(|((name, agent), labels)| {
            service_with(&format!("{name}.test"), "HTTP", &[(agent.port(), labels)])
        })
        .collect();
    let sidecar = sidecar().yaml("cluster.yaml", CLUSTER).yaml("services.yaml", yaml).start();
    (sidecar, agents)
}

/// Which agents answer to calls of which many are open at once, in order of name. (One after the other, all would go to
/// the quickest.)
async fn who(sidecar: &Sidecar, host: &str, lines: &[&str]) -> Vec<String> {
    let mut calls = JoinSet::new();
    for _ in 0..24 {
        let (addr, host) = (sidecar.outbound, host.to_owned());
        let lines: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
        calls.spawn(async move {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let answer = h1::get(addr, &host, "/delay/50", &lines).await.unwrap();
            assert_eq!(answer.status(), 200, "{lines:?}: {}", answer.text());
            answer.header("x-agent").unwrap_or_default()
        });
    }
    let mut all = calls.join_all().await;
    all.sort();
    all.dedup();
    all
}

#[tokio::test]
async fn the_able_answer() {
    let (sidecar, _agents) = start().await;
    for (lines, want) in [
        (&["agent-capability: natural_language_understanding"][..], &["both", "nlp"][..]),
        (&["agent-capability: image_classification"], &["both", "vision"]),
        (&["agent-capability: natural_language_understanding, image_classification"], &["both"]),
        (&["agent-capability: natural_language_understanding", "agent-constraint: region=eu"], &["nlp"]),
        (&["agent-capability: natural_language_understanding", "agent-constraint: region!=eu"], &["both"]),
        (
            &["agent-capability: natural_language_understanding", "agent-constraint: region in (eu|us)"],
            &["both", "nlp"],
        ),
        (&["agent-capability: natural_language_understanding", "agent-constraint: version=~1.2"], &["nlp"]),
        (
            &[
                "agent-capability: natural_language_understanding",
                "agent-constraint: latency<=5s,success>=0.5",
            ],
            &["both", "nlp"],
        ),
    ] {
        assert_eq!(who(&sidecar, "anything.test", lines).await, want, "{lines:?}");
    }
    let by_host = who(&sidecar, "image_classification.capability.mesh", &[]).await;
    assert_eq!(by_host, ["both", "vision"]);
}

#[tokio::test]
async fn a_constraint_that_nobody_can_read_is_400() {
    let (sidecar, _agents) = start().await;
    for constraint in [
        "latency",
        "latency<fast",
        "flavour<3",
        "region in (eu",
        "latency<5 parsecs",
        "=x",
        "version=~~~1",
        "success>=",
        "a,,b",
    ] {
        let lines = ["agent-capability: image_classification", &format!("agent-constraint: {constraint}")];
        let answer = h1::get(sidecar.outbound, "x.test", "/", &lines).await.unwrap();
        assert_eq!(
            (answer.status(), answer.reason().as_str()),
            (400, "bad-constraint"),
            "{constraint}: {}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn when_nobody_qualifies_each_candidate_is_explained() {
    let (sidecar, _agents) = start().await;
    let lines = ["agent-capability: image_classification", "agent-constraint: region=mars"];
    let answer = h1::get(sidecar.outbound, "x.test", "/", &lines).await.unwrap();
    assert_eq!((answer.status(), answer.reason().as_str()), (503, "nobody-qualifies"));
    assert_eq!(answer.header("content-type").as_deref(), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!(problem["status"], 503, "{problem}");
    let text = problem.to_string();
    assert!(
        text.contains("vision-agent") && text.contains("both-agent") && text.contains("region"),
        "{text}"
    );
    let unknown =
        h1::get(sidecar.outbound, "x.test", "/", &["agent-capability: teleportation"]).await.unwrap();
    assert_eq!((unknown.status(), unknown.reason().as_str()), (503, "nobody-qualifies"));
}
