//! One connection of the sidecar's own to a service outside of the mesh: name, TCP, TLS, HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::resolve::Dns;

/// For each address of a service; part of the whole request's time.
const CONNECT: Duration = Duration::from_secs(3);
/// Who asks, as the service sees it.
pub const USER_AGENT: &str = concat!("pilotfish-proxy/", env!("CARGO_PKG_VERSION"));

/// TLS, and the name that the other end's certificate has to have.
pub type ByTls = (Arc<ClientConfig>, ServerName<'static>);

/// Where a connection goes, and what is spoken on it.
#[derive(Debug)]
pub struct Service<'a> {
    /// Its host, for DNS.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// TLS, and the name that its certificate has to have.
    pub tls: Option<ByTls>,
    /// HTTP/2 with prior knowledge, else HTTP/1.1.
    pub h2: bool,
}

/// One connection. Its end is driven by the runtime that opened it.
#[derive(Debug)]
pub enum Connection {
    /// HTTP/1.1.
    Http1(http1::SendRequest<Full<Bytes>>),
    /// HTTP/2, which carries many requests at once.
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// Opens one, to the first address that accepts.
    ///
    /// # Errors
    /// There is none, in words.
    pub async fn open(dns: &Dns, service: &Service<'_>) -> Result<Connection, String> {
        let addresses = dns.lookup(service.host).await;
        let addresses = addresses.map_err(|why| format!("cannot resolve {}: {}", service.host, why.0))?;
        let mut last = "its name has no address".to_owned();
        for ip in addresses.iter() {
            match connect(SocketAddr::new(*ip, service.port)).await {
                Ok(stream) => return secure(stream, service.tls.as_ref(), service.h2).await,
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    /// Whether another request can be sent on it.
    pub async fn is_ready(&mut self) -> bool {
        match self {
            Connection::Http1(requests) => requests.ready().await.is_ok(),
            Connection::Http2(requests) => requests.ready().await.is_ok(),
        }
    }

    /// Sends a request; gives the head of its answer.
    ///
    /// # Errors
    /// hyper's: [`cause`] says what they mean.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Connection::Http1(requests) => requests.send_request(request).await,
            Connection::Http2(requests) => requests.send_request(request).await,
        }
    }
}

/// hyper's errors say what went wrong only in their causes.
pub fn cause(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// A connection to this address.
///
/// # Errors
/// There is none, in words.
pub async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
    let stream = stream.map_err(|_| format!("no connection within {CONNECT:?}"))?;
    let stream = stream.map_err(|error| error.to_string())?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn secure(stream: TcpStream, tls: Option<&ByTls>, h2: bool) -> Result<Connection, String> {
    let Some((config, name)) = tls else { return speak(stream, h2).await };
    let tls = TlsConnector::from(config.clone()).connect(name.clone(), stream).await;
    let tls = tls.map_err(|error| format!("TLS: {error}"))?;
    if h2 && tls.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err("it does not speak HTTP/2, so no gRPC".into());
    }
    speak(tls, h2).await
}

/// HTTP on a connection that has proved what it had to.
///
/// # Errors
/// It does not begin, in words.
pub async fn speak<S>(stream: S, h2: bool) -> Result<Connection, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let text = |error: hyper::Error| cause(&error);
    let io = TokioIo::new(stream);
    // Whoever waits for an answer gets the connection's error too.
    Ok(if h2 {
        let builder = http2::Builder::new(TokioExecutor::new());
        let (requests, connection) = builder.handshake(io).await.map_err(text)?;
        tokio::spawn(async move { drop(connection.await) });
        Connection::Http2(requests)
    } else {
        let (requests, connection) = http1::handshake(io).await.map_err(text)?;
        tokio::spawn(async move { drop(connection.await) });
        Connection::Http1(requests)
    })
}
