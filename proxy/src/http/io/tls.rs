//! A TLS connection as the engine uses it. rustls decides; the buffers are ours, and a connection that waits has none.
//!
//! Ciphertext is read into a buffer of the worker's list, decrypted into the engine's own, and the first goes back to the list
//! as soon as no part of a record is left in it. What the engine writes is encrypted into one buffer of the thread and leaves
//! in one system call.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use rustls::Error;
use tokio::io::{AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::fuse::Fuse;
use super::session::{Job, RECORD, Sending, Session, Step, has_record, wanted};
use crate::http::buffer;

/// Plaintext that one read gives, and that one write takes.
const BATCH: usize = 64 * 1024;

/// Reads that messages of TLS's own may take on an idle connection; more is a flood.
const TICKETS: u32 = 8;

thread_local! {
    /// Where records are encrypted: used within one call only.
    static SENDING: RefCell<Sending> = RefCell::default();
    /// Where slices are joined to one record.
    static JOINED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How far the reading side has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Open,
    /// close_notify came.
    Closed,
    /// The peer broke the protocol, or vanished without close_notify.
    Failed(io::ErrorKind),
}

/// A connection after its handshake.
pub struct TlsIo {
    stream: TcpStream,
    session: Session,
    /// Read, not decrypted.
    incoming: BytesMut,
    /// Decrypted, not taken.
    plain: BytesMut,
    /// Encrypted, not written.
    outgoing: BytesMut,
    /// Plaintext that is encrypted already, and that the engine will hand over again since it was not told so.
    ahead: usize,
    reading: Reading,
    close_sent: bool,
    fuse: Rc<Fuse>,
    asked: Option<Box<str>>,
}

impl TlsIo {
    /// Takes over after the handshake: `incoming` was read beyond it, `plain` was decrypted, `asked` is the server
    /// name that a client asked for.
    pub(super) fn new(
        stream: TcpStream,
        session: Session,
        incoming: BytesMut,
        plain: BytesMut,
        asked: Option<Box<str>>,
    ) -> TlsIo {
        TlsIo {
            stream,
            session,
            incoming,
            plain,
            outgoing: BytesMut::new(),
            ahead: 0,
            reading: Reading::Open,
            close_sent: false,
            fuse: Rc::default(),
            asked,
        }
    }

    /// The switch that cuts it.
    pub fn fuse(&self) -> &Rc<Fuse> {
        &self.fuse
    }

    /// The socket under it.
    pub(super) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// This side's address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// The certificates that the peer showed, leaf first.
    pub fn peer_certificates(&self) -> Option<&[rustls::pki_types::CertificateDer<'static>]> {
        self.session.state().peer_certificates()
    }

    /// The server name that a client asked for, once.
    pub fn take_server_name(&mut self) -> Option<Box<str>> {
        self.asked.take()
    }

    /// The protocol that ALPN chose.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.session.state().alpn_protocol()
    }

    /// Bytes of buffers that it holds.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.incoming.capacity() + self.plain.capacity() + self.outgoing.capacity()
    }

    /// As [`super::Io::poll_readable`]: what waits inside counts.
    #[inline]
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.plain.is_empty()
            || self.reading != Reading::Open
            || self.fuse.is_blown()
            || has_record(&self.incoming)
        {
            return Poll::Ready(Ok(()));
        }
        let ready = self.stream.poll_read_ready(cx);
        if ready.is_pending() {
            self.fuse.watch_reading(cx);
        }
        ready
    }

    /// Decrypts into the spare room of `out`, and beyond it where a record is longer; 0 is the end.
    pub(super) fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let before = out.len();
        if !self.plain.is_empty() {
            out.extend_from_slice(&self.plain);
            self.plain = BytesMut::new();
        }
        let hint = out.capacity() - out.len();
        loop {
            if self.fuse.is_blown() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            self.decrypt(out, before + BATCH);
            if !self.outgoing.is_empty() {
                // What TLS itself has to say. A peer that takes nothing is noticed by the next write.
                let _ = self.poll_send(cx)?;
            }
            if out.len() > before {
                return Poll::Ready(Ok(out.len() - before));
            }
            match self.reading {
                Reading::Open => {}
                Reading::Closed => return Poll::Ready(Ok(0)),
                Reading::Failed(kind) => return Poll::Ready(Err(kind.into())),
            }
            ready!(self.poll_receive(cx, hint))?;
        }
    }

    /// As [`TlsIo::poll_read_into`], for a buffer that cannot grow.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.plain.is_empty() {
            let mut plain = BytesMut::new();
            let read = ready!(self.poll_readable(cx)).and_then(|()| {
                buffer::make_room(&mut plain, buf.remaining());
                Ok(self.poll_read_into(cx, &mut plain))
            });
            match read {
                Ok(Poll::Ready(Ok(_))) => self.plain = plain,
                other => {
                    buffer::give(plain);
                    return match other {
                        Ok(Poll::Pending) => Poll::Pending,
                        Ok(Poll::Ready(read)) => Poll::Ready(read.map(|_| ())),
                        Err(error) => Poll::Ready(Err(error)),
                    };
                }
            }
        }
        let n = self.plain.len().min(buf.remaining());
        buf.put_slice(self.plain.get(..n).unwrap_or_default());
        self.plain.advance(n);
        if self.plain.is_empty() {
            buffer::give(std::mem::take(&mut self.plain));
        }
        Poll::Ready(Ok(()))
    }

    /// Whether nothing but TLS's own messages (tickets) came: an idle connection that can be used. No system call unless the
    /// reactor has seen something.
    pub(super) fn is_quiet(&mut self) -> bool {
        if self.fuse.is_retired()
            || self.close_sent
            || self.reading != Reading::Open
            || !self.plain.is_empty()
        {
            return false;
        }
        let mut bytes = BytesMut::new();
        let mut reads = 0;
        let quiet = loop {
            reads += 1;
            if reads > TICKETS {
                break false;
            }
            buffer::make_room(&mut self.incoming, 0);
            match self.stream.try_read_buf(&mut self.incoming) {
                Ok(n) if n > 0 => {
                    self.decrypt(&mut bytes, 1);
                    if !bytes.is_empty() || self.reading != Reading::Open {
                        break false;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
                _ => break false,
            }
        };
        self.shrink();
        quiet
    }

    /// Encrypts and writes; counts only what the kernel took.
    ///
    /// What did not fit into the socket stays encrypted in here, and is counted when the engine hands the same bytes over again:
    /// so a peer that does not read is seen as such, and nothing is ever sent twice.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let total: usize = bufs.iter().map(|slice| slice.len()).sum();
        if self.ahead == 0 {
            let taken = self.encrypt(cx, bufs, total)?;
            if !self.outgoing.is_empty() {
                self.ahead = taken;
                return Poll::Pending;
            }
            return Poll::Ready(Ok(taken));
        }
        let n = self.ahead.min(total);
        self.ahead -= n;
        Poll::Ready(Ok(n))
    }

    /// Writes what is encrypted already.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    /// Says close_notify, then closes the writing side.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.close_sent && !matches!(self.reading, Reading::Failed(_)) {
            self.close_sent = true;
            with_sending(|sending| {
                self.seal(sending, Job::Close)?;
                self.outgoing.extend_from_slice(sending.bytes());
                Ok(())
            })?;
        }
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// Decrypts whole records until `out` has `most` bytes.
    fn decrypt(&mut self, out: &mut BytesMut, most: usize) {
        if self.reading == Reading::Open && has_record(&self.incoming) {
            let result = with_sending(|sending| {
                let stepped = self.decrypt_records(out, most, sending);
                if let Err(error) = &stepped {
                    self.session.last_words(&mut self.incoming, sending);
                    self.reading = Reading::Failed(kind(error));
                }
                self.outgoing.extend_from_slice(sending.bytes());
                stepped.map_err(broken)
            });
            // Kept in `reading`, where the next read finds it.
            let _ = result;
        }
        self.shrink();
    }

    fn decrypt_records(
        &mut self,
        out: &mut BytesMut,
        most: usize,
        sending: &mut Sending,
    ) -> Result<(), Error> {
        while has_record(&self.incoming) && out.len() < most {
            match self.session.step(&mut self.incoming, out, sending, &mut Job::Nothing)? {
                Step::Again => {}
                Step::Closed => {
                    self.reading = Reading::Closed;
                    // What follows close_notify is ignored (RFC 8446 section 6.1).
                    self.incoming.clear();
                    return Ok(());
                }
                // A handshake message that is not whole yet, or nothing.
                Step::Open | Step::Blocked => return Ok(()),
            }
        }
        Ok(())
    }

    /// Reads once from the socket.
    fn poll_receive(&mut self, cx: &mut Context<'_>, hint: usize) -> Poll<io::Result<()>> {
        if self.stream.poll_read_ready(cx)?.is_pending() {
            self.fuse.watch_reading(cx);
            self.shrink();
            return Poll::Pending;
        }
        if self.incoming.is_empty() {
            buffer::make_room(&mut self.incoming, hint);
        } else {
            let missing = wanted(&self.incoming).saturating_sub(self.incoming.len());
            self.incoming.reserve(missing.max(2048));
        }
        let Poll::Ready(read) = pin!(self.stream.read_buf(&mut self.incoming)).poll(cx) else {
            self.fuse.watch_reading(cx);
            self.shrink();
            return Poll::Pending;
        };
        match read {
            Ok(0) => {
                // Without close_notify nobody knows whether this is the end or a cut.
                self.reading = Reading::Failed(io::ErrorKind::UnexpectedEof);
                Poll::Ready(Ok(()))
            }
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) => {
                self.reading = Reading::Failed(error.kind());
                Poll::Ready(Err(error))
            }
        }
    }

    /// A connection without a part of a record holds no buffer.
    fn shrink(&mut self) {
        if self.incoming.is_empty() && self.incoming.capacity() != 0 {
            buffer::give(std::mem::take(&mut self.incoming));
        }
    }

    /// Encrypts at most [`BATCH`] bytes and writes them; what the socket does not take is in `outgoing` then.
    fn encrypt(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>], total: usize) -> io::Result<usize> {
        if self.fuse.is_blown() || self.close_sent || matches!(self.reading, Reading::Failed(_)) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let most = if buffer::is_pressed() { RECORD } else { BATCH };
        with_sending(|sending| {
            let mut taken = 0;
            if let [only] = bufs {
                for record in only.chunks(RECORD).take(most / RECORD) {
                    self.seal(sending, Job::Encrypt(record))?;
                    taken += record.len();
                }
            } else {
                taken = self.encrypt_joined(sending, bufs, total.min(most))?;
            }
            let written = match Pin::new(&mut self.stream).poll_write(cx, sending.bytes()) {
                Poll::Ready(written) => written?,
                Poll::Pending => {
                    self.fuse.watch_writing(cx);
                    0
                }
            };
            self.outgoing.extend_from_slice(sending.bytes().get(written..).unwrap_or_default());
            if !self.outgoing.is_empty() {
                // A part went: only another try learns when there is room, or that there is room already.
                let _ = self.poll_send(cx)?;
            }
            Ok(taken)
        })
    }

    /// Many small pieces make one record; a long one is not copied first.
    fn encrypt_joined(
        &mut self,
        sending: &mut Sending,
        bufs: &[IoSlice<'_>],
        most: usize,
    ) -> io::Result<usize> {
        let mut joined = JOINED.try_with(RefCell::take).unwrap_or_default();
        joined.clear();
        let mut left = most;
        for slice in bufs {
            let mut rest = slice.get(..slice.len().min(left)).unwrap_or_default();
            left -= rest.len();
            while !rest.is_empty() {
                if joined.is_empty() && rest.len() >= RECORD {
                    self.seal(sending, Job::Encrypt(&rest[..RECORD]))?;
                    rest = &rest[RECORD..];
                    continue;
                }
                let (now, later) = rest.split_at(rest.len().min(RECORD - joined.len()));
                joined.extend_from_slice(now);
                rest = later;
                if joined.len() == RECORD {
                    self.seal(sending, Job::Encrypt(&joined))?;
                    joined.clear();
                }
            }
        }
        if !joined.is_empty() {
            self.seal(sending, Job::Encrypt(&joined))?;
        }
        let _ = JOINED.try_with(|kept| kept.replace(joined));
        Ok(most)
    }

    /// One record. What was received meanwhile is decrypted into `plain` where rustls comes across it.
    fn seal(&mut self, sending: &mut Sending, job: Job<'_>) -> io::Result<()> {
        let mut job = job;
        // Every step takes something from `incoming` or from rustls' own queue; a handful is there at most.
        for _ in 0..BATCH {
            match self.session.step(&mut self.incoming, &mut self.plain, sending, &mut job) {
                Ok(Step::Open) if matches!(job, Job::Nothing) => return Ok(()),
                Ok(Step::Again) => {}
                Ok(Step::Closed) => {
                    self.reading = Reading::Closed;
                    self.incoming.clear();
                }
                Ok(Step::Open | Step::Blocked) => break,
                Err(error) => {
                    self.session.last_words(&mut self.incoming, sending);
                    self.reading = Reading::Failed(kind(&error));
                    return Err(broken(error));
                }
            }
        }
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outgoing.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if self.fuse.is_blown() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        while !self.outgoing.is_empty() {
            let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, &self.outgoing) else {
                self.fuse.watch_writing(cx);
                return Poll::Pending;
            };
            match written? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.outgoing.advance(n),
            }
        }
        buffer::give(std::mem::take(&mut self.outgoing));
        Poll::Ready(Ok(()))
    }
}

impl Drop for TlsIo {
    fn drop(&mut self) {
        if !self.outgoing.is_empty() && matches!(self.reading, Reading::Failed(_)) {
            // The alert that says what the peer did wrong, if the socket takes it.
            let _ = self.poll_send(&mut Context::from_waker(Waker::noop()));
        }
        for buffer in [&mut self.incoming, &mut self.plain, &mut self.outgoing] {
            buffer::give(std::mem::take(buffer));
        }
    }
}

impl fmt::Debug for TlsIo {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if matches!(self.session, Session::Client(_)) { "client" } else { "server" };
        out.debug_struct("TlsIo").field("side", &side).field("reading", &self.reading).finish_non_exhaustive()
    }
}

/// The thread's buffer for what is encrypted, empty before and after.
fn with_sending<T>(use_it: impl FnOnce(&mut Sending) -> io::Result<T>) -> io::Result<T> {
    let mut sending = SENDING.try_with(RefCell::take).unwrap_or_default();
    let result = use_it(&mut sending);
    sending.clear();
    let _ = SENDING.try_with(|kept| kept.replace(sending));
    result
}

fn kind(error: &Error) -> io::ErrorKind {
    if matches!(error, Error::AlertReceived(_)) {
        io::ErrorKind::ConnectionReset
    } else {
        io::ErrorKind::InvalidData
    }
}

fn broken(error: Error) -> io::Error {
    io::Error::new(kind(&error), error)
}
