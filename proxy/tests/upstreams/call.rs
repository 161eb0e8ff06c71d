//! The kinds of calls, and what their callers get.

use std::net::SocketAddr;
use std::time::Duration;

use pilotfish_testkit::h1::Gone;
use pilotfish_testkit::h2::{self, Outcome};
use pilotfish_testkit::{H1, H2};

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Get,
    Put,
    /// More than is kept for another try.
    LargePut,
    Post,
    /// With a key that its caller may use for a repeat; but nobody here says that he would find out.
    KeyedPost,
    Grpc,
}

/// What the caller got.
#[derive(Debug)]
pub enum Got {
    /// A whole answer.
    Answer { status: u16, reason: String, body: String },
    /// An answer that broke off for everyone to see, or none and the end of the connection or stream.
    Cut,
    /// Anything else: nothing, or something that can be read in two ways.
    Unclear(#[allow(dead_code, reason = "shown by Debug")] String),
}

/// How long a read waits; longer than the limit on a call.
const PATIENCE: Duration = Duration::from_secs(28);

/// The body of a large call, in bytes.
const LARGE: usize = 512 * 1024;

impl Kind {
    pub const ALL: [Kind; 6] =
        [Kind::Get, Kind::Put, Kind::LargePut, Kind::Post, Kind::KeyedPost, Kind::Grpc];

    /// Whether it may be done twice (RFC 9110 section 9.2.2).
    pub fn is_safe(self) -> bool {
        matches!(self, Kind::Get | Kind::Put | Kind::LargePut)
    }

    pub async fn call(self, sidecar: SocketAddr, host: &str, id: &str) -> Got {
        let (method, length, more) = match self {
            Kind::Get => ("GET", 0, ""),
            Kind::Put => ("PUT", 5, ""),
            Kind::LargePut => ("PUT", LARGE, ""),
            Kind::Post => ("POST", 5, ""),
            Kind::KeyedPost => ("POST", 5, "Idempotency-Key: k\r\n"),
            Kind::Grpc => return grpc(sidecar, host, id).await,
        };
        let framing = if length == 0 { String::new() } else { format!("Content-Length: {length}\r\n") };
        let body = "x".repeat(length);
        let ask = format!(
            "{method} /x HTTP/1.1\r\nHost: {host}\r\nX-Request-Id: {id}\r\n{framing}{more}\r\n{body}"
        );
        match H1::connect(sidecar).await.patience(PATIENCE).ask(ask).await {
            Ok(answer) => {
                Got::Answer { status: answer.status(), reason: answer.reason(), body: answer.text() }
            }
            Err(Gone::Partial(_) | Gone::Closed) => Got::Cut,
            Err(other) => Got::Unclear(format!("{other:?}")),
        }
    }
}

async fn grpc(sidecar: SocketAddr, host: &str, id: &str) -> Got {
    let mut client = H2::open(sidecar, &[]).await;
    let more = [("content-type", "application/grpc"), ("te", "trailers"), ("x-request-id", id)];
    client.send(&h2::headers(1, h2::request("POST", host, "/pay.Desk/Pay", &more), false)).await;
    client.send(&h2::data(1, *b"\0\0\0\0\0", true)).await;
    match client.outcome(1, PATIENCE).await {
        Outcome::Answer(answer) => Got::Answer {
            status: answer.status,
            reason: answer.header("pilotfish-reason").unwrap_or_default().to_owned(),
            body: answer.text(),
        },
        Outcome::Reset(_) => Got::Cut,
        other => Got::Unclear(format!("{other:?}")),
    }
}
