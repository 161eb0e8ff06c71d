//! What is read of a request's content: JSON-RPC, A2A, MCP and OpenAI calls keep their conversation on one agent, while the
//! content streams on; what cannot be read is unknown, never an error.

use std::collections::BTreeSet;
use std::time::Duration;

use pilotfish_testkit::{Agent, H1, Origin, Sidecar};

use crate::support::{destination_rule, service, service_with, sidecar};

const HASH: &str =
    "trafficPolicy: { loadBalancer: { consistentHash: { httpHeaderName: agent-affinity-key } } }";

/// Six agents behind a host whose conversations stick by what `pilotfish.dev/affinity` names.
async fn start(affinity: &str) -> (Sidecar, Vec<Agent>) {
    let mut agents = Vec::new();
    for i in 0..6 {
        agents.push(Agent::start(&format!("a{i}")).await);
    }
    let endpoints: Vec<(u16, &str)> = agents.iter().map(|a| (a.port(), "")).collect();
    let rule = destination_rule("s", "s.test", "trafficPolicy: { loadBalancer: { simple: ROUND_ROBIN } }")
        .replace(
            "metadata:\n  name: s\n",
            &format!("metadata:\n  name: s\n  annotations: {{ pilotfish.dev/affinity: {affinity} }}\n"),
        );
    let sidecar = sidecar().yaml("a.yaml", service_with("s.test", "HTTP", &endpoints) + &rule).start();
    (sidecar, agents)
}

async fn post(client: &mut H1, lines: &str, body: &str) -> (u16, String, usize) {
    let request = format!(
        "POST /rpc HTTP/1.1\r\nHost: s.test\r\nContent-Type: application/json\r\n{lines}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = client.ask(request).await.unwrap();
    let seen = usize::try_from(answer.json()["body_len"].as_u64().unwrap_or(0)).unwrap();
    (answer.status(), answer.header("x-agent").unwrap_or_default(), seen)
}

/// Each of twelve keys must stay on one agent, and together they must reach several.
async fn sticks(sidecar: &Sidecar, call: impl Fn(usize, usize) -> (String, String)) {
    let mut client = H1::connect(sidecar.outbound).await;
    let mut reached = BTreeSet::new();
    for key in 0..12 {
        let mut agents = BTreeSet::new();
        for turn in 0..4 {
            let (lines, body) = call(key, turn);
            let (status, agent, seen) = post(&mut client, &lines, &body).await;
            assert_eq!((status, seen), (200, body.len()), "the content arrives whole");
            agents.insert(agent);
        }
        assert_eq!(agents.len(), 1, "key {key} moved: {agents:?}");
        reached.extend(agents);
    }
    assert!(reached.len() > 2, "all keys went to {reached:?}");
}

#[tokio::test]
async fn an_a2a_context_stays() {
    let (sidecar, _agents) = start("contextId").await;
    sticks(&sidecar, |key, turn| {
        let message = format!(
            r#"{{"jsonrpc":"2.0","id":{turn},"method":"message/send","params":{{"message":{{"messageId":"m{key}-{turn}","contextId":"c{key}","role":"user","parts":[{{"kind":"text","text":"\u00e4 \"hi\" {{"}}]}}}}}}"#
        );
        (String::new(), message)
    })
    .await;
}

#[tokio::test]
async fn an_mcp_session_stays() {
    let (sidecar, _agents) = start("session").await;
    sticks(&sidecar, |key, turn| {
        let call = format!(r#"{{"jsonrpc":"2.0","id":{turn},"method":"tools/call","params":{{"name":"t","arguments":{{}}}}}}"#);
        (format!("Mcp-Session-Id: session-{key}\r\n"), call)
    })
    .await;
}

#[tokio::test]
async fn an_openai_user_stays() {
    let (sidecar, _agents) = start("user").await;
    sticks(&sidecar, |key, turn| {
        let messages = r#"[{"role":"user","content":"hello"}]"#;
        (
            String::new(),
            format!(r#"{{"model":"m","stream":false,"messages":{messages},"n":{turn},"user":"u{key}"}}"#),
        )
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_read_is_unknown_and_passes_whole() {
    let (sidecar, _agents) = start("contextId").await;
    let mut client = H1::connect(sidecar.outbound).await;
    let deep = "[".repeat(50_000);
    let large = format!(r#"{{"pad":"{}","contextId":"late"}}"#, "x".repeat(300_000));
    let nested = format!(r#"{{"params":{}1{}}}"#, r#"{"a":"#.repeat(500), "}".repeat(500));
    let strange = [
        "",
        "{",
        "null",
        "[]",
        "{\"contextId\":5}",
        "\u{0}\u{1}",
        "{\"a\":\"\\ud800\"}",
        &deep,
        &large,
        &nested,
    ];
    for body in strange {
        let (status, _, seen) = post(&mut client, "", body).await;
        assert_eq!((status, seen), (200, body.len()), "{:?}", &body[..body.len().min(40)]);
    }
}

#[tokio::test]
async fn content_that_comes_slowly_is_not_waited_for_without_need() {
    // Nothing of this host asks for the content, so the head goes on at once.
    let origin = Origin::plain().await;
    let yaml = service("s.test", origin.port()) + &destination_rule("s", "s.test", HASH);
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let mut client = H1::connect(sidecar.outbound).await;
    client.send("POST /slow HTTP/1.1\r\nHost: s.test\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{").await;
    let arrived = async {
        while origin.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), arrived).await.expect("the head is held back");
}
