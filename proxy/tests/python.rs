//! Clients and servers that others wrote: gRPC by grpcio, WebSocket by websockets, through a sidecar.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use pilotfish_testkit::python::interpreter;

use crate::support::{service, service_with, sidecar};

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory").to_path_buf()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name)
}

/// A Python server that prints its port on its first line. It ends when this is dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(python: &Path, name: &str) -> Server {
    let mut command = Command::new(python);
    command.arg("-u").arg(script(name)).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("python starts");
    let mut line = String::new();
    let read = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
    let mut server = Server { child, port: 0 };
    assert!(matches!(read, Some(Ok(_))), "the server says nothing");
    server.port = line.trim().parse().unwrap_or_else(|_| panic!("the server said {line:?}"));
    server
}

/// Runs a client to its end; fails with what it wrote unless it ended well and said so of each of these.
fn client(python: &Path, name: &str, port: u16, done: &[&str]) {
    let output = Command::new("timeout")
        .arg("60")
        .arg(python)
        .arg("-u")
        .arg(script(name))
        .arg(port.to_string())
        .stdin(Stdio::null())
        .output()
        .expect("python starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}\n{out}\n{err}", output.status);
    for word in done {
        assert!(out.lines().any(|l| l == format!("ok {word}")), "{name} did not do {word}:\n{out}\n{err}");
    }
}

#[test]
fn grpc() {
    let Some(python) = interpreter(&target()) else { return };
    let server = serve(&python, "grpc_server.py");
    let yaml = service_with("grpc.test", "GRPC", &[(server.port, "")]);
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let done = [
        "unary",
        "large",
        "metadata",
        "server streaming",
        "client streaming",
        "both streaming",
        "trailers only",
        "status",
        "deadline",
        "cancel",
        "many at once",
        "unavailable",
    ];
    client(&python, "grpc_client.py", sidecar.outbound.port(), &done);
}

#[test]
fn websocket() {
    let Some(python) = interpreter(&target()) else { return };
    let server = serve(&python, "websocket_server.py");
    let sidecar = sidecar().yaml("a.yaml", service("socket.test", server.port)).start();
    let done = [
        "text",
        "binary",
        "fragments",
        "large",
        "ping",
        "close by client",
        "close by server",
        "refused",
        "many at once",
    ];
    client(&python, "websocket_client.py", sidecar.outbound.port(), &done);
}

/// Both formats, as the strictest reader that there is takes them.
#[tokio::test(flavor = "multi_thread")]
async fn metrics() {
    let Some(python) = tokio::task::block_in_place(|| interpreter(&target())) else { return };
    let agent = pilotfish_testkit::Agent::start("a").await;
    let yaml = service("agent.test", agent.port());
    let sidecar = sidecar().yaml("a.yaml", yaml).args(&["--trace-sampling", "100%"]).start();
    for host in ["agent.test", "agent.test", "nobody.test"] {
        pilotfish_testkit::h1::get(sidecar.outbound, host, "/", &[]).await.unwrap();
    }
    crate::support::wait_metric(
        &sidecar,
        "pilotfish_requests_total{direction=\"outbound\",status=\"2xx\"}",
        2,
    )
    .await;
    let done = ["text", "openmetrics", "the same families", "calls", "exemplar"];
    tokio::task::block_in_place(|| client(&python, "metrics_client.py", sidecar.admin.port(), &done));
}
