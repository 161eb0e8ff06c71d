//! How the agent is, and the end of a sidecar.

use super::*;
use pilotfish_testkit::Nobody;

#[tokio::test]
async fn an_agent_is_initializing_until_it_listens_and_degraded_when_it_fails() {
    let control = Control::start(DOMAIN).await;
    let state = tempfile::tempdir().unwrap();
    // A port that nobody listens on yet.
    let held = Nobody::new();
    let app = held.addr();
    let flags = ["--probe", "tcp", "--probe-interval", "50ms", "--probe-failures", "2"];
    let launched = member(&control, state.path()).app(app).args(&flags).launch();
    let mut link = control.link().await;
    assert_eq!(link.hello["status"], "initializing");
    first(&mut link, "w.test", 1).await;
    let sidecar = launched.ready().await;
    let ready = async || h1::get(sidecar.admin, "x", "/ready", &[]).await.unwrap();
    let answer = ready().await;
    assert_eq!(answer.status(), 503);
    assert!(answer.text().contains("initializing"), "{}", answer.text());
    let listener = held.listen();
    link.wait("heartbeat", |beat| beat["status"] == "ready").await;
    assert_eq!(ready().await.status(), 200);
    drop(listener);
    let beat = link.wait("heartbeat", |beat| beat["status"] == "degraded").await;
    assert!(beat["detail"].as_str().unwrap().contains("refused"), "{beat}");
    assert_eq!(ready().await.status(), 503);
}

#[tokio::test]
async fn draining_is_said_and_ends_when_the_control_plane_confirms() {
    let control = Control::start(DOMAIN).await;
    let (agent, state) = (Agent::start("a").await, tempfile::tempdir().unwrap());
    let launched = member(&control, state.path()).args(&["--drain-delay", "60s"]).launch();
    let mut link = control.link().await;
    first(&mut link, "w.test", agent.addr().port()).await;
    let mut sidecar = launched.ready().await;
    sidecar.terminate();
    link.wait("heartbeat", |beat| beat["status"] == "draining").await;
    assert_eq!(call(&sidecar, "w.test").await, 200, "it goes on accepting");
    link.send(&json!({ "type": "drained" })).await;
    let status = sidecar.exit(Duration::from_secs(10)).await.expect("the confirmation ends the wait");
    assert!(status.success());
}

#[tokio::test]
async fn before_the_first_configuration_it_is_not_ready() {
    let control = Control::start(DOMAIN).await;
    let state = tempfile::tempdir().unwrap();
    let place = Nobody::new();
    let status = place.addr();
    let launched = member(&control, state.path()).args(&["--status", &status.to_string()]).launch();
    let mut link = control.link().await;
    let answer = h1::get(status, "x", "/ready", &[]).await.unwrap();
    assert_eq!((answer.status(), answer.text().trim()), (503, "waiting for the control plane"));
    first(&mut link, "w.test", 1).await;
    let _sidecar = launched.ready().await;
    assert_eq!(h1::get(status, "x", "/ready", &[]).await.unwrap().status(), 200);
    assert_eq!(h1::get(status, "x", "/config", &[]).await.unwrap().status(), 404);
}
