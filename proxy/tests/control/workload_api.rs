//! The identity from a SPIFFE Workload API, with a control plane and without a join.

use super::*;
use pilotfish_testkit::ca::Leaf;
use pilotfish_testkit::workload_api::WorkloadApi;

#[tokio::test]
async fn the_workload_api_gives_the_identity_and_replaces_it() {
    let control = Control::start(DOMAIN).await;
    let (agent, state) = (Agent::start("a").await, tempfile::tempdir().unwrap());
    let api = WorkloadApi::start(state.path());
    let socket = format!("unix:{}", api.path.display());
    let launched = offline(&control, state.path()).args(&["--workload-api", &socket]).launch();
    // What is no identity is not taken, and asked for again.
    api.send(b"\x0a\x02\x0a\x00".to_vec());
    launched.said(|line| line.contains("no identity from the Workload API")).await;
    let leaf = Leaf::agent(DOMAIN, "default", "caller");
    api.give(&control.ca, &leaf.uris[0], &control.ca.issue(&leaf));
    launched.said(|line| line.contains("identity taken") && line.contains("agent/caller")).await;
    let mut link = control.link().await;
    first(&mut link, "w.test", agent.addr().port()).await;
    let sidecar = launched.ready().await;
    assert!(control.joins().is_empty() && api.refused() == 0);
    let longer = Leaf { ends: 48 * 3600, ..leaf };
    let before = link.hello["certificate_expires"].as_u64().unwrap();
    api.give(&control.ca, &longer.uris[0], &control.ca.issue(&longer));
    link.wait("heartbeat", |beat| beat["certificate_expires"].as_u64() > Some(before + 3600)).await;
    assert_eq!(call(&sidecar, "w.test").await, 200);
}
