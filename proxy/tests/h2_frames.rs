//! Raw HTTP/2 frames by section of RFC 9113: what the server does with each, and what an HTTP/1 origin saw of them.
//!
//! Every row has an origin of its own that records bytes: a request that is malformed in HTTP/2 must not become one in
//! HTTP/1. A row's answer, reset or GOAWAY must be the one that the RFC names; where several are allowed, all are listed.

mod connection;
mod fields;
mod frames;
mod hpack;
mod streams;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_testkit::h2::{self, Outcome, PREFACE, code, flag, kind};
use pilotfish_testkit::origin::{Step, ok};
use pilotfish_testkit::strict::Message;
use pilotfish_testkit::{H2, Origin};

use crate::support::{ensure, h1_upstreams, run_table, service, sidecar};

/// One step of the client.
#[derive(Debug)]
enum Do {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Waits for the end of a stream.
    Await(u32),
    /// Waits until the server has answered a PING, so has read all before it.
    Settle,
}

/// What the server must do.
#[derive(Debug)]
enum Want {
    /// GOAWAY with one of these codes, or the end of the connection.
    Connection(&'static [u32]),
    /// RST_STREAM with one of these codes, or a connection error with one.
    Stream(u32, &'static [u32]),
    /// RST_STREAM with PROTOCOL_ERROR, a connection error, or `400`: all that section 8.1.1 allows for malformed requests.
    Malformed(u32),
    /// An answer with one of these statuses, and the connection goes on.
    Answer(u32, &'static [u16]),
    /// Nothing on any stream; the connection goes on.
    Nothing,
}

type Check = fn(&[Message], &H2) -> Result<(), String>;

#[derive(Debug)]
struct Row {
    name: &'static str,
    /// The settings of the opening; `None` for a row that writes its own preface.
    opening: Option<&'static [(u16, u32)]>,
    script: Vec<Do>,
    want: Want,
    /// How many whole requests the origin sees, if that is certain.
    origin: Option<usize>,
    polite: bool,
    check: Option<Check>,
}

fn row(name: &'static str, frames: Vec<Vec<u8>>, want: Want) -> Row {
    let origin = usize::from(matches!(want, Want::Answer(_, s) if s.contains(&200)));
    Row {
        name,
        opening: Some(&[]),
        script: vec![Do::Send(frames.concat())],
        want,
        origin: Some(origin),
        polite: true,
        check: None,
    }
}

impl Row {
    fn raw(mut self) -> Self {
        self.opening = None;
        self
    }

    fn settings(mut self, pairs: &'static [(u16, u32)]) -> Self {
        self.opening = Some(pairs);
        self
    }

    fn then(mut self, next: Do) -> Self {
        self.script.push(next);
        self
    }

    fn send(self, frames: Vec<Vec<u8>>) -> Self {
        self.then(Do::Send(frames.concat()))
    }

    fn origin(mut self, requests: usize) -> Self {
        self.origin = Some(requests);
        self
    }

    /// However many requests the origin sees.
    fn any_origin(mut self) -> Self {
        self.origin = None;
        self
    }

    /// The client credits nothing back, so that windows stay as the row sets them.
    fn silent(mut self) -> Self {
        self.polite = false;
        self
    }

    fn check(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }
}

/// A frame's bytes.
fn frame(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Vec<u8> {
    h2::Frame::new(kind, flags, stream, payload).bytes()
}

/// The HEADERS of a GET with further fields, and END_STREAM.
fn get(stream: u32, host: &str, more: &[(&str, &str)]) -> Vec<u8> {
    h2::headers(stream, h2::request("GET", host, "/", more), true).bytes()
}

/// The HEADERS of a POST with further fields, to be continued by DATA.
fn post(stream: u32, host: &str, more: &[(&str, &str)]) -> Vec<u8> {
    h2::headers(stream, h2::request("POST", host, "/", more), false).bytes()
}

/// A GET that the origin answers after a while, so that its stream stays half closed.
fn slow(stream: u32, host: &str) -> Vec<u8> {
    h2::headers(stream, h2::request("GET", host, "/slow", &[]), true).bytes()
}

fn data(stream: u32, payload: impl Into<Vec<u8>>, end: bool) -> Vec<u8> {
    h2::data(stream, payload, end).bytes()
}

fn preface() -> Vec<u8> {
    [PREFACE, &h2::settings(&[]).bytes()].concat()
}

async fn settle(client: &mut H2) {
    let payload = *b"settled?";
    client.send(&h2::Frame::new(kind::PING, flag::NONE, 0, payload)).await;
    let answered = |c: &H2| {
        let pong = |f: &h2::Frame| f.kind == kind::PING && f.flags & flag::ACK != 0 && f.payload == payload;
        c.seen.iter().any(pong) || c.goaway().is_some()
    };
    client.pump(Duration::from_secs(10), answered).await;
}

const TIME: Duration = Duration::from_secs(10);

async fn run(sidecar: SocketAddr, host: String, origin: Arc<Origin>, row: Row) -> Result<(), String> {
    let name = row.name;
    let mut client = match row.opening {
        Some(pairs) => H2::open(sidecar, pairs).await,
        None => H2::connect(sidecar).await,
    };
    client.polite = row.polite;
    let mut last = None;
    for step in &row.script {
        match step {
            Do::Send(bytes) => {
                client.send_raw(bytes).await;
            }
            Do::Await(stream) => last = Some((*stream, client.outcome(*stream, TIME).await)),
            Do::Settle => settle(&mut client).await,
        }
    }
    let mut outcome = async |stream: u32| match &last {
        Some((s, outcome)) if *s == stream && matches!(outcome, Outcome::Answer(_)) => outcome.clone(),
        _ => client.outcome(stream, TIME).await,
    };
    let (fits, got) = match &row.want {
        Want::Connection(codes) => {
            let end = client.connection_end(TIME).await;
            (ends(&end, codes), end)
        }
        Want::Stream(stream, codes) => {
            let end = client.outcome(*stream, TIME).await;
            (ends(&end, codes) || matches!(end, Outcome::Reset(c) if codes.contains(&c)), end)
        }
        Want::Malformed(stream) => {
            let end = outcome(*stream).await;
            let codes = &[code::PROTOCOL_ERROR];
            let told = matches!(&end, Outcome::Answer(a) if a.status == 400 && a.header("pilotfish-reason").is_some());
            (told || ends(&end, codes) || end == Outcome::Reset(code::PROTOCOL_ERROR), end)
        }
        Want::Answer(stream, statuses) => {
            let end = outcome(*stream).await;
            (matches!(&end, Outcome::Answer(a) if statuses.contains(&a.status)), end)
        }
        Want::Nothing => {
            settle(&mut client).await;
            (client.goaway().is_none() && !client.closed(), Outcome::Closed)
        }
    };
    ensure(fits, || format!("{name}: wanted {:?}, got {got:?}", row.want))?;
    if matches!(row.want, Want::Answer(..) | Want::Nothing) {
        let ask = h2::headers(99_999, h2::request("GET", &host, "/probe", &[]), true).bytes();
        client.send_raw([ask, h2::window(99_999, 1000).bytes()].concat()).await;
        let probe = client.outcome(99_999, TIME).await;
        let right = matches!(&probe, Outcome::Answer(a) if a.text() == "seen GET /probe");
        ensure(right, || format!("{name}: the probe got {probe:?}"))?;
    }
    judge(&row, &client, &origin)
}

fn ends(end: &Outcome, codes: &[u32]) -> bool {
    match end {
        Outcome::GoAway(code) => codes.contains(code),
        Outcome::Closed => true,
        _ => false,
    }
}

/// What the origin saw must be unambiguous and as many requests as the row says.
fn judge(row: &Row, client: &H2, origin: &Origin) -> Result<(), String> {
    let name = row.name;
    let bytes =
        || origin.connections().iter().map(|c| String::from_utf8_lossy(c).into_owned()).collect::<Vec<_>>();
    ensure(origin.ambiguity().is_none(), || {
        format!("{name}: ambiguous at the origin: {:?}: {:?}", origin.ambiguity(), bytes())
    })?;
    let mut seen = origin.requests();
    seen.retain(|m| m.complete && m.target() != "/probe");
    ensure(row.origin.is_none_or(|n| n == seen.len()), || {
        format!("{name}: the origin saw {} requests, expected {:?}: {:?}", seen.len(), row.origin, bytes())
    })?;
    let smuggled = seen.iter().any(|m| m.target().contains("smuggled"));
    ensure(!smuggled, || format!("{name}: a request was split: {:?}", bytes()))?;
    row.check
        .map_or(Ok(()), |check| check(&seen, client).map_err(|why| format!("{name}: {why}: {:?}", bytes())))
}

/// The whole table, written for this host.
fn rows(host: &str) -> Vec<Row> {
    let tables = [
        connection::rows(host),
        frames::rows(host),
        streams::rows(host),
        hpack::rows(host),
        fields::rows(host),
    ];
    tables.into_iter().flatten().collect()
}

#[tokio::test]
async fn every_frame_gets_its_verdict() {
    let count = rows("x").len();
    assert!(count >= 100, "only {count} rows");
    let (mut origins, mut yaml, mut table) = (Vec::new(), h1_upstreams("*.test"), Vec::new());
    for i in 0..count {
        let host = format!("c{i}.test");
        let origin = Origin::start(|m, _| {
            let mut steps = ok(format!("seen {} {}", m.method(), m.target()));
            if m.target() == "/slow" {
                steps.insert(0, Step::Pause(Duration::from_millis(1500)));
            }
            steps
        });
        let origin = Arc::new(origin.await);
        yaml.push_str(&service(&host, origin.port()));
        table.push(rows(&host).swap_remove(i));
        origins.push(origin);
    }
    let sidecar = sidecar().yaml("services.yaml", yaml).start();
    let addr = sidecar.outbound;
    run_table(table, |i, row| run(addr, format!("c{i}.test"), origins[i].clone(), row)).await;
    let panics: Vec<String> = sidecar.stderr().into_iter().filter(|l| l.contains("panicked")).collect();
    assert!(panics.is_empty(), "the proxy panicked: {panics:?}");
}
