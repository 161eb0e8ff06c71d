//! What others receive, field by field.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pilotfish_testkit::ca::{Ca, Leaf};
use pilotfish_testkit::sidecar::Builder;
use pilotfish_testkit::{Agent, Nobody, Sidecar, h1};
use serde_json::{Value, json};

use super::{PATIENCE, Receiver};
use crate::support::{service, service_with, sidecar, virtual_service};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A sidecar that keeps every trace.
fn traced(port: u16, endpoint: &str) -> Builder {
    sidecar()
        .yaml("a.yaml", service("s.test", port))
        .agent("caller")
        .namespace("shop")
        .args(&["--trace-sampling", "100%", "--otlp-endpoint", endpoint])
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
}

async fn get(sidecar: &Sidecar, target: &str) -> u16 {
    let parent = format!("traceparent: 00-{TRACE}-{PARENT}-01");
    let headers = [parent.as_str(), "tracestate: v=1"];
    h1::get(sidecar.outbound, "s.test", target, &headers).await.unwrap().status()
}

/// The SERVER and CLIENT spans of the call for this path, and the export they came in.
fn pair(receiver: &Receiver, path: &str) -> (Value, Value, Value) {
    let (server, export) =
        receiver.wait("traces", 1, |span| span["attributes"]["url.path"] == path).remove(0);
    let (client, _) = receiver.wait("traces", 1, |span| span["parent"] == server["id"]).remove(0);
    (server, client, export)
}

#[tokio::test]
async fn every_field_of_a_call_with_one_try() {
    let Some(receiver) = Receiver::start(&[]) else { return };
    let agent = Agent::start("a").await;
    let sidecar = traced(agent.port(), &format!("http://127.0.0.1:{}", receiver.http))
        .env("OTEL_RESOURCE_ATTRIBUTES", "team=red,service.version=7")
        .start();
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert_eq!(get(&sidecar, "/status/404?token=secret").await, 404);
    let (server, client, _) = pair(&receiver, "/status/404");

    let mut resource = server["resource"].clone();
    for generated in ["service.instance.id", "host.name", "process.pid"] {
        assert!(!resource.as_object_mut().unwrap().remove(generated).unwrap().is_null(), "{generated}");
    }
    let version = env!("CARGO_PKG_VERSION");
    let expected = json!({
        "service.name": "caller", "service.namespace": "shop", "service.version": "7", "team": "red",
        "telemetry.sdk.name": "pilotfish", "telemetry.sdk.language": "rust", "telemetry.sdk.version": version,
    });
    assert_eq!(resource, expected);
    assert_eq!(server["scope"], "pilotfish-proxy");

    assert_eq!((&server["trace"], &server["parent"]), (&json!(TRACE), &json!(PARENT)));
    assert_eq!(
        (&server["kind"], &server["flags"], &server["state"]),
        (&json!(2), &json!(0x301), &json!("v=1"))
    );
    assert_eq!(
        (&client["kind"], &client["flags"], &client["state"]),
        (&json!(3), &json!(0x101), &json!("v=1"))
    );
    assert_eq!(client["trace"], TRACE);
    // A 404 is the caller's fault: an error of the CLIENT span only.
    assert_eq!((&server["status"], &client["status"]), (&json!([0, ""]), &json!([2, ""])));
    let mut attributes = server["attributes"].clone();
    for varying in ["network.peer.port", "pilotfish.request_id", "pilotfish.cluster"] {
        assert!(!attributes.as_object_mut().unwrap().remove(varying).unwrap().is_null(), "{varying}");
    }
    let rule = attributes.as_object_mut().unwrap().remove("pilotfish.rule").unwrap();
    assert_eq!(server["name"], format!("GET {}", rule.as_str().unwrap()));
    let expected = json!({
        "http.request.method": "GET", "url.path": "/status/404", "url.scheme": "http",
        "http.response.status_code": 404, "http.response.body.size": 3,
        "server.address": "s.test", "server.port": 80, "client.address": "127.0.0.1",
        "network.peer.address": "127.0.0.1", "network.protocol.name": "http", "network.protocol.version": "1.1",
        "pilotfish.direction": "outbound",
    });
    assert_eq!(attributes, expected);
    let attributes = &client["attributes"];
    assert_eq!(attributes["url.full"], "http://s.test/status/404");
    assert_eq!(attributes["network.peer.port"], agent.port());
    assert_eq!(attributes["pilotfish.endpoint"], format!("127.0.0.1:{}", agent.port()));
    assert_eq!(attributes["error.type"], "404");
    assert_eq!(attributes["pilotfish.try.ended"], "answered");
    assert!(attributes.get("http.request.resend_count").is_none());
    assert!(!format!("{:?}", receiver.exports.lock().unwrap()).contains("secret"));

    // Within the SERVER span, which is now.
    let nanos = |span: &Value, key: &str| span[key].as_u64().unwrap();
    assert!(
        nanos(&server, "start") <= nanos(&client, "start") && nanos(&client, "end") <= nanos(&server, "end")
    );
    let (start, before) =
        (Duration::from_nanos(nanos(&server, "start")), before.saturating_sub(Duration::from_secs(1)));
    assert!(start > before && start < before + PATIENCE, "{start:?} {before:?}");
}

#[tokio::test]
async fn each_try_has_a_span_of_its_own() {
    let Some(receiver) = Receiver::start(&[]) else { return };
    let agent = Agent::start("a").await;
    let rule =
        "- route: [{destination: {host: s.test}}]\n  retries: {attempts: 2, retryOn: 5xx, backoff: 1ms}\n";
    let yaml = service_with("s.test", "HTTP", &[(agent.port(), "")]) + &virtual_service("r", "s.test", rule);
    let endpoint = format!("http://127.0.0.1:{}", receiver.http);
    let sidecar = traced(agent.port(), &endpoint).yaml("a.yaml", yaml).start();
    assert_eq!(get(&sidecar, "/status/503").await, 503);
    let (server, _, _) = pair(&receiver, "/status/503");
    let tries = receiver.wait("traces", 3, |span| span["parent"] == server["id"]);
    let mut counts: Vec<_> =
        tries.iter().map(|(span, _)| span["attributes"]["http.request.resend_count"].as_u64()).collect();
    counts.sort();
    assert_eq!(counts, [None, Some(1), Some(2)]);
    assert_eq!(server["name"], "GET shop/r/0");
    assert_eq!(server["attributes"]["error.type"], "503");
    assert_eq!(server["status"][0], 2);
}

#[tokio::test]
async fn over_grpc_compressed_with_a_key() {
    let Some(receiver) = Receiver::start(&[]) else { return };
    let agent = Agent::start("a").await;
    let sidecar = traced(agent.port(), &format!("http://127.0.0.1:{}", receiver.grpc))
        .args(&["--otlp-protocol", "grpc", "--otlp-compression", "gzip"])
        .env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hush%20hush")
        .start();
    for n in 0..3 {
        assert_eq!(get(&sidecar, &format!("/{n}")).await, 200);
        let (_, _, export) = pair(&receiver, &format!("/{n}"));
        assert_eq!((&export["how"], &export["headers"]["api-key"]), (&json!("grpc"), &json!("hush hush")));
    }
    assert!(!sidecar.stderr().join("\n").contains("hush"));
}

/// Files for a collector on 127.0.0.1, whose certificates the returned authority signs, and for its clients.
struct Files {
    _folder: tempfile::TempDir,
    chain: String,
    key: String,
    authority: String,
    client_chain: String,
    client_key: String,
}

fn files() -> Files {
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::new("collectors.test");
    let mut leaf = Leaf::of("https://collector.test");
    leaf.dns = vec!["localhost".into()];
    let own = ca.issue(&leaf).write(folder.path(), "collector");
    let client = ca.issue(&Leaf::of("https://client.test")).write(folder.path(), "client");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    Files {
        chain: text(&own.chain),
        key: text(&own.key),
        authority: text(&ca.write_bundle(folder.path())),
        client_chain: text(&client.chain),
        client_key: text(&client.key),
        _folder: folder,
    }
}

#[tokio::test]
async fn over_mutual_tls_by_either_protocol() {
    let files = files();
    let Some(receiver) = Receiver::start(&[&files.chain, &files.key, &files.authority]) else { return };
    let agent = Agent::start("a").await;
    for (protocol, port) in [("grpc", receiver.grpc), ("http/protobuf", receiver.http)] {
        let sidecar = traced(agent.port(), &format!("https://localhost:{port}"))
            .args(&["--otlp-protocol", protocol, "--otlp-certificate", &files.authority])
            .args(&["--otlp-client-certificate", &files.client_chain, "--otlp-client-key", &files.client_key])
            .start();
        let path = format!("/{}", protocol.replace('/', "-"));
        assert_eq!(get(&sidecar, &path).await, 200);
        pair(&receiver, &path);
    }
    // Whose certificate does not lead to the authority gets nothing.
    let other = self::files();
    let sidecar = traced(agent.port(), &format!("https://localhost:{}", receiver.http))
        .args(&["--otlp-certificate", &other.authority])
        .start();
    assert_eq!(get(&sidecar, "/never").await, 200);
    let said = sidecar.wait_stderr(PATIENCE, |line| line.contains("telemetry cannot be sent now"));
    assert!(said.as_ref().is_some_and(|line| line.contains("invalid peer certificate")), "{said:?}");
    let told = receiver.exports.lock().unwrap().iter().any(|export| export.to_string().contains("/never"));
    assert!(!told);
}

#[tokio::test]
async fn metrics_are_sent_again_and_again() {
    let Some(receiver) = Receiver::start(&[]) else { return };
    let agent = Agent::start("a").await;
    let endpoint = format!("http://127.0.0.1:{}", receiver.http);
    let sidecar = traced(agent.port(), &endpoint)
        .env("OTEL_METRIC_EXPORT_INTERVAL", "100")
        .env("OTEL_TRACES_EXPORTER", "none")
        .start();
    assert_eq!(get(&sidecar, "/").await, 200);
    let found = receiver.wait("metrics", 2, |metric| metric["name"] == "http.server.request.duration");
    assert_eq!(
        found[0].0,
        json!({ "name": "http.server.request.duration", "unit": "s", "kind": "histogram" })
    );
    assert!(receiver.exports.lock().unwrap().iter().all(|export| export["signal"] == "metrics"));
}

#[tokio::test]
async fn what_waits_is_sent_before_the_end() {
    let Some(receiver) = Receiver::start(&[]) else { return };
    let agent = Agent::start("a").await;
    let mut sidecar = traced(agent.port(), &format!("http://127.0.0.1:{}", receiver.http))
        .env("OTEL_BSP_SCHEDULE_DELAY", "3600000")
        .args(&["--drain-delay", "0s"])
        .start();
    assert_eq!(get(&sidecar, "/last").await, 200);
    sidecar.terminate();
    assert!(sidecar.exit(PATIENCE).await.is_some_and(|status| status.success()));
    pair(&receiver, "/last");
}

/// A collector that somebody else wrote stands between: it takes our spans and sends them on as its own.
#[tokio::test]
async fn through_another_collector() {
    let Some(receiver) = Receiver::start(&[]) else { return };
    let Some(rotel) = rotel(&receiver) else { return };
    let agent = Agent::start("a").await;
    for (protocol, address) in [("grpc", rotel.grpc.addr()), ("http/protobuf", rotel.http.addr())] {
        let sidecar =
            traced(agent.port(), &format!("http://{address}")).args(&["--otlp-protocol", protocol]).start();
        let path = format!("/{}", protocol.replace('/', "-"));
        assert_eq!(get(&sidecar, &path).await, 200);
        let (server, client, _) = pair(&receiver, &path);
        assert_eq!((&server["trace"], &server["parent"]), (&json!(TRACE), &json!(PARENT)));
        assert_eq!((&server["kind"], &client["kind"]), (&json!(2), &json!(3)));
        assert_eq!(server["resource"]["service.namespace"], "shop");
    }
}

/// PyPI's `rotel`, an OpenTelemetry collector.
struct Rotel {
    child: std::process::Child,
    grpc: Nobody,
    http: Nobody,
}

impl Drop for Rotel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `None` after a loud word where there is no wheel for this Python: it is of few platforms.
fn rotel(receiver: &Receiver) -> Option<Rotel> {
    use std::process::{Command, Stdio};
    let binary = pilotfish_testkit::python::wheel(&super::target(), "rotel==0.0.1a15", "rotel/rotel-agent")?;
    let (grpc, http) = (Nobody::new(), Nobody::new());
    let child = Command::new(binary)
        .args(["start", "--exporter", "otlp", "--disable-batching"])
        .args(["--otlp-exporter-endpoint", &format!("http://127.0.0.1:{}", receiver.grpc)])
        .args([
            "--otlp-grpc-endpoint",
            &grpc.addr().to_string(),
            "--otlp-http-endpoint",
            &http.addr().to_string(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("rotel starts");
    Some(Rotel { child, grpc, http })
}

/// A document sends outbound spans to a provider of its own, then to two, then to nobody in particular.
#[tokio::test]
async fn documents_name_where_spans_go() {
    let (Some(one), Some(two)) = (Receiver::start(&[]), Receiver::start(&[])) else { return };
    let agent = Agent::start("a").await;
    let provider = |name: &str, port: u64| {
        format!(
            "apiVersion: pilotfish.dev/v1\nkind: TelemetryProvider\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{otlp: {{endpoint: 'http://127.0.0.1:{port}'}}}}\n---\n"
        )
    };
    let providers = provider("one", one.http) + &provider("two", two.http);
    let telemetry = |names: &str| {
        format!(
            "{providers}apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: t, namespace: shop}}\n\
             spec: {{tracing: [{{randomSamplingPercentage: 100, providers: [{names}]}}]}}\n"
        )
    };
    let sidecar = sidecar()
        .yaml("a.yaml", service("s.test", agent.port()))
        .yaml("t.yaml", telemetry("{name: one}"))
        .agent("caller")
        .namespace("shop")
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .start();
    // Who names a provider has somewhere to send to; it may take a moment until that is so.
    let mut n = 0;
    let until = std::time::Instant::now() + PATIENCE;
    while one.exports.lock().unwrap().is_empty() {
        assert!(std::time::Instant::now() < until, "nothing came");
        assert_eq!(get(&sidecar, &format!("/first/{n}")).await, 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
        n += 1;
    }
    assert!(two.exports.lock().unwrap().is_empty());
    sidecar.rewrite("t.yaml", &telemetry("{name: one}, {name: two}"));
    while two.exports.lock().unwrap().is_empty() {
        assert!(std::time::Instant::now() < until, "nothing came to the second");
        assert_eq!(get(&sidecar, "/both").await, 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    pair(&one, "/both");
    pair(&two, "/both");
}
