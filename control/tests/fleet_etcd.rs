//! Two control planes on one etcd: one is killed, or etcd's leader is, and sidecars do not notice for long.

use std::time::{Duration, Instant};

use pilotfish_config::wire::{self, Hello, ToControl, ToSidecar};
use pilotfish_control::api::types::{Agents, Applied, FleetStatus};
use pilotfish_testkit::ca::Issued;
use serde_json::{Value, json};

use crate::store::etcd::Etcd;
use crate::support::serve::folder;
use crate::support::sidecar::{hello, joined};
use crate::support::{Http, Serve, Stream};

fn route(status: u16) -> Value {
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: a\nspec:\n  hosts: [a.example]\n  \
         http:\n  - directResponse:\n      status: {status}\n"
    );
    json!({ "files": [{ "name": "routes.yaml", "text": text }] })
}

/// Two of one mesh; the second has the authority's folder of the first.
pub async fn pair(etcd: &Etcd) -> (Serve, Serve) {
    drop(etcd.store().await);
    let url = etcd.url();
    let args = ["--store", url.as_str(), "--lease", "2s"];
    let first = Serve::start(&args);
    let second = folder();
    let ca = second.path().join("data/ca");
    std::fs::create_dir_all(&ca).unwrap();
    for file in std::fs::read_dir(first.data().join("ca")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), ca.join(file.file_name())).unwrap();
    }
    let second = Serve::start_in(second, &args);
    (first, second)
}

fn instance(number: u32) -> Hello {
    Hello {
        instance: format!("{number:032x}"),
        address: Some(std::net::SocketAddr::from(([127, 0, 0, 1], 16000 + number as u16))),
        ..hello("default", "planner")
    }
}

/// A sidecar's stream with what it got first, which it serves.
async fn served(serve: &Serve, own: &Issued, hello: Hello) -> (Stream, wire::Update) {
    let mut stream = Stream::welcomed(serve, own, hello).await;
    let update = next_update(&mut stream).await;
    (stream, update)
}

async fn next_update(stream: &mut Stream) -> wire::Update {
    let message = stream.until(|message| matches!(message, ToSidecar::Update(_))).await;
    let ToSidecar::Update(update) = message else { unreachable!("only an update fits") };
    let state = wire::State { accepted: update.version, serving: update.version, refused: None };
    stream.say(&ToControl::State(state)).await;
    *update
}

async fn until_document(stream: &mut Stream, status: u16) {
    let fits = |update: &wire::Update| {
        update.documents.iter().any(|document| document.body.get().contains(&format!("\"status\":{status}")))
    };
    while !fits(&next_update(stream).await) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_control_plane_is_replaced_by_the_other_within_two_seconds() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let (first, second) = pair(&etcd).await;
    let own = joined(&first, "default", "planner").await;
    let mut streams = Vec::new();
    for number in 0..5 {
        streams.push(served(&first, &own, instance(number)).await.0);
    }
    let (mut watching, _) = served(&second, &own, instance(9)).await;
    // What is applied at one is pushed by both.
    let applied: Applied = Http::socket(&first).await.post("/v1/apply", &route(200)).await.ok();
    assert_eq!(applied.version, 1);
    until_document(&mut watching, 200).await;
    until_document(&mut streams[0], 200).await;
    let before = Instant::now();
    drop(first.kill());
    for (number, stream) in (0..).zip(&mut streams) {
        while stream.next().await.is_some() {}
        let (again, update) = served(&second, &own, instance(number)).await;
        assert!(update.documents.iter().any(|document| document.key.name == "a"), "{update:?}");
        *stream = again;
    }
    let moved = before.elapsed();
    println!("five sidecars moved in {moved:?}");
    // Two seconds, and the machine's own slowness.
    assert!(moved < Duration::from_secs(8), "{moved:?}");
    // The one that is left knows them all, and goes on pushing.
    let status: FleetStatus = Http::socket(&second).await.get("/v1/status").await.ok();
    assert_eq!(status.sidecars.iter().filter(|row| row.connected).count(), 6, "{status:?}");
    let agents: Agents = Http::socket(&second).await.get("/v1/agents").await.ok();
    assert_eq!(agents.agents.len(), 6);
    Http::socket(&second).await.post("/v1/apply", &route(404)).await.ok::<Applied>();
    until_document(&mut streams[4], 404).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcds_leader_is_killed_while_documents_are_applied() {
    let Some(mut etcd) = Etcd::start(3).await else { return };
    let (first, second) = pair(&etcd).await;
    let own = joined(&first, "default", "planner").await;
    let (mut at_first, _) = served(&first, &own, instance(0)).await;
    let (mut at_second, _) = served(&second, &own, instance(1)).await;
    Http::socket(&first).await.post("/v1/apply", &route(200)).await.ok::<Applied>();
    etcd.kill_leader().await;
    let before = Instant::now();
    let mut http = Http::socket(&first).await;
    let applied = loop {
        let reply = http.post("/v1/apply", &route(404)).await;
        if reply.status == 200 {
            break reply.ok::<Applied>();
        }
        assert!(reply.status == 503 && before.elapsed() < Duration::from_secs(60), "{}", reply.text());
    };
    println!("applied {:?} after the leader died", before.elapsed());
    assert_eq!(applied.version, 2);
    until_document(&mut at_first, 404).await;
    until_document(&mut at_second, 404).await;
}

/// A batch of a log of `default/planner`: the records so far, all of them refusals.
fn batch(records: u64) -> wire::AuditBatch {
    let chain = "0123456789abcdef0123456789abcdef";
    let origin = pilotfish_audit::Tip::origin(chain);
    let (mut tip, mut text) = (origin, String::new());
    for seq in 1..=records {
        let from = text.len();
        text.push_str(&format!(
            "{{\"seq\":{seq},\"time_ns\":{},\"agent\":\"default/planner\",\"action\":\"GET /{seq}\",\"outcome\":\"denied\"",
            seq * 1_000_000_000
        ));
        tip.seal(&mut text, from);
    }
    let lines = text.lines().map(str::to_owned).collect();
    wire::AuditBatch { chain: chain.into(), prev: origin.hash.as_str().into(), lines }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_is_shown_and_verified_wherever_it_lies() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let (first, second) = pair(&etcd).await;
    let own = joined(&first, "default", "planner").await;
    // The sidecar was at the first, and moved to the second.
    for (serve, records) in [(&first, 2), (&second, 3)] {
        let (mut stream, _) = served(serve, &own, instance(0)).await;
        stream.say(&ToControl::Audit(batch(records))).await;
        stream.until(|message| matches!(message, ToSidecar::AuditTaken(taken) if taken.seq == records)).await;
    }
    let pin = crate::mesh::pilotfish(&first, &["trust", "list"]);
    let pin = pin.lines().find(|line| line.starts_with("root ")).unwrap();
    let pin = pin.split_whitespace().last().unwrap().to_owned();
    let (url, token) = (format!("https://{}", first.listen), first.token.clone().unwrap());
    let ask = |args: &'static [&'static str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pilotfish"));
        command
            .args(args)
            .args(["--control", &url, "--ca-fingerprint", &pin])
            .env("PILOTFISH_ADMIN_TOKEN", &token);
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let shown = || {
        let (code, out, said) = ask(&["audit", "--denied", "-o", "json"]);
        assert_eq!(code, Some(0), "{said}");
        let rows: Vec<Value> = serde_json::from_str(&out).unwrap();
        let actions: Vec<String> =
            rows.iter().map(|row| row["action"].as_str().unwrap().to_owned()).collect();
        (actions, said)
    };
    // Each enters itself a moment after it began to listen.
    for _ in 0..600 {
        if shown().0.len() == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(shown(), (["GET /3", "GET /2", "GET /1"].map(str::to_owned).to_vec(), String::new()));
    let (code, out, said) = ask(&["audit", "verify"]);
    assert_eq!(
        (code, out.matches(" whole ").count(), out.matches("control plane ").count()),
        (Some(0), 2, 2),
        "{out}{said}"
    );
    drop(second.kill());
    let (actions, said) = shown();
    assert_eq!(actions, ["GET /2", "GET /1"]);
    assert!(said.contains("did not answer, and what only it has is not looked at"), "{said}");
    let (code, _, said) = ask(&["audit", "verify"]);
    assert_eq!(code, Some(4), "{said}");
}
