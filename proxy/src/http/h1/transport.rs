//! What both sides of HTTP/1 share: a connection, the bytes read and not yet used, the bytes to be written.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWrite;

use crate::http::buffer::{self, Outbox, high_water};
use crate::http::deadline::Deadline;
use crate::http::error::is_silence;
use crate::http::io::{self as net, Io};

/// Why a write cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteError {
    /// The connection is broken.
    Broken,
    /// The peer does not read.
    Stalled,
    /// Nothing comes from the peer any more, not even acknowledgements.
    Lost,
}

/// A connection with its buffers. Both are empty, without memory, while nothing is under way.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) io: Io,
    pub(crate) inbuf: BytesMut,
    pub(crate) out: Outbox,
    stall: Deadline,
    stalled_at: usize,
}

impl Transport {
    pub(crate) fn new(io: Io, inbuf: BytesMut) -> Self {
        Transport { io, inbuf, out: Outbox::default(), stall: Deadline::default(), stalled_at: 0 }
    }

    /// Reads once; 0 is the end.
    #[inline]
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>, hint: usize) -> Poll<io::Result<usize>> {
        net::poll_fill(&mut self.io, cx, &mut self.inbuf, hint)
    }

    /// Writes everything that waits. Gives up when the peer takes nothing for `patience`.
    pub(crate) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        patience: Duration,
    ) -> Poll<Result<(), WriteError>> {
        if self.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match self.out.poll_flush(&mut self.io, cx) {
            Poll::Ready(done) => {
                self.stall.clear();
                Poll::Ready(
                    done.map_err(
                        |error| if is_silence(&error) { WriteError::Lost } else { WriteError::Broken },
                    ),
                )
            }
            Poll::Pending => {
                if self.stalled_at != self.out.len() {
                    self.stalled_at = self.out.len();
                    self.stall.set(patience);
                }
                self.stall.start(patience);
                self.stall.poll_expired(cx).map(|()| Err(WriteError::Stalled))
            }
        }
    }

    /// Ready when less waits than the high-water mark.
    pub(crate) fn poll_ready(
        &mut self,
        cx: &mut Context<'_>,
        patience: Duration,
    ) -> Poll<Result<(), WriteError>> {
        if self.out.len() < high_water() {
            return Poll::Ready(Ok(()));
        }
        match self.poll_flush(cx, patience) {
            Poll::Pending if self.out.len() < high_water() => Poll::Ready(Ok(())),
            other => other,
        }
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Takes the connection, what was read of it and what waits to be written, for a tunnel.
    pub(crate) fn take(&mut self) -> Transport {
        std::mem::replace(self, Transport::new(Io::Gone, BytesMut::new()))
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        buffer::give(std::mem::take(&mut self.inbuf));
    }
}
