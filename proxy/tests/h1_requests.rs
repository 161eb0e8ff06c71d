//! Raw HTTP/1 requests: what the client is told, and what a recording origin saw of them.
//!
//! Whatever is sent, the origin must never see what two parsers could read differently, and never a request that the
//! client did not send as one.

mod chunks;
mod framing;
mod heads;
mod hosts;
mod lines;
mod pipelines;
mod upgrades;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_testkit::h1::Answer;
use pilotfish_testkit::strict::Message;
use pilotfish_testkit::{H1, Origin};

use crate::support::{ensure, run_table, service, sidecar};

/// What must become of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Open,
    Closed,
    Either,
}

type Check = fn(&[Message], &[Answer]) -> Result<(), String>;

/// One row: the bytes sent (`{h}` stands for the row's own host), and what is expected.
#[derive(Debug)]
struct Row {
    name: &'static str,
    bytes: Vec<u8>,
    /// For each answer, the statuses that are right.
    answers: Vec<Vec<u16>>,
    after: After,
    /// How many whole requests the origin sees.
    origin: usize,
    /// Whether the client closes its side after the bytes.
    fin: bool,
    check: Option<Check>,
}

/// A row that expects one `200` and an open connection, until told otherwise.
fn row(name: &'static str, bytes: impl AsRef<[u8]>) -> Row {
    Row {
        name,
        bytes: bytes.as_ref().to_vec(),
        answers: vec![vec![200]],
        after: After::Open,
        origin: 1,
        fin: false,
        check: None,
    }
}

impl Row {
    /// Refused with this status, the connection closed, nothing whole at the origin.
    fn refused(mut self, status: u16) -> Self {
        self.answers = vec![vec![status]];
        self.after = After::Closed;
        self.origin = 0;
        self
    }

    /// `400`, the connection closed, nothing whole at the origin.
    fn bad(self) -> Self {
        self.refused(400)
    }

    /// The last answer may have this status too.
    fn or(mut self, status: u16) -> Self {
        if let Some(last) = self.answers.last_mut() {
            last.push(status);
        }
        self
    }

    /// These statuses, one per answer.
    fn answers(mut self, statuses: &[u16]) -> Self {
        self.answers = statuses.iter().map(|s| vec![*s]).collect();
        self
    }

    fn after(mut self, after: After) -> Self {
        self.after = after;
        self
    }

    fn closed(self) -> Self {
        self.after(After::Closed)
    }

    fn origin(mut self, requests: usize) -> Self {
        self.origin = requests;
        self
    }

    fn fin(mut self) -> Self {
        self.fin = true;
        self
    }

    fn check(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }
}

fn with_host(bytes: &[u8], host: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(3).position(|w| w == b"{h}") {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(host.as_bytes());
        rest = &rest[at + 3..];
    }
    out.extend_from_slice(rest);
    out
}

/// The methods of the requests sent, as far as they can be told, so that answers to HEAD are read without content.
fn method_of(bytes: &[u8]) -> &'static str {
    if bytes.starts_with(b"HEAD ") { "HEAD" } else { "GET" }
}

async fn run(sidecar: SocketAddr, host: String, origin: Arc<Origin>, row: Row) -> Result<(), String> {
    let name = row.name;
    let mut client = H1::connect(sidecar).await.patience(Duration::from_secs(15));
    client.send(with_host(&row.bytes, &host)).await;
    if row.fin {
        client.finish().await;
    }
    let mut answers = Vec::new();
    for (i, statuses) in row.answers.iter().enumerate() {
        let method = if i == 0 { method_of(&row.bytes) } else { "GET" };
        let answer = client.answer(method).await.map_err(|gone| format!("{name}: answer {i}: {gone}"))?;
        let (status, reason) = (answer.status(), answer.reason());
        ensure(statuses.contains(&status), || {
            format!("{name}: answer {i} is {status} {reason}, expected {statuses:?}")
        })?;
        ensure((status >= 400) != reason.is_empty(), || format!("{name}: {status} with reason {reason:?}"))?;
        answers.push(answer);
    }
    let probe = b"GET /probe HTTP/1.1\r\nHost: {h}\r\n\r\n";
    if row.after == After::Closed {
        let closed = client.closed_within(Duration::from_secs(15)).await;
        ensure(closed, || format!("{name}: the connection stays open"))?;
        let surplus = String::from_utf8_lossy(client.surplus()).into_owned();
        ensure(surplus.is_empty(), || format!("{name}: more than was expected came: {surplus:?}"))?;
    } else if row.after == After::Open {
        let answer =
            client.ask(with_host(probe, &host)).await.map_err(|gone| format!("{name}: probe: {gone}"))?;
        ensure(answer.text() == "seen GET /probe", || format!("{name}: the probe got {:?}", answer.message))?;
    }
    let mut seen = origin.requests();
    seen.retain(|m| m.complete && m.target() != "/probe");
    let bytes =
        || origin.connections().iter().map(|c| String::from_utf8_lossy(c).into_owned()).collect::<Vec<_>>();
    ensure(origin.ambiguity().is_none(), || {
        format!("{name}: ambiguous at the origin: {:?}: {:?}", origin.ambiguity(), bytes())
    })?;
    ensure(seen.len() == row.origin, || {
        format!("{name}: the origin saw {} requests, expected {}: {:?}", seen.len(), row.origin, bytes())
    })?;
    let smuggled = seen.iter().any(|m| m.target().contains("smuggled"));
    ensure(!smuggled, || format!("{name}: a request was split: {:?}", bytes()))?;
    row.check
        .map_or(Ok(()), |check| check(&seen, &answers).map_err(|why| format!("{name}: {why}: {:?}", bytes())))
}

#[tokio::test]
async fn every_request_gets_its_verdict() {
    let tables = [
        framing::rows(),
        chunks::rows(),
        lines::rows(),
        heads::rows(),
        hosts::rows(),
        pipelines::rows(),
        upgrades::rows(),
    ];
    let rows: Vec<Row> = tables.into_iter().flatten().collect();
    assert!(rows.len() >= 150, "only {} rows", rows.len());
    let (mut origins, mut yaml) = (Vec::new(), String::new());
    for i in 0..rows.len() {
        let origin = Origin::plain().await;
        yaml.push_str(&service(&format!("c{i}.test"), origin.port()));
        origins.push(Arc::new(origin));
    }
    let sidecar = sidecar().yaml("services.yaml", yaml).start();
    let addr = sidecar.outbound;
    run_table(rows, |i, row| run(addr, format!("c{i}.test"), origins[i].clone(), row)).await;
    let panics: Vec<String> = sidecar.stderr().into_iter().filter(|l| l.contains("panicked")).collect();
    assert!(panics.is_empty(), "the proxy panicked: {panics:?}");
}
