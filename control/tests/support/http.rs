//! A client of the API: HTTP/2 over TLS, HTTP/1.1 over the Unix socket and the loopback port.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pilotfish_testkit::ca::{Ca, Issued};
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Serve;

/// The body of a request.
pub type Body = BoxBody<Bytes, Infallible>;

/// One connection.
pub struct Http {
    sender: Sender,
    /// Sent with each request.
    pub headers: HeaderMap,
}

enum Sender {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// The body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}: {}", self.status, self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON of a request that succeeded.
    #[track_caller]
    pub fn ok<T: DeserializeOwned>(&self) -> T {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// The sentence of a refusal.
    #[track_caller]
    pub fn refused(&self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self.json::<pilotfish_control::api::types::Failure>().error
    }
}

/// A TLS connection, with a certificate or without; takes any server.
///
/// # Errors
/// The handshake fails.
pub async fn handshake(
    address: SocketAddr,
    own: Option<&Issued>,
    alpn: &[&[u8]],
) -> io::Result<TlsStream<TcpStream>> {
    let config = Ca::new("of.the.test").client(own, alpn);
    let name = ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into());
    TlsConnector::from(config).connect(name, TcpStream::connect(address).await?).await
}

impl Http {
    /// Over TLS, HTTP/2.
    pub async fn tls(serve: &Serve, own: Option<&Issued>) -> Http {
        Http::try_tls(serve.listen, own).await.unwrap()
    }

    /// Over TLS, HTTP/2; also fails when the server ends the handshake late, as TLS 1.3 does for client certificates.
    ///
    /// # Errors
    /// No connection.
    pub async fn try_tls(address: SocketAddr, own: Option<&Issued>) -> io::Result<Http> {
        let stream = handshake(address, own, &[b"h2"]).await?;
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        let mut http = Http { sender: Sender::Two(sender), headers: HeaderMap::new() };
        http.try_ask("GET", "/", "").await.map_err(io::Error::other)?;
        Ok(http)
    }

    /// Over TLS, HTTP/1.1.
    pub async fn tls_http1(serve: &Serve, own: Option<&Issued>) -> Http {
        Http::one(handshake(serve.listen, own, &[b"http/1.1"]).await.unwrap()).await
    }

    /// Over the Unix socket.
    pub async fn socket(serve: &Serve) -> Http {
        Http::one(UnixStream::connect(&serve.socket).await.unwrap()).await
    }

    /// Over plain TCP.
    pub async fn plain(address: SocketAddr) -> Http {
        Http::one(TcpStream::connect(address).await.unwrap()).await
    }

    async fn one(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Http {
        let (sender, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
        tokio::spawn(connection);
        Http { sender: Sender::One(sender), headers: HeaderMap::new() }
    }

    /// With a header in each request.
    pub fn with(mut self, name: &'static str, value: &str) -> Http {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    /// As an administrator.
    pub fn bearer(self, token: &str) -> Http {
        self.with("authorization", &format!("Bearer {token}"))
    }

    /// Sends a request; the answer's body is still to come.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Body,
    ) -> hyper::Result<Response<Incoming>> {
        let uri = match &self.sender {
            Sender::One(_) => path.to_owned(),
            Sender::Two(_) => format!("https://control{path}"),
        };
        let mut request = Request::builder().method(method).uri(uri);
        if matches!(self.sender, Sender::One(_)) && !self.headers.contains_key("host") {
            request = request.header("host", "control");
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(body).unwrap();
        match &mut self.sender {
            Sender::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// A whole exchange.
    pub async fn ask(&mut self, method: &str, path: &str, body: impl Into<Bytes>) -> Reply {
        self.try_ask(method, path, body).await.unwrap()
    }

    /// A whole exchange.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn try_ask(
        &mut self,
        method: &str,
        path: &str,
        body: impl Into<Bytes>,
    ) -> hyper::Result<Reply> {
        let answer = self.send(method.parse().unwrap(), path, Full::new(body.into()).boxed()).await?;
        let (head, body) = answer.into_parts();
        Ok(Reply { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
    }

    /// GET.
    pub async fn get(&mut self, path: &str) -> Reply {
        self.ask("GET", path, "").await
    }

    /// POST with JSON.
    pub async fn post(&mut self, path: &str, value: &impl Serialize) -> Reply {
        self.ask("POST", path, serde_json::to_vec(value).unwrap()).await
    }
}
