//! What the agent writes: where it goes, and that too much of it hurts nobody.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use pilotfish_testkit::h1;
use pilotfish_testkit::origin::{Origin, ok};
use prost::Message as _;

use super::agent::{Place, until};
use crate::support::metric;

#[tokio::test]
async fn lines_go_to_the_sidecars_own_output_or_to_a_file() {
    let place = Place::new();
    let sidecar = place.sidecar("say=to stderr,serve").start();
    place.ready(&sidecar).await;
    assert!(sidecar.wait_stderr(Duration::from_secs(10), |line| line == "to stderr").is_some());
    let place = Place::new();
    let sidecar = place.sidecar_with("say=to stderr,out=to stdout,serve", &["--agent-log", "file"]).start();
    place.ready(&sidecar).await;
    let log = place.file("state/agent.log");
    until("both lines are in the file", async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        ["to stderr", "to stdout"].iter().all(|line| text.lines().any(|own| own == *line))
    })
    .await;
    assert!(!sidecar.stderr().iter().any(|line| line == "to stderr"));
}

#[tokio::test]
async fn a_flood_is_dropped_and_counted_and_nobody_waits() {
    let place = Place::new();
    let sidecar = place.sidecar_with("flood,serve", &["--agent-log", "file"]).start();
    place.ready(&sidecar).await;
    until("the agent wrote 100,000 lines", async || place.says("flooded")).await;
    assert!(metric(&sidecar, "pilotfish_agent_log_dropped_total").await > 50_000);
    let served = h1::get(sidecar.inbound, "tester", "/", &[]).await.unwrap();
    assert_eq!(served.status(), 200);
    assert!(sidecar.rss() < 64 << 20, "{}", sidecar.rss());
    let log = std::fs::metadata(place.file("state/agent.log")).unwrap().len();
    assert!(log <= 8 << 20, "{log}");
}

#[tokio::test]
async fn lines_that_name_a_trace_become_log_records_of_it() {
    let collector = Origin::start(|_, _| ok("")).await;
    let place = Place::new();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let does = format!("say=nothing to do with it,say=ERROR trace_id={trace} the model is gone,serve");
    let endpoint = format!("http://{}", collector.addr());
    let sidecar =
        place.sidecar_with(&does.replace("trace_id=", "trace_id:"), &["--otlp-endpoint", &endpoint]).start();
    place.ready(&sidecar).await;
    let records = || {
        let sent = collector.requests();
        let logs = sent.iter().filter(|request| request.target().ends_with("/v1/logs"));
        let all =
            logs.flat_map(|request| ExportLogsServiceRequest::decode(&*request.body).unwrap().resource_logs);
        all.flat_map(|all| all.scope_logs).flat_map(|scope| scope.log_records).collect::<Vec<_>>()
    };
    until("a record came", async || !records().is_empty()).await;
    let records = records();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(data_encoding::HEXLOWER.encode(&records[0].trace_id), trace);
    assert_eq!((&*records[0].severity_text, records[0].attributes.len()), ("ERROR", 1));
}
