//! Updates, refusals, resuming, and serving while the control plane is away.

use super::*;
use pilotfish_testkit::control::control_id;

#[tokio::test]
async fn documents_come_change_and_go() {
    let control = Control::start(DOMAIN).await;
    let (agent, state) = (Agent::start("a").await, tempfile::tempdir().unwrap());
    let port = agent.addr().port();
    let (sidecar, mut link) = serving(&control, state.path(), "one.test", &agent).await;
    let told = link.state(|state| state["serving"] == 1).await;
    assert_eq!((&told["accepted"], &told["refused"]), (&json!(1), &Value::Null));
    link.update(2, json!({ "full": false, "documents": [service("two.test", port)] })).await;
    link.state(|state| state["serving"] == 2).await;
    assert_eq!((call(&sidecar, "one.test").await, call(&sidecar, "two.test").await), (200, 200));
    let gone = json!([service("one.test", port)["key"]]);
    link.update(3, json!({ "full": false, "documents_gone": gone })).await;
    link.state(|state| state["serving"] == 3).await;
    assert_eq!((call(&sidecar, "one.test").await, call(&sidecar, "two.test").await), (404, 200));
    link.update(4, json!({})).await;
    link.state(|state| state["serving"] == 4).await;
    assert_eq!(call(&sidecar, "two.test").await, 404, "a full update without documents means none");
}

#[tokio::test]
async fn a_refused_update_leaves_the_last_good_one_and_says_why() {
    let control = Control::start(DOMAIN).await;
    let (agent, state) = (Agent::start("a").await, tempfile::tempdir().unwrap());
    let (sidecar, mut link) = serving(&control, state.path(), "w.test", &agent).await;
    let mut bad = service("bad.test", 1);
    bad["body"]["spec"]["hosts"] = json!(7);
    link.update(2, json!({ "full": false, "documents": [bad] })).await;
    let told = link.state(|state| !state["refused"].is_null()).await;
    assert_eq!(
        (&told["accepted"], &told["serving"], &told["refused"]["version"]),
        (&json!(1), &json!(1), &json!(2))
    );
    assert!(told["refused"]["reasons"][0].as_str().unwrap().contains("bad-test.yaml:1"), "{told}");
    assert_eq!(call(&sidecar, "w.test").await, 200);
    link.update(3, json!({ "full": false, "documents_gone": [bad["key"]] })).await;
    let told = link.state(|state| state["serving"] == 3).await;
    assert!(told["refused"].is_null());
}

#[tokio::test]
async fn a_restart_without_the_control_plane_serves_from_the_disk_and_resumes() {
    let control = Control::start(DOMAIN).await;
    let (agent, state) = (Agent::start("a").await, tempfile::tempdir().unwrap());
    let (mut sidecar, before) = serving(&control, state.path(), "w.test", &agent).await;
    sidecar.terminate();
    assert!(sidecar.exit(Duration::from_secs(10)).await.is_some_and(|status| status.success()));
    let window = before.hello["dedup_epoch"].clone();
    let builder = offline(&control, state.path());
    let (place, ca) = control.kill().await;
    let sidecar = builder.launch().ready().await;
    assert_eq!(call(&sidecar, "w.test").await, 200);
    let control = Control::at(place, DOMAIN, ca, &control_id(DOMAIN)).await;
    let mut link = control.link().await;
    assert_eq!(link.hello["resume"], json!({ "version": 1, "digest": "d1" }));
    let now = link.hello["dedup_epoch"].as_str().unwrap();
    assert!(now.len() == 32 && window.as_str().is_some_and(|before| before.len() == 32 && before != now));
    link.welcome().await;
    assert_eq!(link.state(|_| true).await["serving"], 1);
    let agent_port = agent.addr().port();
    link.update(2, json!({ "full": false, "documents": [service("two.test", agent_port)] })).await;
    link.state(|state| state["serving"] == 2).await;
    assert_eq!((call(&sidecar, "w.test").await, call(&sidecar, "two.test").await), (200, 200));
}

#[tokio::test]
async fn a_corrupt_state_is_ignored_loudly() {
    let control = Control::start(DOMAIN).await;
    let (agent, state) = (Agent::start("a").await, tempfile::tempdir().unwrap());
    let (mut sidecar, _link) = serving(&control, state.path(), "w.test", &agent).await;
    sidecar.terminate();
    sidecar.exit(Duration::from_secs(10)).await.unwrap();
    let file = state.path().join("state.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("w.test", "x.test")).unwrap();
    let launched = offline(&control, state.path()).launch();
    launched.said(|line| line.starts_with("error") && line.contains("state.json")).await;
    let mut link = control.link().await;
    assert!(link.hello["resume"].is_null());
    first(&mut link, "w.test", agent.addr().port()).await;
    let sidecar = launched.ready().await;
    assert_eq!(call(&sidecar, "w.test").await, 200);
}

#[tokio::test]
async fn another_control_plane_is_found_within_two_seconds() {
    let control = Control::start(DOMAIN).await;
    let other = control.another().await;
    let (agent, state) = (Agent::start("a").await, tempfile::tempdir().unwrap());
    let both = format!("{},{}", control.url(), other.url());
    let state_dir = state.path().to_str().unwrap();
    let token = control.token();
    let flags = ["--control", both.as_str(), "--state-dir", state_dir, "--token", token.as_str()];
    // Only the first knows the token; the order of joins is the order of the flag.
    let launched = support::sidecar().without_config().agent("caller").args(&flags).launch();
    let (mut link, was_first) = tokio::select! {
        link = control.link() => (link, true),
        link = other.link() => (link, false),
    };
    first(&mut link, "w.test", agent.addr().port()).await;
    let sidecar = launched.ready().await;
    let (dies, lives) = if was_first { (control, other) } else { (other, control) };
    // It hangs, which only a ping shows.
    let start = tokio::time::Instant::now();
    dies.hang();
    let link = tokio::time::timeout(Duration::from_secs(15), lives.link()).await.expect("it moves");
    // Two seconds, and the machine's own slowness.
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert_eq!(link.hello["resume"]["version"], 1);
    assert_eq!(call(&sidecar, "w.test").await, 200);
    drop(dies);
}

#[tokio::test]
async fn endpoints_are_agents_that_can_be_chosen() {
    let control = Control::start(DOMAIN).await;
    let (agent, state) = (Agent::start("a").await, tempfile::tempdir().unwrap());
    let (sidecar, mut link) = serving(&control, state.path(), "w.test", &agent).await;
    let endpoint = json!({
        "id": "default/nlu/1", "agent": "nlu", "namespace": "default", "address": "127.0.0.1:9",
        "capabilities": ["understanding@1.0.0"], "status": "ready",
    });
    link.update(2, json!({ "full": false, "endpoints": [endpoint] })).await;
    link.state(|state| state["serving"] == 2).await;
    let capability = &["agent-capability: understanding"];
    let answer = h1::get(sidecar.outbound, "understanding.capability.mesh", "/", capability).await.unwrap();
    // Nobody listens there: it was chosen, and could not be reached.
    assert_eq!(answer.status(), 503, "{}", answer.text());
    assert_ne!(answer.header("pilotfish-reason").as_deref(), Some("nobody-qualifies"), "{}", answer.text());
    let said = link.wait("heartbeat", |beat| beat["reports"][0]["health"].is_object()).await;
    let report = &said["reports"][0];
    assert_eq!(
        (report["endpoint"].as_str(), report["health"]["state"].as_str()),
        (Some("default/nlu/1"), Some("unreachable"))
    );
    link.send(&json!({ "type": "ranks", "ranks": [
        { "endpoint": "default/nlu/1", "latency_us": 1000, "success": 0.9, "in_flight": 3 },
        { "endpoint": "nobody", "latency_us": 1, "success": 7.0, "in_flight": 0 },
    ] }))
    .await;
    link.update(3, json!({ "full": false, "endpoints_gone": ["default/nlu/1"] })).await;
    link.state(|state| state["serving"] == 3).await;
    let answer = h1::get(sidecar.outbound, "understanding.capability.mesh", "/", capability).await.unwrap();
    assert_eq!(answer.header("pilotfish-reason").as_deref(), Some("nobody-qualifies"));
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_told_of() {
    let control = Control::start(DOMAIN).await;
    let (agent, state) = (Agent::start("a").await, tempfile::tempdir().unwrap());
    let log = state.path().join("audit/000000000001.jsonl");
    let launched = member(&control, state.path()).args(&["--outbound-policy", "registry-only"]).launch();
    let mut link = control.link().await;
    first(&mut link, "w.test", agent.addr().port()).await;
    let sidecar = launched.ready().await;
    let batch = link.wait("audit", |_| true).await;
    // Whoever writes goes on with the file, whoever reads finds something else in its place.
    std::fs::rename(&log, state.path().join("away")).unwrap();
    std::fs::create_dir(&log).unwrap();
    let seq = batch["lines"].as_array().unwrap().len();
    link.send(&json!({ "type": "audit-taken", "chain": batch["chain"], "seq": seq })).await;
    let proxied = "GET http://elsewhere.test/ HTTP/1.1\r\nhost: elsewhere.test\r\n\r\n";
    let answer = pilotfish_testkit::H1::connect(sidecar.outbound).await.ask(proxied).await.unwrap();
    assert_eq!(answer.reason(), "egress-not-allowed");
    let line = until_said(&sidecar, "audit records cannot be read").await;
    assert!(line.contains("directory"), "{line}");
}
