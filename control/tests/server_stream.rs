//! Streams from outside: what a sidecar gets, and what becomes of one that sends nonsense or reads nothing.

use std::time::Duration;

use pilotfish_config::wire::{self, Heartbeat, Status, ToControl, ToSidecar, Versions};
use pilotfish_control::api::types::{Agents, Applied, FleetStatus, Version, Waited};
use pilotfish_testkit::ca::Issued;
use rustix::process::Signal;
use serde_json::json;

use crate::support::sidecar::{hello, joined};
use crate::support::{Http, Serve, Stream};

/// A route of the host `planner` with a timeout that tells versions apart.
fn route(seconds: u32) -> serde_json::Value {
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: planner\nspec:\n  hosts: \
         [planner]\n  http:\n  - timeout: {seconds}s\n    route:\n    - destination: {{host: planner}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: planner\nspec:\n  hosts: [planner]\n  \
         ports: [{{number: 80, name: http, protocol: HTTP}}]\n  resolution: STATIC\n  endpoints: [{{address: 127.0.0.1}}]\n"
    );
    json!({ "files": [{ "name": "routes.yaml", "text": text }], "summary": "a route" })
}

async fn apply(serve: &Serve, seconds: u32) -> Applied {
    Http::socket(serve).await.post("/v1/apply", &route(seconds)).await.ok()
}

async fn next_update(stream: &mut Stream) -> wire::Update {
    match stream.until(|message| matches!(message, ToSidecar::Update(_))).await {
        ToSidecar::Update(update) => *update,
        _ => unreachable!("only an update fits"),
    }
}

/// The update with the route; who else is there may be told before it.
async fn next_route(stream: &mut Stream) -> wire::Update {
    loop {
        let update = next_update(stream).await;
        if update.documents.iter().any(|document| document.key.kind == "VirtualService") {
            return update;
        }
    }
}

async fn serves(stream: &mut Stream, version: u64) {
    let state = wire::State { accepted: version, serving: version, refused: None };
    stream.say(&ToControl::State(state)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_gets_what_is_applied_and_people_see_it() {
    let serve = Serve::start(&[]);
    let own = joined(&serve, "default", "planner").await;
    let mut stream = Stream::welcomed(&serve, &own, hello("default", "planner")).await;
    let first = next_update(&mut stream).await;
    assert!(first.full);
    serves(&mut stream, first.version).await;
    let applied = apply(&serve, 5).await;
    let update = next_route(&mut stream).await;
    assert!(!update.full, "{update:?}");
    let waiting = tokio::spawn({
        let mut http = Http::socket(&serve).await;
        let path = format!("/v1/wait?version={}&timeout_ms=60000", applied.version);
        async move { http.get(&path).await.ok::<Waited>() }
    });
    serves(&mut stream, update.version).await;
    let waited = waiting.await.unwrap();
    assert!(waited.done && waited.concerned == 1, "{waited:?}");
    let status: FleetStatus = Http::socket(&serve).await.get("/v1/status").await.ok();
    let [sidecar] = status.sidecars.as_slice() else { panic!("{status:?}") };
    assert_eq!(
        (sidecar.agent.as_str(), sidecar.connected, sidecar.serving),
        ("planner", true, applied.version)
    );
    let agents: Agents = Http::socket(&serve).await.get("/v1/agents").await.ok();
    assert_eq!(agents.agents.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_shown_with_its_reasons() {
    let serve = Serve::start(&[]);
    let own = joined(&serve, "default", "planner").await;
    let mut stream = Stream::welcomed(&serve, &own, hello("default", "planner")).await;
    let first = next_update(&mut stream).await;
    serves(&mut stream, first.version).await;
    let applied = apply(&serve, 5).await;
    let update = next_route(&mut stream).await;
    let refused = wire::RefusedVersion { version: update.version, reasons: vec!["routes.yaml:3: no".into()] };
    let state = wire::State { accepted: first.version, serving: first.version, refused: Some(refused) };
    stream.say(&ToControl::State(state)).await;
    let path = format!("/v1/wait?version={}&timeout_ms=60000", applied.version);
    let waited: Waited = Http::socket(&serve).await.get(&path).await.ok();
    assert!(!waited.done);
    let reasons = &waited.missing[0].refused.as_ref().unwrap().reasons;
    assert_eq!(reasons, &["routes.yaml:3: no"]);
}

/// What is no message ends the stream with a word of why, and the log says whose it was.
#[tokio::test(flavor = "multi_thread")]
async fn nonsense_ends_the_stream() {
    let serve = Serve::start(&[]);
    let own = joined(&serve, "default", "planner").await;
    let long = u32::try_from(wire::LONGEST_TO_CONTROL + 1).unwrap().to_be_bytes().to_vec();
    let cases: [(&str, Vec<u8>, bool); 5] = [
        ("too long", long, false),
        ("all ones", vec![0xff; 64], false),
        ("no JSON", [&7u32.to_be_bytes()[..], b"garbage"].concat(), false),
        ("not of this shape", [&17u32.to_be_bytes()[..], br#"{"type":"hello"} "#].concat(), false),
        ("truncated", [&100u32.to_be_bytes()[..], b"{\"type\""].concat(), true),
    ];
    for (what, bytes, finish) in cases {
        for welcomed in [false, true] {
            let mut stream = if welcomed {
                Stream::welcomed(&serve, &own, hello("default", "planner")).await
            } else {
                Stream::open(Http::tls(&serve, Some(&own)).await).await
            };
            stream.raw(bytes.clone()).await;
            if finish {
                stream.finish();
            }
            let mut last = None;
            while let Some(message) = stream.next().await {
                last = Some(message);
            }
            assert!(matches!(last, Some(ToSidecar::Refused(_))), "{what}, welcomed {welcomed}: {last:?}");
        }
    }
    serve.said(|line| line.contains("no message") && line.contains("agent/planner")).await;
    let mut unknown = Stream::welcomed(&serve, &own, hello("default", "planner")).await;
    let body = br#"{"type":"of-a-later-version","x":[1]}"#;
    unknown.raw([&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()).await;
    next_update(&mut unknown).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_that_is_not_ones_own_is_refused() {
    let serve = Serve::start(&[]);
    let own = joined(&serve, "default", "planner").await;
    let other_major = Versions { major: 99, ..Versions::own() };
    for wrong in [
        hello("default", "other"),
        hello("other", "planner"),
        wire::Hello { versions: other_major, ..hello("default", "planner") },
        wire::Hello { instance: "../../x".into(), ..hello("default", "planner") },
    ] {
        let mut stream = Stream::open(Http::tls(&serve, Some(&own)).await).await;
        stream.say(&ToControl::Hello(Box::new(wrong))).await;
        let refused = stream.next().await;
        assert!(matches!(&refused, Some(ToSidecar::Refused(why)) if !why.retry), "{refused:?}");
        assert!(stream.next().await.is_none());
    }
    let status: FleetStatus = Http::socket(&serve).await.get("/v1/status").await.ok();
    assert!(status.sidecars.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_needs_http2() {
    let serve = Serve::start(&[]);
    let own = joined(&serve, "default", "planner").await;
    let mut http = Http::tls_http1(&serve, Some(&own)).await;
    http.ask("POST", "/v1/stream", "").await.refused(426);
}

/// A sidecar that reads nothing gets the newest state when it reads again, and costs no more memory meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_gets_no_backlog() {
    let serve = Serve::start(&[]);
    let own = joined(&serve, "default", "planner").await;
    let mut stream = Stream::welcomed(&serve, &own, hello("default", "planner")).await;
    next_update(&mut stream).await;
    let padding = "x".repeat(200_000);
    let mut http = Http::socket(&serve).await;
    let mut last = 0;
    let before = serve.memory();
    for round in 0..20 {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: v\n  annotations:\n    note: \
             \"{round}{padding}\"\nspec:\n  hosts: [v.example]\n  http:\n  - directResponse: {{status: 200}}\n"
        );
        let submission = json!({ "files": [{ "name": "v.yaml", "text": text }] });
        last = http.post("/v1/apply", &submission).await.ok::<Applied>().version;
        // Longer than the debounce, so that each is rendered.
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    assert_eq!(last, 20);
    let grown = serve.memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{} MiB more", grown >> 20);
    let mut received = 0;
    loop {
        let update = next_update(&mut stream).await;
        received += 1;
        if update.documents.iter().any(|document| document.body.get().contains("\"19x")) {
            break;
        }
    }
    assert!(received < 20, "{received} updates: a backlog");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_keeps_the_lease_and_its_end_ends_it() {
    let serve = Serve::start(&["--lease", "4s"]);
    let own = joined(&serve, "default", "planner").await;
    let mut stream = Stream::welcomed(&serve, &own, hello("default", "planner")).await;
    let beat = Heartbeat {
        idle_ms: None,
        usage: None,
        status: Status::Ready,
        detail: None,
        in_flight: 0,
        reports: Vec::new(),
        certificate_expires: None,
        limits: Vec::new(),
        edges: Vec::new(),
    };
    let mut http = Http::socket(&serve).await;
    // Longer than a lease without any.
    for _ in 0..6 {
        stream.say(&ToControl::Heartbeat(beat.clone())).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(http.get("/v1/agents").await.ok::<Agents>().agents.len(), 1);
    }
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    while http.get("/v1/agents").await.ok::<Agents>().agents.iter().any(|row| row.status.is_routable()) {
        assert!(tokio::time::Instant::now() < until, "it silently stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Killed at any moment and started again: documents, trust, tokens and registrations are there, and sidecars resume.
#[tokio::test(flavor = "multi_thread")]
async fn killed_and_started_again_nothing_is_lost() {
    let serve = Serve::start(&[]);
    let own: Issued = joined(&serve, "default", "planner").await;
    let token = crate::support::sidecar::token(&serve, "default", "later").await;
    let mut stream = Stream::welcomed(&serve, &own, hello("default", "planner")).await;
    next_update(&mut stream).await;
    let applied = apply(&serve, 7).await;
    let update = next_route(&mut stream).await;
    serves(&mut stream, update.version).await;
    let again = Serve::start_in(serve.kill(), &[]);
    let version: Version = Http::socket(&again).await.get("/v1/version").await.ok();
    assert_eq!(version.documents, applied.version);
    let resume = Some(wire::Resume { version: update.version, digest: update.digest.clone() });
    let mut resumed =
        Stream::welcomed(&again, &own, wire::Hello { resume, ..hello("default", "planner") }).await;
    let next = apply(&again, 8).await;
    let update = next_route(&mut resumed).await;
    assert!(update.documents.len() <= 2, "{update:?}");
    assert_eq!(next.version, applied.version + 1);
    let (reply, _) = crate::support::sidecar::join(&again, &token, "default", "later").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_streams_in_order() {
    let mut serve = Serve::start(&[]);
    let own = joined(&serve, "default", "planner").await;
    let mut stream = Stream::welcomed(&serve, &own, hello("default", "planner")).await;
    let mut waiting = Http::socket(&serve).await;
    let waited = tokio::spawn(async move { waiting.get("/v1/wait?timeout_ms=60000").await });
    serve.signal(Signal::TERM);
    while stream.next().await.is_some() {}
    assert_eq!(serve.ended().await.code(), Some(0));
    // Answered, or cut: it is only that nobody waits for it.
    let _ = waited.await;
}
