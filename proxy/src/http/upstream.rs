//! One request to an upstream and its answer.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::body::{Frame, Framing, Sink, Source};
use super::error::Error;
use super::h1;
use super::h2;
use super::head::{RequestHead, ResponseHead};
use super::headers::Headers;
use super::tunnel::Tunnel;

/// The upstream's side of one exchange: takes the request, gives the response.
///
/// Dropping it before the end closes the connection (HTTP/1) or resets the stream (HTTP/2).
#[derive(Debug)]
pub struct Upstream {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    H1(h1::client::ClientConn),
    H2(Box<h2::client::Exchange>),
}

impl From<h1::client::ClientConn> for Upstream {
    fn from(conn: h1::client::ClientConn) -> Self {
        Upstream { kind: Kind::H1(conn) }
    }
}

impl From<h2::client::Exchange> for Upstream {
    fn from(exchange: h2::client::Exchange) -> Self {
        Upstream { kind: Kind::H2(Box::new(exchange)) }
    }
}

impl Upstream {
    /// The HTTP/1 connection, if it is one.
    pub(crate) fn as_h1(&mut self) -> Option<&mut h1::client::ClientConn> {
        match &mut self.kind {
            Kind::H1(conn) => Some(conn),
            Kind::H2(_) => None,
        }
    }

    /// Whether HTTP/2 is spoken.
    pub fn is_h2(&self) -> bool {
        match &self.kind {
            Kind::H1(_) => false,
            Kind::H2(_) => true,
        }
    }

    /// Queues the request head; a small body leaves with it in one write. `framing` is that of the body to come.
    pub fn request(&mut self, head: &RequestHead, framing: Framing) {
        match &mut self.kind {
            Kind::H1(conn) => conn.request(head, framing),
            Kind::H2(exchange) => exchange.request(head, framing),
        }
    }

    /// The next response head: interim ones first (call again), then the final one. 101 is final.
    pub fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Error>> {
        match &mut self.kind {
            Kind::H1(conn) => conn.poll_response(cx),
            Kind::H2(exchange) => exchange.poll_response(cx),
        }
    }

    /// How the response's body is delimited; known once the final head was returned.
    pub fn framing(&self) -> Framing {
        match &self.kind {
            Kind::H1(conn) => conn.framing(),
            Kind::H2(exchange) => exchange.framing(),
        }
    }

    /// The HTTP/1 connection, when another exchange can follow on it: request and answer complete, nothing left over, keep-alive.
    /// Always `None` for HTTP/2, whose connection is not the exchange's.
    pub fn reusable(self) -> Option<h1::client::ClientConn> {
        match self.kind {
            Kind::H1(conn) => conn.reusable(),
            Kind::H2(_) => None,
        }
    }

    /// The byte pipe to the upstream: after 101, or 2xx to CONNECT.
    pub fn into_tunnel(self) -> Option<Tunnel> {
        match self.kind {
            Kind::H1(conn) => Some(Tunnel::over(conn.into_tunnel())),
            Kind::H2(exchange) => exchange.into_tunnel().map(Tunnel::h2),
        }
    }
}

impl Source for Upstream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Error>>> {
        match &mut self.kind {
            Kind::H1(conn) => conn.poll_frame(cx),
            Kind::H2(exchange) => exchange.poll_frame(cx),
        }
    }

    fn is_ended(&self) -> bool {
        match &self.kind {
            Kind::H1(conn) => conn.is_read(),
            Kind::H2(exchange) => exchange.is_read(),
        }
    }
}

impl Sink for Upstream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &mut self.kind {
            Kind::H1(conn) => conn.poll_ready(cx),
            Kind::H2(exchange) => exchange.poll_ready(cx),
        }
    }

    fn push(&mut self, data: Bytes) {
        match &mut self.kind {
            Kind::H1(conn) => conn.push(data),
            Kind::H2(exchange) => exchange.push(data),
        }
    }

    fn finish(&mut self, trailers: Option<Headers>) {
        match &mut self.kind {
            Kind::H1(conn) => conn.finish(trailers.as_ref()),
            Kind::H2(exchange) => exchange.finish(trailers),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &mut self.kind {
            Kind::H1(conn) => conn.poll_flush(cx),
            Kind::H2(exchange) => exchange.poll_flush(cx),
        }
    }
}
