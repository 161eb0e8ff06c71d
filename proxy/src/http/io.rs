//! The network seam: what the engine needs of a connection. An enum, so that TLS is one more variant and no call is dynamic.

mod fuse;
pub mod handshake;
mod session;
mod tls;

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

pub use fuse::Fuse;
pub use tls::TlsIo;

#[cfg(feature = "sim")]
use crate::net::simulated::Simulated;

/// One connection.
#[derive(Debug)]
pub enum Io {
    /// Plaintext TCP. Nagle's algorithm is off from the start (see [`Io::tcp`]).
    Tcp(TcpStream),
    /// A Unix socket, as local upstreams may have.
    Unix(UnixStream),
    /// TLS over TCP, its handshake done.
    Tls(Box<TlsIo>),
    /// A connection of a simulated network, plaintext or with its handshake done.
    #[cfg(feature = "sim")]
    Simulated(Box<Simulated>),
    /// What is left when the connection was handed over to a tunnel; every operation fails with `NotConnected`.
    Gone,
}

impl Io {
    /// Wraps a socket and turns Nagle's algorithm off: nothing is ever held back to fill a packet.
    pub fn tcp(stream: TcpStream) -> Io {
        // A socket that is already reset refuses options; the first read says so better.
        let _ = stream.set_nodelay(true);
        Io::Tcp(stream)
    }

    /// Takes the connection out, leaving [`Io::Gone`].
    pub fn take(&mut self) -> Io {
        std::mem::replace(self, Io::Gone)
    }

    /// The plain socket, for what only works on one.
    pub fn as_tcp(&self) -> Option<&TcpStream> {
        match self {
            Io::Tcp(stream) => Some(stream),
            _ => None,
        }
    }

    /// The socket, plain or under TLS, for what does not touch its bytes.
    pub fn any_tcp(&self) -> Option<&TcpStream> {
        match self {
            Io::Tcp(stream) => Some(stream),
            Io::Tls(tls) => Some(tls.socket()),
            _ => None,
        }
    }

    /// The TLS connection, if it is one.
    pub fn as_tls(&self) -> Option<&TlsIo> {
        match self {
            Io::Tls(tls) => Some(tls),
            _ => None,
        }
    }

    /// The switch that cuts a connection within the mesh.
    pub fn fuse(&self) -> Option<&Rc<Fuse>> {
        match self {
            Io::Tls(tls) => Some(tls.fuse()),
            #[cfg(feature = "sim")]
            Io::Simulated(io) => Some(io.fuse()),
            _ => None,
        }
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Io::Tcp(stream) => stream.peer_addr(),
            Io::Tls(tls) => tls.peer_addr(),
            #[cfg(feature = "sim")]
            Io::Simulated(io) => Ok(io.peer_addr()),
            Io::Unix(_) | Io::Gone => Err(gone()),
        }
    }

    /// This side's address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Io::Tcp(stream) => stream.local_addr(),
            Io::Tls(tls) => tls.local_addr(),
            #[cfg(feature = "sim")]
            Io::Simulated(io) => Ok(io.local_addr()),
            Io::Unix(_) | Io::Gone => Err(gone()),
        }
    }

    /// Ready when a read would give bytes, an end or an error. No system call: the reactor's last word is used.
    #[inline]
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Tcp(stream) => stream.poll_read_ready(cx),
            Io::Unix(stream) => stream.poll_read_ready(cx),
            Io::Tls(tls) => tls.poll_readable(cx),
            #[cfg(feature = "sim")]
            Io::Simulated(io) => io.poll_readable(cx),
            Io::Gone => Poll::Ready(Err(gone())),
        }
    }

    /// Reads into the spare room of `buf`, which must have some; 0 is the end. TLS may give more than there was room for.
    #[inline]
    pub fn poll_read_into(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        match self {
            Io::Tcp(stream) => pin!(stream.read_buf(buf)).poll(cx),
            Io::Unix(stream) => pin!(stream.read_buf(buf)).poll(cx),
            Io::Tls(tls) => tls.poll_read_into(cx, buf),
            #[cfg(feature = "sim")]
            Io::Simulated(io) => io.poll_read_into(cx, buf),
            Io::Gone => Poll::Ready(Err(gone())),
        }
    }

    /// Whether the connection is open and nothing came that the engine did not ask for. No system call unless the reactor has seen
    /// something.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [0; 1];
        let read = match self {
            Io::Tcp(stream) => stream.try_read(&mut byte),
            Io::Unix(stream) => stream.try_read(&mut byte),
            Io::Tls(tls) => return tls.is_quiet(),
            #[cfg(feature = "sim")]
            Io::Simulated(io) => return io.is_quiet(),
            Io::Gone => return false,
        };
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Tls(tls) => tls.poll_read(cx, buf),
            #[cfg(feature = "sim")]
            Io::Simulated(io) => io.poll_read(cx, buf),
            Io::Gone => Poll::Ready(Err(gone())),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Tls(tls) => tls.poll_write(cx, &[IoSlice::new(buf)]),
            #[cfg(feature = "sim")]
            Io::Simulated(io) => io.poll_write(cx, &[IoSlice::new(buf)]),
            Io::Gone => Poll::Ready(Err(gone())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Io::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Io::Tls(tls) => tls.poll_write(cx, bufs),
            #[cfg(feature = "sim")]
            Io::Simulated(io) => io.poll_write(cx, bufs),
            Io::Gone => Poll::Ready(Err(gone())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Io::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(tls) => tls.poll_flush(cx),
            #[cfg(feature = "sim")]
            Io::Simulated(io) => io.poll_flush(cx),
            Io::Gone => Poll::Ready(Err(gone())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(tls) => tls.poll_shutdown(cx),
            #[cfg(feature = "sim")]
            Io::Simulated(io) => io.poll_shutdown(cx),
            Io::Gone => Poll::Ready(Err(gone())),
        }
    }
}

/// Reads once when the connection is readable. The buffer is taken from the worker's pool only then, and given back while
/// nothing is in it, so a waiting connection holds none.
pub(crate) fn poll_fill(
    io: &mut Io,
    cx: &mut Context<'_>,
    buf: &mut BytesMut,
    hint: usize,
) -> Poll<io::Result<usize>> {
    if io.poll_readable(cx)?.is_ready() {
        super::buffer::make_room(buf, hint);
        if let Poll::Ready(read) = io.poll_read_into(cx, buf) {
            return Poll::Ready(read);
        }
    }
    if buf.is_empty() {
        super::buffer::give(std::mem::take(buf));
    }
    Poll::Pending
}

#[cfg(test)]
mod tests;
