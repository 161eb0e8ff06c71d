//! What a new upstream connection has to prove before a byte of a request is sent on it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_config::model::TlsMode;
use pilotfish_filters::cluster::Cluster;
use pilotfish_filters::endpoint::Endpoint;
use pilotfish_filters::verdict::{Deny, Reason};
use pilotfish_identity::tls::{any_name, peer_of};
use pilotfish_identity::{Peer, Refused, SpiffeId, Usage};
use rustls::Error;

use super::outside::{Outside, OutsideSet};
use super::{MeshPeer, Tls};
use crate::http::Io;
use crate::http::io::handshake::{self, Broken};
#[cfg(feature = "sim")]
use crate::net::simulated;
use crate::request::dial::Protocol;
use crate::telemetry::metrics::Handshake;
use crate::worker::Worker;

/// How long a handshake may take within the mesh: a dead peer is noticed within 2 s.
const MESH_PATIENCE: Duration = Duration::from_secs(2);

/// What the other end has to be.
#[derive(Debug, Clone, Copy)]
pub enum Secure<'a> {
    /// Nothing is proved.
    Plain,
    /// The sidecar with this SPIFFE ID, or with one of those besides.
    Mesh(&'a str, &'a [Arc<str>]),
    /// A host outside of the mesh, by this name.
    Outside(&'a Outside, &'a str),
}

/// What the other end of a kept connection proved.
#[derive(Debug, Clone)]
pub enum Proved {
    /// Nothing.
    Nothing,
    /// Who it is in the mesh.
    Mesh(Rc<MeshPeer>),
    /// That it has this name under these settings.
    Outside([u8; 32], Box<str>),
}

impl Proved {
    /// The sidecar that it is.
    pub fn peer(&self) -> Option<&Rc<MeshPeer>> {
        match self {
            Proved::Mesh(peer) => Some(peer),
            Proved::Nothing | Proved::Outside(..) => None,
        }
    }

    /// Whether a connection is what is asked for now: never one that was made under another policy or for another peer.
    pub fn suits(&self, wanted: &Secure<'_>) -> bool {
        match (self, wanted) {
            (Proved::Nothing, Secure::Plain) => true,
            (Proved::Mesh(found), Secure::Mesh(expected, others)) => {
                is_one_of(&found.peer.id, expected, others)
            }
            (Proved::Outside(digest, found), Secure::Outside(settings, name)) => {
                *digest == settings.digest && **found == **name
            }
            _ => false,
        }
    }
}

impl<'a> Secure<'a> {
    /// What an endpoint of a cluster has to prove.
    ///
    /// # Errors
    /// `upstream-identity`: it is in the mesh, and nobody knows who it should be; or we have no identity to show.
    pub fn of_endpoint(
        own: &Tls,
        outside: &'a OutsideSet,
        cluster: &'a Cluster,
        endpoint: &'a Endpoint,
    ) -> Result<Secure<'a>, Deny> {
        match cluster.settings.tls.as_ref().map(|tls| tls.mode) {
            Some(TlsMode::Disable) => Ok(Secure::Plain),
            Some(TlsMode::Simple | TlsMode::Mutual) => {
                Secure::outside(outside, cluster, endpoint.hostname.as_deref().unwrap_or(&cluster.host))
            }
            Some(TlsMode::IstioMutual) => Secure::mesh(own, cluster, endpoint),
            None if endpoint.mesh && own.has_identity() => Secure::mesh(own, cluster, endpoint),
            None => Ok(Secure::Plain),
        }
    }

    /// What a host that the request itself names has to prove.
    ///
    /// # Errors
    /// As [`Secure::of_endpoint`].
    pub fn of_host(outside: &'a OutsideSet, cluster: &'a Cluster, host: &'a str) -> Result<Secure<'a>, Deny> {
        match cluster.settings.tls.as_ref().map(|tls| tls.mode) {
            None | Some(TlsMode::Disable) => Ok(Secure::Plain),
            Some(TlsMode::Simple | TlsMode::Mutual) => Secure::outside(outside, cluster, host),
            Some(TlsMode::IstioMutual) => {
                let detail = format!("{host} has no endpoint whose SPIFFE ID is known (tls: ISTIO_MUTUAL)");
                Err(Deny::with(Reason::UpstreamIdentity, detail))
            }
        }
    }

    fn outside(outside: &'a OutsideSet, cluster: &Cluster, host: &'a str) -> Result<Secure<'a>, Deny> {
        let settings = outside.of(cluster).ok_or_else(|| {
            Deny::with(Reason::TlsHandshakeFailed, "the TLS settings of this cluster are not loaded")
        })?;
        Ok(Secure::Outside(settings, settings.name.as_deref().unwrap_or(host)))
    }

    fn mesh(own: &Tls, cluster: &'a Cluster, endpoint: &'a Endpoint) -> Result<Secure<'a>, Deny> {
        if !own.has_identity() {
            let detail = "mTLS is asked for (tls: ISTIO_MUTUAL), and this sidecar has no identity to show";
            return Err(Deny::with(Reason::UpstreamIdentity, detail));
        }
        let expected = endpoint.identity.as_deref();
        expected.map(|id| Secure::Mesh(id, &cluster.settings.subject_alt_names)).ok_or_else(|| {
            let detail = format!(
                "{} is in the mesh, but its SPIFFE ID is not known: it needs pilotfish.dev/agent or a serviceAccount",
                endpoint.addr
            );
            Deny::with(Reason::UpstreamIdentity, detail)
        })
    }

    /// Whether the other end is another sidecar.
    pub fn is_mesh(&self) -> bool {
        matches!(self, Secure::Mesh(..))
    }
}

/// Makes the other end prove what it has to. Nothing was sent but TLS when this fails.
///
/// # Errors
/// `upstream-identity`, `tls-handshake-failed`, `connect-timeout`.
pub async fn secure(
    worker: &Worker,
    io: Io,
    wanted: &Secure<'_>,
    protocol: Protocol,
    patience: Duration,
) -> Result<(Io, Proved), Deny> {
    if matches!(wanted, Secure::Plain) {
        return Ok((io, Proved::Nothing));
    }
    if matches!(io, Io::Unix(_)) {
        return Err(Deny::with(Reason::TlsHandshakeFailed, "TLS over a Unix socket is not supported"));
    }
    let made = Box::pin(async {
        match wanted {
            Secure::Outside(settings, name) => outside(io, settings, name, protocol).await,
            Secure::Mesh(expected, others) => {
                let made = mesh(worker, io, expected, others, protocol);
                let made = tokio::time::timeout(patience.min(MESH_PATIENCE), made);
                made.await.unwrap_or(Err(Why::Timeout))
            }
            Secure::Plain => Err(Why::Timeout),
        }
    });
    let made = match wanted {
        Secure::Outside(..) => tokio::time::timeout(patience, made).await.unwrap_or(Err(Why::Timeout)),
        _ => made.await,
    };
    match made {
        Ok(made) => {
            worker.metrics.handshake(Handshake::Dialled);
            Ok(made)
        }
        Err(why) => {
            worker.metrics.handshake(Handshake::dial_failed(why.word()));
            Err(why.into_deny())
        }
    }
}

/// Why an upstream is not used.
enum Why {
    Timeout,
    Handshake(Broken),
    Peer(Refused),
}

impl Why {
    fn word(&self) -> &'static str {
        match self {
            Why::Timeout => "timeout",
            Why::Handshake(broken) => word(broken),
            Why::Peer(refused) => refused.reason(),
        }
    }

    fn into_deny(self) -> Deny {
        match self {
            Why::Timeout => Deny::with(Reason::ConnectTimeout, "the TLS handshake took too long"),
            Why::Peer(refused) => Deny::with(Reason::UpstreamIdentity, refused.to_string()),
            Why::Handshake(Broken::Tls(error)) if matches!(error, Error::InvalidCertificate(_)) => {
                Deny::with(Reason::UpstreamIdentity, error.to_string())
            }
            Why::Handshake(broken) => Deny::with(Reason::TlsHandshakeFailed, broken.to_string()),
        }
    }
}

/// The word for a failed handshake in metrics and logs.
pub(super) fn word(broken: &Broken) -> &'static str {
    match broken {
        Broken::Io(_) | Broken::Closed => "closed",
        Broken::TooLong => "too-long",
        Broken::Tls(error) => Refused::reason_of(error),
    }
}

pub(super) fn is_one_of(found: &SpiffeId, expected: &str, others: &[Arc<str>]) -> bool {
    found.as_str() == expected || others.iter().any(|other| **other == *found.as_str())
}

async fn mesh(
    worker: &Worker,
    io: Io,
    expected: &str,
    others: &[Arc<str>],
    protocol: Protocol,
) -> Result<(Io, Proved), Why> {
    let shown = worker.shared.tls.own();
    let (io, peer) = shake(worker, io, protocol).await?;
    if !is_one_of(&peer.id, expected, others) {
        let wanted = SpiffeId::parse(expected);
        return Err(Why::Peer(match wanted {
            Ok(expected) => Refused::WrongIdentity { expected, found: peer.id },
            Err(error) => Refused::NoIdentity(error.to_string()),
        }));
    }
    let mut peer = MeshPeer::new(peer, None);
    // Only what was in force before and after is certainly what was shown.
    if let (Some(shown), Some(now)) = (shown, worker.shared.tls.own())
        && Arc::ptr_eq(&shown, &now)
    {
        peer.shown = Arc::downgrade(&shown);
    }
    let peer = Rc::new(peer);
    if let Some(fuse) = io.fuse() {
        worker.peers.add(peer.clone(), fuse, None);
    }
    Ok((io, Proved::Mesh(peer)))
}

/// The handshake, and who is called by it.
async fn shake(worker: &Worker, io: Io, protocol: Protocol) -> Result<(Io, Peer), Why> {
    let own = &worker.shared.tls;
    match io {
        Io::Tcp(stream) => {
            let tls = handshake::connect(stream, own.client(protocol), any_name()).await;
            let tls = tls.map_err(Why::Handshake)?;
            let peer = peer_of(tls.peer_certificates(), &own.live, Usage::Server).map_err(Why::Peer)?;
            Ok((Io::Tls(Box::new(tls)), peer))
        }
        #[cfg(feature = "sim")]
        mut io @ Io::Simulated(_) => {
            let shown = own.own().map(|own| own.chain.clone()).unwrap_or_default();
            let chain = simulated::dial(&mut io, &shown).await;
            let chain = chain.map_err(|error| Why::Handshake(Broken::Io(error)))?;
            let peer = peer_of(Some(&chain), &own.live, Usage::Server).map_err(Why::Peer)?;
            Ok((io, peer))
        }
        _ => Err(Why::Handshake(Broken::Closed)),
    }
}

async fn outside(io: Io, settings: &Outside, name: &str, protocol: Protocol) -> Result<(Io, Proved), Why> {
    let Io::Tcp(stream) = io else { return Err(Why::Handshake(Broken::Closed)) };
    let server = settings.server_name(name).map_err(|error| Why::Handshake(Broken::Tls(error)))?;
    let tls = handshake::connect(stream, settings.client(protocol), server).await.map_err(Why::Handshake)?;
    Ok((Io::Tls(Box::new(tls)), Proved::Outside(settings.digest, name.into())))
}
