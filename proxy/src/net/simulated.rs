//! A connection of a simulated network: any byte stream, with the readiness that the engine asks of a socket, and in place
//! of TLS a handshake in plaintext in which each side shows its certificates. They are verified as after a handshake;
//! only that the peer holds the key is taken on trust.

use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BufMut, BytesMut};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::http::Io;
use crate::http::io::Fuse;

/// What one read asks for at most.
const READ: usize = 16 * 1024;
/// What one write takes at most.
const WRITE: usize = 64 * 1024;
/// The first byte of a handshake, as in TLS.
const HANDSHAKE: u8 = 0x16;
/// The longest chain of certificates, in bytes.
const LONGEST: usize = 64 * 1024;

thread_local! {
    static HERE: Cell<bool> = const { Cell::new(false) };
    static PLANTED: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread is a simulation's: ids come from its seed, and the log is silent.
pub fn enter() {
    HERE.set(true);
}

/// Whether this thread is a simulation's.
pub(crate) fn is_here() -> bool {
    HERE.get()
}

/// Plants a bug in the sidecars of this thread, to see that a simulation finds it: a POST counts as idempotent, so it is
/// sent again after a reset.
pub fn plant_a_bug() {
    PLANTED.set(true);
}

/// Whether the bug is planted.
pub(crate) fn is_planted() -> bool {
    PLANTED.get()
}

/// A future of a simulated network.
pub type Promise<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + 'a>>;

/// Makes connections.
pub trait Network: Debug + Send + Sync {
    /// Connects; `mesh`: to another sidecar.
    fn connect(&self, address: SocketAddr, mesh: bool) -> Promise<'_, Io>;
}

/// Takes connections.
pub trait Listen: Debug {
    /// The next one.
    fn accept(&self) -> Promise<'_, Io>;
}

/// Bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Debug + Unpin {}

impl<T: AsyncRead + AsyncWrite + Debug + Unpin> Stream for T {}

/// One connection.
#[derive(Debug)]
pub struct Simulated {
    reading: RefCell<Reading>,
    local: SocketAddr,
    peer: SocketAddr,
    fuse: Rc<Fuse>,
}

/// The stream, and what was read of it ahead, to know that there is something.
#[derive(Debug)]
struct Reading {
    stream: Box<dyn Stream>,
    ahead: BytesMut,
    end: Option<Result<(), io::ErrorKind>>,
}

impl Reading {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.ahead.is_empty() || self.end.is_some() {
            return Poll::Ready(());
        }
        let mut bytes = vec![0; READ];
        let mut buf = ReadBuf::new(&mut bytes);
        match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
            Ok(()) if buf.filled().is_empty() => self.end = Some(Ok(())),
            Ok(()) => self.ahead.extend_from_slice(buf.filled()),
            Err(error) => self.end = Some(Err(error.kind())),
        }
        Poll::Ready(())
    }
}

impl Simulated {
    /// A connection between these addresses.
    pub fn new(stream: impl Stream + 'static, local: SocketAddr, peer: SocketAddr) -> Simulated {
        let reading = Reading { stream: Box::new(stream), ahead: BytesMut::new(), end: None };
        Simulated { reading: RefCell::new(reading), local, peer, fuse: Rc::default() }
    }

    /// This side's address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// The switch that cuts it.
    pub fn fuse(&self) -> &Rc<Fuse> {
        &self.fuse
    }

    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.fuse.is_blown() {
            return Poll::Ready(Ok(()));
        }
        let ready = self.reading.borrow_mut().poll(cx);
        if ready.is_pending() {
            self.fuse.watch_reading(cx);
        }
        ready.map(Ok)
    }

    /// Reads at most `room` bytes; none are the end.
    fn poll_take(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<BytesMut>> {
        ready!(self.poll_readable(cx))?;
        if self.fuse.is_blown() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let reading = self.reading.get_mut();
        if let (true, Some(Err(kind))) = (reading.ahead.is_empty(), reading.end) {
            return Poll::Ready(Err(kind.into()));
        }
        let n = room.min(reading.ahead.len());
        Poll::Ready(Ok(reading.ahead.split_to(n)))
    }

    pub(crate) fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let bytes = ready!(self.poll_take(cx, buf.capacity() - buf.len()))?;
        buf.put_slice(&bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    pub(crate) fn is_quiet(&mut self) -> bool {
        let nothing = self.poll_readable(&mut Context::from_waker(Waker::noop())).is_pending();
        nothing && !self.fuse.is_retired()
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let bytes = ready!(self.poll_take(cx, buf.remaining()))?;
        buf.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }

    /// Writes as one piece what the kernel would be given as several.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.fuse.is_blown() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut whole = Vec::new();
        for slice in bufs {
            let room = WRITE - whole.len();
            whole.extend_from_slice(slice.get(..room.min(slice.len())).unwrap_or_default());
        }
        let written = Pin::new(&mut self.reading.get_mut().stream).poll_write(cx, &whole);
        if written.is_pending() {
            self.fuse.watch_writing(cx);
        }
        written
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reading.get_mut().stream).poll_flush(cx)
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reading.get_mut().stream).poll_shutdown(cx)
    }
}

/// The calling side of a handshake: shows `own`, gives the chain of the other side.
///
/// # Errors
/// The connection breaks, or the other side says something else.
pub async fn dial(io: &mut Io, own: &[CertificateDer<'static>]) -> io::Result<Vec<CertificateDer<'static>>> {
    io.write_all(&hello(own)).await?;
    read_hello(io, BytesMut::new()).await
}

/// The called side of a handshake, of which `first` was read.
///
/// # Errors
/// As [`dial`].
pub async fn accept(
    io: &mut Io,
    first: BytesMut,
    own: &[CertificateDer<'static>],
) -> io::Result<Vec<CertificateDer<'static>>> {
    let chain = read_hello(io, first).await?;
    io.write_all(&hello(own)).await?;
    Ok(chain)
}

/// A byte of recognition, the number of certificates, and each with its length.
fn hello(chain: &[CertificateDer<'static>]) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_u8(HANDSHAKE);
    bytes.put_u8(u8::try_from(chain.len()).unwrap_or(u8::MAX));
    for certificate in chain.iter().take(usize::from(u8::MAX)) {
        bytes.put_u32(u32::try_from(certificate.len()).unwrap_or(u32::MAX));
        bytes.put_slice(certificate);
    }
    bytes
}

async fn read_hello(io: &mut Io, mut bytes: BytesMut) -> io::Result<Vec<CertificateDer<'static>>> {
    fill(io, &mut bytes, 2).await?;
    if bytes.get_u8() != HANDSHAKE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut chain = Vec::new();
    for _ in 0..bytes.get_u8() {
        fill(io, &mut bytes, 4).await?;
        let length = usize::try_from(bytes.get_u32()).unwrap_or(usize::MAX);
        if length > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        fill(io, &mut bytes, length).await?;
        chain.push(CertificateDer::from(bytes.split_to(length).to_vec()));
    }
    // Neither side says more before it has heard the other.
    if bytes.is_empty() { Ok(chain) } else { Err(io::ErrorKind::InvalidData.into()) }
}

async fn fill(io: &mut Io, bytes: &mut BytesMut, least: usize) -> io::Result<()> {
    while bytes.len() < least {
        if io.read_buf(bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}
