//! Which way a question goes: to an endpoint of a service that the mesh knows, as a call of the agent would; else to what DNS says.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use pilotfish_config::model::TlsMode;
use pilotfish_filters::balance::Pick;
use pilotfish_filters::cluster::{Cluster, Kind, Lease, Outcome};
use pilotfish_filters::endpoint::Endpoint;
use pilotfish_filters::verdict::Deny;
use pilotfish_identity::SpiffeId;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::UnixStream;

use super::connection::{Connection, Service, connect, speak};
use super::kept::{Files, Key, Proof, To};
use crate::clock::Clock;
use crate::request::dial::Protocol;
use crate::server::Shared;
use crate::tls::client::{TlsFiles, tls};
use crate::tls::dial::Secure;
use crate::tls::outside::OutsideSet;
use crate::tls::{Tls, check};

/// What a question says of where it goes.
#[derive(Debug)]
pub(super) struct Place {
    /// In lower case, without brackets.
    pub host: Box<str>,
    pub port: u16,
    pub h2: bool,
    pub https: bool,
    /// What whoever asks names for TLS: it goes before a DestinationRule.
    pub files: Files,
    /// Roots where nobody names any.
    pub usual_roots: Option<PathBuf>,
    /// It has a secret in it.
    pub secret: bool,
}

/// A way to a service.
pub(super) struct Way {
    /// Whose kept connections are of use.
    pub key: Key,
    /// The settings of a DestinationRule.
    config: Option<Arc<ClientConfig>>,
    lease: Option<Lease>,
}

impl Way {
    /// The way, to another endpoint than those that were `tried`, if there is one.
    pub fn find(shared: &Shared, place: &Place, tried: &[SocketAddr]) -> Result<Way, String> {
        let snapshot = shared.snapshots.newest();
        let Some(cluster) = snapshot.plan.questioned(&place.host, place.port) else {
            let proof = if place.https { by_files(place) } else { Proof::Nothing };
            return Ok(Way { key: place.key(by_name(place), proof), config: None, lease: None });
        };
        let of_cluster = |deny: Deny| {
            let why = deny.detail.as_deref().unwrap_or(deny.reason.word());
            format!("the service {} of the mesh: {why}", cluster.name)
        };
        if cluster.kind == Kind::Original {
            let secure = Secure::of_host(&snapshot.outside, cluster, &place.host).map_err(of_cluster)?;
            let (proof, config) = place.proof(&secure, cluster)?;
            return Ok(Way { key: place.key(by_name(place), proof), config, lease: None });
        }
        let pick = Pick { key: None, now: shared.clock.now(), tried, remote: false, compared: None };
        let lease = cluster.pick(&pick, &mut fastrand::Rng::new()).map_err(of_cluster)?;
        let (proof, config) = {
            let endpoint = lease.endpoint();
            let secure = secure_of(&shared.tls, &snapshot.outside, cluster, endpoint).map_err(of_cluster)?;
            place.proof(&secure, cluster)?
        };
        let to = address(lease.endpoint());
        if proof == Proof::Nothing && place.secret && !to.stays_here() {
            return Err(format!(
                "the service {} of the mesh would be told a secret in plaintext",
                cluster.name
            ));
        }
        Ok(Way { key: place.key(to, proof), config, lease: Some(lease) })
    }

    /// The endpoint that it leads to, if it is one of several.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        self.lease.as_ref().map(|lease| lease.endpoint().addr)
    }

    /// Says how it went.
    pub fn record(&mut self, clock: &Clock, began: pilotfish_filters::clock::Micros, outcome: Outcome) {
        let now = clock.now();
        if let Some(lease) = &mut self.lease {
            lease.record(now, outcome, now.since(began));
        }
    }

    /// A new connection, and who it is that was called, when that is another sidecar.
    pub async fn connect(&self, shared: &Shared) -> Result<(Connection, Option<SpiffeId>), String> {
        let h2 = self.key.h2;
        let protocol = if h2 { Protocol::Http2 } else { Protocol::Http1 };
        let proof = match &self.key.proof {
            Proof::Nothing => check::Proof::Nothing,
            Proof::Files(files, name) => check::Proof::Outside(config(files, h2)?, server_name(name)?),
            Proof::Settings(_, name) => {
                let config = self.config.clone().ok_or("its TLS settings are not loaded")?;
                check::Proof::Outside(config, server_name(name)?)
            }
            Proof::Mesh(expected, others) => check::Proof::Mesh(expected.clone(), others.clone()),
        };
        match &self.key.to {
            To::Name(host, port) => {
                let tls = match proof {
                    check::Proof::Outside(config, name) => Some((config, name)),
                    _ => None,
                };
                Ok((Connection::open(&shared.dns, &Service { host, port: *port, tls, h2 }).await?, None))
            }
            To::Address(address) => {
                let stream = connect(*address).await?;
                let (stream, called) = check::secure(&shared.tls, stream, &proof, protocol).await?;
                Ok((speak(stream, h2).await?, called))
            }
            To::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.map_err(|error| format!("{}: {error}", path.display()))?;
                let (stream, called) = check::secure(&shared.tls, stream, &proof, protocol).await?;
                Ok((speak(stream, h2).await?, called))
            }
        }
    }
}

impl Place {
    fn key(&self, to: To, proof: Proof) -> Key {
        Key { to, h2: self.h2, proof }
    }

    /// What the other end has to prove. What whoever asks has written goes before the DestinationRule, and `https` is never less than TLS.
    fn proof(
        &self,
        secure: &Secure<'_>,
        cluster: &Cluster,
    ) -> Result<(Proof, Option<Arc<ClientConfig>>), String> {
        let protocol = if self.h2 { Protocol::Http2 } else { Protocol::Http1 };
        Ok(match secure {
            Secure::Mesh(expected, others) => (Proof::Mesh((*expected).into(), (*others).into()), None),
            Secure::Outside(settings, name) if !self.https || self.files == Files::default() => {
                let anybody = cluster.settings.tls.as_ref().and_then(|tls| tls.insecure_skip_verify);
                if self.secret && anybody == Some(true) {
                    return Err(format!(
                        "the DestinationRule of {} verifies nobody (insecureSkipVerify), and a secret would be sent",
                        cluster.host
                    ));
                }
                (Proof::Settings(settings.digest, (*name).into()), Some(settings.client(protocol)))
            }
            Secure::Outside(..) | Secure::Plain if self.https => (by_files(self), None),
            Secure::Outside(..) | Secure::Plain => (Proof::Nothing, None),
        })
    }
}

/// As a call's endpoint would have to prove it, but that a service without TLS of its own does nothing to `https`.
fn secure_of<'a>(
    own: &Tls,
    outside: &'a OutsideSet,
    cluster: &'a Cluster,
    endpoint: &'a Endpoint,
) -> Result<Secure<'a>, Deny> {
    match cluster.settings.tls.as_ref().map(|tls| tls.mode) {
        Some(TlsMode::Simple | TlsMode::Mutual) if endpoint.unix.is_some() => Ok(Secure::Plain),
        _ => Secure::of_endpoint(own, outside, cluster, endpoint),
    }
}

fn by_name(place: &Place) -> To {
    To::Name(place.host.clone(), place.port)
}

fn by_files(place: &Place) -> Proof {
    let mut files = place.files.clone();
    files.roots = files.roots.or_else(|| place.usual_roots.clone());
    Proof::Files(files, place.host.clone())
}

fn address(endpoint: &Endpoint) -> To {
    endpoint.unix.clone().map_or(To::Address(endpoint.addr), To::Unix)
}

impl To {
    /// Nobody but this machine sees it.
    fn stays_here(&self) -> bool {
        match self {
            To::Address(address) => address.ip().is_loopback(),
            To::Unix(_) => true,
            To::Name(..) => false,
        }
    }
}

fn config(files: &Files, h2: bool) -> Result<Arc<ClientConfig>, String> {
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let files = TlsFiles {
        certificate: files.roots.as_deref().map(text),
        client_certificate: files.client.as_ref().map(|(chain, _)| text(chain)),
        client_key: files.client.as_ref().map(|(_, key)| text(key)),
    };
    tls(&files, h2).map_err(|(_, why)| why)
}

fn server_name(name: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| format!("{name:?} is no name that a certificate could have"))
}
