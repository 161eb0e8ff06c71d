//! Response actions on what other agents do for the one that is held: `a` asks `b`, and `b` asks on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pilotfish_testkit::H1;
use pilotfish_testkit::ca::Leaf;
use pilotfish_testkit::relay::{Manners, Relay};
use tokio::io::AsyncReadExt;

use super::*;
use crate::tls::setup::{mesh_service, with_identity};

const SOON: Duration = Duration::from_secs(15);

/// A sidecar of the same trust domain that no control plane tells anything.
fn outsider(control: &Control, folder: &Path, agent: &str) -> Builder {
    let folder = folder.join(agent);
    std::fs::create_dir_all(&folder).unwrap();
    let issued = control.ca.issue(&Leaf::agent(DOMAIN, "default", agent));
    let bundle = control.ca.write_bundle(&folder);
    with_identity(support::sidecar().agent(agent), &issued.write(&folder, "own"), &bundle)
}

fn held(agent: &str, hold: &Value) -> Value {
    json!({ "actions": [{ "agent": agent, "hold": hold, "since": 1 }] })
}

/// Begins a call whose answer does not end, and that nobody repeats.
async fn begin(outbound: SocketAddr, host: &str) -> H1 {
    let mut client = H1::connect(outbound).await.patience(SOON);
    client
        .send(&format!("POST /stream/100000/20 HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n\r\n"))
        .await;
    client
}

async fn until_open(agent: &Agent, streams: usize) {
    let start = Instant::now();
    while agent.open() != streams {
        assert!(start.elapsed() < SOON, "{} streams are open, not {streams}", agent.open());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// More comes of a stream than what may have been on its way.
async fn goes_on(stream: &mut H1) {
    let (start, mut bytes) = (Instant::now(), [0; 4096]);
    while start.elapsed() < Duration::from_millis(300) {
        let read = tokio::time::timeout(SOON, stream.stream().read(&mut bytes)).await;
        assert!(read.unwrap().unwrap() > 0, "it has ended");
    }
}

fn holds() -> [(Value, &'static str); 2] {
    [(json!("quarantine"), "quarantined"), (json!({ "restrict": ["nlu"] }), "restricted")]
}

#[tokio::test]
async fn a_stream_deeper_in_the_chain_is_cut_by_who_is_called() {
    let control = Control::start(DOMAIN).await;
    let (agent, folder) = (Agent::start("a").await, tempfile::tempdir().unwrap());
    let launched = member(&control, &folder.path().join("c")).app(agent.addr()).launch();
    let mut link = control.link().await;
    first(&mut link, "w.test", agent.addr().port()).await;
    let c = launched.ready().await;
    let relay = Relay::start("c.test", Manners::Drops).await;
    let to_c = mesh_service("c.test", "caller", c.inbound);
    let b = outsider(&control, folder.path(), "b").app(relay.addr()).yaml("a.yaml", to_c.clone()).start();
    relay.asks_through(b.outbound);
    let services = mesh_service("b.test", "b", b.inbound) + &to_c;
    let a = outsider(&control, folder.path(), "a").yaml("a.yaml", services.clone()).start();
    let e = outsider(&control, folder.path(), "e").yaml("a.yaml", services).start();
    let mut version = 1;
    for (hold, word) in holds() {
        let _deep = begin(a.outbound, "b.test").await;
        let mut other = begin(e.outbound, "c.test").await;
        until_open(&agent, 2).await;
        version += 1;
        link.update(version, json!({ "full": false, "actions": held("default/a", &hold) })).await;
        until_open(&agent, 1).await;
        goes_on(&mut other).await;
        until_said(&c, "an agent is held for whom they were").await;
        // What is held ends nothing that begins afterwards, unless it is refused.
        let now = call(&a, "b.test").await;
        assert_eq!(now, if word == "quarantined" { 403 } else { 200 }, "{word}");
        version += 1;
        link.update(version, json!({ "full": false, "actions": { "actions": [] } })).await;
        let start = Instant::now();
        while call(&a, "b.test").await != 200 {
            assert!(start.elapsed() < SOON, "it is not released");
        }
        drop(other);
        until_open(&agent, 0).await;
    }
}

#[tokio::test]
async fn what_an_agent_asks_outside_for_a_held_one_is_cut_and_refused() {
    for (hold, word) in holds() {
        let control = Control::start(DOMAIN).await;
        let (agent, folder) = (Agent::start("a").await, tempfile::tempdir().unwrap());
        let relay = Relay::start("w.test", Manners::Drops).await;
        let launched = member(&control, &folder.path().join("b")).app(relay.addr()).launch();
        let mut link = control.link().await;
        first(&mut link, "w.test", agent.addr().port()).await;
        let b = launched.ready().await;
        relay.asks_through(b.outbound);
        let to_b = mesh_service("b.test", "caller", b.inbound);
        let a = outsider(&control, folder.path(), "a").yaml("a.yaml", to_b).start();
        let _deep = begin(a.outbound, "b.test").await;
        until_open(&agent, 1).await;
        link.update(2, json!({ "full": false, "actions": held("default/a", &hold) })).await;
        until_open(&agent, 0).await;
        let own = call(&b, "w.test").await;
        assert_eq!(own, 200, "{word}: of its own accord it may");
    }
}
