//! What an endpoint has to prove to a health check: the same as to a call. On the background runtime, so by tokio-rustls.

use std::sync::Arc;

use pilotfish_identity::tls::{any_name, peer_of};
use pilotfish_identity::{SpiffeId, Usage};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::Tls;
use super::dial::{Secure, is_one_of};
use crate::request::dial::Protocol;

/// A connection, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// What the other end has to be. Unlike [`Secure`] it belongs to nobody's snapshot.
#[derive(Debug, Clone)]
pub enum Proof {
    /// Anybody.
    Nothing,
    /// The sidecar with this SPIFFE ID, or with one of those besides.
    Mesh(Box<str>, Box<[Arc<str>]>),
    /// A host outside of the mesh.
    Outside(Arc<ClientConfig>, ServerName<'static>),
}

impl Proof {
    /// What a call would ask for.
    ///
    /// # Errors
    /// The name cannot be one of a certificate.
    pub fn of(secure: &Secure<'_>, protocol: Protocol) -> Result<Proof, String> {
        Ok(match secure {
            Secure::Plain => Proof::Nothing,
            Secure::Mesh(expected, others) => Proof::Mesh((*expected).into(), (*others).into()),
            Secure::Outside(settings, name) => {
                let name = settings.server_name(name).map_err(|error| error.to_string())?;
                Proof::Outside(settings.client(protocol), name)
            }
        })
    }
}

/// Makes the other end prove what it has to; gives who it is, when it is another sidecar.
///
/// # Errors
/// Why it is not believed, for people.
pub async fn secure<S: Stream + 'static>(
    own: &Tls,
    stream: S,
    proof: &Proof,
    protocol: Protocol,
) -> Result<(Box<dyn Stream>, Option<SpiffeId>), String> {
    let (config, name) = match proof {
        Proof::Nothing => return Ok((Box::new(stream), None)),
        Proof::Mesh(..) => (own.client(protocol), any_name()),
        Proof::Outside(config, name) => (config.clone(), name.clone()),
    };
    let shaken = TlsConnector::from(config).connect(name, stream).await;
    let made = shaken.map_err(|error| format!("TLS handshake: {error}"))?;
    let mut proved = None;
    if let Proof::Mesh(expected, others) = proof {
        let peer = peer_of(made.get_ref().1.peer_certificates(), &own.live, Usage::Server);
        let peer = peer.map_err(|refused| refused.to_string())?;
        if !is_one_of(&peer.id, expected, others) {
            return Err(format!("it is {}, not {expected}", peer.id));
        }
        proved = Some(peer.id);
    }
    Ok((Box::new(made), proved))
}
