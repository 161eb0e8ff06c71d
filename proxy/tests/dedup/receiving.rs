//! The receiving sidecar: repeats of a call with a key, one after the other and at once.

use std::sync::Arc;
use std::time::Duration;

use pilotfish_testkit::h1::Answer;
use pilotfish_testkit::origin::{Step, When, ok, send};
use pilotfish_testkit::strict::Message;
use pilotfish_testkit::{Agent, H1, Nobody, Origin, Sidecar};
use tokio::sync::Semaphore;

use super::until;
use crate::support::sidecar;
use crate::tls::setup::{Mesh, ask, counted, metric};

/// An agent that answers `answer N` to its N-th request over all connections, and its sidecar.
async fn counting() -> (Origin, Sidecar) {
    let count = std::sync::atomic::AtomicUsize::new(0);
    scripted(move |_, _| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        ok(format!("answer {n}"))
    })
    .await
}

async fn scripted(
    script: impl Fn(&Message, usize) -> Vec<Step> + Send + Sync + 'static,
) -> (Origin, Sidecar) {
    let origin = Origin::start(script).await;
    let sidecar = sidecar().app(origin.addr()).workers(2).start();
    (origin, sidecar)
}

fn post(path: &str, key: &str, body: &str) -> String {
    request("POST", path, &format!("idempotency-key: {key}\r\n"), body)
}

fn request(method: &str, path: &str, lines: &str, body: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: a.test\r\n{lines}content-length: {}\r\n\r\n{body}", body.len())
}

/// One request on a connection of its own, so that every worker gets some.
async fn call(sidecar: &Sidecar, request: &str) -> Answer {
    H1::connect(sidecar.inbound).await.ask(request).await.unwrap()
}

fn refused(answer: &Answer) -> (u16, String) {
    (answer.status(), answer.reason())
}

#[tokio::test]
async fn dedup_gives_repeats_the_first_answer_whatever_worker_they_come_to() {
    let (origin, sidecar) = counting().await;
    for _ in 0..6 {
        let answer = call(&sidecar, &post("/pay", "k1", "money")).await;
        assert_eq!((answer.status(), answer.text()), (200, "answer 1".into()));
    }
    assert_eq!(call(&sidecar, &post("/pay", "\"k1\"", "money")).await.text(), "answer 1", "the quoted form");
    assert_eq!(refused(&call(&sidecar, &post("/pay", "k1", "more")).await), (422, "key-reused".into()));
    // Another scope, another call.
    assert_eq!(call(&sidecar, &post("/pay", "k2", "money")).await.text(), "answer 2");
    assert_eq!(call(&sidecar, &post("/pay?x", "k1", "money")).await.text(), "answer 3");
    let key = "idempotency-key: k1\r\n";
    assert_eq!(call(&sidecar, &request("PUT", "/pay", key, "money")).await.text(), "answer 4");
    let other = post("/pay", "k1", "money").replace("a.test", "b.test");
    assert_eq!(call(&sidecar, &other).await.text(), "answer 5");
    // What has no effect may be done as often as one likes.
    for n in [6, 7] {
        assert_eq!(call(&sidecar, &request("GET", "/pay", key, "")).await.text(), format!("answer {n}"));
    }
    assert_eq!(origin.requests().len(), 7);
    assert_eq!(origin.requests()[0].header("idempotency-key").as_deref(), Some("k1"), "the agent's to see");
    assert_eq!(metric(&sidecar, "pilotfish_dedup_keys").await, 5);
    assert_eq!(metric(&sidecar, "pilotfish_dedup_repeats_total{from=\"kept\"}").await, 6);
}

#[tokio::test]
async fn dedup_keeps_status_headers_and_trailers() {
    let answer = "HTTP/1.1 418 Teapot\r\nx-one: 1\r\nset-cookie: a\r\nset-cookie: b\r\ntransfer-encoding: chunked\r\n\
                  \r\n4\r\ntea \r\n3\r\npot\r\n0\r\nx-end: yes\r\n\r\n";
    let (origin, sidecar) = scripted(move |_, _| vec![send(answer)]).await;
    for _ in 0..3 {
        let answer = call(&sidecar, &post("/", "k", "")).await;
        assert_eq!((answer.status(), answer.text()), (418, "tea pot".into()));
        assert_eq!(answer.header("x-one").as_deref(), Some("1"));
        let cookies: Vec<_> = answer
            .message
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"))
            .collect();
        assert_eq!(cookies.len(), 2);
        assert_eq!(answer.message.trailers.len(), 1, "{:?}", answer.message);
    }
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn dedup_lets_a_repeat_wait_for_the_first() {
    let gate = Arc::new(Semaphore::new(0));
    let at = Arc::clone(&gate);
    let (origin, sidecar) = scripted(move |_, _| [vec![Step::Gate(at.clone())], ok("done")].concat()).await;
    let sidecar = Arc::new(sidecar);
    let mut calls = Vec::new();
    for _ in 0..5 {
        let sidecar = Arc::clone(&sidecar);
        calls.push(tokio::spawn(async move { call(&sidecar, &post("/", "k", "body")).await.text() }));
    }
    counted(&sidecar, "pilotfish_requests_active{direction=\"inbound\"}", 5).await;
    let other = call(&sidecar, &post("/", "k", "other")).await;
    assert_eq!(refused(&other), (422, "key-reused".into()), "known before the first has ended");
    gate.add_permits(1);
    for call in calls {
        assert_eq!(call.await.unwrap(), "done");
    }
    assert_eq!(origin.requests().len(), 1);
    assert_eq!(metric(&sidecar, "pilotfish_dedup_repeats_total{from=\"running\"}").await, 4);
}

#[tokio::test]
async fn dedup_goes_on_when_the_first_caller_goes_away() {
    let gate = Arc::new(Semaphore::new(0));
    let at = Arc::clone(&gate);
    let (origin, sidecar) = scripted(move |_, _| [vec![Step::Gate(at.clone())], ok("done")].concat()).await;
    let mut client = H1::connect(sidecar.inbound).await;
    client.send(post("/", "k", "body")).await;
    until("the agent is asked", || origin.requests().len() == 1).await;
    client.reset();
    counted(&sidecar, "pilotfish_requests_active{direction=\"inbound\"}", 0).await;
    gate.add_permits(1);
    assert_eq!(call(&sidecar, &post("/", "k", "body")).await.text(), "done");
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn dedup_ends_what_it_does_before_the_sidecar_ends() {
    let gate = Arc::new(Semaphore::new(0));
    let at = Arc::clone(&gate);
    let (origin, mut sidecar) =
        scripted(move |_, _| [vec![Step::Gate(at.clone())], ok("done")].concat()).await;
    let mut client = H1::connect(sidecar.inbound).await;
    client.send(post("/", "k", "body")).await;
    until("the agent is asked", || origin.requests().len() == 1).await;
    client.reset();
    sidecar.terminate();
    assert!(sidecar.exit(Duration::from_millis(500)).await.is_none(), "it has a call to end");
    gate.add_permits(1);
    assert!(sidecar.exit(Duration::from_secs(15)).await.is_some());
}

#[tokio::test]
async fn dedup_says_already_done_for_what_it_does_not_keep() {
    let (origin, sidecar) = scripted(|m, _| match m.target() {
        "/large" => ok("x".repeat(70_000)),
        "/grows" => {
            let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000)).repeat(5);
            vec![send(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n"))]
        }
        _ => vec![
            send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"),
            send("9\r\ndata: 1\n\n\r\n0\r\n\r\n"),
        ],
    })
    .await;
    for (path, length) in [("/large", 70_000), ("/grows", 0x4000 * 5), ("/events", 9)] {
        let answer = call(&sidecar, &post(path, "k", "")).await;
        assert_eq!((answer.status(), answer.message.body.len()), (200, length), "{path}");
        assert_eq!(refused(&call(&sidecar, &post(path, "k", "")).await), (409, "already-done".into()));
        assert_eq!(refused(&call(&sidecar, &post(path, "k", "x")).await), (422, "key-reused".into()));
    }
    assert_eq!(origin.requests().len(), 3);
    assert_eq!(metric(&sidecar, "pilotfish_dedup_answer_bytes").await, 0);
}

#[tokio::test]
async fn dedup_holds_no_stream_back_and_ends_it_with_its_caller() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let (origin, sidecar) = scripted(move |_, _| vec![send(head), send("3\r\none\r\n"), Step::Hang]).await;
    let mut client = H1::connect(sidecar.inbound).await;
    client.send(post("/", "k", "")).await;
    let read = client.read_until(|bytes| bytes.windows(3).any(|three| three == b"one")).await;
    assert!(read.ends_with(b"one\r\n"), "the first event comes while the stream is open");
    let repeat = call(&sidecar, &post("/", "k", "")).await;
    assert_eq!(refused(&repeat), (409, "already-done".into()), "a repeat need not wait for the stream's end");
    client.reset();
    // The agent's connection is closed too: its sidecar has nothing open.
    let mut sidecar = sidecar;
    counted(&sidecar, "pilotfish_requests_active{direction=\"inbound\"}", 0).await;
    sidecar.terminate();
    assert!(sidecar.exit(Duration::from_secs(15)).await.is_some());
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn dedup_does_not_begin_again_what_the_agent_broke_off() {
    for end in [Step::Close, Step::Reset] {
        let (origin, sidecar) = scripted(move |m, _| match m.target() {
            "/head" => vec![end.clone()],
            _ => vec![send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"), end.clone()],
        })
        .await;
        for _ in 0..3 {
            let answer = call(&sidecar, &post("/head", "k", "body")).await;
            assert_eq!(refused(&answer), (502, "outcome-unknown".into()));
        }
        assert!(H1::connect(sidecar.inbound).await.ask(post("/half", "k", "body")).await.is_err());
        let answer = call(&sidecar, &post("/half", "k", "body")).await;
        assert_eq!(refused(&answer), (502, "outcome-unknown".into()));
        assert_eq!(origin.requests().len(), 2);
    }
}

#[tokio::test]
async fn dedup_frees_the_key_of_what_was_not_begun() {
    let held = Nobody::new();
    let sidecar = sidecar().app(held.addr()).start();
    for _ in 0..2 {
        assert_eq!(refused(&call(&sidecar, &post("/", "k", "")).await), (503, "connect-failed".into()));
    }
    let agent = Agent::listening("late", held.listen());
    assert_eq!(call(&sidecar, &post("/", "k", "")).await.status(), 200);
    assert_eq!(call(&sidecar, &post("/", "k", "")).await.status(), 200);
    assert_eq!(agent.requests(), 1);
}

#[tokio::test]
async fn dedup_streams_large_bodies_and_still_knows_them() {
    let (origin, sidecar) = counting().await;
    let large = "0123456789abcdef".repeat(20_000);
    let other = large.replacen('0', "1", 1);
    assert_eq!(call(&sidecar, &post("/", "k", &large)).await.text(), "answer 1");
    assert_eq!(call(&sidecar, &post("/", "k", &large)).await.text(), "answer 1");
    assert_eq!(refused(&call(&sidecar, &post("/", "k", &other)).await), (422, "key-reused".into()));
    assert_eq!(refused(&call(&sidecar, &post("/", "k", "small")).await), (422, "key-reused".into()));
    let chunked = |body: &str| {
        format!(
            "POST /chunks HTTP/1.1\r\nhost: a.test\r\nidempotency-key: k\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n\
             0\r\nx-end: 1\r\n\r\n",
            body.len()
        )
    };
    for body in [&large, &"small".to_owned()] {
        let request = chunked(body).replace("/chunks", &format!("/{}", body.len()));
        let first = call(&sidecar, &request).await.text();
        assert_eq!(call(&sidecar, &request).await.text(), first);
    }
    assert_eq!(origin.requests().len(), 3);
    assert_eq!(origin.requests()[0].body.len(), large.len());
    assert_eq!(origin.ambiguity(), None);
}

#[tokio::test]
async fn dedup_a_large_body_that_is_cut_is_not_done_again() {
    let origin = Origin::start_when(When::Whole, |_, _| ok("done")).await;
    let sidecar = sidecar().app(origin.addr()).start();
    let large = "x".repeat(300_000);
    let whole = post("/", "k", &large);
    let mut client = H1::connect(sidecar.inbound).await;
    client.send(&whole[..200_000]).await;
    until("the agent gets some", || origin.connections().first().is_some_and(|bytes| !bytes.is_empty()))
        .await;
    client.reset();
    let answer = call(&sidecar, &whole).await;
    assert_eq!(refused(&answer), (502, "outcome-unknown".into()));
}

#[tokio::test]
async fn dedup_refuses_when_the_window_is_full_and_forgets_after_its_time() {
    let (origin, sidecar) = {
        let origin = Origin::start(|m, _| ok(m.target())).await;
        let yaml = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata:\n  name: own\n  annotations:\n    \
                    pilotfish.dev/dedup-keys: '2'\n    pilotfish.dev/dedup-window: 2s\nspec: {}\n";
        let sidecar = sidecar().app(origin.addr()).yaml("a.yaml", yaml).start();
        (origin, sidecar)
    };
    let began = std::time::Instant::now();
    assert_eq!(call(&sidecar, &post("/1", "k", "")).await.status(), 200);
    assert_eq!(call(&sidecar, &post("/2", "k", "")).await.status(), 200);
    let full = call(&sidecar, &post("/3", "k", "")).await;
    if began.elapsed() < Duration::from_secs(2) {
        assert_eq!(refused(&full), (503, "dedup-full".into()));
        assert_eq!(call(&sidecar, &request("POST", "/4", "", "")).await.status(), 200, "without a key");
    }
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(call(&sidecar, &post("/3", "k", "")).await.status(), 200);
    let before = origin.requests().len();
    assert_eq!(call(&sidecar, &post("/1", "k", "")).await.status(), 200);
    assert_eq!(origin.requests().len(), before + 1, "forgotten, so done again");
}

#[tokio::test]
async fn dedup_refuses_what_is_no_key() {
    let (origin, sidecar) = counting().await;
    let long = "k".repeat(257);
    for key in ["", "   ", "\"\"", "\"open", "sch\u{fc}ssel", "a\tb", &long] {
        let answer = call(&sidecar, &post("/", key, "body")).await;
        assert_eq!(refused(&answer), (400, "bad-request".into()), "{key:?}");
    }
    let twice = request("POST", "/", "idempotency-key: a\r\nIdempotency-Key: a\r\n", "");
    assert_eq!(refused(&call(&sidecar, &twice).await), (400, "bad-request".into()));
    assert_eq!(origin.requests().len(), 0);
    let longest = "k".repeat(256);
    assert_eq!(call(&sidecar, &post("/", &longest, "")).await.status(), 200);
}

#[tokio::test]
async fn dedup_counts_a_key_by_the_caller_that_its_certificate_names() {
    let (mesh, origin) = (Mesh::new(), Origin::start(|m, _| ok(m.target())).await);
    let callee = mesh.sidecar("callee").app(origin.addr()).start();
    let request = "POST / HTTP/1.1\r\nhost: x.test\r\nidempotency-key: k\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let mut epochs = Vec::new();
    for (caller, executions) in [("one", 1), ("one", 1), ("two", 2), ("one", 2)] {
        let own = mesh.issue(caller);
        let answer = ask(callee.inbound, mesh.client(Some(&own)), request).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(origin.requests().len(), executions, "{caller}");
        let line = answer.lines().find_map(|line| line.strip_prefix("x-pilotfish-dedup-epoch: "));
        epochs.push(line.unwrap_or_else(|| panic!("no epoch: {answer}")).to_owned());
    }
    epochs.dedup();
    assert_eq!((epochs.len(), epochs[0].len()), (1, 32));
    let own = mesh.issue("one");
    let with = |epoch: &str| request.replace("host:", &format!("x-pilotfish-dedup-epoch: {epoch}\r\nhost:"));
    let known = ask(callee.inbound, mesh.client(Some(&own)), &with(&epochs[0])).await.unwrap();
    assert!(known.starts_with("HTTP/1.1 200"), "{known}");
    let other = ask(callee.inbound, mesh.client(Some(&own)), &with("0000")).await.unwrap();
    assert!(other.contains("pilotfish-reason: dedup-epoch") && other.contains(&epochs[0]), "{other}");
    // A messageId that the caller's sidecar knows of is a key of its own, and never reaches the agent.
    let message = request.replace("idempotency-key", "x-pilotfish-idempotency-key");
    for _ in 0..2 {
        let answer = ask(callee.inbound, mesh.client(Some(&own)), &message).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(origin.requests().len(), 3);
    for request in origin.requests() {
        for name in ["x-pilotfish-dedup-epoch", "x-pilotfish-idempotency-key"] {
            assert_eq!(request.header(name), None, "{name}");
        }
    }
}
