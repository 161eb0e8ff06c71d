//! Analysis from outside: spans are sent, then asked about.

use pilotfish_control::api::analysis::{Comparison, TraceAnalysis, WorkflowAnalysis};

use crate::mesh::pilotfish;
use crate::server_traces::{bytes, post, request, span};
use crate::support::{Http, Serve};

const PROTOBUF: &str = "application/x-protobuf";

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_and_its_workflow_say_where_their_time_went() {
    let serve = Serve::start(&[]);
    let mut root = span(1, 1, 0, "plan", 900);
    root.attributes = workflow("w-7");
    let mut slow = span(1, 2, 1, "summarize", 700);
    slow.status = Some(opentelemetry_proto::tonic::trace::v1::Status { code: 2, message: "no room".into() });
    slow.kind = 1;
    assert_eq!(post(&serve, PROTOBUF, bytes("planner", vec![root])).await.status, 200);
    assert_eq!(post(&serve, PROTOBUF, bytes("summarizer", vec![slow])).await.status, 200);
    let id = "01".repeat(16);
    let mut http = Http::socket(&serve).await;
    let one: TraceAnalysis = http.get(&format!("/v1/analysis?trace={id}")).await.ok();
    assert_eq!((one.trace.as_str(), one.spans, one.errors), (id.as_str(), 2, 1));
    assert_eq!(one.agents[0].agent.rsplit('/').next(), Some("summarizer"), "{one:?}");
    assert_eq!(one.root_cause.as_ref().map(|cause| cause.why.as_str()), Some("no room"));
    let path: u64 = one.critical_path.iter().map(|piece| piece.duration_ns).sum();
    assert_eq!(path, one.total_ns);
    let all: WorkflowAnalysis = http.get("/v1/analysis?workflow=w-7").await.ok();
    assert_eq!((all.traces, all.failed, all.spans), (1, 1, 2));
    let told = pilotfish(&serve, &["analyze", &id]);
    assert!(
        told.contains("CRITICAL PATH") && told.contains("summarize") && told.contains("no room"),
        "{told}"
    );
    let told = pilotfish(&serve, &["analyze", "--workflow", "w-7", "-o", "wide"]);
    assert!(told.contains("w-7: 1 trace, 1 failed") && told.contains(&id), "{told}");

    for (query, status, why) in [
        ("", 400, "give one of"),
        ("?trace=1&workflow=w", 400, "give one of"),
        ("?trace=xyz", 400, "32 hexadecimal"),
        ("?tracee=1", 400, "unknown parameter"),
        ("?trace=02020202020202020202020202020202", 404, "no trace"),
        ("?workflow=none", 404, "no trace of the workflow"),
    ] {
        let said = http.get(&format!("/v1/analysis{query}")).await.refused(status);
        assert!(said.contains(why), "{query}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_windows_are_compared() {
    let serve = Serve::start(&[]);
    // An hour ago a call took 10 ms and did not fail; now it takes 300 ms.
    let ago = 3600 * 1_000_000_000;
    let (mut before, mut now) = (Vec::new(), Vec::new());
    for number in 1..=40 {
        let mut old = span(number, 1, 0, "GET /", 10 + u64::from(number % 3));
        (old.start_time_unix_nano, old.end_time_unix_nano) =
            (old.start_time_unix_nano - ago, old.end_time_unix_nano - ago);
        before.push(old);
        now.push(span(100 + number, 1, 0, "GET /", 300 + u64::from(number % 3)));
    }
    before.extend(now);
    let body = prost::Message::encode_to_vec(&request("search", before));
    assert_eq!(post(&serve, PROTOBUF, body).await.status, 200);
    let mut http = Http::socket(&serve).await;
    let told: Comparison = http.get("/v1/changes?window=10m&since=1h").await.ok();
    assert_eq!((told.now.traces, told.before.traces), (40, 40), "{told:?}");
    assert_eq!(told.changes.len(), 1);
    assert!(told.changes[0].finding.starts_with("p50 30"), "{told:?}");
    let shown = pilotfish(&serve, &["compare", "--window", "10m", "--against", "1h", "--all"]);
    assert!(shown.contains("slower") && shown.contains("GET /"), "{shown}");
    for bad in ["?window=0s", "?window=soon", "?since=9000h", "?against=1h"] {
        http.get(&format!("/v1/changes{bad}")).await.refused(400);
    }
}

fn workflow(id: &str) -> Vec<opentelemetry_proto::tonic::common::v1::KeyValue> {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
    let value = Some(AnyValue { value: Some(Value::StringValue(id.into())) });
    vec![KeyValue { key: "pilotfish.workflow.id".into(), value, ..KeyValue::default() }]
}
