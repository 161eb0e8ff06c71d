//! Chains of agents that call one another: how deep, in which circle, how many at once; and who may say so.
//!
//! Each agent here asks the next one through its own sidecar, and either passes on what its sidecar told it or drops it, as most do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pilotfish_testkit::{H1, Origin, Sidecar, h1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::service;
use crate::tls::setup::{Mesh, ask, mesh_service, metric};

const PATIENCE: Duration = Duration::from_secs(15);

/// What an agent does with the headers that it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// It passes on what its sidecar told it.
    Forwards,
    /// It passes nothing on.
    Drops,
    /// It passes on the session of its protocol only, as every MCP server does.
    KeepsSession,
    /// It passes on the conversation of its protocol only, which is in the body, as every A2A agent does.
    KeepsContext,
}

/// One agent: what it was asked, and whom it asks.
#[derive(Debug, Default)]
struct Member {
    asked: AtomicUsize,
    heads: Mutex<Vec<String>>,
}

/// Agents `a`, `b`, ... with their sidecars; each is `NAME.test` for all.
struct Fleet {
    mesh: Mesh,
    sidecars: Vec<Sidecar>,
    members: Vec<Arc<Member>>,
}

impl Fleet {
    /// Agents in a ring. `annotations` are those of every agent's Sidecar document, `more` is further YAML for all.
    async fn start(count: usize, manners: Manners, annotations: &[&str], more: &str) -> Fleet {
        let mesh = Mesh::new();
        let (mut sidecars, mut members) = (Vec::new(), Vec::new());
        for name in names(count) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let sidecar = mesh.sidecar(&name).app(listener.local_addr().unwrap()).start();
            let member = Arc::new(Member::default());
            let next = char::from(b'a' + ((name.as_bytes()[0] - b'a' + 1) % count as u8));
            tokio::spawn(serve(listener, member.clone(), sidecar.outbound, next, manners));
            sidecars.push(sidecar);
            members.push(member);
        }
        let mut yaml = more.to_owned();
        for (name, sidecar) in names(count).zip(&sidecars) {
            yaml += &mesh_service(&format!("{name}.test"), &name, sidecar.inbound);
        }
        if !annotations.is_empty() {
            yaml +=
                "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata:\n  name: own\n  annotations:\n";
            annotations.iter().for_each(|line| yaml += &format!("    pilotfish.dev/{line}\n"));
            yaml += "spec: {}\n";
        }
        for sidecar in &sidecars {
            sidecar.rewrite("a.yaml", &yaml);
        }
        let start = Instant::now();
        for sidecar in &sidecars {
            while metric(sidecar, "pilotfish_snapshot_version").await < 2 {
                assert!(start.elapsed() < PATIENCE, "the documents were not taken");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Fleet { mesh, sidecars, members }
    }

    /// The first agent asks the second, which has `left` more to ask.
    async fn ask(&self, left: usize, headers: &[&str]) -> h1::Answer {
        let mut client = H1::connect(self.sidecars[0].outbound).await.patience(PATIENCE);
        client.get("b.test", &format!("/{left}"), headers).await.unwrap()
    }

    fn asked(&self, member: usize) -> usize {
        self.members[member].asked.load(Ordering::Relaxed)
    }

    fn heads(&self) -> Vec<String> {
        self.members.iter().flat_map(|member| member.heads.lock().unwrap().clone()).collect()
    }
}

fn names(count: usize) -> impl Iterator<Item = String> {
    (b'a'..).take(count).map(|letter| char::from(letter).to_string())
}

async fn serve(
    listener: TcpListener,
    member: Arc<Member>,
    sidecar: SocketAddr,
    next: char,
    manners: Manners,
) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer(stream, member.clone(), sidecar, next, manners));
    }
}

/// `/N` asks the next agent for `/N-1`, `/0` answers; `/N/times/M` asks it M times for `/0`, one after the other; `/N/plain` asks
/// the host `plain.test`. The answer of the last one asked is passed on.
async fn answer(
    mut stream: TcpStream,
    member: Arc<Member>,
    sidecar: SocketAddr,
    next: char,
    manners: Manners,
) {
    let mut bytes = Vec::new();
    loop {
        while !bytes.windows(4).any(|part| part == b"\r\n\r\n") {
            if !matches!(stream.read_buf(&mut bytes).await, Ok(n) if n > 0) {
                return;
            }
        }
        let head = String::from_utf8(std::mem::take(&mut bytes)).unwrap();
        let (head, mut sent) =
            head.split_once("\r\n\r\n").map(|(a, b)| (format!("{a}\r\n"), b.to_owned())).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        while sent.len() < length {
            if !matches!(stream.read_buf(&mut bytes).await, Ok(n) if n > 0) {
                return;
            }
            sent += &String::from_utf8(std::mem::take(&mut bytes)).unwrap();
        }
        member.asked.fetch_add(1, Ordering::Relaxed);
        member.heads.lock().unwrap().push(head.clone());
        let passed = head.lines().filter(|line| match manners {
            Manners::Forwards => line.starts_with("x-"),
            Manners::KeepsSession => line.starts_with("mcp-session-id"),
            Manners::Drops => false,
            Manners::KeepsContext => line.starts_with("content-"),
        });
        let passed: Vec<&str> = passed.collect();
        let path: Vec<&str> = head.split(' ').nth(1).unwrap().split('/').skip(1).collect();
        let left: usize = path[0].parse().unwrap();
        let (times, host) = match path.get(1) {
            Some(&"times") => (path[2].parse().unwrap(), format!("{next}.test")),
            Some(&"plain") => (1, "plain.test".to_owned()),
            _ => (usize::from(left > 0), format!("{next}.test")),
        };
        let target = format!("/{}", left.saturating_sub(1));
        let (mut status, mut reason, mut body) = (200, String::new(), "the end".to_owned());
        for _ in 0..times {
            let mut client = H1::connect(sidecar).await.patience(PATIENCE);
            let method = if sent.is_empty() { "GET" } else { "POST" };
            let lines: String = passed.iter().map(|line| format!("{line}\r\n")).collect();
            let request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n{sent}");
            let Ok(answer) = client.ask(request).await else { return };
            ((status, reason), body) = (why(&answer), answer.text());
        }
        let text =
            format!("HTTP/1.1 {status} x\r\nx-why: {reason}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The reason that the sidecar which refused gave, as the agents passed it on.
fn why(answer: &h1::Answer) -> (u16, String) {
    (answer.status(), answer.header("x-why").filter(|why| !why.is_empty()).unwrap_or_else(|| answer.reason()))
}

#[tokio::test]
async fn a_circle_is_refused_by_policy_with_the_circle_in_the_body() {
    for manners in [Manners::Forwards, Manners::Drops] {
        let fleet = Fleet::start(3, manners, &["call-cycles: deny"], "").await;
        let answer = fleet.ask(5, &[]).await;
        assert_eq!(why(&answer), (508, "call-cycle".into()), "{manners:?} {}", answer.text());
        let circle = serde_json::json!(["default/a", "default/b", "default/c", "default/a"]);
        assert_eq!(answer.json()["cycle"], circle, "{manners:?}");
        assert_eq!((fleet.asked(0), fleet.asked(1), fleet.asked(2)), (0, 1, 1), "{manners:?}");
        // What is no circle goes on.
        assert_eq!(fleet.ask(1, &[]).await.status(), 200);
    }
}

#[tokio::test]
async fn a_callers_rule_forbids_circles_where_no_receiver_does() {
    let rule = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: b\n  annotations:\n    \
                pilotfish.dev/call-cycles: deny\nspec:\n  hosts: [b.test]\n  http:\n  - route: [{ destination: { host: b.test } }]\n---\n";
    let fleet = Fleet::start(3, Manners::Drops, &[], rule).await;
    assert_eq!(why(&fleet.ask(5, &[]).await), (508, "call-cycle".into()));
}

#[tokio::test]
async fn without_a_policy_circles_are_counted_and_end_at_the_limit_of_depth() {
    for manners in [Manners::Forwards, Manners::Drops] {
        let fleet = Fleet::start(2, manners, &["max-hops: \"5\""], "").await;
        assert_eq!(fleet.ask(4, &[]).await.status(), 200, "five calls hang on one another");
        let before = fleet.asked(0) + fleet.asked(1);
        assert_eq!(before, 5);
        let answer = fleet.ask(50, &[]).await;
        assert_eq!(why(&answer), (508, "too-many-hops".into()), "{}", answer.text());
        assert_eq!(fleet.asked(0) + fleet.asked(1) - before, 5, "{manners:?}");
        assert!(metric(&fleet.sidecars[0], "pilotfish_call_cycles_total").await > 0);
    }
}

#[tokio::test]
async fn calls_at_once_of_agents_that_drop_headers_are_bounded() {
    let fleet = Fleet::start(3, Manners::Drops, &[], "").await;
    let all = tokio::join!(fleet.ask(60, &[]), fleet.ask(60, &[]), fleet.ask(60, &[]));
    for answer in [all.0, all.1, all.2] {
        assert_eq!(why(&answer), (508, "too-many-hops".into()));
    }
    let asked: usize = (0..3).map(|n| fleet.asked(n)).sum();
    assert!(asked <= 3 * 16, "{asked}");
}

#[tokio::test]
async fn sessions_and_conversations_tell_calls_apart_that_are_served_at_once() {
    for manners in [Manners::KeepsContext, Manners::KeepsSession] {
        let fleet = Fleet::start(3, manners, &["fan-out-limit: \"3\""], "").await;
        let talk = async |name: &str| {
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"message/send","params":{{"message":{{"contextId":"{name}"}}}}}}"#
            );
            let (length, session) = match manners {
                Manners::KeepsContext => (body.len(), "x-none"),
                _ => (0, "mcp-session-id"),
            };
            let request = format!(
                "POST /1/times/4 HTTP/1.1\r\nHost: b.test\r\n{session}: {name}\r\ncontent-type: application/json\r\n\
                 content-length: {length}\r\n\r\n{}",
                &body[..length]
            );
            H1::connect(fleet.sidecars[0].outbound).await.patience(PATIENCE).ask(request).await.unwrap()
        };
        // What belongs to one of several is not counted: only what is known for certain is.
        let all = tokio::join!(talk("one"), talk("two"), talk("three"), talk("four"));
        for answer in [all.0, all.1, all.2, all.3] {
            assert_eq!(why(&answer), (429, "fan-out".into()), "{manners:?}");
        }
        assert_eq!((fleet.asked(1), fleet.asked(2)), (4, 12), "{manners:?}");
    }
}

#[tokio::test]
async fn an_agent_makes_so_many_calls_for_one_that_it_serves() {
    for manners in [Manners::Forwards, Manners::Drops] {
        let fleet = Fleet::start(3, manners, &["fan-out-limit: \"3\""], "").await;
        for _ in 0..2 {
            assert_eq!(fleet.ask(0, &[]).await.status(), 200);
        }
        let mut client = H1::connect(fleet.sidecars[0].outbound).await.patience(PATIENCE);
        assert_eq!(client.get("b.test", "/1/times/3", &[]).await.unwrap().status(), 200);
        let answer = client.get("b.test", "/1/times/4", &[]).await.unwrap();
        assert_eq!(why(&answer), (429, "fan-out".into()));
        assert_eq!(fleet.asked(2), 6, "{manners:?}");
    }
}

#[tokio::test]
async fn deadline_and_priority_are_handed_down_by_agents_that_know_nothing_of_them() {
    let fleet = Fleet::start(3, Manners::Drops, &[], "").await;
    let answer = fleet.ask(1, &["agent-deadline-ms: 60000", "agent-priority: sheddable"]).await;
    assert_eq!(answer.status(), 200);
    let head = fleet.members[2].heads.lock().unwrap()[0].clone();
    let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    let left: u64 = value("agent-deadline-ms: ").unwrap().parse().unwrap();
    assert!(left < 60_000, "{head}");
    assert_eq!(value("agent-priority: ").as_deref(), Some("sheddable"), "{head}");
}

#[tokio::test]
async fn what_the_local_agent_or_a_stranger_says_of_the_path_counts_for_nothing() {
    let permissive = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: { name: p }\nspec:\n  mtls: { mode: PERMISSIVE }\n---\n";
    let fleet = Fleet::start(3, Manners::Drops, &["call-cycles: deny"], permissive).await;
    let forged = "x-pilotfish-path: hops=60;path=default/c,default/b";
    let id = "x-pilotfish-call: 000000000000000000000000";
    assert_eq!(fleet.ask(0, &[forged, id]).await.status(), 200, "the agent's own word");
    // Straight to the inbound port, in plaintext.
    let answer = h1::get(fleet.sidecars[1].inbound, "b.test", "/0", &[forged, id]).await.unwrap();
    assert_eq!(answer.status(), 200, "a stranger's");
    // A sidecar, but not the one whose call this would be.
    let raw = fleet.mesh.issue("raw");
    let request =
        |path: &str| format!("GET /0 HTTP/1.1\r\nhost: b.test\r\n{path}\r\nconnection: close\r\n\r\n");
    let other =
        ask(fleet.sidecars[1].inbound, fleet.mesh.client(Some(&raw)), &request(forged)).await.unwrap();
    assert!(other.starts_with("HTTP/1.1 200"), "{other}");
    for nonsense in [
        "x-pilotfish-path: \u{fffd}",
        "x-pilotfish-path:",
        &format!("x-pilotfish-path: {}", "a".repeat(30_000)),
    ] {
        let answer =
            ask(fleet.sidecars[1].inbound, fleet.mesh.client(Some(&raw)), &request(nonsense)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{nonsense:.40} {answer}");
    }
    // Its own history is its own to tell.
    let own = "x-pilotfish-path: hops=3;path=default/b,default/c,default/raw";
    let own = ask(fleet.sidecars[1].inbound, fleet.mesh.client(Some(&raw)), &request(own)).await.unwrap();
    assert!(own.starts_with("HTTP/1.1 508") && own.contains("call-cycle"), "{own}");
    let heads = fleet.heads();
    assert_eq!(heads.len(), 6);
    for head in heads {
        assert!(!head.contains("x-pilotfish-path"), "{head}");
        assert!(head.contains("x-pilotfish-call: ") && !head.contains(id), "{head}");
    }
}

#[tokio::test]
async fn nothing_of_it_reaches_a_host_outside_of_the_mesh() {
    let plain = Origin::plain().await;
    let fleet =
        Fleet::start(2, Manners::Forwards, &["call-cycles: deny"], &service("plain.test", plain.port()))
            .await;
    let mut client = H1::connect(fleet.sidecars[0].outbound).await.patience(PATIENCE);
    let answer = client.get("b.test", "/1/plain", &["agent-deadline-ms: 60000"]).await.unwrap();
    assert_eq!(answer.text(), "seen GET /0");
    let bytes = String::from_utf8(plain.connections().concat()).unwrap().to_ascii_lowercase();
    assert!(!bytes.contains("pilotfish") && !bytes.contains("agent-deadline"), "{bytes}");
    assert!(fleet.heads()[0].contains("x-pilotfish-call"), "the agent itself is told");
}
