//! A connection to a control plane: TLS 1.3, HTTP/2, and proof that a control plane is at the other end.
//!
//! Before the join only the root's fingerprint is known ([`Proof::Pinned`]); after it the identity in force says whom to
//! trust ([`Proof::Live`]). Either way the certificate has to be a control plane's own: any agent has one of the same root.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::PingPong;
use h2::client::SendRequest;
use pilotfish_identity::{
    Fingerprint, LiveIdentity, SpiffeId, Usage, hex, pinned_client_config, tls, verify_pinned,
};
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::bootstrap::ControlAddress;
#[cfg(feature = "sim")]
use crate::net::{Net, simulated};
use crate::server::Shared;
use crate::telemetry::otlp::send::Answer;

/// For each address of a control plane; another control plane has to be found within 2 s.
const CONNECT: Duration = Duration::from_secs(1);
/// For both handshakes.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// How long the kernel waits for an acknowledgement before the connection is dead.
const UNANSWERED: Duration = Duration::from_secs(2);
/// For a whole request and its answer, the stream's apart.
const ANSWER: Duration = Duration::from_secs(10);
/// The longest answer to a request.
const LONGEST_ANSWER: usize = 1 << 20;
/// What a control plane may send before it is read: an update of a usual size in one go.
const WINDOW: u32 = 1 << 20;

/// By what a control plane is known.
#[derive(Debug, Clone)]
pub enum Proof {
    /// Its chain leads to the root with this SHA-256.
    Pinned(Fingerprint),
    /// Its chain leads to a root of the own trust domain; the own certificate is shown to it.
    Live(Arc<LiveIdentity>),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
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

/// An open connection. Dropping it and what came of it closes it.
pub struct Connection {
    /// For requests.
    pub requests: SendRequest<Bytes>,
    /// To ask whether the other end lives.
    pub ping: Option<PingPong>,
    /// This machine's address towards the control plane.
    pub local: IpAddr,
    /// Who is at the other end.
    pub peer: SpiffeId,
}

impl fmt::Debug for Connection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Connects to one control plane.
///
/// # Errors
/// It is away, or it is none.
pub async fn connect(
    shared: &Shared,
    address: &ControlAddress,
    proof: &Proof,
) -> Result<Connection, Problem> {
    let addresses = shared
        .dns
        .lookup(&address.0.host)
        .await
        .map_err(|why| Problem::Away(format!("cannot resolve: {}", why.0)))?;
    let mut last = Problem::Away("its name has no address".into());
    for ip in addresses.iter() {
        #[cfg(feature = "sim")]
        if let Net::Simulated(network) = &shared.net {
            let address = SocketAddr::new(*ip, address.0.port);
            // Such connections stay on their thread, which this future need not.
            let made = tokio::task::spawn_local(within(network.clone(), address, proof.clone()));
            return made.await.map_err(away)?;
        }
        match tokio::time::timeout(CONNECT, TcpStream::connect((*ip, address.0.port))).await {
            Ok(Ok(stream)) => return secure(stream, proof).await,
            Ok(Err(error)) => last = away(error),
            Err(_) => last = Problem::Away(format!("no connection within {CONNECT:?}")),
        }
    }
    Err(last)
}

/// The same in a simulated network, where the peer's chain comes in plaintext.
#[cfg(feature = "sim")]
async fn within(
    network: Arc<dyn simulated::Network>,
    address: SocketAddr,
    proof: Proof,
) -> Result<Connection, Problem> {
    let handshakes = async {
        let mut io = network.connect(address, false).await.map_err(away)?;
        let local = io.local_addr().map_err(away)?.ip();
        let own = match &proof {
            Proof::Live(live) => live.load().credentials.clone(),
            Proof::Pinned(_) => None,
        };
        let own = own.map(|own| own.chain.clone()).unwrap_or_default();
        let chain = simulated::dial(&mut io, &own).await.map_err(away)?;
        let peer = peer(Some(&chain), &proof)?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).enable_push(false);
        let (requests, mut connection) = builder.handshake(io).await.map_err(away)?;
        let ping = connection.ping_pong();
        tokio::task::spawn_local(async move {
            // Whoever waits for an answer gets the error too.
            let _ = connection.await;
        });
        Ok(Connection { requests, ping, local, peer })
    };
    let result = tokio::time::timeout(CONNECT + HANDSHAKE, handshakes).await;
    result.unwrap_or_else(|_| Err(Problem::Away(format!("no handshake within {HANDSHAKE:?}"))))
}

/// Both handshakes.
async fn secure(stream: TcpStream, proof: &Proof) -> Result<Connection, Problem> {
    let local = stream.local_addr().map_err(away)?.ip();
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNANSWERED));
    let config = config(proof).map_err(away)?;
    let handshakes = async {
        let tls = TlsConnector::from(config).connect(tls::any_name(), stream).await;
        let tls = tls.map_err(|error| failed(&error, proof))?;
        let peer = peer(tls.get_ref().1.peer_certificates(), proof)?;
        if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(Problem::Away("it does not speak HTTP/2".into()));
        }
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).enable_push(false);
        let (requests, mut connection) = builder.handshake(tls).await.map_err(away)?;
        let ping = connection.ping_pong();
        tokio::spawn(async move {
            // Whoever waits for an answer gets the error too.
            let _ = connection.await;
        });
        Ok(Connection { requests, ping, local, peer })
    };
    match tokio::time::timeout(HANDSHAKE, handshakes).await {
        Ok(result) => result,
        Err(_) => Err(Problem::Away(format!("no handshake within {HANDSHAKE:?}"))),
    }
}

fn config(proof: &Proof) -> Result<Arc<ClientConfig>, rustls::Error> {
    match proof {
        Proof::Pinned(root) => pinned_client_config(*root, &[b"h2"]),
        Proof::Live(live) => tls::client_config(live.clone(), &[b"h2"]),
    }
}

/// Who answers: a control plane, and one of the own trust domain.
fn peer(chain: Option<&[rustls::pki_types::CertificateDer<'_>]>, proof: &Proof) -> Result<SpiffeId, Problem> {
    let impostor = |why: String| Problem::Impostor(why);
    let (peer, domain) = match proof {
        Proof::Pinned(root) => {
            let peer = verify_pinned(chain.unwrap_or_default(), root, std::time::SystemTime::now());
            (peer.map_err(|why| impostor(why.to_string()))?, None)
        }
        Proof::Live(live) => {
            let peer = tls::peer_of(chain, live, Usage::Server).map_err(|why| impostor(why.to_string()))?;
            let own = live.load().credentials.as_ref().map(|own| own.id.trust_domain().clone());
            (peer, own)
        }
    };
    if peer.id.as_control().is_none() {
        return Err(impostor(format!("{} is no control plane", peer.id)));
    }
    match domain {
        Some(domain) if domain != *peer.id.trust_domain() => {
            Err(impostor(format!("{} is not of the trust domain {domain}", peer.id)))
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
    pub async fn post<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        path: &str,
        message: &Q,
    ) -> Result<A, Problem> {
        let body = serde_json::to_vec(message).map_err(away)?;
        let answer = self.post_bytes(path, JSON, body.into()).await?;
        match answer.status {
            200 => serde_json::from_slice(&answer.body)
                .map_err(|error| Problem::Away(format!("its answer cannot be read: {error}"))),
            status => Err(refusal(status, &answer.body)),
        }
    }

    /// Sends a message of another media type and waits for the answer, whatever it says.
    ///
    /// # Errors
    /// The control plane is gone.
    pub async fn post_bytes(&mut self, path: &str, media: &str, body: Bytes) -> Result<Answer, Problem> {
        match tokio::time::timeout(ANSWER, self.exchange(path, media, body)).await {
            Ok(result) => result,
            Err(_) => Err(Problem::Away(format!("no answer within {ANSWER:?}"))),
        }
    }

    async fn exchange(&mut self, path: &str, media: &str, body: Bytes) -> Result<Answer, Problem> {
        let mut requests = self.requests.clone().ready().await.map_err(away)?;
        let (answer, mut send) = requests.send_request(request(path, media)?, false).map_err(away)?;
        send.send_data(body, true).map_err(away)?;
        let answer = answer.await.map_err(away)?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let mut incoming = answer.into_body();
        let mut bytes = Vec::new();
        while let Some(chunk) = incoming.data().await {
            let chunk = chunk.map_err(away)?;
            let _ = incoming.flow_control().release_capacity(chunk.len());
            if bytes.len() + chunk.len() > LONGEST_ANSWER {
                return Err(Problem::Away("its answer is too long".into()));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body: bytes.into() })
    }
}

/// The media type of every message but those of OTLP.
pub const JSON: &str = "application/json";

/// A POST's head.
///
/// # Errors
/// Never in practice: the path is one of ours.
pub fn request(path: &str, media: &str) -> Result<http::Request<()>, Problem> {
    http::Request::post(format!("https://control{path}")).header("content-type", media).body(()).map_err(away)
}

/// What an answer other than 200 means.
pub fn refusal(status: u16, body: &[u8]) -> Problem {
    let said = serde_json::from_slice::<pilotfish_config::wire::Failure>(body).map(|failure| failure.error);
    let said = said.unwrap_or_else(|_| format!("it answers {status}"));
    match status {
        400..=499 if !matches!(status, 408 | 409 | 425 | 429) => Problem::Refused(said),
        _ => Problem::Away(said),
    }
}

/// An address that others can use, for a listener that may be on all addresses.
pub fn reachable(listener: SocketAddr, local: IpAddr) -> SocketAddr {
    let ip = if listener.ip().is_unspecified() { local.to_canonical() } else { listener.ip() };
    SocketAddr::new(ip, listener.port())
}
