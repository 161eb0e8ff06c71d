//! Who is registered, and who is refused.

use std::sync::Arc;

use pilotfish_config::wire::{self, Hello, Report, State, Status, ToControl};
use pilotfish_identity::SpiffeId;

use super::world::*;
use crate::fleet::Fleet;

async fn refusal(fleet: &Arc<Fleet>, peer: SpiffeId, hello: Hello) -> String {
    let mut sidecar = Sidecar::open(fleet, peer, hello).await;
    let refused = sidecar.refused().await;
    assert!(!refused.retry);
    assert!(sidecar.is_ended().await);
    refused.reason
}

#[tokio::test(start_paused = true)]
async fn a_hello_registers_and_others_learn_of_it() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut one = Sidecar::connect(&fleet, "planner", 1).await;
    let mut two = Sidecar::open(
        &fleet,
        peer("coder"),
        Hello {
            labels: [("version".to_owned(), "v2".to_owned())].into(),
            locality: Some("eu/a".into()),
            capabilities: vec!["code@1.2".into()],
            weight: 3,
            ..hello("coder", 2)
        },
    )
    .await;
    let welcome = two.welcome().await;
    assert_eq!((welcome.lease_ms, welcome.heartbeat_ms), (10_000, 3_333));
    assert_eq!(welcome.control, "c1");
    two.update().await;
    one.settle().await;
    let seen = &one.held.endpoints[&two.id];
    assert_eq!(seen.address.to_string(), "10.0.0.1:1002");
    assert_eq!((seen.weight, seen.status), (3, Status::Ready));
    assert_eq!(seen.capabilities, ["code@1.2"]);
    assert_eq!(seen.labels["version"], "v2");
    let status = fleet.status();
    assert_eq!(status.sidecars.len(), 2);
    assert!(status.sidecars.iter().all(|sidecar| sidecar.connected));
}

#[tokio::test(start_paused = true)]
async fn the_window_of_dedup_reaches_others_and_is_another_after_a_restart() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut caller = Sidecar::connect(&fleet, "caller", 1).await;
    let mut seen = Vec::new();
    for (instance, epoch) in [(2, "a"), (3, "b")] {
        let hello = Hello { dedup_epoch: Some(epoch.repeat(32)), ..hello("booking", instance) };
        let mut booking = Sidecar::open(&fleet, peer("booking"), hello).await;
        booking.welcome().await;
        booking.update().await;
        caller.settle().await;
        seen.push(caller.held.endpoints[&booking.id].dedup_epoch.clone());
        booking.beat(Status::Draining).await;
        pass(QUIET).await;
    }
    assert_eq!(seen, [Some("a".repeat(32)), Some("b".repeat(32))]);
    let none = Sidecar::connect(&fleet, "old", 4).await;
    caller.settle().await;
    assert_eq!(caller.held.endpoints[&none.id].dedup_epoch, None);
    for bad in ["", "x", &"A".repeat(32), &"a".repeat(33)] {
        let hello = Hello { dedup_epoch: Some(bad.into()), ..hello("booking", 5) };
        assert!(refusal(&fleet, peer("booking"), hello).await.contains("dedup_epoch"), "{bad}");
    }
    // Another control plane learns of it from the store.
    let second = world.control("c2").await;
    let mut caller = Sidecar::connect(&second, "second", 6).await;
    let hello = Hello { dedup_epoch: Some("c".repeat(32)), ..hello("booking", 7) };
    let mut booking = Sidecar::open(&fleet, peer("booking"), hello).await;
    booking.welcome().await;
    caller.settle().await;
    assert_eq!(caller.held.endpoints[&booking.id].dedup_epoch, Some("c".repeat(32)));
}

#[tokio::test(start_paused = true)]
async fn only_who_the_certificate_names_may_register() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let other = refusal(&fleet, peer("coder"), hello("planner", 1)).await;
    assert!(other.contains("not for the agent planner"), "{other}");
    let namespace = Hello { namespace: "prod".into(), ..hello("planner", 1) };
    refusal(&fleet, peer("planner"), namespace).await;
    let foreign = SpiffeId::parse("spiffe://elsewhere/ns/default/agent/planner").unwrap();
    let foreign = refusal(&fleet, foreign, hello("planner", 1)).await;
    assert!(foreign.contains("mesh.example"), "{foreign}");
    let account = SpiffeId::parse("spiffe://mesh.example/ns/default/sa/planner").unwrap();
    refusal(&fleet, account, hello("planner", 1)).await;
    assert!(fleet.status().sidecars.is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_major_version_is_refused_by_name_and_a_minor_one_is_served() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut later = hello("planner", 1);
    later.versions.major = 2;
    let reason = refusal(&fleet, peer("planner"), later).await;
    let own = format!("{}.{}", wire::MAJOR, wire::MINOR);
    assert!(reason.contains(&format!("2.{}", wire::MINOR)) && reason.contains(&own), "{reason}");
    let mut minor = hello("planner", 1);
    minor.versions.minor = 7;
    let mut sidecar = Sidecar::open(&fleet, peer("planner"), minor).await;
    sidecar.welcome().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_out_of_bounds_is_refused() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let bad: Vec<fn(&mut Hello)> = vec![
        |hello| hello.instance = "short".into(),
        |hello| hello.instance = "G".repeat(32),
        |hello| hello.labels = (0..65).map(|n| (n.to_string(), String::new())).collect(),
        |hello| hello.labels = [("k".repeat(400), String::new())].into(),
        |hello| hello.labels = [("k".into(), "v".repeat(300))].into(),
        |hello| hello.labels = [("k\n".into(), "v".into())].into(),
        |hello| hello.locality = Some("x".repeat(300)),
        |hello| hello.weight = 0,
        |hello| hello.weight = u32::MAX,
        |hello| hello.capabilities = vec!["a b".into()],
        |hello| hello.capabilities = vec!["a".into(); 257],
        |hello| hello.address = "0.0.0.0:1".parse().ok(),
        |hello| hello.address = "10.0.0.1:0".parse().ok(),
        |hello| hello.address = "169.254.169.254:80".parse().ok(),
        |hello| hello.address = "224.0.0.1:80".parse().ok(),
        |hello| hello.address = "[::]:80".parse().ok(),
        |hello| hello.address = "[::ffff:169.254.169.254]:80".parse().ok(),
    ];
    for change in bad {
        let mut hello = hello("planner", 1);
        change(&mut hello);
        refusal(&fleet, peer("planner"), hello).await;
    }
    assert!(fleet.status().sidecars.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_hello_or_with_garbage_is_ended() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut early = Sidecar::connect(&fleet, "planner", 1).await;
    early.send_garbage().await;
    assert!(early.refused().await.reason.contains("garbage"));
    assert!(early.is_ended().await);
    let mut twice = Sidecar::connect(&fleet, "planner", 1).await;
    twice.send(ToControl::Hello(Box::new(hello("planner", 1)))).await;
    twice.refused().await;
    let report =
        Report { endpoint: "x".into(), latency_us: 1, success: 1.0, in_flight: 0, calls: 1, health: None };
    let mut many = Sidecar::connect(&fleet, "planner", 1).await;
    many.report(vec![report; 1025]).await;
    assert!(many.refused().await.reason.contains("1024"));
    let mut flood = Sidecar::connect(&fleet, "planner", 1).await;
    for _ in 0..200 {
        flood.send(ToControl::State(State::default())).await;
    }
    assert!(flood.refused().await.reason.contains("messages"));
    let (to, incoming) = tokio::sync::mpsc::channel(1);
    let (outgoing, mut from) = tokio::sync::mpsc::channel(1);
    let silent = fleet.clone();
    tokio::spawn(async move { silent.serve(peer("planner"), incoming, outgoing).await });
    assert!(String::from_utf8_lossy(&from.recv().await.unwrap()).contains("no hello"));
    drop(to);
}

#[tokio::test(start_paused = true)]
async fn a_message_of_a_later_minor_version_is_ignored() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut sidecar = Sidecar::connect(&fleet, "planner", 1).await;
    sidecar.send(ToControl::Unknown).await;
    world.apply(&[("ServiceEntry.a", &service("a"))]);
    assert_eq!(sidecar.update().await.documents.len() + sidecar.held.endpoints.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_same_process_again_takes_the_place_of_its_older_stream() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut old = Sidecar::connect(&fleet, "planner", 1).await;
    let _new = Sidecar::connect(&fleet, "planner", 1).await;
    old.settle().await;
    assert!(old.is_ended().await);
    let status = fleet.status();
    assert_eq!(status.sidecars.len(), 1);
    assert!(status.sidecars[0].connected);
}

#[tokio::test(start_paused = true)]
async fn a_new_process_at_the_same_address_replaces_the_old_one_at_once() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut watcher = Sidecar::connect(&fleet, "watcher", 1).await;
    let mut old = Sidecar::connect(&fleet, "planner", 2).await;
    let address = hello("planner", 2).address;
    let mut new = Sidecar::open(&fleet, peer("planner"), Hello { address, ..hello("planner", 3) }).await;
    new.welcome().await;
    old.settle().await;
    watcher.settle().await;
    assert_eq!(watcher.endpoints(), [new.id.as_str(), watcher.id.as_str()]);
    // The address of another agent is not its to take.
    let thief = Sidecar::open(&fleet, peer("thief"), Hello { address, ..hello("thief", 4) }).await;
    watcher.settle().await;
    assert!(
        watcher.endpoints().contains(&new.id.as_str()) && watcher.endpoints().contains(&thief.id.as_str())
    );
}

#[tokio::test(start_paused = true)]
async fn an_agent_has_a_bounded_number_of_instances() {
    let world = World::new();
    let settings = crate::fleet::Settings {
        most_instances: 2,
        ..crate::fleet::Settings::new("c1", pilotfish_identity::TrustDomain::parse(DOMAIN).unwrap())
    };
    let (documents, trust) = (world.documents.subscribe(), world.trust.subscribe());
    let actions = world.actions.subscribe();
    let fleet = Fleet::follow(world.store.clone(), documents, trust, actions, settings).await.unwrap();
    let _one = Sidecar::connect(&fleet, "planner", 1).await;
    let _two = Sidecar::connect(&fleet, "planner", 2).await;
    let mut three = Sidecar::open(&fleet, peer("planner"), hello("planner", 3)).await;
    assert!(three.refused().await.retry);
    let _other = Sidecar::connect(&fleet, "planner2", 3).await;
}

#[tokio::test(start_paused = true)]
async fn documents_add_capabilities_to_live_registrations() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let hello = Hello { capabilities: vec!["own".into()], ..hello("planner", 1) };
    let mut sidecar = Sidecar::open(&fleet, peer("planner"), hello).await;
    sidecar.welcome().await;
    sidecar.settle().await;
    let cluster = r#"{"agents":[{"name":"planner","capabilities":["plan@2"]}]}"#;
    world.apply(&[("AgentCluster.c", cluster)]);
    sidecar.settle().await;
    assert_eq!(sidecar.held.endpoints[&sidecar.id].capabilities, ["own", "plan@2.0.0"]);
    world.apply(&[]);
    sidecar.settle().await;
    assert_eq!(sidecar.held.endpoints[&sidecar.id].capabilities, ["own"]);
}

#[tokio::test(start_paused = true)]
async fn sidecars_are_not_told_how_agents_are_started_and_placed() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut sidecar = Sidecar::connect(&fleet, "planner", 1).await;
    let cluster = |command: &str| {
        format!(
            r#"{{"replicas":3,"agents":[{{"name":"planner","replicas":3,"capabilities":["plan"],"labels":{{"a":"b"}},"capacity":4,
            "deployment":{{"strategy":"pre_warmed","warm":2}},"command":["{command}"],"env":{{"KEY":"secret"}},
            "resources":{{"cpu":1}},"pool":"p","affinity":[{{"agent":"planner"}}]}}],"resource_management":{{"planner":{{"cpu":2}}}}}}"#
        )
    };
    let others = [
        ("AgentTemplate.planner", r#"{"command":"secret","env":{"KEY":"secret"}}"#),
        ("GpuPool.p", "{}"),
        ("Node.n", r#"{"cpu":4}"#),
    ];
    let apply = |command: &str| {
        let cluster = cluster(command);
        world.apply(&[&others[..], &[("AgentCluster.c", cluster.as_str())]].concat())
    };
    // As the whole set, and as a change of it.
    for command in ["secret", "other-secret"] {
        apply(command);
        sidecar.settle().await;
        let kinds: Vec<&str> = sidecar.held.documents.keys().map(|key| key.kind.as_str()).collect();
        assert_eq!(kinds, ["AgentCluster"]);
        let body = sidecar.held.documents.values().next().unwrap().clone();
        assert!(!body.contains("secret") && !body.contains("resource"), "{body}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let agent = serde_json::json!({"name": "planner", "capabilities": ["plan"], "labels": {"a": "b"},
            "capacity": 4, "deployment": {"strategy": "pre_warmed"}});
        assert_eq!(body["spec"], serde_json::json!({"agents": [agent]}));
        let text = serde_json::to_string(&body).unwrap();
        let loaded =
            pilotfish_config::load_texts(&[("told", text.as_str())], &pilotfish_config::Options::default());
        assert_eq!((loaded.report.errors(), loaded.report.warnings()), (0, 0), "{}", loaded.report);
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoked_agent_is_shown_quarantined_and_chosen_by_nobody() {
    let world = World::new();
    let fleet = world.control("c1").await;
    let mut watcher = Sidecar::connect(&fleet, "watcher", 1).await;
    let mut bad = Sidecar::connect(&fleet, "planner", 2).await;
    watcher.settle().await;
    bad.settle().await;
    world.revoke(&["planner"]);
    // Nothing waits for the debounce.
    let update = tokio::time::timeout(std::time::Duration::from_millis(1), watcher.update()).await.unwrap();
    assert_eq!(update.endpoints_gone, [bad.id.as_str()]);
    assert_eq!(update.trust.unwrap().revoked.len(), 1);
    assert!(bad.next().await.is_none());
    let quarantined = |fleet: &Fleet| {
        fleet.status().sidecars.iter().any(|s| s.agent == "planner" && s.status == Status::Quarantined)
    };
    assert!(quarantined(&fleet));
    world.revoke(&[]);
    watcher.settle().await;
    assert!(watcher.endpoints().contains(&bad.id.as_str()) && !quarantined(&fleet));
}

#[tokio::test(start_paused = true)]
async fn a_quarantine_waits_for_nothing_and_takes_the_agent_out() {
    use pilotfish_config::wire::Hold;
    let world = World::new();
    let fleet = world.control("c1").await;
    let planner = Sidecar::connect(&fleet, "planner", 1).await;
    let mut caller = Sidecar::connect(&fleet, "caller", 2).await;
    caller.settle().await;
    assert!(caller.endpoints().contains(&planner.id.as_str()));
    let before = caller.held.resume.clone();
    let start = tokio::time::Instant::now();
    world.hold(&[("planner", Hold::Quarantine)]);
    let update = caller.update().await;
    assert!(start.elapsed() < QUIET / 10, "{:?}", start.elapsed());
    assert!(
        !update.full && update.actions.is_some_and(|actions| actions.actions[0].agent == "default/planner")
    );
    caller.settle().await;
    assert!(!caller.endpoints().contains(&planner.id.as_str()));
    let status = fleet.status();
    let row = status.sidecars.iter().find(|sidecar| sidecar.agent == "planner").unwrap();
    assert!(row.status == Status::Quarantined && row.connected && status.actions.len() == 1);
    world.hold(&[("planner", Hold::Restrict(vec!["nlu".into()]))]);
    caller.settle().await;
    assert!(caller.endpoints().contains(&planner.id.as_str()), "who is restricted may be called");
    world.hold(&[]);
    caller.settle().await;
    assert_eq!(caller.held.actions, Some(Default::default()));
    // What nobody is held to leaves no trace: the state is the one before.
    assert_eq!(caller.held.resume.map(|own| own.digest), before.map(|own| own.digest));
}
