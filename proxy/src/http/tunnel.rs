//! Bytes both ways after Upgrade or CONNECT, each direction closing on its own.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::body::{Frame, Sink, Source};
use super::buffer::BIG;
use super::deadline::Deadline;
use super::error::Error;
use super::h1::transport::Transport;
use super::h2::stream::{RecvHalf, SendHalf};
use super::headers::Headers;
use super::io::Io;
use super::relay::Pump;

/// How long an end that does not read may block the other. As [`super::Limits::write_timeout`].
const PATIENCE: Duration = Duration::from_secs(60);

/// One end of a tunnel.
#[derive(Debug)]
pub struct Tunnel {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Raw(Box<Raw>),
    H2(Box<(SendHalf, RecvHalf)>),
}

#[derive(Debug)]
struct Raw {
    transport: Transport,
    /// The last read filled its buffer: more is worth reading at once.
    busy: bool,
    ended: bool,
    finishing: bool,
}

impl Tunnel {
    /// A connection, and what was already read of it.
    pub fn raw((io, first): (Io, BytesMut)) -> Self {
        Tunnel::over(Transport::new(io, first))
    }

    /// An HTTP/1 connection after its head.
    pub(crate) fn over(transport: Transport) -> Self {
        Tunnel { kind: Kind::Raw(Box::new(Raw { transport, busy: false, ended: false, finishing: false })) }
    }

    pub(crate) fn h2(halves: (SendHalf, RecvHalf)) -> Self {
        Tunnel { kind: Kind::H2(Box::new(halves)) }
    }
}

impl Raw {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Error>>> {
        while self.transport.inbuf.is_empty() && !self.ended {
            let hint = if self.busy { BIG } else { 0 };
            match ready!(self.transport.poll_fill(cx, hint)) {
                Ok(0) => self.ended = true,
                Ok(_) => self.busy = self.transport.inbuf.len() == self.transport.inbuf.capacity(),
                Err(_) => return Poll::Ready(Some(Err(Error::UpstreamReset))),
            }
        }
        if self.transport.inbuf.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::Data(self.transport.inbuf.split().freeze()))))
    }
}

impl Source for Tunnel {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Error>>> {
        match &mut self.kind {
            Kind::Raw(raw) => raw.poll_read(cx),
            Kind::H2(halves) => halves
                .1
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|_| Error::UpstreamReset))),
        }
    }

    fn is_ended(&self) -> bool {
        false
    }
}

impl Sink for Tunnel {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &mut self.kind {
            Kind::Raw(raw) => raw.transport.poll_ready(cx, PATIENCE).map_err(|_| Error::UpstreamReset),
            Kind::H2(halves) => halves.0.poll_ready(cx).map_err(|_| Error::UpstreamReset),
        }
    }

    fn push(&mut self, data: Bytes) {
        match &mut self.kind {
            Kind::Raw(raw) => raw.transport.out.push(data),
            Kind::H2(halves) => halves.0.push(data),
        }
    }

    fn finish(&mut self, _trailers: Option<Headers>) {
        match &mut self.kind {
            Kind::Raw(raw) => raw.finishing = true,
            Kind::H2(halves) => halves.0.finish(None),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &mut self.kind {
            Kind::Raw(raw) => {
                ready!(raw.transport.poll_flush(cx, PATIENCE)).map_err(|_| Error::UpstreamReset)?;
                if raw.finishing {
                    ready!(raw.transport.poll_shutdown(cx)).map_err(|_| Error::UpstreamReset)?;
                }
                Poll::Ready(Ok(()))
            }
            Kind::H2(halves) => halves.0.poll_flush(cx).map_err(|_| Error::UpstreamReset),
        }
    }
}

/// What went through a tunnel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tunnelled {
    /// Bytes from `a` to `b`.
    pub a_to_b: u64,
    /// Bytes from `b` to `a`.
    pub b_to_a: u64,
}

/// Moves bytes both ways until both ends have closed, one breaks, or nothing moves for `idle`. An end that closes its writing
/// side is passed on as such; the other direction goes on.
pub async fn tunnel(mut a: Tunnel, mut b: Tunnel, idle: Duration) -> Tunnelled {
    let (mut up, mut down) = (Pump::new(), Pump::new());
    let mut silence = Deadline::default();
    let mut moved = None;
    poll_fn(|cx| {
        let up_state = up.poll(cx, &mut a, &mut b);
        let down_state = down.poll(cx, &mut b, &mut a);
        match (up_state, down_state) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(()),
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(()),
            _ => {}
        }
        let now = Some((up.bytes, down.bytes));
        if moved != now {
            moved = now;
            silence.set(idle);
        }
        silence.poll_expired(cx)
    })
    .await;
    Tunnelled { a_to_b: up.bytes, b_to_a: down.bytes }
}
