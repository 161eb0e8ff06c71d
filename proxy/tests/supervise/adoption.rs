//! A sidecar that is killed, and the next one: the agent runs on, and there is never a second copy of it.

use std::time::Duration;

use pilotfish_testkit::{Nobody, Sidecar, h1};

use super::agent::{Place, kill, signal, until};

/// The only copy.
async fn one(place: &Place) -> u32 {
    let copies = place.copies();
    assert_eq!(copies.len(), 1, "copies: {copies:?}, {:?}", place.notes());
    copies[0]
}

async fn stop(mut sidecar: Sidecar, place: &Place) {
    sidecar.terminate();
    assert!(sidecar.exit(Duration::from_secs(20)).await.is_some_and(|status| status.success()));
    assert!(place.copies().is_empty(), "{:?}", place.copies());
}

#[tokio::test]
async fn a_killed_sidecars_agent_is_adopted_with_its_ports() {
    let place = Place::new();
    let first = place.sidecar("serve").start();
    let pid = place.ready(&first).await;
    let (outbound, inbound) = (first.outbound, first.inbound);
    kill(first);
    assert_eq!(one(&place).await, pid);
    let second = place.sidecar("serve").start();
    assert_eq!(place.ready(&second).await, pid);
    assert_eq!((second.outbound, second.inbound), (outbound, inbound));
    assert!(second.wait_stderr(Duration::from_secs(20), |line| line.contains("is adopted")).is_some());
    assert_eq!((one(&place).await, place.starts()), (pid, 1));
    let served = h1::get(second.inbound, "tester", "/", &[]).await.unwrap();
    assert_eq!(served.status(), 200);
    // Its end is noticed although it is nobody's child here.
    signal(pid, "KILL");
    until("another process is ready", async || {
        place.state()["phase"] == "running" && place.state()["pid"] != pid
    })
    .await;
    assert_eq!((place.copies().len(), place.state()["restarts"].as_u64()), (1, Some(1)));
    stop(second, &place).await;
}

#[tokio::test]
async fn a_sidecar_killed_at_any_moment_of_a_start_leaves_one_copy_at_most() {
    let place = Place::new();
    // Before the launcher, while it is one, before the agent listens, when it is about to be ready.
    for pause in [0, 1, 2, 4, 8, 12, 16, 24, 32, 64, 128, 300] {
        let launched = place.sidecar("slow=200,serve").launch();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        drop(launched);
        assert!(place.copies().len() <= 1, "{:?}", place.copies());
    }
    let last = place.sidecar("slow=200,serve").start();
    let pid = place.ready(&last).await;
    assert_eq!(one(&place).await, pid);
    stop(last, &place).await;
}

#[tokio::test]
async fn two_sidecars_of_one_folder_are_one_too_many() {
    let place = Place::new();
    let first = place.sidecar("serve").start();
    let pid = place.ready(&first).await;
    let (status, stderr) = place.sidecar("serve").start_to_fail();
    assert!(!status.success() && stderr.contains("another sidecar has the state folder"), "{stderr}");
    assert_eq!(one(&place).await, pid);
}

#[tokio::test]
async fn another_command_means_another_process() {
    let place = Place::new();
    let first = place.sidecar("serve").start();
    let pid = place.ready(&first).await;
    kill(first);
    let app = Nobody::new();
    let second = place.sidecar_with("serve", &["--app", &app.addr().to_string()]).start();
    assert!(
        second.wait_stderr(Duration::from_secs(20), |line| line.contains("are others than before")).is_some()
    );
    let next = place.ready(&second).await;
    assert_eq!(one(&place).await, next);
    assert!(next != pid && place.says("term"), "the old one is stopped in order");
}

#[tokio::test]
async fn with_kill_the_agent_ends_with_its_sidecar() {
    let place = Place::new();
    let flags = ["--on-sidecar-loss", "kill"];
    let sidecar = place.sidecar_with("fork=sleep,serve", &flags).start();
    place.ready(&sidecar).await;
    until("its child runs", async || place.copies().len() == 2).await;
    kill(sidecar);
    until("no copy is left", async || place.copies().is_empty()).await;
}

#[tokio::test]
async fn what_an_agent_left_behind_without_a_sidecar_ends_before_the_next_start() {
    let place = Place::new();
    let first = place.sidecar("fork=sleep,serve").start();
    let pid = place.ready(&first).await;
    until("its child runs", async || place.copies().len() == 2).await;
    kill(first);
    signal(pid, "KILL");
    until("only the child is left", async || !place.copies().contains(&pid)).await;
    let child = one(&place).await;
    let second = place.sidecar("serve").start();
    let next = place.ready(&second).await;
    assert_eq!(one(&place).await, next);
    assert_ne!(next, child);
    stop(second, &place).await;
}
