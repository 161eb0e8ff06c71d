//! The handshake, from a connected socket to a [`TlsIo`]. Who limits its time and how many there are at once is the caller.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use pilotfish_identity::tls::take_asked;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, Error, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::session::{Job, Sending, Session, Step};
use super::tls::TlsIo;

/// What a peer may send before its handshake is over: a chain of certificates is a few KiB. rustls joins messages of 64 KiB.
const MOST: usize = 96 * 1024;

/// Why there is no connection.
#[derive(Debug)]
pub enum Broken {
    /// The network failed.
    Io(io::Error),
    /// The peer closed in the middle.
    Closed,
    /// The peer sent more than a handshake has.
    TooLong,
    /// TLS: a certificate that is not taken, an alert, something that is no TLS.
    Tls(Error),
}

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Io(error) => error.fmt(out),
            Broken::Closed => out.write_str("the peer closed during the TLS handshake"),
            Broken::TooLong => out.write_str("the peer's TLS handshake is too long"),
            Broken::Tls(error) => error.fmt(out),
        }
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Broken::Io(error)
    }
}

/// Accepts TLS on a connection of which `first` was read already.
///
/// # Errors
/// The peer is not taken, or breaks off; it was told why as far as TLS has a word for it.
pub async fn accept(stream: TcpStream, first: BytesMut, config: Arc<ServerConfig>) -> Result<TlsIo, Broken> {
    let session = UnbufferedServerConnection::new(config).map_err(Broken::Tls)?;
    shake(stream, Session::Server(session), first).await
}

/// Opens TLS on a fresh connection. `name` is what the server's certificate is held against, as `config` does it.
///
/// # Errors
/// As for [`accept`].
pub async fn connect(
    stream: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<TlsIo, Broken> {
    let session = UnbufferedClientConnection::new(config, name).map_err(Broken::Tls)?;
    shake(stream, Session::Client(session), BytesMut::new()).await
}

async fn shake(mut stream: TcpStream, mut session: Session, mut incoming: BytesMut) -> Result<TlsIo, Broken> {
    let mut plain = BytesMut::new();
    let mut sending = Sending::default();
    let mut received = incoming.len();
    let mut asked = None;
    loop {
        let step = session.step(&mut incoming, &mut plain, &mut sending, &mut Job::Nothing);
        asked = take_asked().or(asked);
        match step {
            Ok(Step::Again) => continue,
            Ok(Step::Open | Step::Blocked) => {}
            Ok(Step::Closed) => return Err(Broken::Closed),
            Err(error) => {
                session.last_words(&mut incoming, &mut sending);
                // The alert; what it is about is already known here.
                let _ = stream.write_all(sending.bytes()).await;
                say_and_close(stream).await;
                return Err(Broken::Tls(error));
            }
        }
        if !sending.bytes().is_empty() {
            stream.write_all(sending.bytes()).await?;
            sending.clear();
        }
        if !session.state().is_handshaking() {
            return Ok(TlsIo::new(stream, session, incoming, plain, asked));
        }
        incoming.reserve(4096);
        received += match stream.read_buf(&mut incoming).await? {
            0 => return Err(Broken::Closed),
            n => n,
        };
        if received > MOST {
            return Err(Broken::TooLong);
        }
    }
}

/// Lets an alert arrive: closing a socket with unread bytes resets it, and the peer would not see why.
async fn say_and_close(mut stream: TcpStream) {
    let mut rest = [0; 4096];
    if stream.shutdown().await.is_ok() {
        for _ in 0..16 {
            if !matches!(stream.try_read(&mut rest), Ok(n) if n > 0) {
                return;
            }
        }
    }
}
