//! Traces of real sidecars, which nobody told where to send them: the control plane keeps them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pilotfish_testkit::{Agent, h1};
use serde_json::Value;

use crate::mesh::{binary, sidecar};
use crate::support::http::Http;
use crate::support::serve::Serve;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// The trace once it has so many spans: `agent kind` of each span, and of its parent.
async fn trace(control: &Serve, spans: usize) -> BTreeMap<String, (String, Value)> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let reply = Http::socket(control).await.get(&format!("/v1/traces/{TRACE}")).await;
        let shown: Value = if reply.status == 200 { reply.json() } else { Value::Null };
        let mut found = BTreeMap::new();
        for group in shown["resourceSpans"].as_array().unwrap_or(&Vec::new()) {
            let attributes = group["resource"]["attributes"].as_array().unwrap();
            let agent = attributes.iter().find(|one| one["key"] == "service.name").unwrap();
            for span in group["scopeSpans"][0]["spans"].as_array().unwrap() {
                let kind = if span["kind"] == 2 { "SERVER" } else { "CLIENT" };
                let name = format!("{} {kind}", agent["value"]["stringValue"].as_str().unwrap());
                found.insert(span["spanId"].as_str().unwrap().to_owned(), (name, span.clone()));
            }
        }
        if found.len() >= spans {
            return found;
        }
        assert!(Instant::now() < until, "{} of {spans} spans: {found:#?}", found.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_call_between_two_agents_is_one_trace_at_the_control_plane() {
    let Some(binary) = binary() else { return };
    let control = Serve::start(&[]);
    let agent = Agent::start("planner").await;
    let planner = sidecar(&binary, &control, "planner").app(agent.addr()).args(&["--capability", "planning"]);
    let (planner, caller) = (planner.launch(), sidecar(&binary, &control, "caller").launch());
    let (_planner, caller) = (planner.ready().await, caller.ready().await);
    let until = Instant::now() + Duration::from_secs(20);
    let parent = format!("traceparent: 00-{TRACE}-b7ad6b7169203331-01");
    loop {
        // Only the call that succeeds is of this trace.
        let headers = ["agent-capability: planning"];
        let host = "planning.capability.mesh";
        if h1::get(caller.outbound, host, "/", &headers).await.is_ok_and(|answer| answer.status() == 200) {
            let headers = ["agent-capability: planning", parent.as_str(), "agent-workflow: w-1"];
            assert_eq!(h1::get(caller.outbound, host, "/plan", &headers).await.unwrap().status(), 200);
            break;
        }
        assert!(Instant::now() < until, "nobody is able to plan");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let spans = trace(&control, 4).await;
    let mut edges: Vec<String> = spans
        .values()
        .map(|(name, span)| {
            let parent = spans.get(span["parentSpanId"].as_str().unwrap_or_default());
            format!("{} <- {name}", parent.map_or("outside", |(name, _)| name))
        })
        .collect();
    edges.sort();
    let expected = [
        "caller CLIENT <- planner SERVER",
        "caller SERVER <- caller CLIENT",
        "outside <- caller SERVER",
        "planner SERVER <- planner CLIENT",
    ];
    assert_eq!(edges, expected);
    let (_, server) = spans.values().find(|(name, _)| name == "planner SERVER").unwrap();
    let value = |key: &str| {
        let attributes = server["attributes"].as_array().unwrap();
        attributes.iter().find(|one| one["key"] == key).map(|one| one["value"]["stringValue"].clone())
    };
    assert_eq!(value("pilotfish.caller"), Some("default/caller".into()));
    assert_eq!(value("pilotfish.workflow.id"), Some("w-1".into()));
    assert_eq!(value("pilotfish.direction"), Some("inbound".into()));
}
