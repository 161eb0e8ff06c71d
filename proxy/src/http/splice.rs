//! Long bodies from socket to socket inside the kernel, through a pipe: no copy to user space and back.
//!
//! Only where nothing can be in the way: HTTP/1 on both sides, plaintext TCP on both sides, a Content-Length. The bytes that came
//! with the head have gone the ordinary way before.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;

use super::deadline::Deadline;
use super::error::Error;
use super::h1::client::ClientConn;
use super::h1::server::Conn;

/// Less is not worth a pipe.
const LEAST: u64 = 128 * 1024;
/// What one pipe holds; Linux lets an ordinary user have 1 MiB.
const PIPE: usize = 256 * 1024;
/// Pipes that a worker has at once; what they hold while readers are slow is kernel memory. Further bodies are copied.
const PIPES: usize = 32;
/// Bytes that one body may move before others are served.
const TURN: u64 = 512 * 1024;

thread_local! {
    static FREE: RefCell<Vec<(OwnedFd, OwnedFd)>> = const { RefCell::new(Vec::new()) };
    static USED: Cell<usize> = const { Cell::new(0) };
}

/// A body on its way through a pipe.
#[derive(Debug)]
pub(crate) struct Splice {
    /// Reading and writing end; taken at the end.
    pipe: Option<(OwnedFd, OwnedFd)>,
    /// Bytes in the pipe.
    held: usize,
    stall: Deadline,
}

impl Splice {
    /// Whether an answer is long enough to think of it.
    pub(crate) fn is_worth(up: &ClientConn) -> bool {
        up.unread_length() >= LEAST && up.socket().is_some()
    }

    /// A way for the rest of this answer, if it has one: long enough, and nothing of it buffered on either side.
    pub(crate) fn between(up: &ClientConn, down: &Conn) -> Option<Splice> {
        let even = down.unwritten_length() == Some(up.unread_length());
        if !Splice::is_worth(up)
            || up.has_buffered()
            || !even
            || down.socket().is_none()
            || USED.get() >= PIPES
        {
            return None;
        }
        let pipe = FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten().or_else(make)?;
        USED.set(USED.get() + 1);
        Some(Splice { pipe: Some(pipe), held: 0, stall: Deadline::default() })
    }

    /// Moves what can be moved; ready when the body is through. `moved` counts what was written.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        up: &mut ClientConn,
        down: &mut Conn,
        moved: &mut u64,
    ) -> Poll<Result<(), Error>> {
        let before = *moved;
        loop {
            while self.held > 0 {
                let n = ready!(self.poll_out(cx, down))?;
                self.held -= n;
                *moved += n as u64;
                down.spliced(n);
            }
            if up.unread_length() == 0 {
                return Poll::Ready(Ok(()));
            }
            if *moved - before >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match ready!(self.poll_in(cx, up)) {
                Ok(n) if n > 0 => {
                    self.held = n;
                    up.spliced(n);
                }
                _ => return Poll::Ready(Err(Error::UpstreamReset)),
            }
        }
    }

    fn poll_in(&self, cx: &mut Context<'_>, up: &ClientConn) -> Poll<io::Result<usize>> {
        let (Some(from), Some((_, end))) = (up.socket(), &self.pipe) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let want = usize::try_from(up.unread_length()).unwrap_or(PIPE).min(PIPE);
        loop {
            ready!(from.poll_read_ready(cx))?;
            match from.try_io(Interest::READABLE, || transfer(from, end, want)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_out(&mut self, cx: &mut Context<'_>, down: &Conn) -> Poll<Result<usize, Error>> {
        let (Some(to), Some((end, _))) = (down.socket(), &self.pipe) else {
            return Poll::Ready(Err(Error::ClientGone));
        };
        loop {
            let Poll::Ready(ready) = to.poll_write_ready(cx) else {
                self.stall.start(down.patience());
                ready!(self.stall.poll_expired(cx));
                return Poll::Ready(Err(Error::ClientGone));
            };
            ready.map_err(|_| Error::ClientGone)?;
            match to.try_io(Interest::WRITABLE, || transfer(end, to, self.held)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(n) if n > 0 => {
                    self.stall.clear();
                    return Poll::Ready(Ok(n));
                }
                _ => return Poll::Ready(Err(Error::ClientGone)),
            }
        }
    }
}

impl Drop for Splice {
    fn drop(&mut self) {
        USED.set(USED.get().saturating_sub(1));
        // A pipe with bytes in it belongs to a body that broke off.
        if let (0, Some(pipe)) = (self.held, self.pipe.take()) {
            let _ = FREE.try_with(|free| free.borrow_mut().push(pipe));
        }
    }
}

fn make() -> Option<(OwnedFd, OwnedFd)> {
    let pipe = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
    // Past a user's share of pipe memory it stays at the usual 64 KiB.
    let _ = fcntl_setpipe_size(&pipe.1, PIPE);
    Some(pipe)
}

fn transfer(from: &impl std::os::fd::AsFd, to: &impl std::os::fd::AsFd, most: usize) -> io::Result<usize> {
    splice(from, None, to, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK).map_err(io::Error::from)
}
