//! A connection to an HTTP/2 upstream, shared by many exchanges.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use http::{Method, StatusCode};

use super::convert;
use super::guard::{Guard, Seen};
use super::stream::{Broken, RecvHalf, SendHalf};
use super::wire::Wire;
use crate::http::body::{Frame, Framing, Sink};
use crate::http::buffer::Tracked;
use crate::http::error::{Bad, Error, is_silence};
use crate::http::head::{RequestHead, ResponseHead};
use crate::http::headers::Headers;
use crate::http::io::Io;
use crate::http::limits::Limits;

/// Interim responses that one request may draw.
const MAX_INTERIM: u8 = 32;
/// Streams that we open at once on one connection, however many the upstream would take.
const MAX_STREAMS: usize = 100;

/// When a connection is pinged, so that a peer that went away without a word is noticed (`http2KeepAlive`).
#[derive(Debug, Clone, Copy)]
pub struct KeepAlive {
    /// Time between pings.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// Completes when a ping was not answered in time.
async fn unanswered(mut pings: ::h2::PingPong, times: KeepAlive) {
    loop {
        tokio::time::sleep(times.interval).await;
        let answer = tokio::time::timeout(times.timeout, pings.ping(::h2::Ping::opaque()));
        if !matches!(answer.await, Ok(Ok(_))) {
            return;
        }
    }
}

/// A connection; clones are the same connection. It is driven by a task of its own and ends when the last clone and the last
/// exchange are gone.
#[derive(Debug, Clone)]
pub struct ClientConn {
    send: SendRequest<Tracked>,
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limits: Rc<Limits>,
    seen: Rc<Seen>,
    open: Cell<usize>,
    closed: Rc<Cell<bool>>,
    /// It was closed because its peer fell silent.
    silent: Rc<Cell<bool>>,
}

impl ClientConn {
    /// Opens HTTP/2 with prior knowledge and spawns the connection's task on this thread. Streams can be opened at once; an
    /// upstream that speaks something else shows as an error of the first one.
    /// With `keepalive` it is pinged, and closed when an answer is overdue; `silent` is told then.
    pub async fn handshake(
        io: Io,
        limits: Rc<Limits>,
        keepalive: Option<KeepAlive>,
        silent: impl FnOnce() + 'static,
    ) -> Result<ClientConn, Error> {
        let wire = Wire::new(io, BytesMut::new(), limits.write_timeout);
        let guard = Guard::new(wire.clone(), 0);
        let seen = guard.seen();
        let handshake = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(limits.h2_stream_window)
            .initial_connection_window_size(limits.h2_connection_window)
            .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX))
            .max_send_buffer_size(64 * 1024)
            .initial_max_send_streams(MAX_STREAMS)
            .handshake::<_, Tracked>(guard);
        let (send, mut connection) = wire.drive(handshake).await.map_err(|_| Error::UpstreamClosed)?;
        let closed = Rc::new(Cell::new(false));
        let ended = closed.clone();
        let silence = Rc::new(Cell::new(false));
        let fell = silence.clone();
        let pings = keepalive.and_then(|times| Some((connection.ping_pong()?, times)));
        tokio::task::spawn_local(async move {
            // How it ended is told to each stream.
            let driven = wire.drive(connection);
            match pings {
                None => drop(driven.await),
                Some((pings, times)) => tokio::select! {
                    biased;
                    _ = driven => {}
                    () = unanswered(pings, times) => {
                        fell.set(true);
                        silent();
                    }
                },
            }
            ended.set(true);
        });
        Ok(ClientConn {
            send,
            shared: Rc::new(Shared { limits, seen, open: Cell::new(0), closed, silent: silence }),
        })
    }

    /// Whether the connection takes no new streams any more (GOAWAY, or it ended).
    pub fn is_closed(&self) -> bool {
        self.shared.closed.get() || self.shared.seen.last_stream.get().is_some()
    }

    /// Streams that are open through this connection.
    pub fn open_streams(&self) -> usize {
        self.shared.open.get()
    }

    /// Whether a stream can be opened now without waiting for another to end.
    pub fn can_open(&self) -> bool {
        !self.is_closed() && self.shared.open.get() < MAX_STREAMS.min(self.send.current_max_send_streams())
    }

    /// Whether the upstream takes extended CONNECT (RFC 8441), as WebSocket over HTTP/2 needs. False until its settings came.
    pub fn takes_extended_connect(&self) -> bool {
        self.send.is_extended_connect_protocol_enabled()
    }

    /// An exchange on this connection.
    pub fn begin(&self) -> Exchange {
        self.shared.open.set(self.shared.open.get() + 1);
        Exchange {
            conn: self.clone(),
            state: State::Idle,
            send: SendHalf::new(self.shared.limits.write_timeout),
            framing: Framing::None,
            is_head: false,
            interim: 0,
            stream: 0,
        }
    }
}

#[derive(Debug)]
enum State {
    /// No request yet, or one that could not be sent.
    Idle,
    Waiting(ResponseFuture),
    Reading(RecvHalf),
}

/// One request on an HTTP/2 connection.
#[derive(Debug)]
pub struct Exchange {
    conn: ClientConn,
    state: State,
    send: SendHalf,
    framing: Framing,
    is_head: bool,
    interim: u8,
    stream: u32,
}

impl Exchange {
    pub(crate) fn request(&mut self, head: &RequestHead, framing: Framing) {
        self.is_head = head.method == Method::HEAD;
        let tunnel = head.method == Method::CONNECT;
        let ended = framing.is_empty() && !tunnel;
        let Some(request) = convert::to_request(head, framing) else { return };
        if let Ok((response, stream)) = self.conn.send.send_request(request, ended) {
            self.stream = stream.stream_id().as_u32();
            self.send.open(stream, ended);
            self.state = State::Waiting(response);
        }
    }

    pub(crate) fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Error>> {
        let State::Waiting(response) = &mut self.state else {
            // Nothing was sent: the connection closed under us, or takes no such request.
            return Poll::Ready(Err(Error::NotProcessed));
        };
        match response.poll_informational(cx) {
            Poll::Ready(Some(Ok(interim))) => {
                self.interim += 1;
                if self.interim > MAX_INTERIM || interim.status() == StatusCode::SWITCHING_PROTOCOLS {
                    return Poll::Ready(Err(Error::BadAnswer(Bad::syntax("interim responses out of place"))));
                }
                return Poll::Ready(
                    convert::response(interim.status(), interim.headers()).map_err(Error::BadAnswer),
                );
            }
            Poll::Ready(Some(Err(error))) => {
                return Poll::Ready(Err(self.broken(Broken::Stream(error), false)));
            }
            Poll::Ready(None) => {}
            Poll::Pending => return Poll::Pending,
        }
        match std::pin::Pin::new(response).poll(cx) {
            Poll::Ready(Ok(response)) => Poll::Ready(self.take_head(response)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.broken(Broken::Stream(error), false))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn take_head(&mut self, response: http::Response<RecvStream>) -> Result<ResponseHead, Error> {
        let (parts, body) = response.into_parts();
        let head = convert::response(parts.status, &parts.headers).map_err(Error::BadAnswer)?;
        let bodiless =
            self.is_head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.framing = convert::framing(&parts.headers, bodiless || body.is_end_stream());
        self.state = State::Reading(RecvHalf::new(body, None));
        Ok(head)
    }

    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    pub(crate) fn is_read(&self) -> bool {
        matches!(&self.state, State::Reading(recv) if recv.is_done())
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Error>>> {
        let State::Reading(recv) = &mut self.state else { return Poll::Ready(None) };
        match std::task::ready!(recv.poll_frame(cx)) {
            Some(Err(why)) => Poll::Ready(Some(Err(self.broken(why, true)))),
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
            None => Poll::Ready(None),
        }
    }

    /// What an error means for a retry: a stream above the GOAWAY's last one, or refused, was never looked at.
    fn broken(&self, why: Broken, answered: bool) -> Error {
        let error = match why {
            Broken::Stalled => return Error::UpstreamTimeout,
            Broken::Stream(error) => error,
        };
        let beyond = self.conn.shared.seen.last_stream.get().is_some_and(|last| self.stream > last);
        if beyond || (error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM)) {
            Error::NotProcessed
        } else if !answered && (self.conn.shared.silent.get() || error.get_io().is_some_and(is_silence)) {
            Error::UpstreamLost
        } else if error.is_io() && !answered {
            Error::UpstreamClosed
        } else if error.is_library() {
            Error::BadAnswer(Bad::syntax("HTTP/2 protocol error"))
        } else {
            Error::UpstreamReset
        }
    }

    pub(crate) fn into_tunnel(mut self) -> Option<(SendHalf, RecvHalf)> {
        let send = std::mem::replace(&mut self.send, SendHalf::new(self.conn.shared.limits.write_timeout));
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Reading(recv) => Some((send, recv)),
            _ => None,
        }
    }
}

impl Sink for Exchange {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.send.poll_ready(cx).map_err(|why| self.broken(why, false))
    }

    fn push(&mut self, data: Bytes) {
        self.send.push(data);
    }

    fn finish(&mut self, trailers: Option<Headers>) {
        self.send.finish(trailers);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.send.poll_flush(cx).map_err(|why| self.broken(why, false))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.conn.shared.open.set(self.conn.shared.open.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// An upstream that opens HTTP/2 and then falls silent; `answers` says whether it still answers pings.
    async fn upstream(listener: TcpListener, answers: bool) {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let mut seen = Vec::new();
        let mut at = 24;
        while stream.read_buf(&mut seen).await.is_ok_and(|n| n > 0) {
            while let Some(head) = seen.get(at..at + 9) {
                let length = usize::from(head[1]) << 8 | usize::from(head[2]);
                let (kind, flags) = (head[3], head[4]);
                let Some(payload) = seen.get(at + 9..at + 9 + length) else { break };
                if kind == 6 && flags == 0 && answers {
                    let answer = [b"\0\0\x08\x06\x01\0\0\0\0", payload].concat();
                    stream.write_all(&answer).await.unwrap();
                }
                at += 9 + length;
            }
        }
    }

    async fn closed_after_a_while(answers: bool) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::task::spawn_local(upstream(listener, answers));
        let io = Io::tcp(TcpStream::connect(address).await.unwrap());
        let millis = Duration::from_millis;
        let times = KeepAlive { interval: millis(20), timeout: millis(200) };
        let connection = ClientConn::handshake(io, Rc::default(), Some(times), || {}).await.unwrap();
        for _ in 0..50 {
            if connection.is_closed() {
                return true;
            }
            tokio::time::sleep(millis(10)).await;
        }
        false
    }

    #[test]
    fn a_peer_that_answers_no_ping_is_given_up_and_one_that_does_is_kept() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default())
            .unwrap();
        runtime.block_on(async {
            assert!(closed_after_a_while(false).await);
            assert!(!closed_after_a_while(true).await);
        });
    }
}
