//! A connection under the `h2` crate: what the crate writes piece by piece leaves in one write per turn.
//!
//! The crate flushes after every DATA frame of some size. Here its writes go into a buffer, which is written when the task that
//! drives the connection has nothing more to do; so the answers of many streams share a system call. Large pieces are not
//! copied: they go out at once, with what waited before them.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::buffer;
use crate::http::deadline::Deadline;
use crate::http::io::Io;

/// The largest piece that is copied rather than written at once: as large as a system call is dear.
const COPY: usize = 8 * 1024;
/// What may wait in the buffer.
const FULL: usize = 16 * 1024;
/// Slices that one write of the crate has at most.
const SLICES: usize = 16;

/// A shared handle of one connection: one for the `h2` crate, one for the task that drives it.
#[derive(Debug, Clone)]
pub(crate) struct Wire(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    io: Io,
    /// Bytes that were read to see which protocol is spoken; they are read again first.
    first: BytesMut,
    out: BytesMut,
    sent: u64,
    stall: Deadline,
    patience: Duration,
    /// A write failed outside of the crate, which learns it by its next read or write.
    failed: Option<io::ErrorKind>,
}

impl Wire {
    /// Takes a connection of which `first` was read already. A write that the peer blocks for `patience` fails.
    pub(crate) fn new(io: Io, first: BytesMut, patience: Duration) -> Self {
        let out = BytesMut::new();
        let stall = Deadline::default();
        Wire(Rc::new(RefCell::new(Inner { io, first, out, sent: 0, stall, patience, failed: None })))
    }

    /// Bytes handed to the network so far.
    pub(crate) fn sent(&self) -> u64 {
        self.0.borrow().sent
    }

    /// Reads.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        if let Some(kind) = inner.failed {
            return Poll::Ready(Err(kind.into()));
        }
        if inner.first.is_empty() {
            return Pin::new(&mut inner.io).poll_read(cx, buf);
        }
        let n = inner.first.len().min(buf.remaining());
        buf.put_slice(&inner.first.split_to(n));
        if inner.first.is_empty() {
            buffer::give(std::mem::take(&mut inner.first));
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what the crate writes.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, bufs)
    }

    /// Writes everything that waits.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_flush(cx)
    }

    /// Writes everything that waits and closes the writing side.
    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        ready!(inner.poll_flush(cx))?;
        // TLS has a last word to write, for which a peer that reads nothing leaves no room.
        match Pin::new(&mut inner.io).poll_shutdown(cx) {
            Poll::Ready(closed) => Poll::Ready(closed),
            Poll::Pending => inner.poll_stalled(cx).map(Err),
        }
    }

    /// Polls what drives the connection, and writes what came together whenever it waits.
    pub(crate) async fn drive<F: Future>(&self, driver: F) -> F::Output {
        let mut driver = pin!(driver);
        poll_fn(|cx| {
            let polled = driver.as_mut().poll(cx);
            if polled.is_pending()
                && let Poll::Ready(Err(error)) = self.poll_flush(cx)
            {
                self.0.borrow_mut().failed = Some(error.kind());
                cx.waker().wake_by_ref();
            }
            polled
        })
        .await
    }
}

impl Inner {
    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(kind) = self.failed {
            return Poll::Ready(Err(kind.into()));
        }
        let total = bufs.iter().map(|slice| slice.len()).sum();
        loop {
            if total <= COPY && self.out.len() + total <= FULL {
                buffer::make_room(&mut self.out, 0);
                bufs.iter().for_each(|slice| self.out.put_slice(slice));
                return Poll::Ready(Ok(total));
            }
            let written = ready!(self.poll_write_through(cx, bufs))?;
            let of_waiting = written.min(self.out.len());
            self.out.advance(of_waiting);
            if written > of_waiting {
                return Poll::Ready(Ok(written - of_waiting));
            }
        }
    }

    /// One write of what waits and what comes.
    fn poll_write_through(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let all = std::iter::once(&self.out[..]).chain(bufs.iter().map(|slice| &slice[..]));
        for (slot, slice) in slices.iter_mut().zip(all) {
            *slot = IoSlice::new(slice);
        }
        let used = slices.get(..SLICES.min(bufs.len() + 1)).unwrap_or_default();
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, used);
        self.written(cx, polled)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let polled = Pin::new(&mut self.io).poll_write(cx, &self.out);
            let written = ready!(self.written(cx, polled))?;
            self.out.advance(written);
        }
        if self.out.capacity() != 0 {
            buffer::give(std::mem::take(&mut self.out));
        }
        Poll::Ready(Ok(()))
    }

    fn written(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(done) => {
                self.stall.clear();
                self.sent += done.as_ref().map_or(0, |n| *n as u64);
                Poll::Ready(done)
            }
            Poll::Pending => self.poll_stalled(cx).map(Err),
        }
    }

    /// Ready when the peer has blocked a write for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.stall.start(self.patience);
        self.stall.poll_expired(cx).map(|()| io::ErrorKind::TimedOut.into())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        buffer::give(std::mem::take(&mut self.first));
        buffer::give(std::mem::take(&mut self.out));
    }
}
