//! One request of a client and the place for its answer.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::Interest;

use super::body::{Frame, Framing, Sink, Source};
use super::copy::{BodyCopy, Copier};
use super::error::Error;
use super::h1;
use super::h2;
use super::head::ResponseHead;
use super::headers::{Headers, alike};
use super::idle::Idle;
use super::kept::{Kept, KeptBody};
use super::tunnel::Tunnel;

/// The client's side of one exchange: gives the request's body, takes the response.
///
/// Dropping it without a finished answer closes the connection (HTTP/1) or resets the stream (HTTP/2).
#[derive(Debug)]
pub struct Downstream<'c> {
    kind: Kind<'c>,
    unread: VecDeque<Frame>,
    idle: Idle,
    /// Whether some of the body went to whoever reads it.
    taken: bool,
    /// What was taken, for another try.
    kept: Option<Kept>,
    /// What was taken, for copies of the call.
    copier: Option<Copier>,
    /// Names of fields that do not get through in the trailers.
    untrailed: Option<Arc<[Box<str>]>>,
}

#[derive(Debug)]
enum Kind<'c> {
    H1(&'c mut h1::server::Conn),
    H2(Box<h2::server::Exchange>),
    /// The byte pipe was taken; the exchange is over.
    Taken,
}

impl<'c> Downstream<'c> {
    pub(crate) fn h1(conn: &'c mut h1::server::Conn) -> Self {
        Downstream::over(Kind::H1(conn))
    }

    pub(crate) fn h2(exchange: h2::server::Exchange) -> Self {
        Downstream::over(Kind::H2(Box::new(exchange)))
    }

    fn over(kind: Kind<'c>) -> Self {
        Downstream {
            kind,
            unread: VecDeque::new(),
            idle: Idle::default(),
            taken: false,
            kept: None,
            copier: None,
            untrailed: None,
        }
    }

    /// The HTTP/1 connection, if it is one.
    pub(crate) fn as_h1(&mut self) -> Option<&mut h1::server::Conn> {
        match &mut self.kind {
            Kind::H1(conn) => Some(conn),
            _ => None,
        }
    }

    /// Whether the client speaks HTTP/2.
    pub fn is_h2(&self) -> bool {
        match &self.kind {
            Kind::H1(_) => false,
            Kind::H2(_) => true,
            Kind::Taken => false,
        }
    }

    /// How the request's body is delimited.
    pub fn framing(&self) -> Framing {
        match &self.kind {
            Kind::H1(conn) => conn.framing(),
            Kind::H2(exchange) => exchange.framing(),
            Kind::Taken => Framing::None,
        }
    }

    /// Gives a piece back: the next [`Source::poll_frame`] returns it again. For a look at the body before it is forwarded;
    /// pieces go back last first, before anything is kept.
    pub fn unread(&mut self, frame: Frame) {
        self.taken = false;
        self.unread.push_front(frame);
    }

    /// From here on, what is taken of the body is kept as well, up to `limit` bytes; clones share the bytes, so nothing is copied.
    /// With more than that nothing is kept any more. To be called before the body is first polled; again to raise the limit.
    pub fn keep(&mut self, limit: usize) {
        if let Some(kept) = &mut self.kept {
            kept.raise(limit);
        } else if !self.taken && !self.is_read() {
            self.kept = Some(Kept::new(limit));
        }
    }

    /// A copy of the body, there when its end has come, of at most `limit` bytes. To be called before the body is first polled.
    pub fn copy_body(&mut self, limit: usize) -> BodyCopy {
        let (copier, copy) = Copier::new(limit);
        self.copier = Some(copier);
        copy
    }

    /// What was kept of the body so far, and whether that is all of it; `None` when nothing is kept, or when it was too much.
    pub fn kept_body(&self) -> Option<KeptBody<'_>> {
        let kept = self.kept.as_ref().filter(|kept| !kept.is_over())?;
        Some(KeptBody { frames: kept.frames(), complete: self.is_read() })
    }

    /// From here on fields of these names, or that look like them, are taken out of the trailers: nobody looks at those when the call is
    /// decided about.
    pub fn drop_trailers(&mut self, names: Arc<[Box<str>]>) {
        self.untrailed = Some(names);
    }

    /// Starts the body again from its first byte, for another try. False, and nothing happens, when some of it was taken and not
    /// kept.
    pub fn rewind(&mut self) -> bool {
        if !self.taken {
            return true;
        }
        let Some(kept) = self.kept.as_mut().filter(|kept| !kept.is_over()) else { return false };
        for frame in kept.take().into_iter().rev() {
            self.unread.push_front(frame);
        }
        if let Some(copier) = &mut self.copier {
            copier.rewind();
        }
        self.taken = false;
        true
    }

    /// Keeps nothing any more: the answer is on its way, so there is no other try.
    pub fn release(&mut self) {
        self.kept = None;
    }

    /// Whether the client still waits for `100 Continue` before it sends its body. The engine sends it when the body is first
    /// polled; [`super::exchange`] asks the upstream first.
    pub fn awaits_continue(&self) -> bool {
        match &self.kind {
            Kind::H1(conn) => conn.awaits_continue(),
            Kind::H2(exchange) => exchange.awaits_continue(),
            Kind::Taken => false,
        }
    }

    /// Whether the whole request body has been read.
    pub fn is_read(&self) -> bool {
        self.unread.is_empty()
            && match &self.kind {
                Kind::H1(conn) => conn.is_read(),
                Kind::H2(exchange) => exchange.is_read(),
                Kind::Taken => true,
            }
    }

    /// Whether [`Downstream::respond`] was called: from then on a failure can only be shown by breaking off.
    pub fn has_answered(&self) -> bool {
        match &self.kind {
            Kind::H1(conn) => conn.has_answered(),
            Kind::H2(exchange) => exchange.has_answered(),
            Kind::Taken => true,
        }
    }

    /// Ready when the client closed, or reset its stream, while it should wait for its answer (nginx's 499). Does not look
    /// while the request's body is still being read: reading finds it there.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.kind {
            Kind::H1(conn) => conn.poll_gone(cx),
            Kind::H2(exchange) => exchange.poll_gone(cx),
            Kind::Taken => Poll::Ready(()),
        }
    }

    /// Waits for something that has nothing to do with the client, such as a connection to the upstream, but no longer than the
    /// client does.
    ///
    /// # Errors
    /// [`Error::ClientGone`].
    pub async fn unless_gone<T>(
        &mut self,
        mut waiting: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Error> {
        if let Kind::H1(conn) = &mut self.kind
            && !conn.is_read()
            && let Some(socket) = conn.any_socket()
        {
            // What is unread stays in the kernel, with the end behind it; this is the one interest that sees it there.
            let mut closed = pin!(socket.ready(Interest::PRIORITY));
            return poll_fn(|cx| match waiting.as_mut().poll(cx) {
                Poll::Ready(done) => Poll::Ready(Ok(done)),
                Poll::Pending => closed.as_mut().poll(cx).map(|_| Err(Error::ClientGone)),
            })
            .await;
        }
        poll_fn(|cx| match waiting.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.poll_gone(cx).map(|()| Err(Error::ClientGone)),
        })
        .await
    }

    /// How long nothing may move in either direction while [`super::exchange`] and [`super::relay`] wait; `None`: for ever.
    pub fn limit_silence(&mut self, limit: Option<Duration>) {
        self.idle.set(limit);
    }

    /// Ready when nothing has moved for that time; see [`Idle::poll_silent`].
    pub(crate) fn poll_silent(&mut self, cx: &mut Context<'_>, moved: u64) -> Poll<()> {
        self.idle.poll_silent(cx, moved)
    }

    /// Queues an interim response (1xx but 101). Nothing happens for a client whose protocol has none, or after the final one.
    pub fn inform(&mut self, head: &ResponseHead) {
        match &mut self.kind {
            Kind::H1(conn) => conn.inform(head),
            Kind::H2(exchange) => exchange.inform(head),
            Kind::Taken => {}
        }
    }

    /// Queues the response head; a small body that follows at once leaves with it in one write. `framing` is that of the body
    /// to come; for HEAD, 204, 304 and the answer to CONNECT nothing follows whatever it says. Once per exchange.
    pub fn respond(&mut self, head: &ResponseHead, framing: Framing) {
        match &mut self.kind {
            Kind::H1(conn) => conn.respond(head, framing),
            Kind::H2(exchange) => exchange.respond(head, framing),
            Kind::Taken => {}
        }
    }

    /// Sends a whole answer: head, body, end.
    pub async fn send(&mut self, head: &ResponseHead, body: Bytes) -> Result<(), Error> {
        self.respond(head, Framing::Length(body.len() as u64));
        self.push(body);
        self.finish(None);
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Resets the stream with this code (RFC 9113 section 7) in place of an answer; an HTTP/1 connection has no such thing and is
    /// closed when this is dropped. Nothing happens once an answer has begun.
    pub fn reset(&mut self, code: u32) {
        if let Kind::H2(exchange) = &mut self.kind {
            exchange.reset(code);
        }
    }

    /// The byte pipe to the client: after 101, or 2xx to CONNECT, was queued. `None` when it was taken already; for every
    /// further call the client has gone.
    pub fn take_tunnel(&mut self) -> Option<Tunnel> {
        match std::mem::replace(&mut self.kind, Kind::Taken) {
            Kind::H1(conn) => Some(Tunnel::over(conn.take_tunnel())),
            Kind::H2(exchange) => Some(Tunnel::h2(exchange.into_tunnel())),
            Kind::Taken => None,
        }
    }
}

impl Downstream<'_> {
    #[cold]
    fn copy(&mut self, polled: &Poll<Option<Result<Frame, Error>>>) {
        let ended = self.is_read();
        let Some(copier) = &mut self.copier else { return };
        if let Poll::Ready(Some(Ok(frame))) = polled {
            copier.note(frame);
        }
        if matches!(polled, Poll::Ready(None)) || (ended && matches!(polled, Poll::Ready(Some(Ok(_))))) {
            copier.end();
        }
    }
}

impl Source for Downstream<'_> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Error>>> {
        let mut polled = match self.unread.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => match &mut self.kind {
                Kind::H1(conn) => conn.poll_frame(cx),
                Kind::H2(exchange) => exchange.poll_frame(cx),
                Kind::Taken => Poll::Ready(None),
            },
        };
        if let (Poll::Ready(Some(Ok(Frame::Trailers(fields)))), Some(names)) = (&mut polled, &self.untrailed)
        {
            fields.retain(|own, _| !names.iter().any(|name| alike(own, name.as_bytes())));
        }
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.taken = true;
            if let Some(kept) = &mut self.kept {
                kept.note(frame);
            }
        }
        if self.copier.is_some() {
            self.copy(&polled);
        }
        polled
    }

    fn is_ended(&self) -> bool {
        self.is_read()
    }
}

impl Sink for Downstream<'_> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &mut self.kind {
            Kind::H1(conn) => conn.poll_ready(cx),
            Kind::H2(exchange) => exchange.poll_ready(cx),
            Kind::Taken => Poll::Ready(Err(Error::ClientGone)),
        }
    }

    fn push(&mut self, data: Bytes) {
        match &mut self.kind {
            Kind::H1(conn) => conn.push(data),
            Kind::H2(exchange) => exchange.push(data),
            Kind::Taken => {}
        }
    }

    fn finish(&mut self, trailers: Option<Headers>) {
        match &mut self.kind {
            Kind::H1(conn) => conn.finish(trailers.as_ref()),
            Kind::H2(exchange) => exchange.finish(trailers),
            Kind::Taken => {}
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &mut self.kind {
            Kind::H1(conn) => conn.poll_flush(cx),
            Kind::H2(exchange) => exchange.poll_flush(cx),
            Kind::Taken => Poll::Ready(Err(Error::ClientGone)),
        }
    }
}
