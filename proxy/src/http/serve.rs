//! One client connection, from its first byte to its end.

use std::future::{Future, poll_fn};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};

use super::buffer;
use super::closing::Closing;
use super::deadline::Deadline;
use super::downstream::Downstream;
use super::error::Bad;
use super::h1;
use super::h1::server::Incoming;
use super::h2;
use super::head::{RequestHead, ResponseHead};
use super::io::{Io, poll_fill};
use super::limits::Limits;
use crate::tls::MeshPeer;

/// What is known of a client's connection.
#[derive(Debug, Clone)]
pub struct ConnContext {
    /// The client's address.
    pub peer: SocketAddr,
    /// The address that it connected to.
    pub local: SocketAddr,
    /// Whether it speaks HTTP/2.
    pub h2: bool,
    /// Who it is, when it is another sidecar that proved so.
    pub mesh: Option<Rc<MeshPeer>>,
    /// Whether it is what the agent says through a tunnel that its own sidecar ends.
    pub within: bool,
}

/// A connection, and what is known of it before it is served.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub io: Io,
    /// What was read of it already.
    pub first: BytesMut,
    /// Who it is, when it is another sidecar that proved so.
    pub mesh: Option<Rc<MeshPeer>>,
    /// Whether it is within a tunnel that ends here.
    pub within: bool,
}

impl From<Io> for Accepted {
    fn from(io: Io) -> Self {
        Accepted { io, first: BytesMut::new(), mesh: None, within: false }
    }
}

/// What answers requests. One per worker and listener; runs on the worker's thread only.
pub trait Handler: 'static {
    /// Answers one request. Whatever it leaves unfinished is shown to the client as a broken-off answer.
    fn handle<'a>(
        &'a self,
        conn: &'a ConnContext,
        head: RequestHead,
        down: Downstream<'a>,
    ) -> impl Future<Output = ()> + 'a;

    /// The answer to a request that could not be parsed, after which the connection is closed. Framing fields are the engine's.
    fn refuse(&self, conn: &ConnContext, bad: Bad) -> (ResponseHead, Bytes);
}

/// Serves one connection to its end: HTTP/2 when it opens with the HTTP/2 preface, else HTTP/1.
///
/// The future is small while the connection is idle; a request's own state lives on the heap only while it is served.
pub async fn serve<H: Handler>(
    accepted: impl Into<Accepted>,
    limits: Rc<Limits>,
    handler: Rc<H>,
    closing: Closing,
) {
    let Accepted { mut io, mut first, mesh, within } = accepted.into();
    let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let peer = io.peer_addr().unwrap_or(unknown);
    let mut context =
        ConnContext { peer, local: io.local_addr().unwrap_or(unknown), h2: false, mesh, within };
    match sniff(&mut io, &mut first, &limits, &closing).await {
        Some(Opening::H1) => {
            let conn = h1::server::Conn::new(io, first, limits, closing.clone());
            serve_h1(conn, context, handler, closing).await;
        }
        Some(Opening::H2) => {
            context.h2 = true;
            Box::pin(h2::server::serve(io, first, context, limits, handler, closing)).await;
        }
        None => buffer::give(first),
    }
}

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    H1,
    H2,
}

/// Reads until the first bytes tell the protocols apart: the first one does for every real HTTP/1 request. `None` when nothing
/// is to be served.
async fn sniff(io: &mut Io, first: &mut BytesMut, limits: &Limits, closing: &Closing) -> Option<Opening> {
    let mut told = pin!(closing.started());
    let mut deadline = Deadline::default();
    poll_fn(|cx| {
        loop {
            if let Some(opening) = opening(first) {
                return Poll::Ready(Some(opening));
            }
            match poll_fill(io, cx, first, 0) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) if first.is_empty() => return Poll::Ready(None),
                Poll::Ready(_) => return Poll::Ready(Some(Opening::H1)),
                Poll::Pending => break,
            }
        }
        deadline.start(limits.head_timeout);
        if deadline.poll_expired(cx).is_ready() || (first.is_empty() && told.as_mut().poll(cx).is_ready()) {
            return Poll::Ready((!first.is_empty()).then_some(Opening::H1));
        }
        Poll::Pending
    })
    .await
}

fn opening(first: &[u8]) -> Option<Opening> {
    let preface = &h2::server::PREFACE[..];
    if first.len() >= preface.len() && first.starts_with(preface) {
        Some(Opening::H2)
    } else if preface.starts_with(first) {
        None
    } else {
        Some(Opening::H1)
    }
}

async fn serve_h1<H: Handler>(
    mut conn: h1::server::Conn,
    context: ConnContext,
    handler: Rc<H>,
    closing: Closing,
) {
    let mut told = pin!(closing.started());
    let mut closing_seen = false;
    loop {
        let incoming = poll_fn(|cx| match conn.poll_head(cx) {
            Poll::Pending if !closing_seen && told.as_mut().poll(cx).is_ready() => {
                closing_seen = true;
                conn.poll_head(cx)
            }
            other => other,
        })
        .await;
        match incoming {
            Incoming::Request(head) => {
                super::relay::turn().await;
                Box::pin(handler.handle(&context, head, Downstream::h1(&mut conn))).await;
                if !conn.is_settled() && !Box::pin(conn.settle()).await {
                    return;
                }
            }
            Incoming::Refused(bad) => {
                let (head, body) = handler.refuse(&context, bad);
                Box::pin(conn.refuse(&head, body)).await;
                return;
            }
            Incoming::Closed => return,
        }
    }
}

#[cfg(test)]
mod tests;
