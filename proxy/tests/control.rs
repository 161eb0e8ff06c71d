//! A sidecar and its control plane, from outside: joining, updates, state on disk, hostile input, the agent's health,
//! and what happens when control planes come and go.

mod actions;
mod deeper;
mod edges;
mod health;
mod hostile;
mod identity;
mod secret;
mod updates;
mod workload_api;

use std::path::Path;
use std::time::Duration;

use pilotfish_testkit::control::{Control, Link, document};
use pilotfish_testkit::sidecar::Builder;
use pilotfish_testkit::{Agent, Sidecar, h1};
use serde_json::{Value, json};

use crate::support;

const DOMAIN: &str = "mesh.test";

/// A sidecar of this control plane that keeps its state in `state`, with a new token.
fn member(control: &Control, state: &Path) -> Builder {
    offline(control, state).args(&["--token", &control.token()])
}

/// The same without a token: it has an identity already.
fn offline(control: &Control, state: &Path) -> Builder {
    let state = state.to_str().unwrap();
    support::sidecar().without_config().agent("caller").args(&[
        "--control",
        &control.url(),
        "--state-dir",
        state,
    ])
}

/// A ServiceEntry for `host` on port 80 that is 127.0.0.1 at `port`.
fn service(host: &str, port: u16) -> Value {
    let spec = json!({
        "hosts": [host],
        "ports": [{ "number": 80, "name": "web", "protocol": "HTTP" }],
        "resolution": "STATIC",
        "endpoints": [{ "address": "127.0.0.1", "ports": { "web": port } }],
    });
    document("ServiceEntry", "networking.istio.io/v1", &host.replace('.', "-"), spec)
}

/// A service of `host` that is at `port`, as version 1.
async fn first(link: &mut Link, host: &str, port: u16) {
    link.welcome().await;
    link.update(1, json!({ "documents": [service(host, port)] })).await;
}

/// A member that serves version 1: `host` is `agent`.
async fn serving(control: &Control, state: &Path, host: &str, agent: &Agent) -> (Sidecar, Link) {
    let launched = member(control, state).launch();
    let mut link = control.link().await;
    first(&mut link, host, agent.addr().port()).await;
    (launched.ready().await, link)
}

/// The status of a call through the sidecar.
async fn call(sidecar: &Sidecar, host: &str) -> u16 {
    h1::get(sidecar.outbound, host, "/", &[]).await.map_or(0, |answer| answer.status())
}

/// Waits for a line of the log.
async fn until_said(sidecar: &Sidecar, what: &str) -> String {
    let until = tokio::time::Instant::now() + Duration::from_secs(15);
    loop {
        if let Some(line) = sidecar.stderr().into_iter().find(|line| line.contains(what)) {
            return line;
        }
        assert!(tokio::time::Instant::now() < until, "it never said `{what}`: {:#?}", sidecar.stderr());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
