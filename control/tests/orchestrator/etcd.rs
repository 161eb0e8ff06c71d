//! Two control planes on one etcd: a leader that is stopped is overtaken, and orders nothing when it goes on.

use std::time::Duration;

use pilotfish_config::wire::node::{ReplicaPhase, ReplicaState};
use pilotfish_control::api::types::{Done, PlacementView, Scale};
use rustix::process::Signal;
use tokio::time::sleep;

use super::{apply, cluster, count, until};
use crate::fleet_etcd::pair;
use crate::store::etcd::Etcd;
use crate::support::node::{Node, Options, Seen, joined};
use crate::support::{Http, Serve};

fn running(seen: &Seen) -> Vec<ReplicaState> {
    let state = |order: pilotfish_config::wire::node::ReplicaOrder| ReplicaState {
        id: order.id,
        generation: order.generation,
        phase: ReplicaPhase::Running,
        reason: None,
        restarts: 0,
        sidecar_restarts: 0,
        pid: None,
        since_ms: 0,
        usage: None,
    };
    seen.replicas().into_iter().map(state).collect()
}

async fn leads(serve: &Serve) -> bool {
    Http::socket(serve).await.get("/v1/placement").await.status == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_leader_is_overtaken_and_orders_nothing_when_it_goes_on() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let (first, second) = pair(&etcd).await;
    until(&first, "the first leads", |_| true).await;
    assert!(!leads(&second).await, "only one leads");
    // Who is not the leader says where it is.
    let own = joined(&first, "n1").await;
    let astray = Node::connect(&second, "n1", &own, Options::default()).await;
    let seen = astray.until("elsewhere", |seen| seen.elsewhere.is_some()).await;
    assert_eq!(seen.elsewhere, Some(Some(format!("https://{}", first.listen))));
    let why = Http::socket(&second).await.post("/v1/placement/scale", &scale(1)).await.refused(421);
    assert!(why.contains(&first.listen.to_string()), "{why}");

    let options = Options { ready: false, ..Options::default() };
    let node = Node::connect(&first, "n1", &own, options.clone()).await;
    apply(&first, &cluster(2, "")).await;
    let before = node.until_has(2).await;
    let term = node.seen().welcomes[0];

    first.signal(Signal::STOP);
    let view = until(&second, "the second leads", |view| view.agents.len() == 1).await;
    assert!(view.term > term, "{} after {term}", view.term);
    let again = Options { term, replicas: running(&node.seen()), ..options };
    let moved = Node::connect(&second, "n1", &own, again).await;
    assert_eq!(moved.until_has(2).await, before, "the same replicas, none twice");
    Http::socket(&second).await.post("/v1/placement/scale", &scale(3)).await.ok::<Done>();
    moved.until_has(3).await;

    // The old leader goes on where it stopped, with its stream to the node still open.
    let sets = node.seen().sets.len();
    first.signal(Signal::CONT);
    let gone = |seen: &Seen| seen.ended || seen.elsewhere.is_some();
    node.until("the old stream's end", gone).await;
    assert_eq!(node.seen().sets.len(), sets, "it orders nothing any more");
    assert!(!leads(&first).await);
    Http::socket(&first).await.post("/v1/placement/scale", &scale(9)).await.refused(421);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(moved.seen().replicas().len(), 3);
    let view: PlacementView = Http::socket(&second).await.get("/v1/placement").await.ok();
    assert_eq!((view.replicas.len(), count(&view, "lost")), (3, 0), "{view:#?}");

    // A node that has seen the newer term takes nothing of an older one; the leader's end in order hands over at once.
    assert!(moved.seen().welcomes[0] > term);
    second.signal(Signal::TERM);
    until(&first, "the first leads again", |view| view.term > moved.seen().welcomes[0]).await;
}

fn scale(replicas: u32) -> Scale {
    Scale { agent: "default/planner".into(), region: None, replicas: Some(replicas) }
}
