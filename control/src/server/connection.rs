//! One connection's HTTP, with an end to everything that is slow, large or silent.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::answer::{Answer, Body};

/// A request's head in HTTP/1.1, from its first byte (nginx and Envoy take 60 s).
const HEAD_TIME: Duration = Duration::from_secs(10);
/// All headers of a request together, bytes; SPIFFE IDs and tokens need less than 4 KiB.
const HEAD_SIZE: u32 = 16 << 10;
/// Requests at a time on one HTTP/2 connection; a sidecar needs two.
const STREAMS: u32 = 32;
/// What a peer may send on one HTTP/2 stream, and on all of a connection, before somebody reads it; bytes.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;
/// What waits for a peer that does not read, for each stream; bytes.
const SEND_BUFFER: usize = 64 << 10;
/// A silent HTTP/2 peer is asked whether it is there after this long, and has so long to answer.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_ANSWER: Duration = Duration::from_secs(5);
/// How long requests may take to end once the connection is told to close.
const CLOSING: Duration = Duration::from_secs(3);

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, as ALPN said.
    Http2,
    /// Either, by its first bytes.
    Either,
}

/// When something last moved on a connection.
#[derive(Debug)]
pub(super) struct Activity {
    start: Instant,
    /// Milliseconds after `start`.
    last: AtomicU64,
    /// Requests that are meant to be silent for long.
    long: AtomicUsize,
}

impl Activity {
    fn new() -> Arc<Activity> {
        Arc::new(Activity { start: Instant::now(), last: AtomicU64::new(0), long: AtomicUsize::new(0) })
    }

    /// Something moved.
    pub(super) fn moved(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// While the guard lives the connection may be silent.
    pub(super) fn long(self: &Arc<Activity>) -> Long {
        self.long.fetch_add(1, Ordering::Relaxed);
        Long(self.clone())
    }

    /// Waits until nothing has moved for `limit`.
    async fn silent(&self, limit: Duration) {
        loop {
            let last = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed));
            let waiting = self.long.load(Ordering::Relaxed) > 0;
            if last.elapsed() >= limit && !waiting {
                return;
            }
            let next = if waiting { Instant::now() + limit } else { last + limit };
            tokio::time::sleep_until(next.into()).await;
        }
    }
}

/// A request that may be silent for long; see [`Activity::long`].
#[derive(Debug)]
pub(super) struct Long(Arc<Activity>);

impl Drop for Long {
    fn drop(&mut self) {
        self.0.moved();
        self.0.long.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers the requests of one connection by `answer` until it ends, is silent for `idle`, or `closing` turns true.
pub(super) async fn serve<I, A, F>(
    io: I,
    protocol: Protocol,
    idle: Duration,
    mut closing: watch::Receiver<bool>,
    answer: A,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Incoming>, Arc<Activity>) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let activity = Activity::new();
    let seen = activity.clone();
    let service = service_fn(move |request| {
        seen.moved();
        let (answered, seen) = (answer(request, seen.clone()), seen.clone());
        async move { Ok::<_, Infallible>(answered.await.map(|body| Seen { body, activity: seen }.boxed_unsync())) }
    });
    let builder = builder(protocol);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    // What a peer does wrong ends its connection and concerns nobody else.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = activity.silent(idle) => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(CLOSING, connection).await;
}

fn builder(protocol: Protocol) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_SIZE as usize)
        .max_headers(64);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_SIZE)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER);
    match protocol {
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder.http2_only(),
        Protocol::Either => builder,
    }
}

/// A body whose progress is seen.
#[derive(Debug)]
struct Seen {
    body: Body,
    activity: Arc<Activity>,
}

impl HttpBody for Seen {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.activity.moved();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
