//! One exchange with a target, and what its answer means: taken, later, or never.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use data_encoding::{BASE64, BASE64_NOPAD};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, Method, Request, Version, header};
use http_body_util::{BodyExt, Full, Limited};
use prost::Message;

use super::control::Control;
use super::target::{Collector, Protocol, Signal, Target};
use crate::ask::connection::{Connection, Service, USER_AGENT, cause};
use crate::server::Shared;

/// The longest answer that is read.
const LONGEST_ANSWER: usize = 64 * 1024;
/// The longest wait that a target may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is there; so many of its items were not wanted, for the reason given.
    Taken(u64, String),
    /// The target is not able to take it now; it may say when it will be.
    Later(Option<Duration>, String),
    /// It will never take it.
    Never(String),
}

fn later(why: impl std::fmt::Display) -> Verdict {
    Verdict::Later(None, why.to_string())
}

/// The way to one target. Connects when there is something to send, and stays connected.
pub struct Sender {
    shared: Arc<Shared>,
    way: Way,
}

enum Way {
    Collector { collector: Box<Collector>, connection: Option<Connection> },
    Control(Control),
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl Sender {
    /// A way that is not connected yet.
    pub fn new(shared: Arc<Shared>, target: Target) -> Self {
        let way = match target {
            Target::Collector(collector) => Way::Collector { collector, connection: None },
            Target::Control => Way::Control(Control::default()),
        };
        Sender { shared, way }
    }

    /// Sends one message of the signal's service.
    pub async fn send(&mut self, signal: Signal, message: Bytes) -> Verdict {
        match &mut self.way {
            Way::Control(control) => control.send(&self.shared, signal, message).await,
            Way::Collector { collector, connection } => {
                let limit = collector.timeout;
                let verdict = tokio::time::timeout(
                    limit,
                    to_collector(&self.shared, collector, connection, signal, message),
                );
                match verdict.await {
                    Ok(Ok(verdict)) => verdict,
                    Ok(Err(why)) => {
                        *connection = None;
                        later(why)
                    }
                    Err(_) => {
                        *connection = None;
                        later(format!("no answer within {limit:?}"))
                    }
                }
            }
        }
    }

    /// Closes the connection; the next message opens another.
    pub fn rest(&mut self) {
        match &mut self.way {
            Way::Collector { connection, .. } => *connection = None,
            Way::Control(control) => control.rest(),
        }
    }
}

/// An error is one of the connection, which is not used again.
async fn to_collector(
    shared: &Shared,
    collector: &Collector,
    connection: &mut Option<Connection>,
    signal: Signal,
    message: Bytes,
) -> Result<Verdict, String> {
    let body = body(collector, message)?;
    let known = match connection.take() {
        Some(mut known) => known.is_ready().await.then_some(known),
        None => None,
    };
    let mut opened = match known {
        Some(known) => known,
        None => Connection::open(&shared.dns, &service(collector)).await?,
    };
    let response = opened.send(request(collector, body)?).await.map_err(|error| cause(&error))?;
    let (head, body) = response.into_parts();
    let collected = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(|error| error.to_string())?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    *connection = Some(opened);
    let answer = Answer { status: head.status.as_u16(), headers: head.headers, body: collected.to_bytes() };
    Ok(match collector.protocol {
        Protocol::Http => answer.of_http(signal),
        Protocol::Grpc => answer.of_grpc(signal, &trailers),
    })
}

fn service(collector: &Collector) -> Service<'_> {
    let (host, port) = (&*collector.host, collector.port);
    Service { host, port, tls: collector.tls.clone(), h2: collector.protocol == Protocol::Grpc }
}

/// The body of a request: compressed as was asked for, and for gRPC behind five bytes that say so.
fn body(collector: &Collector, message: Bytes) -> Result<Bytes, String> {
    let message = if collector.gzip { gzip(&message)? } else { message };
    if collector.protocol == Protocol::Http {
        return Ok(message);
    }
    let length = u32::try_from(message.len()).map_err(|error| error.to_string())?;
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(collector.gzip.into());
    framed.put_u32(length);
    framed.put(message);
    Ok(framed.freeze())
}

fn gzip(message: &[u8]) -> Result<Bytes, String> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(message.len() / 4), Compression::fast());
    std::io::Write::write_all(&mut encoder, message).map_err(|error| error.to_string())?;
    encoder.finish().map(Bytes::from).map_err(|error| error.to_string())
}

fn request(collector: &Collector, body: Bytes) -> Result<Request<Full<Bytes>>, String> {
    let mut request = Request::builder().method(Method::POST).header(header::USER_AGENT, USER_AGENT);
    request = match collector.protocol {
        Protocol::Http => {
            let request = request.uri(&*collector.path).header(header::HOST, collector.authority());
            request.header(header::CONTENT_TYPE, "application/x-protobuf")
        }
        Protocol::Grpc => {
            let scheme = if collector.tls.is_some() { "https" } else { "http" };
            let request = request.uri(format!("{scheme}://{}{}", collector.authority(), collector.path));
            let request = request.version(Version::HTTP_2).header(header::TE, "trailers");
            request.header(header::CONTENT_TYPE, "application/grpc")
        }
    };
    if collector.gzip {
        let name = match collector.protocol {
            Protocol::Http => "content-encoding",
            Protocol::Grpc => "grpc-encoding",
        };
        request = request.header(name, "gzip");
    }
    for (name, value) in &collector.headers {
        request = request.header(name, value);
    }
    request.body(Full::new(body)).map_err(|error| error.to_string())
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The head.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// What an OTLP/HTTP server means.
    pub fn of_http(&self, signal: Signal) -> Verdict {
        match self.status {
            200..300 => taken(signal, &self.body),
            429 | 502..=504 => Verdict::Later(self.retry_after(), format!("it answers {}", self.status)),
            status => Verdict::Never(format!("it answers {status}")),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
    }

    /// What an OTLP/gRPC server means. Its status is in the trailers, or in the head when it sends no message.
    fn of_grpc(&self, signal: Signal, trailers: &HeaderMap) -> Verdict {
        let text = |name: &str| {
            let value = trailers.get(name).or_else(|| self.headers.get(name));
            value.and_then(|value| value.to_str().ok())
        };
        let Some(code) = text("grpc-status").and_then(|code| code.parse::<u32>().ok()) else {
            // Something between here and the collector.
            return match self.status {
                429 | 502..=504 => Verdict::Later(self.retry_after(), format!("it answers {}", self.status)),
                200 => later("it answers without grpc-status"),
                status => Verdict::Never(format!("it answers {status} without grpc-status")),
            };
        };
        let why = format!("it answers grpc-status {code}");
        match code {
            // Behind the five bytes of the frame.
            0 => taken(signal, self.body.get(5..).unwrap_or_default()),
            // Cancelled, deadline exceeded, aborted, out of range, unavailable, data loss.
            1 | 4 | 10 | 11 | 14 | 15 => {
                Verdict::Later(text("grpc-status-details-bin").and_then(retry_info), why)
            }
            // Resource exhausted: only if it says when it will not be.
            8 => match text("grpc-status-details-bin").and_then(retry_info) {
                Some(wait) => Verdict::Later(Some(wait), why),
                None => Verdict::Never(why),
            },
            _ => Verdict::Never(why),
        }
    }
}

/// `google.rpc.Status`, as far as it says when to try again.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Span>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

fn retry_info(details: &str) -> Option<Duration> {
    let bytes = BASE64_NOPAD.decode(details.trim_end_matches('=').as_bytes());
    let bytes = bytes.or_else(|_| BASE64.decode(details.as_bytes())).ok()?;
    let status = Status::decode(&bytes[..]).ok()?;
    let info = status.details.iter().find(|any| any.type_url.ends_with("google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&info.value[..]).ok()?.delay?;
    let nanos = u32::try_from(delay.nanos).ok()?;
    Some(Duration::new(u64::try_from(delay.seconds).ok()?, nanos.min(999_999_999)).min(LONGEST_WAIT))
}

/// The three `Export...ServiceResponse`s, which are the same on the wire.
#[derive(Clone, PartialEq, Message)]
struct Taken {
    #[prost(message, optional, tag = "1")]
    partial: Option<Partial>,
}

#[derive(Clone, PartialEq, Message)]
struct Partial {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    message: String,
}

/// It said that it has the batch; what else it says is not worth sending it again.
fn taken(signal: Signal, body: &[u8]) -> Verdict {
    let partial = Taken::decode(body).ok().and_then(|response| response.partial).unwrap_or_default();
    let rejected = u64::try_from(partial.rejected).unwrap_or(0);
    let why = match (rejected, partial.message) {
        (0, _) => String::new(),
        (_, message) => {
            let message: String = message.chars().take(200).collect();
            format!("{rejected} of the {} were refused: {message}", signal.word())
        }
    };
    Verdict::Taken(rejected, why)
}

#[cfg(test)]
mod tests;
