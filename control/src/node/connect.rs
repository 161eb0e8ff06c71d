//! A node's connection to a control plane: TLS 1.3, HTTP/2, and proof that a control plane is at the other end.
//!
//! Before the join only the root's fingerprint is known ([`Proof::Pinned`]), which the token carries; after it the own identity says
//! whom to trust ([`Proof::Live`]).

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pilotfish_identity::{
    Fingerprint, LiveIdentity, SpiffeId, Usage, hex, pinned_client_config, tls, verify_pinned,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::paths;

/// For each address of a control plane.
const CONNECT: Duration = Duration::from_secs(1);
/// For both handshakes.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// How long the kernel waits for an acknowledgement before the connection is dead: less than a lease.
const UNANSWERED: Duration = Duration::from_secs(2);
/// For a whole request and its answer, the stream's apart.
const ANSWER: Duration = Duration::from_secs(10);
/// The longest answer to a request.
const LONGEST_ANSWER: usize = 1 << 20;
/// What a control plane may send before it is read: a set of a usual size in one go.
const WINDOW: u32 = 1 << 20;

/// Where a control plane is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// Reads `https://HOST[:15012]`.
    ///
    /// # Errors
    /// It is no such address, in words.
    pub fn parse(text: &str) -> Result<Address, String> {
        let rest = match text.split_once("://") {
            Some(("https", rest)) => rest,
            Some(_) => return Err("it has to begin with https://".into()),
            None => text,
        };
        let bad = || "write https://HOST:15012".to_owned();
        let authority: http::uri::Authority = rest.trim_end_matches('/').parse().map_err(|_| bad())?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let unread = authority.port_u16().is_none() && authority.as_str().len() > authority.host().len();
        if host.is_empty() || unread || authority.as_str().contains('@') {
            return Err(bad());
        }
        Ok(Address { host, port: authority.port_u16().unwrap_or(paths::PORT) })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(out, "https://[{}]:{}", self.host, self.port),
            false => write!(out, "https://{}:{}", self.host, self.port),
        }
    }
}

/// By what a control plane is known.
#[derive(Debug, Clone)]
pub(super) enum Proof {
    /// Its chain leads to the root with this SHA-256.
    Pinned(Fingerprint),
    /// Its chain leads to a root of the own trust domain; the own certificate is shown to it.
    Live(Arc<LiveIdentity>),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// It cannot be reached, or is not able to answer now: later, or at another one.
    Away(String),
    /// Who answers is no control plane of this mesh.
    Impostor(String),
    /// It refuses: the same request will not succeed.
    Refused(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Away(why) | Problem::Impostor(why) | Problem::Refused(why) => out.write_str(why),
        }
    }
}

fn away(error: impl fmt::Display) -> Problem {
    Problem::Away(error.to_string())
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An open connection. Dropping it closes it, and every stream of it.
pub(super) struct Connection {
    requests: SendRequest<Body>,
    driver: AbortHandle,
    /// Who is at the other end.
    pub(super) peer: SpiffeId,
}

impl fmt::Debug for Connection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Connection({})", self.peer)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Connects to a control plane.
///
/// # Errors
/// It is away, or it is none.
pub(super) async fn connect(address: &Address, proof: &Proof) -> Result<Connection, Problem> {
    let found = timeout(CONNECT * 2, tokio::net::lookup_host((address.host.as_str(), address.port))).await;
    let found = found.map_err(|_| Problem::Away("its name is not resolved in time".into()))?;
    let mut last = Problem::Away("its name has no address".into());
    for address in found.map_err(|error| Problem::Away(format!("cannot resolve: {error}")))? {
        match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let handshakes = timeout(HANDSHAKE, secure(stream, proof)).await;
                return handshakes
                    .unwrap_or_else(|_| Err(Problem::Away(format!("no handshake within {HANDSHAKE:?}"))));
            }
            Ok(Err(error)) => last = away(error),
            Err(_) => last = Problem::Away(format!("no connection within {CONNECT:?}")),
        }
    }
    Err(last)
}

/// Both handshakes.
async fn secure(stream: TcpStream, proof: &Proof) -> Result<Connection, Problem> {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNANSWERED));
    let config = match proof {
        Proof::Pinned(root) => pinned_client_config(*root, &[b"h2"]),
        Proof::Live(live) => tls::client_config(live.clone(), &[b"h2"]),
    };
    let connector = TlsConnector::from(config.map_err(away)?);
    let stream = connector.connect(tls::any_name(), stream).await;
    let stream = stream.map_err(|error| failed(&error, proof))?;
    let peer = peer(stream.get_ref().1.peer_certificates(), proof)?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(Problem::Away("it does not speak HTTP/2".into()));
    }
    let (requests, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(away)?;
    // Whoever waits for an answer gets the error too.
    let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
    Ok(Connection { requests, driver, peer })
}

/// Who answers: a control plane, and one of the own trust domain.
fn peer(chain: Option<&[rustls::pki_types::CertificateDer<'_>]>, proof: &Proof) -> Result<SpiffeId, Problem> {
    let impostor = |why: &dyn fmt::Display| Problem::Impostor(why.to_string());
    let (peer, domain) = match proof {
        Proof::Pinned(root) => {
            let now = std::time::SystemTime::now();
            let peer = verify_pinned(chain.unwrap_or_default(), root, now);
            (peer.map_err(|why| impostor(&why))?, None)
        }
        Proof::Live(live) => {
            let peer = tls::peer_of(chain, live, Usage::Server).map_err(|why| impostor(&why))?;
            (peer, live.load().credentials.as_ref().map(|own| own.id.trust_domain().clone()))
        }
    };
    match domain {
        _ if peer.id.as_control().is_none() => Err(impostor(&format!("{} is no control plane", peer.id))),
        Some(domain) if domain != *peer.id.trust_domain() => {
            Err(impostor(&format!("{} is not of the trust domain {domain}", peer.id)))
        }
        _ => Ok(peer.id),
    }
}

/// What a failed handshake says: refused by us, by the other end, or broken.
fn failed(error: &std::io::Error, proof: &Proof) -> Problem {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match (cause, proof) {
        (Some(rustls::Error::InvalidCertificate(_)), Proof::Pinned(root)) => {
            Problem::Impostor(format!("its certificate does not lead to the root {}: {error}", hex(root)))
        }
        (Some(rustls::Error::InvalidCertificate(_)), Proof::Live(_)) => {
            Problem::Impostor(format!("its certificate is not taken: {error}"))
        }
        _ => Problem::Away(format!("TLS: {error}")),
    }
}

impl Connection {
    /// Sends a message and waits for its answer.
    ///
    /// # Errors
    /// The control plane is gone, or refuses.
    pub(super) async fn post<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        path: &str,
        message: &Q,
    ) -> Result<A, Problem> {
        let body = Full::new(Bytes::from(serde_json::to_vec(message).map_err(away)?)).boxed_unsync();
        let request = head(path)?.body(body).map_err(away)?;
        let exchange = async {
            let answer = self.requests.send_request(request).await.map_err(away)?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await.map_err(away)?;
            Ok((status, body.to_bytes()))
        };
        let answered = timeout(ANSWER, exchange).await;
        match answered.map_err(|_| Problem::Away(format!("no answer within {ANSWER:?}")))?? {
            (200, body) => serde_json::from_slice(&body)
                .map_err(|error| Problem::Away(format!("its answer cannot be read: {error}"))),
            (status, body) => Err(refusal(status, &body)),
        }
    }

    /// Opens the node's stream: frames in both directions.
    ///
    /// # Errors
    /// As [`Connection::post`].
    pub(super) async fn stream(&mut self) -> Result<(Sender<Bytes>, Incoming), Problem> {
        let (sender, body) = Channel::new(8);
        let request = head("/v1/nodes/stream")?.body(body.boxed_unsync()).map_err(away)?;
        let answer = timeout(ANSWER, self.requests.send_request(request)).await;
        let answer = answer.map_err(|_| Problem::Away(format!("no answer within {ANSWER:?}")))?;
        let answer = answer.map_err(away)?;
        match answer.status().as_u16() {
            200 => Ok((sender, answer.into_body())),
            status => {
                let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect();
                let body = timeout(ANSWER, body).await;
                let body = body.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes);
                Err(refusal(status, &body.unwrap_or_default()))
            }
        }
    }
}

fn head(path: &str) -> Result<http::request::Builder, Problem> {
    let uri: http::Uri = format!("https://control{path}").parse().map_err(away)?;
    Ok(Request::post(uri).header("content-type", "application/json"))
}

/// What an answer other than 200 means.
fn refusal(status: u16, body: &[u8]) -> Problem {
    let said = serde_json::from_slice::<pilotfish_config::wire::Failure>(body).map(|failure| failure.error);
    let said = said.unwrap_or_else(|_| format!("it answers {status}"));
    match status {
        400..=499 if !matches!(status, 408 | 409 | 425 | 429) => Problem::Refused(said),
        _ => Problem::Away(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let shown = |text: &str| Address::parse(text).map(|address| address.to_string());
        assert_eq!(shown("https://mesh.example").unwrap(), "https://mesh.example:15012");
        assert_eq!(shown("https://[::1]:7/").unwrap(), "https://[::1]:7");
        assert_eq!(shown("10.0.0.1:9").unwrap(), "https://10.0.0.1:9");
        for bad in ["", "http://x", "https://", "https://a@b", "https://x:port", "https://x:99999"] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }
}
