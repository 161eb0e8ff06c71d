//! Bytes that come bit by bit: events, uploads, interim answers, upgrades. Nothing is held back, both ways.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pilotfish_testkit::h2::{self, Outcome, kind};
use pilotfish_testkit::origin::{Step, When, ok, send};
use pilotfish_testkit::{Agent, H1, H2, Origin, Sidecar};
use tokio::sync::Semaphore;

use crate::support::{h1_upstreams, service, service_with, sidecar};

/// For what comes at once, on a machine that does much else.
const SOON: Duration = Duration::from_secs(20);

fn start(origin: u16, more: &str) -> Sidecar {
    sidecar().yaml("a.yaml", service("s.test", origin) + &h1_upstreams("s.test") + more).start()
}

/// An origin that sends each event only when the test says so.
async fn gated(count: usize) -> (Origin, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let steps: Vec<Step> = (0..count)
        .flat_map(|i| {
            let event = format!("data: {i}\n\n");
            [send(format!("{:x}\r\n{event}\r\n", event.len())), Step::Gate(gate.clone())]
        })
        .collect();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let all = [vec![send(head)], steps, vec![send("0\r\n\r\n")]].concat();
    (Origin::start(move |_, _| all.clone()).await, gate)
}

#[tokio::test]
async fn each_event_arrives_before_the_next_is_sent() {
    let (origin, gate) = gated(20).await;
    let sidecar = start(origin.port(), "");
    let mut client = H1::connect(sidecar.outbound).await;
    client.send("GET /events HTTP/1.1\r\nHost: s.test\r\nAccept: text/event-stream\r\n\r\n").await;
    let head = client.head().await.expect("the head comes before the first event is over");
    assert_eq!(head.header("content-type").as_deref(), Some("text/event-stream"));
    for i in 0..20 {
        let event = format!("data: {i}\n\n");
        let read = client.read_until(|b| b.windows(event.len()).any(|w| w == event.as_bytes())).await;
        assert!(String::from_utf8_lossy(&read).contains(&event), "event {i} did not come: {read:?}");
        gate.add_permits(1);
    }
    let end = client.read_until(|b| b.ends_with(b"0\r\n\r\n")).await;
    assert!(end.ends_with(b"0\r\n\r\n"), "{end:?}");
}

#[tokio::test]
async fn each_event_arrives_over_http2_too() {
    let (origin, gate) = gated(20).await;
    let sidecar = start(origin.port(), "");
    let mut client = H2::open(sidecar.outbound, &[]).await;
    client.send(&h2::headers(1, h2::request("GET", "s.test", "/events", &[]), true)).await;
    for i in 0..20 {
        let event = format!("data: {i}\n\n");
        client.pump(SOON, |c| c.so_far(1).text().contains(&event)).await;
        assert!(client.so_far(1).text().ends_with(&event), "event {i} did not come: {:?}", client.so_far(1));
        gate.add_permits(1);
    }
    let Outcome::Answer(answer) = client.outcome(1, SOON).await else { panic!("no end") };
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn the_origin_learns_when_the_client_goes() {
    let origin = Agent::start("endless").await;
    let sidecar = start(origin.port(), "");
    let mut client = H1::connect(sidecar.outbound).await;
    client.send("GET /stream/100000/5 HTTP/1.1\r\nHost: s.test\r\n\r\n").await;
    client.head().await.expect("a head");
    assert_eq!(origin.open(), 1);
    client.reset();
    let until = Instant::now() + SOON;
    while origin.open() > 0 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(origin.open(), 0, "the stream to a client that is gone goes on");
}

#[tokio::test]
async fn an_upload_arrives_as_it_is_sent() {
    let origin = Origin::plain().await;
    let sidecar = start(origin.port(), "");
    let mut client = H1::connect(sidecar.outbound).await;
    client.send("POST /up HTTP/1.1\r\nHost: s.test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for i in 0..10 {
        let part = format!("part {i};");
        client.send(format!("{:x}\r\n{part}\r\n", part.len())).await;
        let until = Instant::now() + SOON;
        let arrived = || origin.requests().first().is_some_and(|m| m.body.ends_with(part.as_bytes()));
        while !arrived() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(arrived(), "part {i} is held back: {:?}", origin.requests());
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer("POST").await.unwrap().text(), "seen POST /up");
}

#[tokio::test]
async fn bytes_both_ways_at_once() {
    // The origin echoes the content as it comes: neither side may wait for the other's end.
    let origin = Origin::start_when(When::Head, |_, _| {
        vec![send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"), Step::Echo]
    });
    let origin = origin.await;
    let sidecar = start(origin.port(), "");
    let mut client = H1::connect(sidecar.outbound).await;
    client.send("POST /both HTTP/1.1\r\nHost: s.test\r\nContent-Length: 50\r\n\r\n").await;
    client.head().await.expect("the answer begins before the request ends");
    for i in 0..5 {
        let part = format!("12345678{i}\n");
        client.send(&part).await;
        let read = client.read_until(|b| b.windows(part.len()).any(|w| w == part.as_bytes())).await;
        assert!(String::from_utf8_lossy(&read).contains(&part), "part {i}: {read:?}");
    }
}

#[tokio::test]
async fn large_bodies_pass_whole() {
    let agent = Agent::start("big").await;
    let sidecar = start(agent.port(), "");
    let mut client = H1::connect(sidecar.outbound).await.patience(Duration::from_secs(30));
    let answer = client.get("s.test", "/bytes/20000000", &[]).await.unwrap();
    assert_eq!(answer.message.body.len(), 20_000_000);
    let size = 10_000_000;
    client.send(format!("POST /echo HTTP/1.1\r\nHost: s.test\r\nContent-Length: {size}\r\n\r\n")).await;
    client.send(vec![b'y'; size]).await;
    assert_eq!(client.answer("POST").await.unwrap().json()["body_len"], size);
    let mut client = H2::open(sidecar.outbound, &[(4, 1 << 20)]).await;
    let Outcome::Answer(answer) = client.get(1, "s.test", "/bytes/5000000", &[]).await else {
        panic!("no answer")
    };
    assert_eq!(answer.body.len(), 5_000_000);
}

#[tokio::test]
async fn an_early_answer_does_not_wait_for_the_content() {
    let too_large = "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno";
    let origin = Origin::start_when(When::Head, move |_, _| vec![send(too_large), Step::Close]).await;
    let sidecar = start(origin.port(), "");
    let mut client = H1::connect(sidecar.outbound).await;
    client.send("POST /up HTTP/1.1\r\nHost: s.test\r\nContent-Length: 1000000\r\n\r\nbegin").await;
    let answer = client.answer("POST").await.unwrap();
    assert_eq!((answer.status(), answer.text().as_str(), answer.reason().as_str()), (413, "no", ""));
}

#[tokio::test]
async fn an_origin_connection_with_an_unread_body_is_not_used_again() {
    // The origin answers at the head; what the client sends afterwards must never be read as a request.
    let origin = Origin::start_when(When::Head, |m, _| ok(format!("seen {}", m.target()))).await;
    let sidecar = start(origin.port(), "");
    for _ in 0..5 {
        let mut client = H1::connect(sidecar.outbound).await;
        client.send("POST /first HTTP/1.1\r\nHost: s.test\r\nContent-Length: 60\r\n\r\n").await;
        assert_eq!(client.answer("POST").await.unwrap().text(), "seen /first");
        client.send("GET /smuggled HTTP/1.1\r\nHost: s.test\r\n\r\n").await;
        drop(client);
        let next = pilotfish_testkit::h1::get(sidecar.outbound, "s.test", "/next", &[]).await.unwrap();
        assert_eq!(next.text(), "seen /next");
    }
    let smuggled = origin.requests().iter().any(|m| m.target() == "/smuggled");
    assert!(!smuggled && origin.ambiguity().is_none(), "{:?}", origin.views());
}

#[tokio::test]
async fn continue_is_asked_of_the_origin() {
    let origin = Origin::start_when(When::Head, |m, _| {
        let go_on = send("HTTP/1.1 100 Continue\r\n\r\n");
        let refuse = send("HTTP/1.1 401 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        let late = send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        match m.target() {
            "/refuse" => vec![refuse, Step::Close],
            _ => vec![go_on, Step::Pause(Duration::from_millis(50)), late],
        }
    });
    let origin = origin.await;
    let sidecar = start(origin.port(), "");
    let expect = |target| {
        format!("POST {target} HTTP/1.1\r\nHost: s.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    };
    let mut client = H1::connect(sidecar.outbound).await;
    client.send(expect("/go")).await;
    let interim = client.read_until(|b| b.ends_with(b"\r\n\r\n")).await;
    assert!(interim.starts_with(b"HTTP/1.1 100"), "{:?}", String::from_utf8_lossy(&interim));
    client.send("hello").await;
    assert_eq!(client.answer("POST").await.unwrap().text(), "ok");
    let mut client = H1::connect(sidecar.outbound).await;
    client.send(expect("/refuse")).await;
    let refused = client.answer("POST").await.unwrap();
    assert_eq!((refused.status(), refused.interim.len()), (401, 0), "no 100 before a refusal: {refused:?}");
}

#[tokio::test]
async fn early_hints_pass_over_http2() {
    let text = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let origin = Origin::fixed(text, vec![]).await;
    let sidecar = start(origin.port(), "");
    let mut client = H2::open(sidecar.outbound, &[]).await;
    let Outcome::Answer(answer) = client.get(1, "s.test", "/", &[]).await else { panic!("no answer") };
    // The h2 crate may be unable to send 1xx; then the final answer must still be whole.
    assert!(answer.interim.is_empty() || answer.interim == [103]);
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
}

#[tokio::test]
async fn any_upgrade_becomes_a_tunnel() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: fish\r\nConnection: Upgrade\r\n\r\nhello ";
    let origin = Origin::start_when(When::Head, move |_, _| vec![send(switch), Step::Echo]).await;
    let sidecar = start(origin.port(), "");
    let mut client = H1::connect(sidecar.outbound).await;
    client.send("GET / HTTP/1.1\r\nHost: s.test\r\nConnection: upgrade\r\nUpgrade: fish\r\n\r\nearly ").await;
    let head = client.head().await.expect("an answer");
    assert_eq!((head.status(), head.header("upgrade").as_deref()), (101, Some("fish")));
    for part in ["GET /smuggled HTTP/1.1\r\n\r\n", "\0\u{1}\u{2}", "end"] {
        client.send(part).await;
    }
    let echo = client.read_until(|b| b.ends_with(b"end")).await;
    assert_eq!(String::from_utf8_lossy(&echo), "hello early GET /smuggled HTTP/1.1\r\n\r\n\0\u{1}\u{2}end");
    client.finish().await;
    assert!(client.closed_within(SOON).await, "the end of one side reaches the other");
}

#[tokio::test]
async fn a_tunnel_carries_megabytes_both_ways() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: fish\r\nConnection: Upgrade\r\n\r\n";
    let origin = Origin::start_when(When::Head, move |_, _| vec![send(switch), Step::Echo]).await;
    let sidecar = start(origin.port(), "");
    let mut client = H1::connect(sidecar.outbound).await.patience(Duration::from_secs(20));
    client.send("GET / HTTP/1.1\r\nHost: s.test\r\nConnection: upgrade\r\nUpgrade: fish\r\n\r\n").await;
    assert_eq!(client.head().await.expect("an answer").status(), 101);
    let mut got = 0;
    for _ in 0..32 {
        client.send(vec![b'z'; 256 * 1024]).await;
        got += client.read_until(|b| b.len() >= 256 * 1024).await.len();
    }
    assert_eq!(got, 32 * 256 * 1024);
}

#[tokio::test]
async fn http2_upstreams_are_spoken_to_in_http2() {
    let agent = Agent::start("two").await;
    let yaml = service_with("h2.test", "HTTP2", &[(agent.port(), "")])
        + &service_with("grpc.test", "GRPC", &[(agent.port(), "")])
        + &service("s.test", agent.port());
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let mut one = H1::connect(sidecar.outbound).await;
    let mut two = H2::open(sidecar.outbound, &[]).await;
    for (i, (host, h1_seen, h2_seen)) in [
        ("h2.test", "HTTP/2.0", "HTTP/2.0"),
        ("grpc.test", "HTTP/2.0", "HTTP/2.0"),
        ("s.test", "HTTP/1.1", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = one.get(host, "/", &["x-a: b"]).await.unwrap();
        assert_eq!(answer.json()["version"], h1_seen, "{host} from HTTP/1.1");
        let stream = u32::try_from(i).unwrap() * 2 + 1;
        let Outcome::Answer(answer) = two.get(stream, host, "/", &[]).await else {
            panic!("no answer from {host}")
        };
        let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        // For a plain HTTP port the client's protocol may be kept.
        assert!(json["version"] == h2_seen || h2_seen.is_empty(), "{host} from HTTP/2: {json}");
    }
    let trailers = two.get(21, "h2.test", "/trailers", &[("te", "trailers")]).await;
    let Outcome::Answer(answer) = trailers else { panic!("no answer: {trailers:?}") };
    assert_eq!(answer.trailers, [("x-trailer".to_owned(), "end".to_owned())]);
    assert!(two.seen.iter().filter(|f| f.kind == kind::GOAWAY).count() == 0);
}

#[tokio::test]
async fn trailers_pass_in_http1() {
    let agent = Agent::start("t").await;
    let sidecar = start(agent.port(), "");
    let answer =
        pilotfish_testkit::h1::get(sidecar.outbound, "s.test", "/trailers", &["TE: trailers"]).await.unwrap();
    assert_eq!(answer.text(), "body");
    assert_eq!(answer.message.trailers, [("x-trailer".to_owned(), "end".to_owned())]);
}

#[tokio::test]
async fn a_websocket_by_http2_is_an_upgrade_at_the_origin() {
    let switch =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello ";
    let origin = Origin::start_when(When::Head, move |_, _| vec![send(switch), Step::Echo]).await;
    let sidecar = start(origin.port(), "");
    let mut client = H2::open(sidecar.outbound, &[]).await;
    let offers =
        client.seen.iter().any(|f| f.kind == kind::SETTINGS && f.payload.chunks(6).any(|s| s[..2] == [0, 8]));
    assert!(offers, "no SETTINGS_ENABLE_CONNECT_PROTOCOL: {:?}", client.seen);
    let protocol = (":protocol", "websocket");
    let fields =
        [(":method", "CONNECT"), protocol, (":scheme", "http"), (":authority", "s.test"), (":path", "/chat")];
    client.send(&h2::headers(1, h2::hpack::block(&fields), false)).await;
    client.send(&h2::data(1, *b"GET /smuggled HTTP/1.1\r\n\r\n", true)).await;
    let end = client.outcome(1, SOON).await;
    let Outcome::Answer(answer) = &end else { panic!("{end:?}") };
    assert_eq!(answer.status, 200);
    assert_eq!(String::from_utf8_lossy(&answer.body), "hello GET /smuggled HTTP/1.1\r\n\r\n");
    let seen = origin.requests();
    assert_eq!((seen.len(), seen[0].start.as_str()), (1, "GET /chat HTTP/1.1"));
    assert_eq!(seen[0].header("upgrade").as_deref(), Some("websocket"));
    assert_eq!(seen[0].header("sec-websocket-key").map(|key| key.len()), Some(24));
}
