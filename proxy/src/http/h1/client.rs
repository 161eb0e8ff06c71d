//! A connection to an HTTP/1.1 upstream: one exchange at a time, kept by the pool in between.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, StatusCode};
use tokio::net::TcpStream;

use super::chunked::Step;
use super::parse;
use super::reader::Reader;
use super::serialize;
use super::transport::{Transport, WriteError};
use super::writer::Writer;
use crate::http::body::{Frame, Framing};
use crate::http::buffer::{self, HEAD_ROOM};
use crate::http::error::{Bad, Error, is_silence};
use crate::http::head::{RequestHead, ResponseHead};
use crate::http::headers::Headers;
use crate::http::io::Io;
use crate::http::limits::Limits;

/// Interim responses that one request may draw; more is an upstream gone mad.
const MAX_INTERIM: u8 = 32;

/// A connection to an upstream. Small to move: everything is behind one allocation that lives as long as the connection.
#[derive(Debug)]
pub struct ClientConn(Box<Inner>);

#[derive(Debug)]
struct Inner {
    transport: Transport,
    limits: Rc<Limits>,
    reader: Reader,
    writer: Writer,
    framing: Framing,
    method: Method,
    exchanges: u64,
    scanned: usize,
    interim: u8,
    upgrade: bool,
    keep_alive: bool,
    /// The final head was parsed.
    answered: bool,
    /// At least one byte of the answer came.
    touched: bool,
}

impl ClientConn {
    /// Takes a fresh connection.
    pub fn new(io: Io, limits: Rc<Limits>) -> Self {
        ClientConn(Box::new(Inner {
            transport: Transport::new(io, BytesMut::new()),
            limits,
            reader: Reader::Done,
            writer: Writer::Closed,
            framing: Framing::None,
            method: Method::GET,
            exchanges: 0,
            scanned: 0,
            interim: 0,
            upgrade: false,
            keep_alive: true,
            answered: true,
            touched: false,
        }))
    }

    /// The connection underneath.
    pub fn io(&self) -> &Io {
        &self.0.transport.io
    }

    /// The exchanges that were begun on this connection.
    pub fn exchanges(&self) -> u64 {
        self.0.exchanges
    }

    /// Whether an idle connection can be used: open, and nothing came that nobody asked for. Costs no system call unless the
    /// reactor has seen something.
    pub fn is_idle_healthy(&mut self) -> bool {
        let transport = &mut self.0.transport;
        transport.inbuf.is_empty() && transport.out.is_empty() && transport.io.is_quiet()
    }

    /// Ready when an idle connection was closed or spoke unasked; either way it is of no use any more. For pools that want
    /// to close what the upstream closed.
    pub fn poll_idle_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.0.transport.io.poll_readable(cx) {
            Poll::Ready(Ok(())) if self.is_idle_healthy() => {
                // A false alarm cleared the readiness; wait for the next.
                self.0.transport.io.poll_readable(cx).map(|_| ())
            }
            other => other.map(|_| ()),
        }
    }

    /// The connection, when the exchange ended so that another can follow: answer and request complete, nothing left over.
    pub(crate) fn reusable(mut self) -> Option<ClientConn> {
        let inner = &mut self.0;
        let clean = inner.keep_alive
            && inner.answered
            && inner.reader.is_done()
            && inner.writer.is_finished()
            && inner.transport.out.is_empty()
            && inner.transport.inbuf.is_empty()
            && !matches!(inner.transport.io, Io::Gone);
        // An idle connection holds no buffer.
        buffer::give(std::mem::take(&mut inner.transport.inbuf));
        clean.then_some(self)
    }

    /// Queues a request head.
    pub(crate) fn request(&mut self, head: &RequestHead, framing: Framing) {
        let inner = &mut *self.0;
        inner.exchanges += 1;
        inner.scanned = 0;
        inner.interim = 0;
        inner.answered = false;
        inner.touched = false;
        inner.keep_alive = true;
        inner.reader = Reader::Done;
        inner.framing = Framing::None;
        inner.method.clone_from(&head.method);
        inner.upgrade = head.upgrade;
        inner.writer = match framing {
            Framing::None => Writer::Nothing,
            Framing::Length(n) => Writer::Length(n),
            Framing::Streaming | Framing::UntilClose => Writer::Chunked,
        };
        let framing = if framing == Framing::UntilClose { Framing::Streaming } else { framing };
        serialize::request(inner.transport.out.tail(HEAD_ROOM), head, framing);
    }

    /// The next head, interim or final.
    pub(crate) fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Error>> {
        let inner = &mut *self.0;
        loop {
            if let Some(parsed) = inner.try_parse() {
                return Poll::Ready(parsed);
            }
            match inner.transport.poll_fill(cx, 0) {
                Poll::Ready(Ok(n)) if n > 0 => inner.touched = true,
                Poll::Ready(Err(error)) if is_silence(&error) => return Poll::Ready(Err(inner.lost())),
                Poll::Ready(_) => return Poll::Ready(Err(inner.closed())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// How the response's body is delimited; known once the final head is.
    pub(crate) fn framing(&self) -> Framing {
        self.0.framing
    }

    /// What is left of an answer with a length; else 0.
    pub(crate) fn unread_length(&self) -> u64 {
        match self.0.reader {
            Reader::Length(left) => left,
            _ => 0,
        }
    }

    /// Whether bytes were read that nobody has taken.
    pub(crate) fn has_buffered(&self) -> bool {
        !self.0.transport.inbuf.is_empty()
    }

    /// The socket, when it is plaintext TCP.
    pub(crate) fn socket(&self) -> Option<&TcpStream> {
        self.0.transport.io.as_tcp()
    }

    /// So many bytes of the answer were taken from the socket directly.
    pub(crate) fn spliced(&mut self, n: usize) {
        if let Reader::Length(left) = &mut self.0.reader {
            *left = left.saturating_sub(n as u64);
            if *left == 0 {
                self.0.reader = Reader::Done;
            }
        }
    }

    /// Whether the answer was read to its end.
    pub(crate) fn is_read(&self) -> bool {
        self.0.answered && self.0.reader.is_done()
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Error>>> {
        let inner = &mut *self.0;
        loop {
            match inner.reader.decode(&mut inner.transport.inbuf) {
                Ok(Step::Data(data)) => return Poll::Ready(Some(Ok(Frame::Data(data)))),
                Ok(Step::End(None)) => return Poll::Ready(None),
                Ok(Step::End(Some(fields))) => return Poll::Ready(Some(Ok(Frame::Trailers(fields)))),
                Err(bad) => return Poll::Ready(Some(Err(inner.fail(Error::BadAnswer(bad))))),
                Ok(Step::More) => {}
            }
            match inner.transport.poll_fill(cx, inner.reader.hint()) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(Ok(_)) if inner.reader.end() => return Poll::Ready(None),
                Poll::Ready(_) => return Poll::Ready(Some(Err(inner.fail(Error::UpstreamReset)))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    pub(crate) fn push(&mut self, data: Bytes) {
        self.0.writer.push(&mut self.0.transport.out, data);
    }

    pub(crate) fn finish(&mut self, trailers: Option<&Headers>) {
        self.0.writer.finish(&mut self.0.transport.out, trailers);
    }

    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let patience = self.0.limits.write_timeout;
        let ready = self.0.transport.poll_ready(cx, patience);
        ready.map_err(|error| self.0.unwritten(error))
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let patience = self.0.limits.write_timeout;
        let flushed = self.0.transport.poll_flush(cx, patience);
        flushed.map_err(|error| self.0.unwritten(error))
    }

    /// The connection itself, and what was read of it beyond the head.
    pub(crate) fn into_tunnel(mut self) -> Transport {
        self.0.transport.take()
    }
}

impl Inner {
    fn try_parse(&mut self) -> Option<Result<ResponseHead, Error>> {
        let buf = &self.transport.inbuf;
        let news = buf.get(self.scanned..).unwrap_or_default();
        if news.is_empty() || (self.scanned > 0 && !news.contains(&b'\n') && buf.len() < self.limits.max_head)
        {
            return None;
        }
        match parse::response(buf, &self.limits, &self.method, self.upgrade) {
            Ok(None) => {
                self.scanned = buf.len();
                None
            }
            Ok(Some(parsed)) => Some(self.take_head(parsed)),
            Err(bad) => Some(Err(self.fail(Error::BadAnswer(bad)))),
        }
    }

    fn take_head(&mut self, parsed: parse::Response) -> Result<ResponseHead, Error> {
        self.transport.inbuf.advance(parsed.len);
        self.scanned = 0;
        let status = parsed.head.status;
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            self.interim += 1;
            if self.interim > MAX_INTERIM {
                return Err(self.fail(Error::BadAnswer(Bad::syntax("too many interim responses"))));
            }
            return Ok(parsed.head);
        }
        let tunnel = status == StatusCode::SWITCHING_PROTOCOLS
            || (self.method == Method::CONNECT && status.is_success());
        self.keep_alive = parsed.keep_alive && !tunnel && !self.upgrade && self.method != Method::CONNECT;
        self.framing = parsed.framing;
        self.reader = Reader::new(parsed.framing);
        self.answered = true;
        Ok(parsed.head)
    }

    fn fail(&mut self, error: Error) -> Error {
        self.keep_alive = false;
        error
    }

    fn closed(&mut self) -> Error {
        self.fail(if self.touched { Error::UpstreamReset } else { Error::UpstreamClosed })
    }

    fn lost(&mut self) -> Error {
        self.fail(if self.touched { Error::UpstreamReset } else { Error::UpstreamLost })
    }

    fn unwritten(&mut self, error: WriteError) -> Error {
        match error {
            WriteError::Stalled => self.fail(Error::UpstreamTimeout),
            WriteError::Broken => self.closed(),
            WriteError::Lost => self.lost(),
        }
    }
}
