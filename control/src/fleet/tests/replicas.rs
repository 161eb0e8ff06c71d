//! What placement sees of registrations, whose node is silent, and what calls wait for.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotfish_config::wire::node::{Asked, AskedAgent, NotStarted, Usage};
use pilotfish_config::wire::{Heartbeat, Hello, Status, ToControl, ToSidecar};

use super::world::*;
use crate::fleet::{NODE, REPLICA};

const AGENTS: &str = r#"{"agents":[{"name":"ocr","capabilities":["ocr"],"replicas":9,"command":["ocr"],"deployment":"just_in_time"},
    {"name":"chat","capabilities":["chat"],"replicas":1,"command":["chat"]}]}"#;

fn labelled(agent: &str, number: u32, labels: &[(&str, &str)]) -> Hello {
    let labels: BTreeMap<_, _> = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    Hello { labels, ..hello(agent, number) }
}

fn waits(agents: &[(&str, u32)]) -> ToControl {
    let one = |(agent, waiting): &(&str, u32)| AskedAgent { agent: (*agent).into(), waiting: *waiting };
    ToControl::Asked(Asked { agents: agents.iter().map(one).collect() })
}

fn demand(all: &[(&str, u32)]) -> Vec<(String, u32)> {
    all.iter().map(|(agent, waiting)| ((*agent).to_owned(), *waiting)).collect()
}

async fn told(sidecar: &mut Sidecar) -> NotStarted {
    loop {
        match sidecar.next().await {
            Some(ToSidecar::NotStarted(told)) => return told,
            Some(_) => {}
            None => panic!("{} was not told", sidecar.id),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_are_registrations_that_say_which_one_they_are() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut changes = fleet.replica_changes();
    let mine = labelled("ocr", 1, &[(REPLICA, "default/ocr/aaaaaaaaaa")]);
    let one = Sidecar::open(&fleet, peer("ocr"), mine).await;
    // Another's replica, no replica at all, and none that can be.
    for (number, label) in
        [(2, "default/chat/aaaaaaaaaa"), (3, "default/ocr/"), (4, "default/ocr/a/b"), (5, "ocr")]
    {
        Sidecar::open(&fleet, peer("ocr"), labelled("ocr", number, &[(REPLICA, label)])).await;
    }
    Sidecar::connect(&fleet, "chat", 6).await;
    pass(QUIET).await;
    assert!(changes.has_changed().unwrap());
    changes.borrow_and_update();
    let seen = fleet.replicas();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((&*seen[0].replica, &*seen[0].agent), ("default/ocr/aaaaaaaaaa", "default/ocr"));
    assert_eq!((seen[0].status, seen[0].idle_ms, seen[0].usage), (Status::Ready, None, None));
    // How busy it is is kept, without waking anybody.
    let usage = Some(Usage { cpu_milli: 250, memory: 1 << 20, ..Usage::default() });
    one.send(ToControl::Heartbeat(Heartbeat {
        idle_ms: Some(5_000),
        in_flight: 0,
        usage,
        ..beat(Status::Ready)
    }))
    .await;
    pass(Duration::from_secs(1)).await;
    one.send(ToControl::Heartbeat(Heartbeat { in_flight: 2, idle_ms: Some(0), ..beat(Status::Ready) })).await;
    pass(Duration::from_millis(1)).await;
    let busy = fleet.replicas().remove(0);
    assert_eq!((busy.in_flight, busy.usage), (2, usage));
    assert!(busy.idle_ms.unwrap() < 10 && busy.heard_ms < 10, "{busy:?}");
    one.send(ToControl::Heartbeat(Heartbeat { idle_ms: Some(5_000), ..beat(Status::Ready) })).await;
    pass(Duration::from_secs(2)).await;
    assert!((7_000..7_100).contains(&fleet.replicas()[0].idle_ms.unwrap()));
    assert!(!changes.has_changed().unwrap());
    let row = fleet.agents(None, None).unwrap().agents.into_iter().find(|row| row.usage.is_some()).unwrap();
    assert_eq!((row.agent.as_str(), row.usage), ("ocr", usage));
    one.beat(Status::Draining).await;
    pass(Duration::from_millis(1)).await;
    assert!(changes.has_changed().unwrap());
    changes.borrow_and_update();
    drop(one);
    pass(Duration::from_millis(1)).await;
    assert!(changes.has_changed().unwrap() && fleet.replicas().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_silent_nodes_endpoints_are_gone_at_every_control_plane_and_come_back() {
    let world = World::new();
    let (first, second) = (world.control("c1").await, world.control("c2").await);
    let mut caller = Sidecar::connect(&first, "caller", 1).await;
    let mut other = Sidecar::connect(&second, "caller", 2).await;
    let on = |number, node| labelled("ocr", number, &[(NODE, node)]);
    let lost = Sidecar::open(&first, peer("ocr"), on(3, "n1")).await;
    let well = Sidecar::open(&second, peer("ocr"), on(4, "n2")).await;
    caller.settle().await;
    other.settle().await;
    let all: Vec<String> = caller.endpoints().iter().map(ToString::to_string).collect();
    assert_eq!(all.len(), 4);
    first.silence("n1", true);
    for sidecar in [&mut caller, &mut other] {
        let update = sidecar.update().await;
        assert_eq!(update.endpoints_gone, std::slice::from_ref(&lost.id));
        assert!(sidecar.endpoints().contains(&well.id.as_str()));
    }
    assert_eq!(caller.held.resume, other.held.resume, "both render the same");
    let why = first.agents(None, None).unwrap().others.remove(0).why_not;
    assert_eq!(why.as_deref(), Some("its node is silent"));
    // A control plane that starts now knows it from the store.
    let third = world.control("c3").await;
    let late = Sidecar::connect(&third, "caller", 5).await;
    assert!(!late.endpoints().contains(&lost.id.as_str()) && late.endpoints().contains(&well.id.as_str()));
    first.silence("n1", false);
    other.settle().await;
    caller.settle().await;
    assert!(other.endpoints().contains(&lost.id.as_str()) && caller.endpoints().contains(&lost.id.as_str()));
}

#[tokio::test(start_paused = true)]
async fn what_calls_wait_for_is_known_at_every_control_plane_while_they_wait() {
    let world = World::new();
    world.apply(&[("AgentCluster.a", AGENTS)]);
    let (first, second) = (world.control("c1").await, world.control("c2").await);
    let mut one = Sidecar::connect(&first, "one", 1).await;
    let mut two = Sidecar::connect(&second, "two", 2).await;
    pass(Duration::from_secs(4)).await;
    let mut changes = first.replica_changes();
    one.send(waits(&[("default/ocr", 2), ("default/chat", 1), ("default/none", 1), ("x", 9)])).await;
    two.send(waits(&[("default/ocr", 5)])).await;
    pass(Duration::from_millis(1100)).await;
    // Only what documents start on demand; both control planes say the same.
    assert_eq!(first.demand(), demand(&[("default/ocr", 7)]));
    assert_eq!(second.demand(), demand(&[("default/ocr", 7)]));
    assert!(changes.has_changed().unwrap());
    changes.borrow_and_update();
    first.not_started("default/ocr", "no node has a GPU");
    for sidecar in [&mut one, &mut two] {
        let said = told(sidecar).await;
        assert_eq!((&*said.agent, &*said.reason), ("default/ocr", "no node has a GPU"));
    }
    // One waits no more and says so, the other's stream ends.
    one.send(waits(&[("default/ocr", 0)])).await;
    drop(two);
    pass(Duration::from_secs(4)).await;
    assert_eq!((first.demand(), second.demand()), (vec![], vec![]));
    let left = crate::store::Store::list(&*world.store, "placement/").await.unwrap().entries;
    assert!(left.is_empty(), "{left:?}");
    // What is not said again is forgotten.
    one.send(waits(&[("default/ocr", 3)])).await;
    pass(Duration::from_millis(10)).await;
    assert_eq!(first.demand(), demand(&[("default/ocr", 3)]));
    pass(Duration::from_secs(4)).await;
    assert_eq!(first.demand(), vec![]);
}

#[tokio::test(start_paused = true)]
async fn how_long_a_replica_is_idle_is_known_at_the_other_control_plane_too() {
    let world = World::new();
    world.apply(&[("AgentCluster.a", AGENTS)]);
    let (first, second) = (world.control("c1").await, world.control("c2").await);
    let mut sidecar =
        Sidecar::open(&second, peer("ocr"), labelled("ocr", 1, &[(REPLICA, "default/ocr/aaaaaaaaaa")])).await;
    let beats = async |sidecar: &mut Sidecar, idle_ms: u64, seconds: u64| {
        for second in 0..seconds {
            let idle_ms = Some(idle_ms + second * 1000);
            sidecar.send(ToControl::Heartbeat(Heartbeat { idle_ms, ..beat(Status::Ready) })).await;
            while sidecar.now().await.is_some() {}
            pass(Duration::from_secs(1)).await;
        }
    };
    beats(&mut sidecar, 0, 12).await;
    assert_eq!(first.replicas()[0].idle_ms, Some(0), "it had a call a moment ago");
    beats(&mut sidecar, 12_000, 40).await;
    let (there, here) = (first.replicas()[0].idle_ms.unwrap(), second.replicas()[0].idle_ms.unwrap());
    assert!(here > 50_000 && here.abs_diff(there) < 2_000, "{here} {there}");
    beats(&mut sidecar, 0, 7).await;
    assert_eq!(first.replicas()[0].idle_ms, Some(0));
    sidecar.beat(Status::Draining).await;
    drop(sidecar);
    pass(Duration::from_secs(10)).await;
    assert!(crate::store::Store::list(&*world.store, "placement/").await.unwrap().entries.is_empty());
}
