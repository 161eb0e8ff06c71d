//! Response actions at one sidecar: what is cut, what is refused, when it ends, and that it outlives the process.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pilotfish_testkit::h2::{H2, Outcome};
use pilotfish_testkit::{H1, h2};
use tokio::io::AsyncReadExt;

use super::*;

const SOON: Duration = Duration::from_secs(15);

fn quarantine(agent: &str, seconds: Option<u64>) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let until = seconds.map(|seconds| now + seconds);
    json!({ "actions": [{ "agent": agent, "hold": "quarantine", "until": until, "since": now }] })
}

/// The reason for which a call is refused; empty when it is not.
async fn reason(sidecar: &Sidecar, host: &str) -> String {
    match h1::get(sidecar.outbound, host, "/", &[]).await {
        Ok(answer) => answer.header("pilotfish-reason").unwrap_or_default(),
        // Cut like everything else.
        Err(_) => "closed".to_owned(),
    }
}

async fn until_reason(sidecar: &Sidecar, host: &str, wanted: &str) {
    let start = Instant::now();
    loop {
        let now = reason(sidecar, host).await;
        if now == wanted {
            return;
        }
        assert!(start.elapsed() < SOON, "still `{now}`, not `{wanted}`");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for the end of a connection.
async fn ended(mut client: H1, what: &str) {
    let mut rest = Vec::new();
    let end = tokio::time::timeout(SOON, client.stream().read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "{what} goes on");
}

#[tokio::test]
async fn everything_that_is_open_is_cut_and_it_ends_by_the_sidecars_own_clock() {
    let control = Control::start(DOMAIN).await;
    let (agent, state) = (Agent::start("a").await, tempfile::tempdir().unwrap());
    let (sidecar, mut link) = serving(&control, state.path(), "w.test", &agent).await;
    let mut stream = H1::connect(sidecar.outbound).await;
    stream.send("GET /stream/100000/20 HTTP/1.1\r\nhost: w.test\r\n\r\n").await;
    let some = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("data: 3");
    stream.read_until(some).await;
    let mut tunnel = H1::connect(sidecar.outbound).await;
    tunnel.send("CONNECT w.test:80 HTTP/1.1\r\nhost: w.test:80\r\n\r\n").await;
    assert_eq!(tunnel.head().await.unwrap().start.split(' ').nth(1), Some("200"));
    let idle = H1::connect(sidecar.outbound).await;
    let mut multiplexed = H2::open(sidecar.outbound, &[]).await;
    let head = h2::request("GET", "w.test", "/stream/100000/20", &[]);
    multiplexed.send(&h2::headers(1, head, true)).await;
    multiplexed.pump(SOON, |client| !client.so_far(1).body.is_empty()).await;

    link.update(2, json!({ "full": false, "actions": quarantine("default/caller", None) })).await;
    let start = Instant::now();
    ended(stream, "the stream").await;
    ended(tunnel, "the tunnel").await;
    ended(idle, "the idle connection").await;
    let end = multiplexed.outcome(1, SOON).await;
    assert!(!matches!(end, Outcome::Silent(_)), "the stream in HTTP/2 goes on");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert_eq!(reason(&sidecar, "w.test").await, "quarantined");
    // It has an end now, and nobody says anything more.
    link.update(3, json!({ "full": false, "actions": quarantine("default/caller", Some(2)) })).await;
    until_reason(&sidecar, "w.test", "").await;
}

#[tokio::test]
async fn it_outlives_the_sidecar_without_a_control_plane() {
    let control = Control::start(DOMAIN).await;
    let (agent, state) = (Agent::start("a").await, tempfile::tempdir().unwrap());
    let (mut sidecar, mut link) = serving(&control, state.path(), "w.test", &agent).await;
    link.update(2, json!({ "full": false, "actions": quarantine("default/caller", None) })).await;
    until_reason(&sidecar, "w.test", "quarantined").await;
    link.state(|state| state["serving"] == 2).await;
    sidecar.terminate();
    sidecar.exit(SOON).await.unwrap();
    let builder = offline(&control, state.path());
    let (place, ca) = control.kill().await;
    let sidecar = builder.launch().ready().await;
    assert_eq!(reason(&sidecar, "w.test").await, "quarantined");
    let control = Control::at(place, DOMAIN, ca, &pilotfish_testkit::control::control_id(DOMAIN)).await;
    let mut link = control.link().await;
    link.welcome().await;
    link.update(3, json!({ "full": false, "actions": { "actions": [] } })).await;
    until_reason(&sidecar, "w.test", "").await;
}

#[tokio::test]
async fn a_quarantined_agent_is_not_called_where_documents_name_it() {
    let control = Control::start(DOMAIN).await;
    let (agent, state) = (Agent::start("a").await, tempfile::tempdir().unwrap());
    let (sidecar, mut link) = serving(&control, state.path(), "w.test", &agent).await;
    let mut named = service("v.test", agent.addr().port());
    let labels = json!({ "pilotfish.dev/agent": "victim" });
    named["body"]["spec"]["endpoints"][0]["labels"] = labels;
    link.update(2, json!({ "full": false, "documents": [named] })).await;
    until_reason(&sidecar, "v.test", "").await;
    link.update(3, json!({ "full": false, "actions": quarantine("default/victim", None) })).await;
    until_reason(&sidecar, "v.test", "quarantined").await;
    assert_eq!(reason(&sidecar, "w.test").await, "");
    // Another document makes nobody free.
    link.update(4, json!({ "full": false, "documents": [service("x.test", agent.addr().port())] })).await;
    until_reason(&sidecar, "x.test", "").await;
    assert_eq!(reason(&sidecar, "v.test").await, "quarantined");
}

#[tokio::test]
async fn a_quarantined_agent_that_is_in_no_document_any_more_is_refused_by_its_name() {
    let control = Control::start(DOMAIN).await;
    let (agent, state) = (Agent::start("a").await, tempfile::tempdir().unwrap());
    let (sidecar, mut link) = serving(&control, state.path(), "w.test", &agent).await;
    assert_eq!(reason(&sidecar, "victim").await, "no-route");
    link.update(2, json!({ "full": false, "actions": quarantine("default/victim", None) })).await;
    until_reason(&sidecar, "victim", "quarantined").await;
    assert_eq!(reason(&sidecar, "other").await, "no-route");
    // Nor is it looked for by DNS, as a host would be that is unknown to the mesh.
    for line in [
        "GET http://victim.default/ HTTP/1.1\r\nhost: victim.default",
        "CONNECT victim:80 HTTP/1.1\r\nhost: victim:80",
    ] {
        let mut client = H1::connect(sidecar.outbound).await;
        client.send(&format!("{line}\r\n\r\n")).await;
        let head = client.head().await.unwrap();
        assert_eq!(head.start.split(' ').nth(1), Some("403"), "{line}: {}", head.start);
    }
    link.update(3, json!({ "full": false, "actions": { "actions": [] } })).await;
    until_reason(&sidecar, "victim", "no-route").await;
}
