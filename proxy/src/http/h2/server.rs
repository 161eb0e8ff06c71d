//! A client's HTTP/2 connection: each stream is a task of its own.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Method, Request, StatusCode};

use super::convert;
use super::guard::Guard;
use super::stream::{Broken, RecvHalf, SendHalf};
use super::wire::Wire;
use crate::http::body::{Frame, Framing, Sink};
use crate::http::buffer::Tracked;
use crate::http::closing::Closing;
use crate::http::deadline::Deadline;
use crate::http::downstream::Downstream;
use crate::http::error::{Bad, Error};
use crate::http::head::{RequestHead, ResponseHead};
use crate::http::headers::Headers;
use crate::http::io::Io;
use crate::http::limits::Limits;
use crate::http::serve::{ConnContext, Handler};

/// Bytes per stream that wait inside the `h2` crate for the socket.
const SEND_BUFFER: usize = 64 * 1024;
/// The client preface.
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

type Connection = h2::server::Connection<Guard, Tracked>;
type Accepted = (Request<RecvStream>, SendResponse<Tracked>);

/// Serves a connection to its end.
pub(crate) async fn serve<H: Handler>(
    io: Io,
    first: BytesMut,
    context: ConnContext,
    limits: Rc<Limits>,
    handler: Rc<H>,
    closing: Closing,
) {
    let wire = Wire::new(io, first, limits.write_timeout);
    let handshake = builder(&limits).handshake::<_, Tracked>(Guard::new(wire.clone(), PREFACE.len()));
    let handshake = tokio::time::timeout(limits.head_timeout, wire.drive(handshake));
    let Ok(Ok(mut connection)) = handshake.await else { return };
    let context = Rc::new(context);
    let mut told = pin!(closing.started());
    let mut closing_seen = false;
    let mut idle = Deadline::default();
    loop {
        let next = poll_fn(|cx| {
            if !closing_seen && told.as_mut().poll(cx).is_ready() {
                closing_seen = true;
                connection.graceful_shutdown();
            }
            poll_accept(&mut connection, &mut idle, &limits, cx)
        });
        let Some(Ok((request, respond))) = wire.drive(next).await else { break };
        accept(request, respond, &context, &limits, &handler);
    }
    // The last word, a GOAWAY perhaps.
    let _ = poll_fn(|cx| wire.poll_flush(cx)).await;
}

/// The next stream. A connection without any for the idle timeout is told to go.
fn poll_accept(
    connection: &mut Connection,
    idle: &mut Deadline,
    limits: &Limits,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Accepted, h2::Error>>> {
    let polled = connection.poll_accept(cx);
    if polled.is_ready() || connection.has_streams() {
        idle.clear();
        return polled;
    }
    idle.start(limits.idle_timeout);
    if idle.poll_expired(cx).is_ready() {
        idle.clear();
        connection.graceful_shutdown();
        return connection.poll_accept(cx);
    }
    Poll::Pending
}

fn builder(limits: &Limits) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(limits.h2_max_streams)
        .initial_window_size(limits.h2_stream_window)
        .initial_connection_window_size(limits.h2_connection_window)
        .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        // Rapid reset (CVE-2023-44487): streams reset before we took them up. 20 is h2's default.
        .max_pending_accept_reset_streams(20)
        // MadeYouReset (CVE-2025-8671): resets that the peer's errors make us send.
        .max_local_error_reset_streams(Some(256))
        .max_concurrent_reset_streams(32)
        // WebSocket (RFC 8441); it becomes an Upgrade before anyone sees it, never a plain CONNECT.
        .enable_connect_protocol();
    builder
}

fn accept<H: Handler>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Tracked>,
    context: &Rc<ConnContext>,
    limits: &Rc<Limits>,
    handler: &Rc<H>,
) {
    if respond.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready() {
        // Rapid reset (CVE-2023-44487): nothing of such a stream goes upstream.
        return;
    }
    let (parts, body) = request.into_parts();
    let converted = convert::request(&parts, body.is_end_stream());
    let exchange = Exchange::new(&parts.method, converted.as_ref().ok(), body, respond, limits);
    let (context, handler) = (context.clone(), handler.clone());
    tokio::task::spawn_local(async move {
        let mut down = Downstream::h2(exchange);
        match converted {
            Ok((head, _)) => handler.handle(&context, head, down).await,
            Err(bad) => refuse(&*handler, &context, bad, &mut down).await,
        }
    });
}

async fn refuse<H: Handler>(handler: &H, context: &ConnContext, bad: Bad, down: &mut Downstream<'_>) {
    let (head, body) = handler.refuse(context, bad);
    // The client may be gone already; then nobody misses the answer.
    let _ = down.send(&head, body).await;
}

/// One stream of a client.
#[derive(Debug)]
pub(crate) struct Exchange {
    respond: SendResponse<Tracked>,
    send: SendHalf,
    recv: RecvHalf,
    framing: Framing,
    is_head: bool,
    is_connect: bool,
    continue_due: bool,
    answered: bool,
    bodiless: bool,
    /// WebSocket by extended CONNECT, seen as an Upgrade by everyone else.
    is_extended: bool,
}

impl Exchange {
    fn new(
        method: &Method,
        converted: Option<&(RequestHead, Framing)>,
        body: RecvStream,
        respond: SendResponse<Tracked>,
        limits: &Limits,
    ) -> Self {
        let head = converted.map(|(head, _)| head);
        // A gRPC call may be silent for as long as its rule says, as a watch is: see `Downstream::limit_silence`.
        let kind = head.and_then(|head| head.headers.get("content-type"));
        let is_grpc = kind.is_some_and(|kind| kind.starts_with(b"application/grpc"));
        Exchange {
            respond,
            // No window is no reading: as patient as with a silent sender, since applications do pause.
            send: SendHalf::new(limits.body_timeout),
            recv: RecvHalf::new(body, (!is_grpc).then_some(limits.body_timeout)),
            framing: converted.map_or(Framing::None, |(_, framing)| *framing),
            is_head: *method == Method::HEAD,
            is_connect: *method == Method::CONNECT,
            continue_due: head.is_some_and(|head| head.expect_continue),
            answered: false,
            bodiless: false,
            is_extended: head.is_some_and(|head| head.upgrade),
        }
    }

    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    pub(crate) fn awaits_continue(&self) -> bool {
        self.continue_due && !self.answered
    }

    /// What follows CONNECT is no body.
    pub(crate) fn is_read(&self) -> bool {
        self.is_connect || self.recv.is_done()
    }

    pub(crate) fn has_answered(&self) -> bool {
        self.answered
    }

    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.answered { self.send.poll_reset(cx) } else { self.respond.poll_reset(cx).map(|_| ()) }
    }

    pub(crate) fn inform(&mut self, head: &ResponseHead) {
        if self.answered || (head.status == StatusCode::CONTINUE && !std::mem::take(&mut self.continue_due)) {
            return;
        }
        // A stream that is gone shows itself by the next poll.
        let _ = self.respond.send_informational(convert::to_response(head, None));
    }

    pub(crate) fn respond(&mut self, head: &ResponseHead, framing: Framing) {
        let extended = self.is_extended.then(|| from_upgrade(head));
        let head = extended.as_ref().unwrap_or(head);
        let tunnel = self.is_connect && head.status.is_success();
        self.bodiless =
            self.is_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.answered = true;
        self.recv.be_patient();
        let ended = !tunnel && (self.bodiless || framing.is_empty());
        let announced = match head.status {
            _ if tunnel => Some(Framing::Streaming),
            StatusCode::NO_CONTENT => Some(Framing::None),
            _ if self.bodiless => None,
            _ if framing == Framing::None => Some(Framing::Length(0)),
            _ => Some(framing),
        };
        if let Ok(stream) = self.respond.send_response(convert::to_response(head, announced), ended) {
            self.send.open(stream, ended);
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Error>>> {
        if self.is_connect {
            return Poll::Ready(None);
        }
        if self.awaits_continue() && !self.recv.is_done() {
            self.inform(&ResponseHead::new(StatusCode::CONTINUE));
        }
        self.recv.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(read_error)))
    }

    /// Resets the stream in place of an answer.
    pub(crate) fn reset(&mut self, code: u32) {
        if !std::mem::replace(&mut self.answered, true) {
            self.respond.send_reset(code.into());
        }
    }

    pub(crate) fn into_tunnel(self) -> (SendHalf, RecvHalf) {
        (self.send, self.recv)
    }
}

/// The answer to extended CONNECT that says what an answer to Upgrade said: 101 is 200, and any other success would be taken for a
/// tunnel that is not there.
fn from_upgrade(head: &ResponseHead) -> ResponseHead {
    let mut head = head.clone();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        head.status = StatusCode::OK;
    } else if head.status.is_success() {
        head.status = StatusCode::BAD_GATEWAY;
    }
    head.headers.remove("sec-websocket-accept");
    head
}

fn read_error(why: Broken) -> Error {
    match why {
        Broken::Stalled => Error::BodyTimeout,
        Broken::Stream(_) => Error::ClientGone,
    }
}

impl Sink for Exchange {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.send.poll_ready(cx).map_err(|_| Error::ClientGone)
    }

    fn push(&mut self, data: Bytes) {
        if !self.bodiless {
            self.send.push(data);
        }
    }

    fn finish(&mut self, trailers: Option<Headers>) {
        self.send.finish(trailers);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.send.poll_flush(cx).map_err(|why| {
            if matches!(why, Broken::Stalled) {
                self.send.reset(Reason::CANCEL);
            }
            Error::ClientGone
        })
    }
}
