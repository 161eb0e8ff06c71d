//! A supervised agent in a mesh: what its control plane hears of it, and its own spans.

use pilotfish_testkit::control::Control;
use pilotfish_testkit::h1::{self, H1};
use serde_json::json;

use super::agent::{Place, signal, until};

#[tokio::test]
async fn the_control_plane_hears_when_the_agent_is_ready_and_when_it_is_not() {
    let (control, place) = (Control::start("mesh.test").await, Place::new());
    let flags = ["--control", &control.url(), "--token", &control.token()];
    let launched = place.sidecar_with("slow=300,serve", &flags).without_config().launch();
    let mut link = control.link().await;
    assert_eq!(link.hello["status"], "initializing");
    assert!(link.hello["address"].is_string(), "it has an agent: {}", link.hello);
    link.welcome().await;
    link.update(1, json!({ "documents": [] })).await;
    let sidecar = launched.ready().await;
    link.wait("heartbeat", |beat| beat["status"] == "ready").await;
    let pid = place.ready(&sidecar).await;
    link.wait("heartbeat", |beat| beat["usage"]["memory"].as_u64().is_some_and(|memory| memory > 1 << 20))
        .await;
    signal(pid, "KILL");
    let beat = link.wait("heartbeat", |beat| beat["status"] == "initializing").await;
    assert!(beat["detail"].as_str().unwrap().contains("SIGKILL"), "{beat}");
    link.wait("heartbeat", |beat| beat["status"] == "ready").await;
    assert_eq!(place.copies().len(), 1);
}

#[tokio::test]
async fn the_agents_own_spans_go_to_the_control_plane_with_its_secret_only() {
    let (control, place) = (Control::start("mesh.test").await, Place::new());
    let flags = ["--control", &control.url(), "--token", &control.token()];
    let launched = place.sidecar_with("serve", &flags).without_config().launch();
    let mut link = control.link().await;
    link.welcome().await;
    link.update(1, json!({ "documents": [] })).await;
    let sidecar = launched.ready().await;
    let pid = place.ready(&sidecar).await;
    let endpoint = place.variable(pid, "OTEL_EXPORTER_OTLP_ENDPOINT");
    let address = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
    let headers = place.variable(pid, "OTEL_EXPORTER_OTLP_HEADERS").replace('=', ": ").replace("%20", " ");
    assert_eq!(place.variable(pid, "OTEL_EXPORTER_OTLP_PROTOCOL"), "http/protobuf");
    // A message with one empty `ResourceSpans`.
    let message = "\u{a}\0";
    let post = async |path: &str, header: &str| {
        let mut client = H1::connect(address).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n{header}\r\n"
        );
        client.send(format!("{head}Content-Length: {}\r\n\r\n{message}", message.len())).await;
        client.answer("POST").await.unwrap().status()
    };
    assert_eq!(post("/v1/traces", "X-Nothing: x").await, 401);
    assert_eq!(post("/v1/metrics", &headers).await, 404);
    assert!(control.spans().is_empty());
    assert_eq!(post("/v1/traces", &headers).await, 200);
    until("the control plane has it", async || {
        control.spans().iter().any(|spans| *spans == message.as_bytes())
    })
    .await;
    let ready = h1::get(sidecar.admin, "x", "/ready", &[]).await.unwrap();
    assert_eq!(ready.status(), 200);
}
