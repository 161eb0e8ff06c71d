//! Agents that are started when they are asked for: calls wait for them, in order and not for ever, and go on once they are there.

use std::time::Duration;

use pilotfish_testkit::control::{Control, Link, document};
use pilotfish_testkit::h1::{Answer, H1};
use pilotfish_testkit::{Agent, Sidecar, h1};
use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::{self, metric, wait_metric};
use crate::why::account;

const PATIENCE: Duration = Duration::from_secs(15);
const WAITING: &str = "pilotfish_calls_waiting_for_start{agent=\"default/ocr\"}";

/// A caller's sidecar and that of an agent `ocr`, which is there already but of which the caller is not told.
struct World {
    control: Control,
    caller: Sidecar,
    link: Link,
    agent: Agent,
    worker: Sidecar,
    worker_link: Link,
    version: u64,
    _state: tempfile::TempDir,
}

/// An AgentCluster whose agent `ocr` is started as `deployment` says.
fn cluster(deployment: Value) -> Value {
    let agent = json!({
        "name": "ocr", "replicas": 3, "command": ["ocr"], "capabilities": ["text_recognition"],
        "labels": { "tier": "gold" }, "deployment": deployment,
    });
    document("AgentCluster", "pilotfish.dev/v1", "lab", json!({ "agents": [agent] }))
}

impl World {
    async fn start(documents: Vec<Value>) -> World {
        let (control, state) = (Control::start("mesh.test").await, tempfile::tempdir().unwrap());
        let agent = Agent::start("ocr").await;
        let member = |name: &str, token: &str| {
            let state = state.path().join(name);
            let flags =
                ["--control", &control.url(), "--state-dir", state.to_str().unwrap(), "--token", token];
            support::sidecar().without_config().agent(name).args(&flags)
        };
        let launched = member("caller", &control.token()).launch();
        let mut link = control.link().await;
        link.welcome().await;
        link.update(1, json!({ "documents": documents })).await;
        let caller = launched.ready().await;
        let launched = member("ocr", &control.token()).app(agent.addr()).launch();
        let mut worker_link = control.link().await;
        worker_link.welcome().await;
        worker_link.update(1, json!({ "documents": documents })).await;
        let worker = launched.ready().await;
        World { control, caller, link, agent, worker, worker_link, version: 1, _state: state }
    }

    /// Just in time, with these settings.
    async fn just_in_time(mut settings: Value) -> World {
        settings["strategy"] = "just_in_time".into();
        World::start(vec![cluster(settings)]).await
    }

    /// A call that is under way.
    fn call(&self, host: &str, headers: &[&str], body: &str) -> JoinHandle<Answer> {
        self.post(host, "/x", headers, body)
    }

    fn post(&self, host: &str, path: &str, headers: &[&str], body: &str) -> JoinHandle<Answer> {
        let mut head = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n", body.len());
        headers.iter().for_each(|line| head += &format!("{line}\r\n"));
        let (addr, request) = (self.caller.outbound, head + "\r\n" + body);
        tokio::spawn(async move { H1::connect(addr).await.patience(PATIENCE).ask(request).await.unwrap() })
    }

    /// Waits until so many calls are said to wait.
    async fn asked(&mut self, waiting: u64) {
        let wanted = json!([{ "agent": "default/ocr", "waiting": waiting }]);
        self.link.wait("asked", |asked| asked["agents"] == wanted).await;
    }

    /// The caller learns of an instance with these labels, at the worker's sidecar.
    async fn comes(&mut self, labels: Value, capacity: u32) {
        let endpoint = json!({
            "id": "default/ocr/1", "agent": "ocr", "namespace": "default", "status": "ready", "labels": labels,
            "address": self.worker.inbound.to_string(), "capabilities": ["text_recognition"], "capacity": capacity,
        });
        self.version += 1;
        self.link.update(self.version, json!({ "full": false, "endpoints": [endpoint] })).await;
    }
}

#[tokio::test]
async fn a_call_waits_with_its_body_until_its_agent_is_there() {
    let mut world = World::just_in_time(json!({})).await;
    let calls = [
        world.call("text_recognition.capability.mesh", &["x-request-id: waited"], "by host"),
        world.call("x", &["agent-capability: text_recognition"], "by header"),
        world.call("ocr.default", &[], "by the agent's own host"),
    ];
    world.asked(3).await;
    wait_metric(&world.caller, WAITING, 3).await;
    assert!(calls.iter().all(|call| !call.is_finished()));
    world.comes(json!({}), 0).await;
    for (call, body) in calls.into_iter().zip(["by host", "by header", "by the agent's own host"]) {
        let answer = call.await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let echo = answer.json();
        assert_eq!((echo["agent"].as_str(), echo["body"].as_str()), (Some("ocr"), Some(body)));
    }
    world.asked(0).await;
    assert_eq!(metric(&world.caller, WAITING).await, 0);
    let call = account(&world.caller, "request=waited").await;
    assert_eq!(call["started_for"]["agent"], "default/ocr", "{call:#}");
    assert_eq!(call["policies"], json!(["started"]));
    // Now it is there, and nobody waits.
    let answer = world.call("ocr.default", &["x-request-id: at-once"], "").await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(account(&world.caller, "request=at-once").await["started_for"], Value::Null);
}

#[tokio::test]
async fn a_rule_may_lead_to_an_agent_that_is_not_there() {
    let rule = json!({
        "hosts": ["read.test"],
        "http": [{
            "match": [{ "uri": { "prefix": "/x" } }],
            "rewrite": { "uri": "/rewritten" },
            "headers": { "request": { "add": { "x-added": "once" } } },
            "route": [{ "destination": { "host": "ocr.default.svc.cluster.local" } }],
        }],
    });
    let rule = document("VirtualService", "networking.istio.io/v1", "read", rule);
    let mut world = World::start(vec![cluster("just_in_time".into()), rule]).await;
    let call = world.call("read.test", &[], "a page");
    world.asked(1).await;
    // Something else changes: it goes on waiting.
    let other =
        document("AgentCluster", "pilotfish.dev/v1", "other", json!({ "agents": [{ "name": "none" }] }));
    world.version += 1;
    world.link.update(world.version, json!({ "full": false, "documents": [other] })).await;
    world.asked(1).await;
    world.comes(json!({}), 0).await;
    let echo = call.await.unwrap().json();
    assert_eq!(
        (echo["path"].as_str(), echo["body"].as_str()),
        (Some("/rewritten"), Some("a page")),
        "{echo}"
    );
    assert_eq!(echo["headers"]["x-added"], json!(["once"]));
}

#[tokio::test]
async fn it_waits_no_longer_than_it_may() {
    let mut world = World::just_in_time(json!({ "wait": "400ms" })).await;
    let late = world.call("ocr.default", &[], "");
    let hurried = world.call("ocr.default", &["agent-deadline-ms: 150"], "").await.unwrap();
    assert_eq!((hurried.status(), &*hurried.reason()), (504, "deadline-exceeded"));
    let late = late.await.unwrap();
    assert_eq!((late.status(), &*late.reason()), (504, "not-started-in-time"), "{}", late.text());
    assert!(late.text().contains("default/ocr was not started within 400ms"), "{}", late.text());
    world.asked(0).await;
}

#[tokio::test]
async fn who_goes_away_does_not_wait_any_more() {
    let mut world = World::just_in_time(json!({})).await;
    let mut gone = H1::connect(world.caller.outbound).await;
    gone.send("GET / HTTP/1.1\r\nhost: ocr.default\r\n\r\n").await;
    world.asked(1).await;
    gone.reset();
    world.asked(0).await;
}

#[tokio::test]
async fn one_more_than_may_wait_is_refused_at_once_and_all_are_when_it_does_not_come() {
    let mut world = World::just_in_time(json!({ "max_waiting": 2 })).await;
    let calls = [world.call("ocr.default", &[], ""), world.call("ocr.default", &[], "")];
    wait_metric(&world.caller, WAITING, 2).await;
    let more = world.call("ocr.default", &[], "").await.unwrap();
    assert_eq!((more.status(), &*more.reason()), (503, "starting-queue-full"), "{}", more.text());
    world.asked(2).await;
    let why = json!({ "type": "not-started", "agent": "default/ocr", "reason": "no node has 80 GiB of GPU memory" });
    world.link.send(&why).await;
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!((answer.status(), &*answer.reason()), (503, "not-started"));
        assert!(
            answer.text().contains("default/ocr is not started: no node has 80 GiB"),
            "{}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn those_who_wait_are_served_in_order_as_there_is_room() {
    let mut world = World::just_in_time(json!({})).await;
    let mut calls = JoinSet::new();
    for number in 1..=6 {
        let call = world.post("ocr.default", "/delay/30", &[], &number.to_string());
        calls.spawn(async { call.await.unwrap() });
        wait_metric(&world.caller, WAITING, number).await;
    }
    // One call at a time: the others wait on, which more instances could shorten.
    world.comes(json!({}), 1).await;
    let mut done = Vec::new();
    while let Some(answer) = calls.join_next().await {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text());
        done.push(answer.json()["body"].as_str().unwrap().to_owned());
    }
    assert_eq!(done, ["1", "2", "3", "4", "5", "6"]);
    assert_eq!((world.agent.requests(), world.agent.most_at_once()), (6, 1));
}

#[tokio::test]
async fn only_who_could_come_is_waited_for() {
    let mut world = World::just_in_time(json!({})).await;
    let host = "text_recognition.capability.mesh";
    for (constraint, status) in [("tier=bronze", 400), ("text=1", 400), ("latency<", 400)] {
        let header = format!("agent-constraint: {constraint}");
        let answer = world.call(host, &[&header], "").await.unwrap();
        assert_eq!(answer.status(), status, "{constraint}: {}", answer.text());
    }
    let other = world.call("x", &["agent-capability: text_recognition, dance"], "").await.unwrap();
    assert_eq!((other.status(), &*other.reason()), (503, "nobody-qualifies"));
    // Where it will be placed nobody knows: one that came to a card is taken, the other call does not wait in vain.
    let gpu = world.call(host, &["agent-constraint: resource-type=gpu, tier=gold"], "gpu");
    let cpu = world.call(host, &["agent-constraint: resource-type=cpu, region=eu"], "cpu");
    world.asked(2).await;
    world.comes(json!({ "resource-type": "gpu", "gpu-model": "NVIDIA-A100", "tier": "gold" }), 0).await;
    assert_eq!(gpu.await.unwrap().json()["body"], "gpu");
    let cpu = cpu.await.unwrap();
    assert_eq!((cpu.status(), &*cpu.reason()), (503, "nobody-qualifies"), "{}", cpu.text());
    let model = world.call(host, &["agent-constraint: gpu-model=NVIDIA-A100"], "").await.unwrap();
    assert_eq!(model.status(), 200);
}

#[tokio::test]
async fn nobody_starts_anything_without_a_control_plane() {
    let yaml = "apiVersion: pilotfish.dev/v1\nkind: AgentCluster\nmetadata: { name: a }\nspec:\n  agents:\n  - \
                { name: ocr, replicas: 1, command: [ocr], capabilities: [ocr], deployment: just_in_time }\n";
    let sidecar = support::sidecar().yaml("a.yaml", yaml).start();
    let answer = h1::get(sidecar.outbound, "ocr.capability.mesh", "/", &[]).await.unwrap();
    assert_eq!((answer.status(), &*answer.reason()), (503, "nobody-qualifies"));
}

#[tokio::test]
async fn a_heartbeat_says_how_long_the_agent_has_been_idle() {
    let mut world = World::just_in_time(json!({})).await;
    world.comes(json!({}), 0).await;
    world.worker_link.wait("heartbeat", |beat| beat["idle_ms"].as_u64().unwrap() > 1000).await;
    let mut client = H1::connect(world.caller.outbound).await.patience(PATIENCE);
    client.send("GET /stream/100/20 HTTP/1.1\r\nhost: ocr.default\r\n\r\n").await;
    let busy = world.worker_link.wait("heartbeat", |beat| beat["in_flight"] == 1).await;
    assert_eq!(busy["idle_ms"], 0, "a stream counts");
    drop(client);
    world.worker_link.wait("heartbeat", |beat| (1..).contains(&beat["idle_ms"].as_u64().unwrap())).await;
    drop(world.control);
}
