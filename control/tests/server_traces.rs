//! Traces from outside: what sidecars and others send, what is refused, who may read.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData};
use pilotfish_control::traces::store::Summary;
use prost::Message;
use serde_json::Value as Json;

use crate::support::http::handshake;
use crate::support::sidecar::joined;
use crate::support::{Http, Reply, Serve};

const PROTOBUF: &str = "application/x-protobuf";

pub fn nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

/// The span `id` of the trace `trace`, which took `ms` milliseconds.
pub fn span(trace: u8, id: u8, parent: u8, name: &str, ms: u64) -> Span {
    let end = nanos();
    Span {
        trace_id: vec![trace; 16],
        span_id: vec![id; 8],
        parent_span_id: if parent == 0 { Vec::new() } else { vec![parent; 8] },
        name: name.into(),
        kind: 2,
        start_time_unix_nano: end - ms * 1_000_000,
        end_time_unix_nano: end,
        ..Span::default()
    }
}

pub fn request(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let resource = Resource { attributes: vec![text("service.name", service)], ..Resource::default() };
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let spans = ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![spans] }
}

pub fn bytes(service: &str, spans: Vec<Span>) -> Vec<u8> {
    request(service, spans).encode_to_vec()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Posts to OTLP over HTTP on loopback.
pub async fn post(serve: &Serve, kind: &str, body: impl Into<Bytes>) -> Reply {
    let mut http = Http::plain(serve.otlp_http.unwrap()).await.with("content-type", kind);
    http.ask("POST", "/v1/traces", body).await
}

async fn traces(serve: &Serve, query: &str) -> Vec<Summary> {
    Http::socket(serve).await.get(&format!("/v1/traces{query}")).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_speaks_for_its_agent_and_nobody_else_does() {
    let serve = Serve::start(&[]);
    let own = joined(&serve, "prod", "planner").await;
    let mut http = Http::tls(&serve, Some(&own)).await.with("content-type", PROTOBUF);
    let mut first = span(1, 1, 0, "POST /plan", 700);
    first.status = Some(Status { code: 2, message: "broken".into() });
    let sent = bytes("victim", vec![first, span(1, 2, 1, "POST", 600)]);
    let reply = http.ask("POST", "/v1/otlp/traces", sent.clone()).await;
    assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0), "{}", reply.text());
    assert_eq!(reply.headers["content-type"], PROTOBUF);
    // The same once more, compressed: each span is there once.
    http.headers.insert("content-encoding", "gzip".parse().unwrap());
    assert_eq!(http.ask("POST", "/v1/otlp/traces", gzip(&sent)).await.status, 200);

    let found = traces(&serve, "").await;
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].agent.as_str(), found[0].name.as_str(), found[0].error),
        ("prod/planner", "POST /plan", true)
    );
    let id = "01".repeat(16);
    let reply = Http::socket(&serve).await.get(&format!("/v1/traces/{id}")).await;
    let shown: Json = reply.ok();
    let group = &shown["resourceSpans"][0];
    assert_eq!(group["resource"]["attributes"][0]["key"], "service.name");
    assert_eq!(group["resource"]["attributes"][0]["value"]["stringValue"], "planner");
    let spans = group["scopeSpans"][0]["spans"].as_array().unwrap();
    assert_eq!(spans.len(), 2);
    assert_eq!(
        (&spans[0]["traceId"], &spans[1]["parentSpanId"]),
        (&Json::from(id), &Json::from("01".repeat(8)))
    );
    assert!(spans[0]["startTimeUnixNano"].is_string() && spans[0]["kind"] == 2, "{}", spans[0]);
    let read: TracesData = reply.json();
    assert_eq!(read.resource_spans[0].scope_spans[0].spans[0].name, "POST /plan");

    // Without a certificate, and with an administrator's token, nobody is an agent.
    let token = serve.token.clone().unwrap();
    let refused = Http::tls(&serve, None).await.bearer(&token).ask("POST", "/v1/otlp/traces", sent).await;
    assert!(refused.refused(403).contains("certificate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_from_outside() {
    let serve = Serve::start(&[]);
    let mut slow = span(2, 1, 0, "slow", 3_000);
    slow.attributes = vec![text("pilotfish.workflow.id", "w-7"), text("url.path", "/a b")];
    post(&serve, PROTOBUF, bytes("a", vec![span(1, 1, 0, "fast", 1)])).await;
    post(&serve, PROTOBUF, bytes("b", vec![slow])).await;
    for (query, count) in [
        ("", 2),
        ("?agent=a", 1),
        ("?agent=nobody", 0),
        ("?min-duration=1s", 1),
        ("?max-duration=1s", 1),
        ("?error=true", 0),
        ("?workflow=w-7", 1),
        ("?attribute=url.path:/a%20b", 1),
        ("?operation=slow&agent=b", 1),
        ("?since=1h", 2),
        ("?since=2020-01-01T00:00:00Z&until=2020-01-02T00:00:00Z", 0),
        ("?limit=1", 1),
    ] {
        assert_eq!(traces(&serve, query).await.len(), count, "{query}");
    }
    let mut owner = Http::socket(&serve).await;
    for (query, why) in [
        ("agnet=a", "unknown parameter `agnet`"),
        ("min-duration=5", "parameter `min-duration`"),
        ("since=yesterday", "neither how long ago"),
        ("error=maybe", "neither `true` nor `false`"),
        ("limit=0", "between 1 and 1000"),
        ("attribute=x", "not `name:value`"),
    ] {
        let said = owner.get(&format!("/v1/traces?{query}")).await.refused(400);
        assert!(said.contains(why), "{query}: {said}");
    }
    assert!(owner.get("/v1/traces/xyz").await.refused(400).contains("32 hexadecimal digits"));
    assert!(
        owner.get(&format!("/v1/traces/{}", "9".repeat(32))).await.refused(404).contains("no trace 9999")
    );
    assert_eq!(Http::tls(&serve, None).await.get("/v1/traces").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn otlp_over_http_in_every_form_and_what_is_wrong_with_it() {
    let serve = Serve::start(&[]);
    let json = serde_json::to_vec(&request("json", vec![span(3, 1, 0, "j", 1)])).unwrap();
    let reply = post(&serve, "application/json; charset=utf-8", json).await;
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "{}"));
    let bad = request("json", vec![Span { trace_id: vec![1; 4], ..span(3, 1, 0, "j", 1) }]);
    let reply = post(&serve, "application/json", serde_json::to_vec(&bad).unwrap()).await;
    let said: Json = reply.ok();
    assert_eq!(said["partialSuccess"]["rejectedSpans"], "1");
    let reply = post(&serve, PROTOBUF, bad.encode_to_vec()).await;
    let said = ExportTraceServiceResponse::decode(reply.body).unwrap().partial_success.unwrap();
    assert_eq!(said.rejected_spans, 1);
    assert!(said.error_message.contains("ids"), "{}", said.error_message);
    assert_eq!(traces(&serve, "?agent=json").await.len(), 1);

    assert!(post(&serve, PROTOBUF, "garbage").await.refused(400).contains("no OTLP"));
    assert!(
        post(&serve, "application/json", "{\"resourceSpans\": 7}")
            .await
            .refused(400)
            .contains("no OTLP JSON")
    );
    assert_eq!(post(&serve, "text/plain", "").await.status, 415);
    let mut http = Http::plain(serve.otlp_http.unwrap()).await.with("content-type", PROTOBUF);
    assert_eq!(http.get("/v1/traces").await.status, 405);
    assert!(http.ask("POST", "/v1/metrics", "").await.refused(404).contains("OTEL_METRICS_EXPORTER"));
    assert_eq!(http.get("/v1/version").await.status, 404, "nothing else is there");
    let mut http = http.with("content-encoding", "br");
    assert_eq!(http.ask("POST", "/v1/traces", "x").await.status, 415);
}

/// A small body that becomes a large one, one that is too long, one that never comes: none of them costs memory.
#[tokio::test(flavor = "multi_thread")]
async fn bombs_are_bounded() {
    let serve = Serve::start(&[]);
    let bomb = gzip(&vec![0; 1 << 30]);
    assert!(bomb.len() < 8 << 20);
    let before = serve.memory();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (address, bomb) = (serve.otlp_http.unwrap(), bomb.clone());
        tasks.spawn(async move {
            let http = Http::plain(address).await.with("content-type", PROTOBUF);
            http.with("content-encoding", "gzip").ask("POST", "/v1/traces", bomb).await.status.as_u16()
        });
    }
    while let Some(status) = tasks.join_next().await {
        assert!(matches!(status.unwrap(), 413 | 429));
    }
    let many = format!("{{\"resourceSpans\": [{}]}}", vec!["{}"; 1 << 20].join(","));
    assert_eq!(post(&serve, "application/json", many).await.status, 413);
    let used = serve.memory().saturating_sub(before);
    assert!(used < 200 << 20, "{used} bytes");
    assert_eq!(post(&serve, PROTOBUF, bytes("a", vec![span(1, 1, 0, "x", 1)])).await.status, 200);
}

/// A call of gRPC: the status, and the message.
async fn call(
    serve: &Serve,
    path: &str,
    encoding: Option<&'static str>,
    body: Vec<u8>,
) -> (String, String, Option<Vec<u8>>) {
    let stream = tokio::net::TcpStream::connect(serve.otlp_grpc.unwrap()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut framed = vec![u8::from(encoding.is_some())];
    framed.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    framed.extend(body);
    let mut request = http::Request::post(format!("http://{}{path}", serve.otlp_grpc.unwrap()))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(encoding) = encoding {
        request = request.header("grpc-encoding", encoding);
    }
    let answer = sender.send_request(request.body(Full::new(Bytes::from(framed))).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let (head, body) = answer.into_parts();
    let collected = body.collect().await.unwrap();
    let headers = collected.trailers().cloned().unwrap_or(head.headers);
    let get =
        |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let mut message = collected.to_bytes();
    let message = (message.len() >= 5).then(|| {
        message.advance(5);
        message.to_vec()
    });
    (get("grpc-status"), get("grpc-message"), message)
}

#[tokio::test(flavor = "multi_thread")]
async fn otlp_over_grpc() {
    const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let serve = Serve::start(&[]);
    let sent =
        bytes("g", vec![span(4, 1, 0, "op", 1), Span { span_id: Vec::new(), ..span(4, 1, 0, "op", 1) }]);
    let (status, _, message) = call(&serve, EXPORT, None, sent.clone()).await;
    let said = ExportTraceServiceResponse::decode(&message.unwrap()[..]).unwrap();
    assert_eq!((status.as_str(), said.partial_success.unwrap().rejected_spans), ("0", 1));
    assert_eq!(call(&serve, EXPORT, Some("gzip"), gzip(&sent)).await.0, "0");
    assert_eq!(call(&serve, EXPORT, Some("zstd"), sent).await.0, "12");
    assert_eq!(call(&serve, EXPORT, None, b"garbage".to_vec()).await.0, "3");
    assert_eq!(call(&serve, EXPORT, None, vec![0; 9 << 20]).await.0, "8", "too long");
    let (status, said, _) =
        call(&serve, "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", None, Vec::new())
            .await;
    assert!(status == "12" && said.contains("OTEL_METRICS_EXPORTER"), "{status} {said}");
    assert_eq!(traces(&serve, "?agent=g").await.len(), 1);
}

/// A listener for others takes a certificate, whose agent speaks, or the token, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn others_prove_who_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "of-the-test-0123456789\n").unwrap();
    let serve = Serve::start(&["--otlp-listen", "127.0.0.1:0", "--otlp-token-file", file.to_str().unwrap()]);
    let address = serve.otlp_listen.unwrap();
    let sent = || bytes("said", vec![span(5, fastrand::u8(1..), 0, "op", 1)]);
    let own = joined(&serve, "prod", "remote").await;
    let mut http = Http::try_tls(address, Some(&own)).await.unwrap().with("content-type", PROTOBUF);
    assert_eq!(http.ask("POST", "/v1/traces", sent()).await.status, 200);
    assert_eq!(traces(&serve, "?agent=prod/remote").await.len(), 1);
    let mut http = Http::try_tls(address, None).await.unwrap().with("content-type", PROTOBUF);
    assert!(http.ask("POST", "/v1/traces", sent()).await.refused(401).contains("--otlp-token-file"));
    assert!(traces(&serve, "?agent=said").await.is_empty());
    let mut http = http.bearer("of-the-test-0123456789");
    assert_eq!(http.ask("POST", "/v1/traces", sent()).await.status, 200);
    assert_eq!(traces(&serve, "?agent=said").await.len(), 1);
    let mut http = http.bearer("of-the-test-0123456788");
    for _ in 0..20 {
        let status = http.ask("POST", "/v1/traces", sent()).await.status.as_u16();
        assert!(status == 401 || status == 429, "{status}");
    }
    assert_eq!(http.ask("POST", "/v1/traces", sent()).await.status, 429, "guessing is slowed");
    assert!(handshake(address, None, &[b"h2"]).await.is_ok(), "TLS is spoken there");

    std::fs::write(&file, "short").unwrap();
    let args = ["--otlp-listen", "127.0.0.1:0", "--otlp-token-file", file.to_str().unwrap()];
    let (_, said) = crate::support::serve::start_to_fail(&folder.path().join("other"), &args);
    assert!(said.contains("at least 16 characters"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jaeger_is_for_those_who_show_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "reader-0123456789abcdef").unwrap();
    let serve = Serve::start(&["--jaeger-token-file", file.to_str().unwrap()]);
    let mut failed = span(6, 2, 1, "GET", 10);
    failed.status = Some(Status { code: 2, message: String::new() });
    failed.attributes = vec![text("http.route", "/x")];
    post(&serve, PROTOBUF, bytes("shop", vec![span(6, 1, 0, "POST", 20), failed])).await;
    let address = serve.jaeger.unwrap();
    let mut nobody = Http::plain(address).await.with("host", "localhost");
    let refused = nobody.get("/api/services").await;
    assert_eq!(
        (refused.status.as_u16(), &refused.headers["www-authenticate"]),
        (401, &"Bearer".parse().unwrap())
    );
    assert_eq!(refused.json::<Json>()["errors"][0]["code"], 401);
    let mut foreign =
        Http::plain(address).await.with("host", "evil.example").bearer("reader-0123456789abcdef");
    assert_eq!(foreign.get("/api/services").await.status, 421);

    let mut reader = Http::plain(address).await.with("host", "localhost").bearer("reader-0123456789abcdef");
    let expected = serde_json::json!({"data": ["shop"], "total": 1, "limit": 0, "offset": 0, "errors": null});
    assert_eq!(reader.get("/api/services").await.ok::<Json>(), expected);
    let names = reader.get("/api/services/shop/operations").await.ok::<Json>();
    assert_eq!(names["data"], serde_json::json!(["GET", "POST"]));
    let names = reader.get("/api/operations?service=shop").await.ok::<Json>();
    assert_eq!(names["data"][0], serde_json::json!({"name": "GET", "spanKind": ""}));
    let id = "06".repeat(16);
    let one = reader.get(&format!("/api/traces/{id}")).await.ok::<Json>();
    assert_eq!(one["data"][0]["traceID"], Json::from(id.clone()));
    // Zeros at the beginning may be left out.
    assert_eq!(reader.get(&format!("/api/traces/{}", &id[1..])).await.status, 200);
    let now = nanos() / 1_000;
    let (start, end) = (now - 3_600_000_000, now + 1_000_000);
    let count = async |http: &mut Http, query: &str| {
        let path = format!("/api/traces?start={start}&end={end}&lookback=1h&limit=20&service=shop{query}");
        http.get(&path).await.ok::<Json>()["data"].as_array().unwrap().len()
    };
    assert_eq!(count(&mut reader, "").await, 1);
    assert_eq!(count(&mut reader, "&operation=GET").await, 1);
    assert_eq!(count(&mut reader, "&operation=PUT").await, 0);
    assert_eq!(count(&mut reader, "&minDuration=1s").await, 0);
    assert_eq!(
        count(&mut reader, "&tags=%7B%22error%22%3A%22true%22%2C%22http.route%22%3A%22%2Fx%22%7D").await,
        1
    );
    assert_eq!(count(&mut reader, "&tag=http.route:/y").await, 0);
    let missing = reader.get(&format!("/api/traces/{}", "7".repeat(32))).await;
    assert_eq!(
        (missing.status.as_u16(), missing.json::<Json>()["errors"][0]["msg"].clone()),
        (404, "trace not found".into())
    );
    assert_eq!(
        reader.get("/api/dependencies?endTs=1&lookback=1").await.ok::<Json>()["data"],
        serde_json::json!([])
    );
    assert_eq!(reader.get("/v1/traces").await.status, 404, "a reader's token opens nothing else");
    let mut reader = Http::tls(&serve, None).await.bearer("reader-0123456789abcdef");
    assert_eq!(reader.get("/v1/traces").await.status, 401);
    let token = serve.token.clone().unwrap();
    let mut administrator = Http::plain(address).await.with("host", "localhost").bearer(&token);
    assert_eq!(administrator.get("/api/services").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_outlives_kill_9() {
    let serve = Serve::start(&[]);
    for trace in 1..=100 {
        let reply = post(&serve, PROTOBUF, bytes("a", vec![span(trace, 1, 0, "x", 1)])).await;
        assert_eq!(reply.status, 200);
    }
    let serve = Serve::start_in(serve.kill(), &[]);
    assert_eq!(traces(&serve, "?limit=1000").await.len(), 100);
    assert_eq!(post(&serve, PROTOBUF, bytes("a", vec![span(101, 1, 0, "x", 1)])).await.status, 200);
    assert_eq!(traces(&serve, "?limit=1000").await.len(), 101);
}

/// A usual port that somebody else has is gone without; one that was asked for is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_was_asked_for_has_to_be_free() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    for flag in ["--otlp-grpc", "--otlp-http", "--jaeger", "--otlp-listen"] {
        let (status, said) = crate::support::serve::start_to_fail(folder.path(), &[flag, &address]);
        assert!(!status.success() && said.contains(flag) && said.contains("another process"), "{said}");
    }
    for flag in ["--otlp-grpc", "--otlp-http", "--jaeger"] {
        let (_, said) = crate::support::serve::start_to_fail(folder.path(), &[flag, "192.0.2.1:4317"]);
        assert!(said.contains("expected a loopback address"), "{said}");
        let serve = Serve::start(&[flag, "off"]);
        assert!([serve.otlp_grpc, serve.otlp_http, serve.jaeger].contains(&None));
    }
}

/// A disk that takes no more: batches are told to come again, what is there can be read, and it goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_taking_and_goes_on_reading() {
    // The limit of a file's size is a disk's end as the process sees it; SIGXFSZ is ignored, as a full disk sends none.
    let serve = Serve::start_by(&["bash", "-c", "trap '' XFSZ; ulimit -S -f 16384; exec \"$0\" \"$@\""], &[]);
    let large = "x".repeat(200 << 10);
    let mut sent = 0u32;
    let filling = |n: u32| {
        let mut one = span(1, 1, 0, "op", 1);
        one.trace_id = [&[9; 12][..], &n.to_be_bytes()].concat();
        one.attributes = vec![text("filling", &large)];
        bytes("a", vec![one])
    };
    let refused = loop {
        let reply = post(&serve, PROTOBUF, filling(sent + 1)).await;
        if reply.status != 200 {
            break reply;
        }
        sent += 1;
        assert!(sent < 200, "it never filled");
    };
    assert_eq!((refused.status.as_u16(), &refused.headers["retry-after"]), (503, &"1".parse().unwrap()));
    assert!(sent > 10);
    for _ in 0..3 {
        assert_eq!(post(&serve, PROTOBUF, filling(sent + 1)).await.status, 503);
    }
    assert_eq!(traces(&serve, "?limit=1000").await.len(), sent as usize);
    let mut status = Http::plain(serve.status.unwrap()).await;
    let metrics = status.get("/metrics").await.text();
    assert!(metrics.contains("pilotfish_control_trace_disk_full 1\n"), "{metrics}");
    assert!(
        metrics.contains("pilotfish_control_trace_batches_refused_total{reason=\"disk\"} 4\n"),
        "{metrics}"
    );
    assert!(metrics.contains(&format!("pilotfish_control_trace_spans_total {sent}\n")), "{metrics}");
    // There is room again.
    let pid = serve.pid().to_string();
    let raised =
        Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:unlimited"]).status().unwrap();
    assert!(raised.success());
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while post(&serve, PROTOBUF, filling(sent + 1)).await.status != 200 {
        assert!(tokio::time::Instant::now() < until, "it did not go on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    serve.said(|line| line.contains("takes spans again")).await;
    let said = serve.stderr().iter().filter(|line| line.contains("takes no more spans")).count();
    assert_eq!(said, 1, "once");
    assert_eq!(traces(&serve, "?limit=1000").await.len(), sent as usize + 1);
    let serve = Serve::start_in(serve.kill(), &[]);
    assert_eq!(traces(&serve, "?limit=1000").await.len(), sent as usize + 1);
}

/// As a user looks: the list, then one trace by the digits that the list shows.
#[tokio::test(flavor = "multi_thread")]
async fn traces_on_the_command_line() {
    let serve = Serve::start(&[]);
    let mut failed = span(7, 2, 1, "GET", 100);
    failed.status = Some(Status { code: 2, message: "no".into() });
    post(&serve, PROTOBUF, bytes("web", vec![span(7, 1, 0, "POST /trip", 300), failed])).await;
    post(&serve, PROTOBUF, bytes("web", vec![span(8, 1, 0, "GET /quick", 1)])).await;
    let data = serve.data();
    let run = async |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pilotfish"));
        command.args(args).arg("--data").arg(&data);
        let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (done.status.code(), text(done.stdout), text(done.stderr))
    };
    let (code, list, said) = run(&["traces"]).await;
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("TIME "), "{list}");
    assert!(
        list.contains("0707070707070707  web") && list.contains("300 ms      2       1  error\n"),
        "{list}"
    );
    let (_, list, _) = run(&["traces", "--min-duration", "100ms", "-o", "json"]).await;
    let found: Vec<Summary> = serde_json::from_str(&list).unwrap();
    assert_eq!((found.len(), found[0].name.as_str()), (1, "POST /trip"));
    let (code, none, said) = run(&["traces", "--agent", "nobody"]).await;
    assert_eq!(
        (code, none.as_str(), said.as_str()),
        (Some(0), "", "no trace is known for which this holds\n")
    );
    let (code, _, said) = run(&["traces", "--min-duration", "long"]).await;
    assert!(code == Some(1) && said.contains("min-duration"), "{said}");

    let (code, shown, _) = run(&["trace", "0707070707070707"]).await;
    assert_eq!(code, Some(0));
    let head: Vec<&str> = shown.lines().collect();
    assert!(head[0].starts_with(&format!("trace {}, 20", "07".repeat(16))), "{shown}");
    assert_eq!(head[1], "300 ms, 2 spans, 1 agent, 1 error");
    assert!(
        shown.contains("\nPOST /trip ") && shown.contains("\n└─ GET error ") && shown.contains('█'),
        "{shown}"
    );
    let (_, shown, _) = run(&["trace", &"07".repeat(16), "-o", "json"]).await;
    let data: Json = serde_json::from_str(&shown).unwrap();
    assert_eq!(data["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().len(), 2);
    let (code, _, said) = run(&["trace", "ffffff"]).await;
    assert!(code == Some(1) && said.contains("no trace is known here whose id begins with ffffff"), "{said}");
    let (code, _, said) = run(&["trace", "xyz"]).await;
    assert!(code == Some(2) && said.contains("6 to 32 hexadecimal digits"), "{said}");
}
