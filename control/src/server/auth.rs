//! Who asks, and whether they may.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use pilotfish_identity::{Peer as Identified, SpiffeId};

use super::answer::Denied;
use super::route::Needs;
use super::{Control, administrators};

/// The path of administrators' identities: `spiffe://<trust domain>/ns/pilotfish-system/admin/<name>`.
pub(super) const ADMINISTRATORS: &str = "/ns/pilotfish-system/admin/";

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) enum Peer {
    /// Somebody on the network, with the identity that a certificate proved.
    Network(SocketAddr, Option<Arc<Identified>>),
    /// The owner of the data folder, or root, on its Unix socket.
    Owner(String),
}

impl Peer {
    /// The address, when there is one.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Peer::Network(address, _) => Some(*address),
            Peer::Owner(_) => None,
        }
    }
}

/// One who was let in.
#[derive(Debug, Clone)]
pub(super) enum Caller {
    /// An administrator, by a name for history and log.
    Administrator(String),
    /// A sidecar.
    Sidecar(Arc<Identified>),
    /// One whose token is still to be looked at.
    Joining,
}

impl Caller {
    /// The name for history and log.
    pub(super) fn name(&self) -> &str {
        match self {
            Caller::Administrator(name) => name,
            Caller::Sidecar(peer) => peer.id.as_str(),
            Caller::Joining => "joining",
        }
    }
}

impl Control {
    /// Decides who may do what a row needs.
    ///
    /// # Errors
    /// 401 for one who is not known, 403 for one who may not, 429 after too many bad tokens.
    pub(super) async fn admit(
        &self,
        needs: Needs,
        peer: &Peer,
        headers: &HeaderMap,
    ) -> Result<Caller, Denied> {
        match (needs, peer) {
            (Needs::Token, _) => Ok(Caller::Joining),
            (Needs::Sidecar, Peer::Network(_, Some(peer))) => {
                self.still_trusted(peer)?;
                Ok(Caller::Sidecar(peer.clone()))
            }
            (Needs::Sidecar, _) => Err(Denied::forbidden("this needs a sidecar's certificate, over TLS")),
            (Needs::Owner, Peer::Network(..)) => Err(Denied::forbidden(
                "a backup holds the keys of the certificate authority: make it on the control plane's machine, where its Unix socket is",
            )),
            (Needs::Administrator | Needs::Owner, Peer::Owner(name)) => {
                Ok(Caller::Administrator(name.clone()))
            }
            (Needs::Administrator, Peer::Network(address, peer)) => {
                if let Some((peer, name)) =
                    peer.as_ref().and_then(|peer| Some((peer, self.administrator(&peer.id)?)))
                {
                    self.still_trusted(peer)?;
                    return Ok(Caller::Administrator(name));
                }
                self.by_token(*address, headers).await
            }
        }
    }

    /// What the handshake found may have changed since: revoked, expired, its root not trusted any more.
    pub(super) fn still_trusted(&self, peer: &Identified) -> Result<(), Denied> {
        self.live.still_trusted(peer).map_err(|refused| Denied::forbidden(refused.to_string()))?;
        if peer.not_after < self.live.now() {
            return Err(Denied::forbidden("the certificate has expired; join again with a new token"));
        }
        Ok(())
    }

    /// The name in an administrator's certificate.
    fn administrator(&self, id: &SpiffeId) -> Option<String> {
        let path = id.as_str().strip_prefix("spiffe://")?.strip_prefix(self.trust_domain.as_str())?;
        let name = path.strip_prefix(ADMINISTRATORS)?;
        (!name.contains('/')).then(|| name.to_owned())
    }

    /// An administrator by the token in the headers.
    pub(super) async fn by_token(&self, address: SocketAddr, headers: &HeaderMap) -> Result<Caller, Denied> {
        let Some(token) = bearer(headers) else { return Err(Denied::unknown()) };
        self.guard.may_try(address.ip())?;
        match administrators::named(&self.store, token).await? {
            Some(name) => Ok(Caller::Administrator(name)),
            None => {
                self.guard.failed(address.ip());
                crate::log::warn!("a wrong administrator's token was refused", from = address.ip());
                Err(Denied::unknown())
            }
        }
    }
}

/// The token of the one `Authorization: Bearer` header; of two none counts.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (first, second) = (all.next()?, all.next());
    let (scheme, token) = first.to_str().ok()?.split_once(' ')?;
    (second.is_none() && scheme.eq_ignore_ascii_case("bearer")).then(|| token.trim())
}
