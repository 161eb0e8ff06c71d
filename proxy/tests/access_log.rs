//! The access log of the real sidecar: its lines, what they never have, who switches it on and off, and OpenTelemetry's records.

use std::path::PathBuf;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use pilotfish_testkit::origin::send;
use pilotfish_testkit::{H1, Origin, Sidecar};
use prost::Message as _;
use serde_json::Value;

use crate::support::{service, sidecar};

/// A sidecar that logs to a file, and the file's folder.
struct Logging {
    sidecar: Sidecar,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Logging {
    /// With these documents and flags.
    fn start(yaml: &str, flags: &[&str]) -> Logging {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("access.log");
        let to = ["--access-log-file", file.to_str().unwrap()];
        let sidecar = sidecar().yaml("a.yaml", yaml).args(&to).args(flags).start();
        Logging { sidecar, file, _folder: folder }
    }

    /// The lines, once there are so many.
    async fn lines(&self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..1500 {
            let text = std::fs::read_to_string(&self.file).unwrap_or_default();
            lines = text.lines().map(str::to_owned).collect();
            if lines.len() >= count && text.ends_with('\n') {
                assert_eq!(lines.len(), count, "{text}");
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{count} lines expected: {lines:?}");
    }

    async fn json(&self, count: usize) -> Vec<Value> {
        self.lines(count).await.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn get(&self, host: &str, target: &str, headers: &[&str]) -> u16 {
        H1::connect(self.sidecar.outbound).await.get(host, target, headers).await.unwrap().status()
    }
}

fn telemetry(name: &str, access_logging: &str) -> String {
    format!(
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: {name}}}\nspec: {{accessLogging: [{access_logging}]}}\n---\n"
    )
}

/// Answers 503 to paths that begin with `/bad`, else 200.
async fn origin() -> Origin {
    Origin::start(|request, _| {
        let status = if request.target().starts_with("/bad") { "503 Service Unavailable" } else { "200 OK" };
        vec![send(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nhi"))]
    })
    .await
}

#[tokio::test]
async fn a_line_tells_what_happened_and_no_secret() {
    let origin = origin().await;
    let log = Logging::start(&service("a.test", origin.port()), &["--access-log", "json"]);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let context = format!("traceparent: 00-{trace}-00f067aa0ba902b7-01");
    let headers =
        [context.as_str(), "x-request-id: r1", "authorization: Bearer hunter2", "cookie: a=hunter2"];
    let long = "x".repeat(300);
    log.get("a.test", &format!("/v1/{long}/sk-proj-0123456789abcdef?key=hunter2"), &headers).await;
    log.get("nobody.test", "/", &["x-request-id: r2"]).await;
    let lines = log.json(2).await;
    let first = &lines[0];
    assert_eq!(first["path"], format!("/v1/{long}/REDACTED"), "whole, but for what looks like a key");
    assert_eq!(
        (&first["status"], &first["response_bytes"], &first["tries"]),
        (&200.into(), &2.into(), &1.into())
    );
    assert_eq!((first["trace_id"].as_str(), first["request_id"].as_str()), (Some(trace), Some("r1")));
    assert_eq!(first["endpoint"], format!("127.0.0.1:{}", origin.port()));
    assert_eq!(
        (first["direction"].as_str(), first["protocol"].as_str()),
        (Some("outbound"), Some("HTTP/1.1"))
    );
    assert!(first["rule"].as_str().unwrap().contains("a-test"), "{first}");
    assert!(first["duration_us"].as_u64().unwrap() > 0);
    let second = &lines[1];
    assert_eq!((second["status"].as_u64(), second["request_id"].as_str()), (Some(404), Some("r2")));
    assert!(second["reason"].is_string() && second.get("endpoint").is_none(), "{second}");
    assert!(!log.lines(2).await.concat().contains("hunter2"));
}

#[tokio::test]
async fn fields_and_a_filter_are_chosen_by_flags() {
    let origin = origin().await;
    let filter = "response.code >= 500 || request.headers['X-Tenant'] == 'a'";
    let flags =
        ["--access-log", "text", "--access-log-fields", "status,path,method", "--access-log-filter", filter];
    let log = Logging::start(&service("a.test", origin.port()), &flags);
    log.get("a.test", "/good", &[]).await;
    log.get("a.test", "/bad", &[]).await;
    log.get("a.test", "/mine", &["x-tenant: a"]).await;
    log.get("a.test", "/theirs", &["x-tenant: b"]).await;
    log.get("a.test", "/bad/last", &[]).await;
    let lines = log.lines(3).await;
    let told: Vec<&str> =
        lines.iter().filter_map(|line| line.split_once(' ')).map(|(_, rest)| rest).collect();
    assert_eq!(
        told,
        [
            "status=503 path=/bad method=GET",
            "status=200 path=/mine method=GET",
            "status=503 path=/bad/last method=GET"
        ]
    );
}

#[tokio::test]
async fn bad_flags_are_refused_with_what_is_meant() {
    for (flags, error) in [
        (["--access-log-fields", "status,pth"], "there is no field `pth`; did you mean `path`?"),
        (
            ["--access-log-filter", "response.cod > 1"],
            "column 1: there is no attribute `response.cod`; did you mean `response.code`?",
        ),
    ] {
        let (_, said) = sidecar().yaml("a.yaml", "").args(&flags).start_to_fail();
        assert!(said.contains(error), "{said}");
    }
}

#[tokio::test]
async fn documents_switch_it_on_and_off_without_a_restart() {
    let origin = origin().await;
    let service = service("a.test", origin.port());
    let only_bad = "{match: {mode: CLIENT}, filter: {expression: response.code >= 500}}";
    let log = Logging::start(&(service.clone() + &telemetry("t", only_bad)), &[]);
    log.get("a.test", "/good", &[]).await;
    log.get("a.test", "/bad/1", &[]).await;
    assert!(
        log.lines(1).await[0].contains("path=/bad/1 status=503"),
        "as text, on because a document says so"
    );
    log.sidecar.rewrite("a.yaml", &(service.clone() + &telemetry("t", "{disabled: true}")));
    crate::support::wait_metric(&log.sidecar, "pilotfish_config_accepted_total", 2).await;
    log.get("a.test", "/bad/2", &[]).await;
    log.sidecar.rewrite("a.yaml", &(service + &telemetry("t", "{}")));
    crate::support::wait_metric(&log.sidecar, "pilotfish_config_accepted_total", 3).await;
    log.get("a.test", "/good/3", &[]).await;
    let lines = log.lines(2).await;
    assert!(lines[1].contains("path=/good/3"), "{lines:?}");
}

/// The log records that a collector got.
fn records(collector: &Origin) -> Vec<LogRecord> {
    let mut records = Vec::new();
    for request in collector.requests().iter().filter(|request| request.target() == "/v1/logs") {
        let message = ExportLogsServiceRequest::decode(&*request.body).unwrap();
        let scopes = message.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
        records.extend(scopes.flat_map(|scope| scope.log_records));
    }
    records
}

#[tokio::test]
async fn a_collector_gets_records_of_calls() {
    let (origin, collector) = (origin().await, Origin::plain().await);
    let endpoint = format!("http://127.0.0.1:{}", collector.port());
    let flags = [
        "--access-log-otlp",
        "--otlp-endpoint",
        &endpoint,
        "--access-log-filter",
        "request.url_path != '/quiet'",
    ];
    let log = Logging::start(&service("a.test", origin.port()), &flags);
    log.get("a.test", "/quiet", &[]).await;
    log.get("a.test", "/bad?token=hunter2", &[]).await;
    let mut found = Vec::new();
    for _ in 0..1500 {
        found = records(&collector);
        if !found.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let [record] = &found[..] else { panic!("{found:?}") };
    let attribute = |name: &str| {
        let found = record.attributes.iter().find(|one| one.key == name)?;
        found.value.as_ref()?.value.clone()
    };
    assert_eq!(attribute("url.path"), Some(Any::StringValue("/bad".into())));
    assert_eq!(attribute("http.response.status_code"), Some(Any::IntValue(503)));
    assert_eq!(
        (record.severity_text.as_str(), record.trace_id.len(), record.span_id.len()),
        ("ERROR", 16, 8)
    );
    assert!(!log.file.exists(), "no lines were asked for");
}

#[tokio::test]
async fn what_cannot_be_parsed_is_told_of_too() {
    let log = Logging::start("", &["--access-log", "json"]);
    let mut caller = H1::connect(log.sidecar.outbound).await;
    let answer = caller.ask("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").await.unwrap();
    let line = &log.json(1).await[0];
    assert_eq!((line["status"].as_u64(), line["method"].as_str()), (Some(answer.status().into()), Some("")));
    assert_eq!(line["reason"].as_str(), Some(answer.reason().as_str()));
}
