//! Agents that do not run as they should: each is said in `status` with its reason.

use std::time::Duration;

use pilotfish_testkit::{Agent, h1};
use serde_json::Value;

use super::agent::{Place, signal, until};

fn reason(state: &Value) -> &str {
    state["reason"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn what_cannot_be_started_is_failed_and_says_why() {
    let place = Place::new();
    let file = place.file("no-program");
    std::fs::write(&file, "#!/nowhere/interpreter\n").unwrap();
    for (command, why) in [
        ("/nowhere/agent", "/nowhere/agent: no such command"),
        ("no-such-agent-anywhere", "no such command in PATH"),
        (file.as_str(), "not executable"),
    ] {
        let mut sidecar = place.command(&[command], &[]).start();
        let state = place.state_is(|state| state["phase"] == "failed").await;
        assert!(reason(&state).contains(why), "{state}");
        let ready = h1::get(sidecar.admin, "x", "/ready", &[]).await.unwrap();
        assert!(ready.status() == 503 && ready.text().contains(why), "{}", ready.text());
        sidecar.terminate();
        assert!(sidecar.exit(Duration::from_secs(20)).await.is_some_and(|status| status.success()));
    }
}

#[tokio::test]
async fn a_taken_port_is_not_the_agents() {
    let place = Place::new();
    let other = Agent::start("other").await;
    let app = other.addr().to_string();
    let sidecar = place.sidecar_with("serve", &["--app", &app]).start();
    let state = place.state_is(|state| state["phase"] == "failed").await;
    assert!(
        reason(&state).contains(&format!("port {} is taken by another process (", other.port())),
        "{state}"
    );
    let ready = h1::get(sidecar.admin, "x", "/ready", &[]).await.unwrap();
    assert_eq!(ready.status(), 503, "somebody else's answers are believed");
    assert_eq!(place.starts(), 0);
    drop(other);
    place.ready(&sidecar).await;
}

#[tokio::test]
async fn five_quick_ends_are_a_crash_loop_and_a_good_start_ends_it() {
    let place = Place::new();
    let sidecar = place.sidecar("say=no model to load,exit-first=5,serve").start();
    let state = place.state_is(|state| state["phase"] == "crash-loop").await;
    assert!(place.starts() >= 5, "{:?}", place.notes());
    assert_eq!(reason(&state), "the command ended with 7: no model to load");
    let ready = h1::get(sidecar.admin, "x", "/ready", &[]).await.unwrap();
    assert_eq!(ready.status(), 503);
    place.ready(&sidecar).await;
    let state = place.state();
    assert_eq!((state["restarts"].as_u64(), &state["reason"]), (Some(5), &Value::Null), "{state}");
}

#[tokio::test]
async fn an_end_by_a_signal_is_named() {
    let place = Place::new();
    let _sidecar = place.sidecar("die").start();
    let state = place.state_is(|state| !reason(state).is_empty()).await;
    assert!(reason(&state).contains("SIGABRT"), "{state}");
}

#[tokio::test]
async fn who_does_not_get_ready_is_started_anew() {
    let place = Place::new();
    let _sidecar = place.sidecar_with("sleep", &["--agent-start", "300ms"]).start();
    let state = place.state_is(|state| state["restarts"].as_u64().is_some_and(|restarts| restarts > 0)).await;
    assert!(reason(&state).contains("not ready within 300ms (--agent-start)"), "{state}");
    assert!(place.copies().len() <= 1);
}

#[tokio::test]
async fn who_does_not_hear_sigterm_is_killed_with_its_children() {
    let place = Place::new();
    let mut sidecar = place.sidecar_with("fork=sleep,deaf", &["--agent-stop", "300ms"]).start();
    place.ready(&sidecar).await;
    until("its child runs", async || place.copies().len() == 2).await;
    sidecar.terminate();
    assert!(sidecar.exit(Duration::from_secs(20)).await.is_some_and(|status| status.success()));
    assert!(place.says("term") && place.copies().is_empty(), "{:?}", place.copies());
}

#[tokio::test]
async fn who_forks_away_is_told_to_stay() {
    let place = Place::new();
    let _sidecar = place.sidecar("fork=serve,slow=300,exit=0").start();
    let state = place.state_is(|state| !reason(state).is_empty()).await;
    assert!(reason(&state).contains("it must stay in the foreground"), "{state}");
    assert!(reason(&state).contains("ended with 0 while a child of it still runs"), "{state}");
}

#[tokio::test]
async fn who_is_stopped_is_degraded_and_goes_on_where_it_was() {
    let place = Place::new();
    let flags = ["--probe", "http:/", "--probe-interval", "100ms", "--probe-timeout", "200ms"];
    let sidecar = place.sidecar_with("serve", &flags).start();
    let pid = place.ready(&sidecar).await;
    signal(pid, "STOP");
    let state = place.state_is(|state| !reason(state).is_empty()).await;
    assert!(reason(&state).contains("no answer within"), "{state}");
    let ready = h1::get(sidecar.admin, "x", "/ready", &[]).await.unwrap();
    assert!(ready.text().contains("degraded"), "{}", ready.text());
    signal(pid, "CONT");
    assert_eq!(place.ready(&sidecar).await, pid);
    assert_eq!(place.starts(), 1);
}

#[tokio::test]
async fn duties_that_are_off_are_not_done() {
    let place = Place::new();
    let flags = ["--agent-without", "failure-recovery,performance-optimization"];
    let sidecar = place.sidecar_with("say=no model,exit-first=1,serve", &flags).start();
    let state = place.state_is(|state| state["phase"] == "failed").await;
    assert!(
        reason(&state).ends_with("no model (it is not started anew: failure_recovery is off)"),
        "{state}"
    );
    // The first pause would have been over ten times.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(place.starts(), 1);
    let ready = h1::get(sidecar.admin, "x", "/ready", &[]).await.unwrap();
    assert_eq!(ready.status(), 503);

    let place = Place::new();
    let flags = ["--agent-without", "task-coordination"];
    let sidecar = place.sidecar_with("slow=600000,serve", &flags).start();
    // Nobody asks it whether it is ready: it never listens.
    place.state_is(|state| state["phase"] == "running").await;
    let ready = h1::get(sidecar.admin, "x", "/ready", &[]).await.unwrap();
    assert_eq!(ready.status(), 200);
}
