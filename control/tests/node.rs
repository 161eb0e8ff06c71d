//! `pilotfish node` as a process: what it starts, keeps, stops and tells, against a leader that a test plays.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use pilotfish_config::wire::node::{GpuShare, ReplicaOrder, ReplicaPhase};
use rustix::process::Signal;

use crate::support::leader::{Leader, authority, token};
use crate::support::node_process::{Node, eventually, folder, number, order, running, signal};

fn is_running(state: &pilotfish_config::wire::node::ReplicaState) -> bool {
    state.phase == ReplicaPhase::Running
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_becomes_a_sidecar_with_its_agent_and_ends_with_all_children() {
    let ca = authority();
    let leader = Leader::start(&ca, 5).await;
    let folder = folder(&token(&ca));
    let node = Node::start(&folder, &leader.url(), &["--region", "eu", "--zone", "a", "--label", "disk=ssd"]);
    let inventory = leader.until("an inventory", |heard| heard.inventory.clone()).await;
    assert!(inventory.cpu_milli >= 1000 && inventory.memory > 0 && inventory.most_replicas == 110);
    assert_eq!((inventory.locality.as_deref(), inventory.labels["disk"].as_str()), (Some("eu/a"), "ssd"));
    let gpus = vec![GpuShare { gpu: "GPU-1".into(), slice: None, memory: 1 }];
    let order = ReplicaOrder {
        gpus,
        labels: [("resource-type".to_owned(), "gpu".to_owned())].into(),
        env: [("MODEL".to_owned(), "small".to_owned())].into(),
        capacity: 7,
        // Forks, and forks away: children in sessions of their own.
        ..order("chat", &["sh", "-c", "setsid sleep 7001 & sleep 7002 & exec sleep 7003"])
    };
    let id = order.id.clone();
    leader.set(vec![order]);
    let state = leader.state(&id, is_running).await;
    let place = node.place(&id);
    assert_eq!(state.pid, Some(number(&place.join("state/agent.pid")).await));
    let line = fs::read_to_string(place.join("state/starts")).unwrap();
    for words in [
        "--agent chat --namespace default",
        "--label resource-type=gpu",
        "--locality eu/a",
        "--agent-capacity 7",
        "--agent-stop 1000ms",
        "--inbound 0.0.0.0:",
        "-- sh -c",
    ] {
        assert!(line.contains(words), "{words} in {line}");
    }
    assert_eq!(fs::read_to_string(place.join("state/token-mode")).unwrap().trim(), "-rw-------");
    let env = fs::read_to_string(place.join("state/env")).unwrap();
    for variable in ["CUDA_VISIBLE_DEVICES=GPU-1", "MODEL=small", &format!("PILOTFISH_REPLICA={id}")] {
        assert!(env.lines().any(|line| line == variable), "{variable} in {env}");
    }
    let many = || running(&folder, "sleep 700").len();
    eventually("all of the agent's processes", || (many() == 3).then_some(())).await;
    leader.set(vec![]);
    leader.state(&id, |state| state.phase == ReplicaPhase::Gone).await;
    assert_eq!(running(&folder, "sleep 700"), Vec::<u32>::new());
    assert!(!place.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_outlive_their_node_and_sidecars_come_back_with_their_ports() {
    let ca = authority();
    let leader = Leader::start(&ca, 5).await;
    let folder = folder(&token(&ca));
    let mut node = Node::start(&folder, &leader.url(), &[]);
    let order = order("chat", &["sleep", "7101"]);
    let id = order.id.clone();
    leader.set(vec![order]);
    leader.state(&id, is_running).await;
    let place = node.place(&id);
    let pids = || {
        (
            fs::read_to_string(place.join("state/sidecar.pid")),
            fs::read_to_string(place.join("state/agent.pid")),
        )
    };
    let (sidecar, agent) = (pids().0.unwrap(), pids().1.unwrap());
    let ports = fs::read_to_string(place.join("ports.json")).unwrap();

    node.again();
    leader.until("a second hello", |heard| (heard.hellos.len() == 2).then_some(())).await;
    let told = leader.heard(|heard| heard.hellos[1].replicas.clone());
    assert_eq!((told.len(), told[0].phase, told[0].id.as_str()), (1, ReplicaPhase::Running, id.as_str()));
    assert_eq!((pids().0.unwrap(), pids().1.unwrap()), (sidecar.clone(), agent.clone()));

    signal(sidecar.trim().parse().unwrap(), Signal::KILL);
    let state = leader.state(&id, |state| state.sidecar_restarts == 1 && is_running(state)).await;
    assert_eq!(state.pid, agent.trim().parse().ok());
    eventually("another sidecar", || (pids().0.ok()? != sidecar).then_some(())).await;
    assert_eq!(fs::read_to_string(place.join("ports.json")).unwrap(), ports);
    assert_eq!(running(&folder, "sleep 7101").len(), 1);

    // And so once more without a node: the next one finds the agent alone.
    node.kill();
    let sidecar = pids().0.unwrap();
    signal(sidecar.trim().parse().unwrap(), Signal::KILL);
    node.again();
    eventually("a third sidecar", || (pids().0.ok()? != sidecar).then_some(())).await;
    assert_eq!(pids().1.unwrap(), agent);
    assert_eq!(running(&folder, "sleep 7101").len(), 1);
    leader.set(vec![]);
    leader.state(&id, |state| state.phase == ReplicaPhase::Gone).await;
    assert!(running(&folder, "sleep 7101").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_everything_runs_on_and_the_next_one_is_found() {
    let ca = authority();
    let (first, second) = (Leader::start(&ca, 5).await, Leader::start(&ca, 9).await);
    let folder = folder(&token(&ca));
    let controls = format!("{},{}", first.url(), second.url());
    let mut node = Node::start(&folder, &controls, &[]);
    let orders = vec![order("chat", &["sleep", "7201"])];
    let id = orders[0].id.clone();
    first.set(orders.clone());
    first.state(&id, is_running).await;
    let agents = running(&folder, "sleep 7201");
    // It is stopped, as by SIGSTOP: the connection stays, and nothing comes.
    first.silence();
    second.until("the node", |heard| (!heard.hellos.is_empty()).then_some(())).await;
    assert_eq!(second.heard(|heard| heard.hellos[0].replicas.len()), 1);
    second.set(orders);
    second.until("beats", |heard| (heard.beats > 2).then_some(())).await;
    drop(second);
    drop(first);
    // Also a node that starts while no control plane is there stops nothing.
    node.again();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(running(&folder, "sleep 7201"), agents);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_of_an_earlier_term_is_refused_also_after_a_restart() {
    let ca = authority();
    let leader = Leader::start(&ca, 7).await;
    let folder = folder(&token(&ca));
    let mut node = Node::start(&folder, &leader.url(), &[]);
    let kept = order("chat", &["sleep", "7301"]);
    let id = kept.id.clone();
    leader.set(vec![kept]);
    leader.state(&id, is_running).await;
    // It resumes after another one has led in term 7.
    leader.term(6);
    leader.set(vec![order("other", &["sleep", "7302"])]);
    let stale = leader.until("a refusal", |heard| heard.stale.first().copied()).await;
    assert_eq!((stale.term, stale.seen), (6, 7));
    node.again();
    leader.until("a second refusal", |heard| (heard.stale.len() > 1).then_some(())).await;
    assert_eq!((running(&folder, "sleep 7301").len(), running(&folder, "sleep 7302").len()), (1, 0));
    // A later one is followed, and only then what is in no set ends.
    leader.term(8);
    leader.state(&id, |state| state.phase == ReplicaPhase::Gone).await;
    eventually("the other", || (running(&folder, "sleep 7302").len() == 1).then_some(())).await;
    assert!(running(&folder, "sleep 7301").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_says_why_and_disturbs_nothing_else() {
    let ca = authority();
    let leader = Leader::start(&ca, 5).await;
    let folder = folder(&token(&ca));
    let node = Node::start(&folder, &leader.url(), &[]);
    let good = order("good", &["sleep", "7401"]);
    let none = order("none", &["no-such-program-anywhere"]);
    let brief = order("brief", &["sh", "-c", "exit 3"]);
    let nowhere =
        ReplicaOrder { working_dir: Some("/no/such/folder".into()), ..order("nowhere", &["sleep", "7402"]) };
    let bad = ReplicaOrder { id: "../../etc".into(), ..order("bad", &["sleep", "7403"]) };
    // Ignores SIGTERM; so does its sidecar's way of ending it.
    let deaf = order("deaf", &["sh", "-c", "trap '' TERM; while true; do sleep 0.1; done"]);
    let all = [&good, &none, &brief, &nowhere, &bad, &deaf];
    leader.set(all.into_iter().cloned().collect());
    leader.state(&good.id, is_running).await;
    leader.state(&deaf.id, is_running).await;
    let failed = |why: &'static str| {
        move |state: &pilotfish_config::wire::node::ReplicaState| {
            state.phase == ReplicaPhase::Failed
                && state.reason.as_ref().is_some_and(|reason| reason.contains(why))
        }
    };
    leader.state(&none.id, failed("no such command on this node: no-such-program-anywhere")).await;
    leader.state(&brief.id, failed("its sidecar ended with exit code 1: the agent has ended")).await;
    leader.state(&nowhere.id, failed("/no/such/folder is not there")).await;
    leader.state(&bad.id, failed("its id is no")).await;
    leader.tail(&good.id, 5);
    let lines = leader.until("an answer", |heard| heard.lines.first().cloned()).await;
    assert!(lines.lines.is_err(), "{lines:?}");
    leader.set(vec![good.clone()]);
    for id in [&none.id, &brief.id, &nowhere.id, &deaf.id] {
        leader.state(id, |state| state.phase == ReplicaPhase::Gone).await;
        assert!(!node.place(id).exists());
    }
    assert_eq!(running(&folder, "sleep 7401").len(), 1);
    assert!(running(&folder, "sh -c trap").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_somebody_else_has_is_replaced_by_another() {
    let ca = authority();
    let leader = Leader::start(&ca, 5).await;
    let folder = folder(&token(&ca));
    let node = Node::start(&folder, &leader.url(), &[]);
    let order = order("chat", &["sleep", "7501"]);
    let id = order.id.clone();
    leader.set(vec![order]);
    leader.state(&id, is_running).await;
    let read = || -> serde_json::Value {
        serde_json::from_slice(&fs::read(node.place(&id).join("ports.json")).unwrap()).unwrap()
    };
    let before = read();
    let port = u16::try_from(before["inbound"].as_u64().unwrap()).unwrap();
    let _taken = TcpListener::bind(("0.0.0.0", port)).unwrap();
    signal(number(&node.place(&id).join("state/sidecar.pid")).await, Signal::KILL);
    let why = format!("somebody else has port {port}: another one was taken");
    leader
        .until(&why, |heard| {
            heard.history.iter().any(|state| state.reason.as_ref() == Some(&why)).then_some(())
        })
        .await;
    let after = read();
    assert!(after["inbound"] != before["inbound"]);
    for name in ["outbound", "admin", "app"] {
        assert_eq!(after[name], before[name], "{name}");
    }
}

/// As when a port is taken between its choice and the sidecar's start: who waits for the agent is not sent away for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_ends_once_is_started_again_and_has_not_failed() {
    use std::os::unix::fs::PermissionsExt;

    let ca = authority();
    let leader = Leader::start(&ca, 5).await;
    let folder = folder(&token(&ca));
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (once, tried) = (path("once"), path("tried"));
    let script = format!(
        "#!/bin/sh\nmkdir '{tried}' && echo cannot listen on 127.0.0.1:1 >&2 && exit 1\nexec '{}' \"$@\"\n",
        path("sidecar")
    );
    fs::write(&once, script).unwrap();
    fs::set_permissions(&once, fs::Permissions::from_mode(0o755)).unwrap();
    let _node = Node::start_with(&folder, &leader.url(), &once, &[]);
    let order = order("chat", &["sleep", "7801"]);
    let id = order.id.clone();
    leader.set(vec![order]);
    let state = leader.state(&id, is_running).await;
    assert!(fs::exists(&tried).unwrap());
    assert_eq!(state.sidecar_restarts, 1);
    let phases = |heard: &crate::support::leader::Heard| {
        heard.history.iter().map(|state| state.phase).collect::<Vec<_>>()
    };
    let seen = leader.until("phases", |heard| Some(phases(heard))).await;
    assert!(!seen.contains(&ReplicaPhase::Failed), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_come_from_the_agent_s_log() {
    let ca = authority();
    let leader = Leader::start(&ca, 5).await;
    let folder = folder(&token(&ca));
    let _node = Node::start(&folder, &leader.url(), &[]);
    let order = order("chat", &["sh", "-c", "seq 1 5000; exec sleep 7601"]);
    let id = order.id.clone();
    leader.set(vec![order]);
    leader.state(&id, is_running).await;
    eventually("the agent's output", || (running(&folder, "sleep 7601").len() == 1).then_some(())).await;
    leader.tail(&id, 3);
    let lines = leader.until("lines", |heard| heard.lines.first().cloned()).await;
    assert_eq!(
        (lines.number, lines.lines.unwrap()),
        (1, ["4998", "4999", "5000"].map(str::to_owned).to_vec())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_is_marked_failed_in_the_file_is_told() {
    let ca = authority();
    let leader = Leader::start(&ca, 5).await;
    let folder = folder(&token(&ca));
    let file = folder.path().join("gpus.yaml");
    let cards = |health: &str| {
        let text = format!("gpus:\n- {{id: gpu-0, model: NVIDIA L4, memory: 24Gi, health: {health}}}\n");
        fs::write(&file, text).unwrap();
    };
    cards("ok");
    let _node = Node::start(&folder, &leader.url(), &["--gpu-file", file.to_str().unwrap()]);
    let first = leader.until("cards", |heard| heard.inventory.clone()).await;
    assert_eq!(
        (first.gpus[0].id.as_str(), first.gpus[0].memory, &first.gpus[0].failed),
        ("gpu-0", 24 << 30, &None)
    );
    cards("the fan is broken");
    let failed =
        |heard: &crate::support::leader::Heard| heard.inventory.as_ref()?.gpus.first()?.failed.clone();
    assert_eq!(leader.until("a failed card", failed).await, "the fan is broken");
    cards("ok");
    leader.until("a card that is well", |heard| failed(heard).is_none().then_some(())).await;
}

/// A disk that is full when a replica is ordered: that one fails and says so, those that run go on; with room again it starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_what_is_new_and_nothing_else() {
    let ca = authority();
    let leader = Leader::start(&ca, 5).await;
    let folder = folder(&token(&ca));
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=1m", "tmpfs", disk.to_str().unwrap()];
    if !std::process::Command::new("mount").args(mount).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user mounts no tmpfs");
        return;
    }
    struct Mounted(std::path::PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let _mounted = Mounted(disk.clone());
    let data = disk.join("data");
    let mut node = Node::start(&folder, &leader.url(), &["--data", data.to_str().unwrap()]);
    let first = order("first", &["sleep", "7701"]);
    let second = order("second", &["sleep", "7702"]);
    leader.set(vec![first.clone()]);
    leader.state(&first.id, is_running).await;
    let filler = disk.join("filler");
    // Ends when there is no room left.
    let _ = fs::write(&filler, vec![0; 2 << 20]);
    leader.set(vec![first.clone(), second.clone()]);
    let state = leader.state(&second.id, |state| state.phase == ReplicaPhase::Failed).await;
    assert!(state.reason.as_ref().unwrap().contains("No space left on device"), "{state:?}");
    let trouble = |heard: &crate::support::leader::Heard| {
        heard.inventory.as_ref()?.troubles.iter().find(|trouble| trouble.contains("is full")).cloned()
    };
    leader.until("a trouble", trouble).await;
    // A new leader is followed all the same: its term needs no room.
    leader.term(6);
    node.again();
    leader.until("a second hello", |heard| (heard.hellos.len() == 2).then_some(())).await;
    leader.set(vec![first.clone(), second.clone()]);
    assert_eq!(running(&folder, "sleep 7701").len(), 1);
    fs::remove_file(&filler).unwrap();
    leader.state(&second.id, is_running).await;
    assert_eq!(running(&folder, "sleep 7701").len(), 1);
    leader.set(vec![]);
    leader.state(&first.id, |state| state.phase == ReplicaPhase::Gone).await;
    leader.state(&second.id, |state| state.phase == ReplicaPhase::Gone).await;
    node.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_of_an_order_starts_it_anew_and_a_signal_ends_the_node_alone() {
    let ca = authority();
    let leader = Leader::start(&ca, 5).await;
    let folder = folder(&token(&ca));
    let mut node = Node::start(&folder, &leader.url(), &[]);
    let before = order("chat", &["sleep", "7801"]);
    let id = before.id.clone();
    leader.set(vec![before.clone()]);
    leader.state(&id, is_running).await;
    // Without another generation nothing changes.
    leader.set(vec![ReplicaOrder { capacity: 9, ..before.clone() }]);
    let after =
        ReplicaOrder { generation: "2".into(), command: vec!["sleep".into(), "7802".into()], ..before };
    leader.set(vec![after]);
    leader.state(&id, |state| state.generation == "2" && is_running(state)).await;
    eventually("the new one alone", || {
        (running(&folder, "sleep 7801").is_empty() && running(&folder, "sleep 7802").len() == 1).then_some(())
    })
    .await;
    assert_eq!(node.end(), Some(0));
    assert_eq!(running(&folder, "sleep 7802").len(), 1);
    // Two nodes do not share a folder.
    node.again();
    let mut other = Node::start(&folder, &leader.url(), &[]);
    eventually("a refusal", || {
        other.log().contains("another `pilotfish node` uses this folder").then_some(())
    })
    .await;
    other.kill();
}
