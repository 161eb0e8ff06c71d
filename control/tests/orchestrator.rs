//! The orchestrator from outside: documents go in, nodes that speak the protocol get sets, sidecars register.

#[cfg(feature = "etcd")]
mod etcd;
mod failing;

use std::sync::Arc;
use std::time::Duration;

use pilotfish_config::wire::node::FromNode;
use pilotfish_control::api::types::{Applied, Done, Mark, MarkNode, PlacementView, Scale, TailLines};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::support::node::{Node, Options, inventory, joined};
use crate::support::{Http, Serve};

/// A cluster with one agent.
pub fn cluster(replicas: u32, more: &str) -> Value {
    let text = format!(
        "apiVersion: pilotfish.dev/v1\nkind: AgentCluster\nmetadata:\n  name: work\nspec:\n  agents:\n  - name: planner\n    \
         replicas: {replicas}\n    command: [sleep, \"1000\"]\n{more}"
    );
    json!({ "files": [{ "name": "agents.yaml", "text": text }] })
}

pub async fn apply(serve: &Serve, documents: &Value) {
    Http::socket(serve).await.post("/v1/apply", documents).await.ok::<Applied>();
}

/// Waits until what is shown fits.
pub async fn until(serve: &Serve, what: &str, fits: impl Fn(&PlacementView) -> bool) -> PlacementView {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let reply = Http::socket(serve).await.get("/v1/placement").await;
        if reply.status == 200 {
            let view: PlacementView = reply.json();
            if fits(&view) {
                return view;
            }
            assert!(Instant::now() < end, "never {what}: {view:#?}");
        }
        assert!(Instant::now() < end, "never {what}: {}", reply.text());
        sleep(Duration::from_millis(20)).await;
    }
}

/// Replicas of a status.
pub fn count(view: &PlacementView, status: &str) -> usize {
    view.replicas.iter().filter(|row| row.status == status).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_arrives_at_a_node_and_follows_the_number() {
    let serve = Serve::start(&[]);
    let node = Node::start(&serve, "n1").await;
    // A set comes at once, also when there is nothing to run: what a node has beside it is nobody's.
    node.until_has(0).await;
    apply(&serve, &cluster(2, "    resources: { cpu: 500m, memory: 1Gi }\n")).await;
    let replicas = node.until_has(2).await;
    let order = &replicas[0];
    assert_eq!((order.namespace.as_str(), order.agent.as_str()), ("default", "planner"));
    assert_eq!((order.command.join(" "), order.cpu_milli, order.memory), ("sleep 1000".into(), 500, 1 << 30));
    let label = |key: &str| order.labels.get(key).map(String::as_str);
    assert_eq!(label("pilotfish.dev/replica"), Some(order.id.as_str()));
    assert_eq!(
        (label("pilotfish.dev/node"), label("pilotfish.dev/cluster")),
        (Some("n1"), Some("default/work"))
    );
    assert_eq!(
        (label("resource-type"), label("region"), label("zone")),
        (Some("cpu"), Some("eu"), Some("a"))
    );
    let view = until(&serve, "two are ready", |view| count(view, "ready") == 2).await;
    assert_eq!((view.agents[0].wanted, view.agents[0].placed, view.agents[0].ready), (2, 2, 2), "{view:#?}");
    assert_eq!((view.nodes[0].cpu_milli, view.nodes[0].status.as_str()), ((1000, 16_000), "ready"));

    // More and fewer, and what stays is not touched.
    let scale = |replicas| Scale { agent: "default/planner".into(), region: None, replicas };
    Http::socket(&serve).await.post("/v1/placement/scale", &scale(Some(3))).await.ok::<Done>();
    let three = node.until_has(3).await;
    assert!(replicas.iter().all(|old| three.iter().any(|new| new.id == old.id)), "{three:#?}");
    Http::socket(&serve).await.post("/v1/placement/scale", &scale(Some(1))).await.ok::<Done>();
    let one = node.until_has(1).await;
    assert!(three.iter().any(|old| old.id == one[0].id));
    Http::socket(&serve).await.post("/v1/placement/scale", &scale(None)).await.ok::<Done>();
    node.until_has(2).await;
    let unknown = Scale { agent: "default/planer".into(), region: None, replicas: Some(1) };
    let why = Http::socket(&serve).await.post("/v1/placement/scale", &unknown).await.refused(404);
    assert!(why.contains("did you mean `default/planner`?"), "{why}");

    let mut status = Http::plain(serve.status.unwrap()).await;
    let metrics = status.get("/metrics").await.text();
    for line in [
        "pilotfish_control_placement_leader 1",
        "pilotfish_control_nodes{status=\"ready\"} 1",
        "pilotfish_control_replicas_unplaced 0",
    ] {
        assert!(metrics.lines().any(|own| own == line), "{line} is not in\n{metrics}");
    }
    assert!(metrics.contains("\npilotfish_control_placement_duration_seconds_count "), "{metrics}");

    // The node answers for lines of its replicas.
    let replica = &node.seen().replicas()[0].id;
    let path = format!("/v1/replicas/tail?replica={replica}");
    let lines: TailLines = Http::socket(&serve).await.get(&path).await.ok();
    assert_eq!(lines.lines, [format!("the last line of {replica}")]);

    // Without its document nothing of it is left.
    let gone = Http::socket(&serve).await.ask("DELETE", "/v1/resources/AgentCluster/default/work", "").await;
    assert_eq!(gone.status, 200, "{}", gone.text());
    node.until_has(0).await;
    until(&serve, "nothing is left", |view| view.replicas.is_empty() && view.agents.is_empty()).await;

    // Sequences count up within the term.
    let sets = node.seen().sets;
    assert!(sets.windows(2).all(|pair| pair[0].sequence < pair[1].sequence && pair[0].term == pair[1].term));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_is_left_after_what_replaces_it_is_ready() {
    let serve = Serve::start(&[]);
    let first = Node::start(&serve, "n1").await;
    apply(&serve, &cluster(2, "")).await;
    let before = first.until_has(2).await;
    until(&serve, "two are ready", |view| count(view, "ready") == 2).await;
    // The other node's replicas do not become ready: nothing goes.
    let own = joined(&serve, "n2").await;
    let slow = Node::connect(&serve, "n2", &own, Options { ready: false, ..Options::default() }).await;
    let mark = MarkNode { node: "n1".into(), mark: Mark::Draining };
    let done: Done = Http::socket(&serve).await.post("/v1/nodes/mark", &mark).await.ok();
    assert!(done.message.contains("its 2 replicas move elsewhere"), "{}", done.message);
    let new = slow.until("a replacement", |seen| !seen.replicas().is_empty()).await.replicas();
    sleep(Duration::from_millis(700)).await;
    assert_eq!(first.seen().replicas(), before, "none goes before its replacement is ready");
    // One at a time, as the disruption budget says.
    assert_eq!(slow.seen().replicas().len(), 1, "{new:#?}");
    drop(slow);
    let fast = Node::connect(&serve, "n2", &own, Options::default()).await;
    fast.until_has(2).await;
    first.until_has(0).await;
    let view = until(&serve, "all moved", |view| count(view, "ready") == 2 && view.replicas.len() == 2).await;
    assert!(view.replicas.iter().all(|row| row.node.as_deref() == Some("n2")), "{view:#?}");
    assert_eq!(view.nodes[0].status, "draining");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_generation_rolls_out_one_by_one() {
    let serve = Serve::start(&[]);
    let node = Node::start(&serve, "n1").await;
    apply(&serve, &cluster(3, "")).await;
    let old = node.until_has(3).await;
    until(&serve, "three are ready", |view| count(view, "ready") == 3).await;
    apply(&serve, &cluster(3, "    env: { MODEL: new }\n")).await;
    let all_new = |seen: &crate::support::node::Seen| {
        let replicas = seen.replicas();
        replicas.len() == 3 && replicas.iter().all(|new| old.iter().all(|old| old.id != new.id))
    };
    let seen = node.until("three new ones", all_new).await;
    for set in &seen.sets[1..] {
        let there = set.replicas.iter().filter(|order| seen.registered.contains(&order.id)).count();
        let old_there = set.replicas.iter().filter(|order| old.iter().any(|old| old.id == order.id)).count();
        assert!(set.replicas.len() <= 4, "one more than wanted at a time: {set:#?}");
        assert!(set.replicas.len() < 3 || there + old_there >= 2, "{set:#?}");
    }
    assert!(seen.replicas().iter().all(|order| order.env["MODEL"] == "new"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asked_for_too_much_is_told_what_there_is() {
    let serve = Serve::start(&[]);
    let node = Node::start(&serve, "n1").await;
    apply(&serve, &cluster(2, "    resources: { gpu: \"1\" }\n")).await;
    let view =
        until(&serve, "it has no place", |view| view.agents.iter().any(|row| row.reason.is_some())).await;
    assert_eq!((view.agents[0].wanted, view.agents[0].placed), (2, 0), "{view:#?}");
    let explained: pilotfish_control::orchestrator::Explanation =
        Http::socket(&serve).await.get("/v1/placement/explain?agent=default/planner").await.ok();
    assert!(explained.need.contains("1 GPU"), "{explained:#?}");
    assert!(
        explained.obstacles.iter().any(|(nodes, why)| *nodes == 1 && why.contains("GPU")),
        "{explained:#?}"
    );
    // A card comes, and it is placed at once.
    node.say(FromNode::Inventory(inventory(1)));
    node.until_has(1).await;
    let why =
        Http::socket(&serve).await.get("/v1/placement/explain?agent=default/plannner").await.refused(404);
    assert!(why.contains("did you mean `default/planner`?"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_a_command_has_a_place_and_waits() {
    let serve = Serve::start(&[]);
    let node = Node::start(&serve, "n1").await;
    let text = "apiVersion: pilotfish.dev/v1\nkind: AgentCluster\nmetadata:\n  name: work\nspec:\n  agents:\n  - name: planner\n    \
                replicas: 1\n";
    apply(&serve, &json!({ "files": [{ "name": "agents.yaml", "text": text }] })).await;
    let view = until(&serve, "it waits", |view| count(view, "waiting") == 1).await;
    assert!(view.replicas[0].reason.as_deref().is_some_and(|why| why.contains("command")), "{view:#?}");
    node.until_has(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_fails_or_vanishes_is_left() {
    let serve = Serve::start(&[]);
    let own = joined(&serve, "n1").await;
    let options = Options { inventory: inventory(1), ..Options::default() };
    let first = Node::connect(&serve, "n1", &own, options.clone()).await;
    apply(&serve, &cluster(1, "    resources: { gpu: \"1\" }\n")).await;
    let order = first.until_has(1).await.remove(0);
    assert_eq!(
        (order.gpus[0].gpu.as_str(), order.labels["gpu-model"].as_str()),
        ("GPU-0", "NVIDIA-A100-SXM4-80GB")
    );
    until(&serve, "it is ready", |view| count(view, "ready") == 1).await;
    let own = joined(&serve, "n2").await;
    // Its replicas end when somebody has seen the trouble.
    let ends = Arc::new(Semaphore::new(0));
    let options = Options { ends: Some(ends.clone()), ..options };
    let second = Node::connect(&serve, "n2", &own, options).await;
    let mut less = inventory(1);
    less.gpus[0].failed = Some("fell off the bus".into());
    first.say(FromNode::Inventory(less));
    second.until_has(1).await;
    first.until_has(0).await;
    until(&serve, "it is ready there", |view| count(view, "ready") == 1 && view.replicas.len() == 1).await;
    // The second reports no card at all, while a replica has it that has nowhere to go.
    second.say(FromNode::Inventory(inventory(0)));
    let vanished = |view: &PlacementView| {
        view.nodes[1]
            .troubles
            .iter()
            .any(|text| text.contains("GPU-0, which agents hold, is not there any more"))
    };
    until(&serve, "the trouble is shown", vanished).await;
    ends.add_permits(100);
    // The first is whole again.
    first.say(FromNode::Inventory(inventory(1)));
    first.until_has(1).await;
    second.until_has(0).await;
}
