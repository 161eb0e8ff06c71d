//! As much HTTP/1.1 as a caller and an agent need. Not the sidecar's: a mistake in one must not hide one in the other.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use turmoil::net::TcpStream;

/// One connection, and what was read of it.
#[derive(Debug)]
pub struct Conn {
    stream: TcpStream,
    read: Vec<u8>,
}

/// A head.
#[derive(Debug)]
pub struct Head {
    /// Request line or status line.
    pub first: String,
    fields: Vec<(String, String)>,
}

impl Head {
    /// The first field of that name, in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// A field as a number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.field(name)?.parse().ok()
    }

    /// The status of an answer.
    pub fn status(&self) -> Option<u16> {
        self.first.split(' ').nth(1)?.parse().ok()
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

impl Conn {
    /// A connection of which nothing was read.
    pub fn new(stream: TcpStream) -> Conn {
        Conn { stream, read: Vec::new() }
    }

    /// A connection of which this was read.
    pub fn resume(Prefixed { read, stream }: Prefixed) -> Conn {
        Conn { stream, read: read.to_vec() }
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// The connection's.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Reads more; false at the end.
    async fn more(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.read).await? > 0)
    }

    async fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\r\n") {
                let line = self.read.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map(Some).map_err(|_| broken("not text"));
            }
            if !self.more().await? {
                return if self.read.is_empty() { Ok(None) } else { Err(broken("cut within a line")) };
            }
        }
    }

    /// The next head; `None` when the connection ended before it.
    ///
    /// # Errors
    /// The connection's, or it is no head.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        let Some(first) = self.line().await? else { return Ok(None) };
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?.ok_or_else(|| broken("cut within a head"))?;
            if line.is_empty() {
                return Ok(Some(Head { first, fields }));
            }
            let (name, value) = line.split_once(':').ok_or_else(|| broken("not a field"))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// The body behind `head`.
    ///
    /// # Errors
    /// The connection's, or it ended too early.
    pub async fn body(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        let chunked = head.field("transfer-encoding").is_some_and(|coding| coding == "chunked");
        if !chunked {
            return self.exactly(head.number("content-length").unwrap_or(0)).await;
        }
        let mut body = Vec::new();
        loop {
            let size = self.line().await?.ok_or_else(|| broken("cut within a body"))?;
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16);
            let size = size.map_err(|_| broken("not a chunk's size"))?;
            let mut chunk = self.exactly(size + 2).await?;
            chunk.truncate(size);
            if size == 0 {
                return Ok(body);
            }
            body.append(&mut chunk);
        }
    }

    async fn exactly(&mut self, size: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < size {
            if !self.more().await? {
                return Err(broken("cut within a body"));
            }
        }
        Ok(self.read.drain(..size).collect())
    }
}

/// How HTTP/2 begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection, and what was read of it to know its protocol.
#[derive(Debug)]
pub struct Prefixed {
    read: Bytes,
    stream: TcpStream,
}

impl Prefixed {
    /// Reads until the protocol is known; says whether it is HTTP/2.
    ///
    /// # Errors
    /// The connection's.
    pub async fn sniff(mut stream: TcpStream) -> io::Result<(bool, Prefixed)> {
        let mut read = Vec::new();
        while read.len() < PREFACE.len() && PREFACE.starts_with(&read) {
            if stream.read_buf(&mut read).await? == 0 {
                break;
            }
        }
        Ok((read.starts_with(PREFACE), Prefixed { read: read.into(), stream }))
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let n = self.read.len().min(buf.remaining());
        buf.put_slice(self.read.get(..n).unwrap_or_default());
        self.read.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
