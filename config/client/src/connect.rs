//! A connection to a control plane: TLS 1.3, HTTP/2, and proof that a control plane is at the other end.
//!
//! Before the join only the root's fingerprint is known ([`Proof::Pinned`]); after it the identity in force says whom to
//! trust ([`Proof::Live`]). Either way the certificate has to be a control plane's own: any agent has one of the same root.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pilotfish_identity::{
    Fingerprint, LiveIdentity, SpiffeId, Usage, hex, pinned_client_config, tls, verify_pinned,
};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::problem::away;
use crate::{Connection, Problem, speak};

/// For each address of a control plane; another control plane has to be found within 2 s.
pub const CONNECT: Duration = Duration::from_secs(1);
/// For both handshakes.
pub const HANDSHAKE: Duration = Duration::from_secs(2);
/// How long the kernel waits for an acknowledgement before the connection is dead: less than a lease.
const UNANSWERED: Duration = Duration::from_secs(2);

/// By what a control plane is known.
#[derive(Debug, Clone)]
pub enum Proof {
    /// Its chain leads to the root with this SHA-256.
    Pinned(Fingerprint),
    /// Its chain leads to a root of the own trust domain; the own certificate is shown to it.
    Live(Arc<LiveIdentity>),
}

/// Connects to a control plane at the first of its addresses that takes a connection. To be called on a runtime.
///
/// # Errors
/// It is away, or it is none.
pub async fn connect(
    addresses: impl IntoIterator<Item = IpAddr>,
    port: u16,
    proof: &Proof,
) -> Result<Connection, Problem> {
    let mut last = Problem::Away("its name has no address".into());
    for ip in addresses {
        match timeout(CONNECT, TcpStream::connect(SocketAddr::new(ip, port))).await {
            Ok(Ok(stream)) => {
                let made = timeout(HANDSHAKE, secure(stream, proof)).await;
                return made.unwrap_or_else(|_| Err(away(format!("no handshake within {HANDSHAKE:?}"))));
            }
            Ok(Err(error)) => last = away(error),
            Err(_) => last = Problem::Away(format!("no connection within {CONNECT:?}")),
        }
    }
    Err(last)
}

/// Both handshakes.
async fn secure(stream: TcpStream, proof: &Proof) -> Result<Connection, Problem> {
    let local = stream.local_addr().map_err(away)?.ip();
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNANSWERED));
    let connector = TlsConnector::from(config(proof).map_err(away)?);
    let tls = connector.connect(tls::any_name(), stream).await.map_err(|error| failed(&error, proof))?;
    let peer = peer(tls.get_ref().1.peer_certificates(), proof)?;
    if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(Problem::Away("it does not speak HTTP/2".into()));
    }
    let (connection, driver) = speak(tls, local, peer).await?;
    tokio::spawn(driver);
    Ok(connection)
}

fn config(proof: &Proof) -> Result<Arc<ClientConfig>, rustls::Error> {
    match proof {
        Proof::Pinned(root) => pinned_client_config(*root, &[b"h2"]),
        Proof::Live(live) => tls::client_config(live.clone(), &[b"h2"]),
    }
}

/// Who answers, by its chain: a control plane, and one of the own trust domain.
///
/// # Errors
/// It is somebody else ([`Problem::Impostor`]).
pub fn peer(chain: Option<&[CertificateDer<'_>]>, proof: &Proof) -> Result<SpiffeId, Problem> {
    let impostor = |why: &dyn fmt::Display| Problem::Impostor(why.to_string());
    let (peer, domain) = match proof {
        Proof::Pinned(root) => {
            let peer = verify_pinned(chain.unwrap_or_default(), root, SystemTime::now());
            (peer.map_err(|why| impostor(&why))?, None)
        }
        Proof::Live(live) => {
            let peer = tls::peer_of(chain, live, Usage::Server).map_err(|why| impostor(&why))?;
            let own = live.load().credentials.as_ref().map(|own| own.id.trust_domain().clone());
            (peer, own)
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
fn failed(error: &io::Error, proof: &Proof) -> Problem {
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
