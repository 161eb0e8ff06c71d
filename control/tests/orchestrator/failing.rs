//! What goes wrong: nodes that are silent and come back, control planes that are killed, identities that do not fit.

use std::time::Duration;

use pilotfish_config::wire::node::{FromNode, NeedToken, ReplicaPhase, ReplicaState, Stale};
use pilotfish_control::api::types::Agents;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::{apply, cluster, count, until};
use crate::support::node::{Node, Options, joined};
use crate::support::{Http, Serve};

/// What a node that was away says that it has.
fn state(id: &str, generation: &str) -> ReplicaState {
    ReplicaState {
        id: id.into(),
        generation: generation.into(),
        phase: ReplicaPhase::Running,
        reason: None,
        restarts: 0,
        sidecar_restarts: 0,
        pid: Some(1),
        since_ms: 0,
        usage: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_nodes_replicas_go_elsewhere_and_it_is_told_so_when_it_returns() {
    let serve = Serve::start(&["--node-grace", "6s"]);
    let own = joined(&serve, "n1").await;
    let first = Node::connect(&serve, "n1", &own, Options::default()).await;
    apply(&serve, &cluster(1, "")).await;
    let order = first.until_has(1).await.remove(0);
    until(&serve, "it is ready", |view| count(view, "ready") == 1).await;
    let second = Node::start(&serve, "n2").await;
    second.until_has(0).await;
    first.mute();
    // At the end of the lease nobody is sent there any more, although its sidecar's own lease holds; nothing moves yet.
    until(&serve, "it is silent", |view| view.nodes[0].status == "silent").await;
    let agents: Agents = Http::socket(&serve).await.get("/v1/agents").await.ok();
    let why = agents.others.iter().map(|row| row.why_not.as_deref()).collect::<Vec<_>>();
    assert_eq!((agents.agents.len(), why), (0, vec![Some("its node is silent")]), "{agents:?}");
    assert!(second.seen().replicas().is_empty());
    let new = second.until_has(1).await.remove(0);
    let after = first.seen().beat.unwrap().elapsed();
    println!("elsewhere after {after:?}");
    // Its lease of 3 s since its last beat, and the grace time.
    assert!(after >= Duration::from_secs(8), "{after:?}");
    assert_ne!(new.id, order.id);
    // It comes back with what it has, and is told a set without it.
    drop(first);
    let options =
        Options { replicas: vec![state(&order.id, &order.generation)], ready: false, ..Options::default() };
    let back = Node::connect(&serve, "n1", &own, options).await;
    back.until("an empty set", |seen| seen.sets.last().is_some_and(|set| set.replicas.is_empty())).await;
    let view = until(&serve, "it is there again", |view| view.nodes[0].status == "ready").await;
    assert_eq!(view.agents[0].placed, 1, "{view:#?}");
    assert_eq!(second.seen().replicas().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_control_plane_places_nothing_twice() {
    let serve = Serve::start(&[]);
    let own = joined(&serve, "n1").await;
    let node = Node::connect(&serve, "n1", &own, Options::default()).await;
    apply(&serve, &cluster(3, "")).await;
    let before = node.until_has(3).await;
    let seen = node.seen();
    let folder = serve.kill();
    let serve = Serve::start_in(folder, &[]);
    let replicas = before.iter().map(|order| state(&order.id, &order.generation)).collect();
    let options = Options { term: seen.welcomes[0], replicas, ..Options::default() };
    let node = Node::connect(&serve, "n1", &own, options).await;
    // A new node is no reason to move anything.
    let other = Node::start(&serve, "n2").await;
    other.until_has(0).await;
    let after = node.until_has(3).await;
    assert_eq!(before, after);
    assert!(node.seen().welcomes[0] > seen.welcomes[0], "the term counts up");
    sleep(Duration::from_millis(500)).await;
    assert_eq!(node.seen().sets.len(), 1, "{:#?}", node.seen().sets);
    assert!(other.seen().replicas().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_was_stopped_takes_no_node_for_lost() {
    let serve = Serve::start(&["--node-grace", "0s"]);
    let node = Node::start(&serve, "n1").await;
    let other = Node::start(&serve, "n2").await;
    other.until_has(0).await;
    apply(&serve, &cluster(2, "")).await;
    until(&serve, "both are ready", |view| count(view, "ready") == 2).await;
    let before = (node.seen().replicas(), other.seen().replicas());
    serve.signal(Signal::STOP);
    sleep(Duration::from_secs(5)).await;
    serve.signal(Signal::CONT);
    sleep(Duration::from_millis(1500)).await;
    let view = until(&serve, "it answers", |_| true).await;
    assert!(view.nodes.iter().all(|node| node.status == "ready"), "{view:#?}");
    assert_eq!((node.seen().replicas(), other.seen().replicas()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused() {
    let serve = Serve::start(&[]);
    let own = joined(&serve, "n1").await;
    let first = Node::connect(&serve, "n1", &own, Options::default()).await;
    first.until_has(0).await;
    // Another process with the same identity, while the first lives.
    let other = Options { instance: "f".repeat(32), ..Options::default() };
    let second = Node::connect(&serve, "n1", &own, other.clone()).await;
    let seen = second.until("a refusal", |seen| seen.refused.is_some()).await;
    assert!(seen.refused.unwrap().contains("another process is connected as the node n1"));
    until(&serve, "it is said", |view| {
        view.nodes[0].troubles.iter().any(|text| text.contains("another process tries to connect"))
    })
    .await;
    // A second stream of the same process replaces the first, which is told.
    let again = Node::connect(&serve, "n1", &own, Options::default()).await;
    again.until_has(0).await;
    let seen = first.until("a last word", |seen| seen.refused.is_some()).await;
    assert!(seen.refused.unwrap().contains("a newer stream of this node"));
    // Its end is not the node's.
    drop(first);
    // Once the node is gone another process may come.
    drop(again);
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let third = Node::connect(&serve, "n1", &own, other.clone()).await;
        let seen = third.until("an answer", |seen| seen.refused.is_some() || !seen.sets.is_empty()).await;
        if seen.refused.is_none() {
            break;
        }
        assert!(Instant::now() < end, "{seen:?}");
    }
    // The name of another, and a token for a replica that is not its own.
    let wrong = Node::connect(&serve, "n2", &own, Options::default()).await;
    let seen = wrong.until("a refusal", |seen| seen.refused.is_some()).await;
    assert!(seen.refused.unwrap().contains("the certificate is of the node n1"));
    let own = joined(&serve, "n3").await;
    let thief = Node::connect(&serve, "n3", &own, Options::default()).await;
    thief.until_has(0).await;
    thief.say(FromNode::NeedToken(NeedToken { replica: "default/planner/0123456789".into() }));
    let seen = thief.until("no token", |seen| !seen.no_token.is_empty()).await;
    assert_eq!(seen.no_token, ["the replica is not this node's"]);
    // One that refuses the leader's orders is shown.
    thief.say(FromNode::Stale(Stale { term: 1, seen: 99 }));
    until(&serve, "it is said", |view| {
        view.nodes.iter().any(|node| node.troubles.iter().any(|text| text.contains("it has seen 99")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_start_a_replica_is_left_for_another() {
    let serve = Serve::start(&[]);
    let own = joined(&serve, "n1").await;
    let options = Options { ready: false, phase: ReplicaPhase::Failed, ..Options::default() };
    let broken = Node::connect(&serve, "n1", &own, options).await;
    apply(&serve, &cluster(1, "")).await;
    broken.until_has(1).await;
    let view = until(&serve, "the reason is shown", |view| count(view, "failed") == 1).await;
    assert_eq!(view.replicas[0].reason.as_deref(), Some("no such command"));
    let good = Node::start(&serve, "n2").await;
    good.until_has(1).await;
    broken.until_has(0).await;
    until(&serve, "it is ready", |view| count(view, "ready") == 1 && view.replicas.len() == 1).await;
}
