//! One client connection, from its first byte to its end.

use std::future::{Future, poll_fn};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};

use super::closing::Closing;
use super::downstream::Downstream;
use super::error::Bad;
use super::h1;
use super::h1::server::Incoming;
use super::head::{RequestHead, ResponseHead};
use super::io::Io;
use super::limits::Limits;

/// What is known of a client's connection.
#[derive(Debug, Clone)]
pub struct ConnContext {
    /// The client's address.
    pub peer: SocketAddr,
    /// The address that it connected to.
    pub local: SocketAddr,
    /// Whether it speaks HTTP/2.
    pub h2: bool,
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
pub async fn serve<H: Handler>(io: Io, limits: Rc<Limits>, handler: Rc<H>, closing: Closing) {
    let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let context = ConnContext {
        peer: io.peer_addr().unwrap_or(unknown),
        local: io.local_addr().unwrap_or(unknown),
        h2: false,
    };
    let conn = h1::server::Conn::new(io, BytesMut::new(), limits, closing.clone());
    serve_h1(conn, context, handler, closing).await;
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
