//! A client's HTTP/1 connection: one request after the other.

use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, StatusCode, Version};
use tokio::net::TcpStream;

use super::chunked::Step;
use super::parse;
use super::reader::Reader;
use super::serialize::{self, Manner};
use super::transport::Transport;
use super::writer::Writer;
use crate::http::body::{Frame, Framing};
use crate::http::buffer::{self, HEAD_ROOM, SMALL};
use crate::http::closing::Closing;
use crate::http::deadline::Deadline;
use crate::http::error::{Bad, BadClass, Error};
use crate::http::head::{RequestHead, ResponseHead};
use crate::http::headers::Headers;
use crate::http::io::Io;
use crate::http::limits::Limits;

mod ending;

/// What comes next on the connection.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A request; its body is read through the connection.
    Request(RequestHead),
    /// Something that gets a refusal, after which the connection closes.
    Refused(Bad),
    /// Nothing: the client closed, was idle too long, or the worker is closing.
    Closed,
}

/// How far the answer to the present request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    None,
    Started,
    Finished,
}

/// A client's connection.
#[derive(Debug)]
pub struct Conn {
    transport: Transport,
    limits: Rc<Limits>,
    closing: Closing,
    deadline: Deadline,
    reader: Reader,
    writer: Writer,
    framing: Framing,
    answer: Answer,
    /// Bytes of an incomplete head that were already looked at.
    scanned: usize,
    version: Version,
    is_head: bool,
    is_connect: bool,
    keep_alive: bool,
    upgrade: bool,
    continue_due: bool,
    first: bool,
    blank_seen: bool,
}

impl Conn {
    pub(crate) fn new(io: Io, inbuf: BytesMut, limits: Rc<Limits>, closing: Closing) -> Self {
        Conn {
            transport: Transport::new(io, inbuf),
            limits,
            closing,
            deadline: Deadline::default(),
            reader: Reader::Done,
            writer: Writer::Closed,
            framing: Framing::None,
            answer: Answer::None,
            scanned: 0,
            version: Version::HTTP_11,
            is_head: false,
            is_connect: false,
            keep_alive: true,
            upgrade: false,
            continue_due: false,
            first: true,
            blank_seen: false,
        }
    }

    /// Waits for the next request head.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        loop {
            if let Some(incoming) = self.try_parse() {
                self.deadline.clear();
                return Poll::Ready(incoming);
            }
            let before = self.transport.inbuf.len();
            match self.transport.poll_fill(cx, 0) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    if before == 0 {
                        self.deadline.clear();
                    }
                }
                Poll::Ready(_) if before == 0 => return Poll::Ready(Incoming::Closed),
                Poll::Ready(_) => {
                    return Poll::Ready(Incoming::Refused(Bad::syntax("the connection ended within a head")));
                }
                Poll::Pending => break,
            }
        }
        let idle = self.transport.inbuf.is_empty();
        if idle && self.closing.is_started() {
            return Poll::Ready(Incoming::Closed);
        }
        self.deadline.start(if idle && !self.first {
            self.limits.idle_timeout
        } else {
            self.limits.head_timeout
        });
        ready!(self.deadline.poll_expired(cx));
        if idle {
            return Poll::Ready(Incoming::Closed);
        }
        Poll::Ready(Incoming::Refused(Bad::new(BadClass::Timeout, "the head did not arrive in time")))
    }

    /// Parses the buffered bytes, unless nothing that could complete a head has come since the last look.
    fn try_parse(&mut self) -> Option<Incoming> {
        self.skip_blank_line();
        let buf = &self.transport.inbuf;
        let news = buf.get(self.scanned..).unwrap_or_default();
        if news.is_empty()
            || (self.scanned > 0 && !news.contains(&b'\n') && buf.len() <= self.limits.max_request_line)
        {
            return None;
        }
        if matches!(buf.first(), Some(b'\r' | b'\n')) && (buf.len() > 1 || buf.first() == Some(&b'\n')) {
            return Some(Incoming::Refused(Bad::syntax("an empty line in place of a request")));
        }
        match parse::request(buf, &self.limits) {
            Ok(Some(parsed)) => Some(Incoming::Request(self.begin(parsed))),
            Ok(None) => {
                self.scanned = buf.len();
                None
            }
            Err(bad) => Some(Incoming::Refused(bad)),
        }
    }

    /// One empty line before a request is old clients' habit (RFC 9112 section 2.2).
    fn skip_blank_line(&mut self) {
        if !self.blank_seen && self.transport.inbuf.starts_with(b"\r\n") {
            self.transport.inbuf.advance(2);
            self.blank_seen = true;
            self.scanned = 0;
        }
    }

    fn begin(&mut self, parsed: parse::Request) -> RequestHead {
        self.transport.inbuf.advance(parsed.len);
        if self.transport.inbuf.is_empty() {
            // Connecting to the upstream may take a while, and a burst of requests must not pin a buffer each.
            buffer::give(std::mem::take(&mut self.transport.inbuf));
        }
        self.scanned = 0;
        self.first = false;
        self.blank_seen = false;
        self.framing = parsed.framing;
        self.reader = Reader::new(parsed.framing);
        self.writer = Writer::Closed;
        self.answer = Answer::None;
        self.version = parsed.head.version;
        self.is_head = parsed.head.method == Method::HEAD;
        self.is_connect = parsed.head.method == Method::CONNECT;
        self.keep_alive = parsed.keep_alive;
        self.upgrade = parsed.head.upgrade;
        self.continue_due = parsed.head.expect_continue;
        parsed.head
    }

    /// How the request's body is delimited.
    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the client still waits for `100 Continue`: it does not when some of its body is there already.
    pub(crate) fn awaits_continue(&self) -> bool {
        self.continue_due
            && self.answer == Answer::None
            && self.transport.inbuf.is_empty()
            && !self.reader.is_done()
    }

    /// Whether the request's body has been read to its end.
    pub(crate) fn is_read(&self) -> bool {
        self.reader.is_done()
    }

    /// Whether the answer has begun to be written.
    pub(crate) fn has_answered(&self) -> bool {
        self.answer != Answer::None
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Error>>> {
        if self.awaits_continue() {
            self.inform(&ResponseHead::new(StatusCode::CONTINUE));
            // A connection that is broken here is found by the read below.
            let _ = self.transport.poll_flush(cx, self.limits.write_timeout);
        }
        loop {
            match self.reader.decode(&mut self.transport.inbuf) {
                Ok(Step::Data(data)) => {
                    self.continue_due = false;
                    return Poll::Ready(Some(Ok(Frame::Data(data))));
                }
                Ok(Step::End(None)) => return Poll::Ready(None),
                Ok(Step::End(Some(fields))) => return Poll::Ready(Some(Ok(Frame::Trailers(fields)))),
                Err(bad) => return Poll::Ready(Some(Err(self.fail(Error::BadRequest(bad))))),
                Ok(Step::More) => {}
            }
            match self.transport.poll_fill(cx, self.reader.hint()) {
                Poll::Ready(Ok(n)) if n > 0 => self.deadline.clear(),
                Poll::Ready(_) => return Poll::Ready(Some(Err(self.fail(Error::ClientGone)))),
                // Once the answer flows, the rest of the request may take as long as the answer does.
                Poll::Pending if self.answer != Answer::None => return Poll::Pending,
                Poll::Pending => {
                    self.deadline.start(self.limits.body_timeout);
                    ready!(self.deadline.poll_expired(cx));
                    return Poll::Ready(Some(Err(self.fail(Error::BodyTimeout))));
                }
            }
        }
    }

    /// The connection cannot be used again after this request.
    fn fail(&mut self, error: Error) -> Error {
        self.keep_alive = false;
        error
    }

    /// Ready when the client closed while it should wait for its answer. Bytes that come are kept: they are the next request.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.reader.is_done() {
            return Poll::Pending;
        }
        while self.transport.inbuf.len() < SMALL {
            match ready!(self.transport.poll_fill(cx, 0)) {
                Ok(n) if n > 0 => {}
                _ => {
                    self.keep_alive = false;
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    }

    /// Queues an interim response, when the client's version has them.
    pub(crate) fn inform(&mut self, head: &ResponseHead) {
        if self.version == Version::HTTP_10 || self.answer != Answer::None {
            return;
        }
        if head.status == StatusCode::CONTINUE {
            if !self.continue_due {
                return;
            }
            self.continue_due = false;
        }
        serialize::interim(self.transport.out.tail(HEAD_ROOM), head);
    }

    /// Queues the response head.
    pub(crate) fn respond(&mut self, head: &ResponseHead, framing: Framing) {
        debug_assert!(self.answer == Answer::None, "one request, one answer");
        let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
        let tunnel = self.is_connect && head.status.is_success();
        let bodiless = self.is_head
            || head.status.is_informational()
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        // Unread body bytes that the client may never send, and bytes after a change of protocol that was not granted, leave
        // the place of the next request unknown.
        let unsent = self.awaits_continue() && !self.reader.is_done();
        let unclear = (self.upgrade && !switching) || (self.is_connect && !tunnel) || unsent;
        self.keep_alive &= !unclear && !self.closing.is_started();
        self.writer = match framing {
            _ if bodiless || tunnel => Writer::Nothing,
            Framing::None => Writer::Length(0),
            Framing::Length(n) => Writer::Length(n),
            Framing::Streaming | Framing::UntilClose if self.version == Version::HTTP_11 => Writer::Chunked,
            Framing::Streaming | Framing::UntilClose => {
                self.keep_alive = false;
                Writer::Raw
            }
        };
        let manner = Manner { version: self.version, body: self.writer, keep_alive: self.keep_alive, tunnel };
        serialize::response(self.transport.out.tail(HEAD_ROOM), head, manner);
        self.answer = Answer::Started;
    }

    pub(crate) fn push(&mut self, data: Bytes) {
        self.writer.push(&mut self.transport.out, data);
    }

    pub(crate) fn finish(&mut self, trailers: Option<&Headers>) {
        self.writer.finish(&mut self.transport.out, trailers);
        if self.writer.is_finished() && self.answer == Answer::Started {
            self.answer = Answer::Finished;
        }
    }

    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let ready = self.transport.poll_ready(cx, self.limits.write_timeout);
        ready.map_err(|_| self.fail(Error::ClientGone))
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let flushed = self.transport.poll_flush(cx, self.limits.write_timeout);
        flushed.map_err(|_| self.fail(Error::ClientGone))
    }

    /// The connection itself, what was read of it beyond the head, and the head that still waits to be written: after 101, or
    /// 2xx to CONNECT.
    pub(crate) fn take_tunnel(&mut self) -> Transport {
        self.keep_alive = false;
        self.reader = Reader::Done;
        self.transport.take()
    }

    /// What is left of an answer with a length, when nothing waits to be written.
    pub(crate) fn unwritten_length(&self) -> Option<u64> {
        match self.writer {
            Writer::Length(left) if self.transport.out.is_empty() => Some(left),
            _ => None,
        }
    }

    /// The socket, when it is plaintext TCP.
    pub(crate) fn socket(&self) -> Option<&TcpStream> {
        self.transport.io.as_tcp()
    }

    /// The socket under whatever is spoken on it, when it is TCP.
    pub(crate) fn any_socket(&self) -> Option<&TcpStream> {
        self.transport.io.any_tcp()
    }

    /// How long the client may read nothing.
    pub(crate) fn patience(&self) -> Duration {
        self.limits.write_timeout
    }

    /// So many bytes of the answer were put into the socket directly.
    pub(crate) fn spliced(&mut self, n: usize) {
        if let Writer::Length(left) = &mut self.writer {
            *left = left.saturating_sub(n as u64);
        }
    }
}
