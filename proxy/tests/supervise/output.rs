//! What the agent writes: where it goes, and that too much of it hurts nobody.

use std::time::Duration;

use pilotfish_testkit::h1;

use super::agent::{Place, until};
use crate::support::metric;

#[tokio::test]
async fn lines_go_to_the_sidecars_own_output_or_to_a_file() {
    let place = Place::new();
    let sidecar = place.sidecar("say=to stderr,serve").start();
    place.ready(&sidecar).await;
    assert!(sidecar.wait_stderr(Duration::from_secs(10), |line| line == "to stderr").is_some());
    let place = Place::new();
    let sidecar = place.sidecar_with("say=to stderr,out=to stdout,serve", &["--agent-log", "file"]).start();
    place.ready(&sidecar).await;
    let log = place.file("state/agent.log");
    until("both lines are in the file", async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        ["to stderr", "to stdout"].iter().all(|line| text.lines().any(|own| own == *line))
    })
    .await;
    assert!(!sidecar.stderr().iter().any(|line| line == "to stderr"));
}

#[tokio::test]
async fn a_flood_is_dropped_and_counted_and_nobody_waits() {
    let place = Place::new();
    let sidecar = place.sidecar_with("flood,serve", &["--agent-log", "file"]).start();
    place.ready(&sidecar).await;
    until("the agent wrote 100,000 lines", async || place.says("flooded")).await;
    assert!(metric(&sidecar, "pilotfish_agent_log_dropped_total").await > 50_000);
    let served = h1::get(sidecar.inbound, "tester", "/", &[]).await.unwrap();
    assert_eq!(served.status(), 200);
    assert!(sidecar.rss() < 64 << 20, "{}", sidecar.rss());
    let log = std::fs::metadata(place.file("state/agent.log")).unwrap().len();
    assert!(log <= 8 << 20, "{log}");
}
