//! TLS between sidecars, and between sidecars and the control plane: TLS 1.3, both ends verified by SPIFFE ID.
//!
//! Certificate and trust are read from a [`LiveIdentity`] at each handshake. There is no resumption: a resumed session
//! would skip the verification of the peer.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, ServerConfig,
    SignatureScheme,
};

use crate::live::LiveIdentity;
use crate::refused::Refused;
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::verify::{Peer, Usage, algorithms};

/// Whether clients have to have a certificate. One that they have is always verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// No certificate, no connection.
    Required,
    /// Without one the connection has no peer: [`peer_of`] says [`Refused::NoCertificate`].
    Optional,
}

/// What accepts connections of the mesh. `alpn`: protocols in order of preference.
///
/// # Errors
/// The cryptography that this program was built with has no TLS 1.3.
pub fn server_config(
    live: Arc<LiveIdentity>,
    clients: ClientAuth,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, Error> {
    let builder = ServerConfig::builder_with_details(provider(), live.clock());
    let mut config = builder
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(Clients { live: live.clone(), auth: clients }))
        .with_cert_resolver(Arc::new(Own(live)));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.send_tls13_tickets = 0;
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// What opens connections within the mesh. After the handshake, before a byte is sent: [`peer_of`] and [`expect`].
///
/// # Errors
/// The cryptography that this program was built with has no TLS 1.3.
pub fn client_config(live: Arc<LiveIdentity>, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_details(provider(), live.clock());
    let mut config = builder
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Servers(live.clone())))
        .with_client_cert_resolver(Arc::new(Own(live)));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    // Peers are known by SPIFFE ID; a name would only tell listeners on the way who is called.
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// The name that rustls wants for each connection; it is neither sent nor compared.
pub fn any_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
}

/// Who is at the other end, after a handshake: `certificates` is what rustls' connection says of the peer.
///
/// # Errors
/// There is no certificate, or it is not taken any more.
pub fn peer_of(
    certificates: Option<&[CertificateDer<'_>]>,
    live: &LiveIdentity,
    usage: Usage,
) -> Result<Peer, Refused> {
    live.verify(certificates.ok_or(Refused::NoCertificate)?, usage)
}

/// Whether the peer is a control plane of the given trust domain: what a sidecar that has joined asks.
///
/// # Errors
/// It is somebody else.
pub fn expect_control(peer: &Peer, domain: &TrustDomain) -> Result<(), Refused> {
    if peer.id.as_control().is_some() && peer.id.trust_domain() == domain {
        return Ok(());
    }
    Err(Refused::NoControlPlane(peer.id.clone()))
}

/// Whether the peer is the one that was called.
///
/// # Errors
/// It is another.
pub fn expect(peer: &Peer, expected: &SpiffeId) -> Result<(), Refused> {
    if peer.id == *expected {
        return Ok(());
    }
    Err(Refused::WrongIdentity { expected: expected.clone(), found: peer.id.clone() })
}

/// aws-lc-rs; X25519MLKEM768 is the first of its key exchanges (feature `prefer-post-quantum`).
///
/// AES-128-GCM comes first, as in BoringSSL: its SHA-256 is in the processor where SHA-384 is not, which is a tenth of a handshake.
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // The sort is stable: all others keep their order.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

pub(crate) fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

pub(crate) fn whole_chain<'a>(
    leaf: &'a CertificateDer<'a>,
    others: &'a [CertificateDer<'a>],
) -> Vec<CertificateDer<'a>> {
    let borrowed = |der: &'a CertificateDer<'a>| CertificateDer::from(der.as_ref());
    std::iter::once(leaf).chain(others).map(borrowed).collect()
}

pub(crate) fn tls13_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms())
}

/// TLS 1.2 is never offered.
pub(crate) fn tls12_signature() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::PeerMisbehaved(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme))
}

/// The own certificate of the moment.
#[derive(Debug)]
struct Own(Arc<LiveIdentity>);

impl Own {
    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        self.0.load().credentials.as_ref().map(|own| own.certified.clone())
    }
}

thread_local! {
    static ASKED: Cell<Option<Box<str>>> = const { Cell::new(None) };
}

/// The server name that a client asked this thread for since the last time: to be taken after each step of a server's handshake,
/// because rustls' unbuffered connections do not tell it otherwise.
pub fn take_asked() -> Option<Box<str>> {
    ASKED.take()
}

impl ResolvesServerCert for Own {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        ASKED.set(hello.server_name().map(Box::from));
        self.certified()
    }
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }

    fn has_certs(&self) -> bool {
        self.0.load().credentials.is_some()
    }
}

#[derive(Debug)]
struct Servers(Arc<LiveIdentity>);

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.verify_at(&whole_chain(leaf, others), Usage::Server, system_time(now))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls12_signature()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

#[derive(Debug)]
struct Clients {
    live: Arc<LiveIdentity>,
    auth: ClientAuth,
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.auth == ClientAuth::Required
    }

    /// No hints: every sidecar has one certificate only.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.live.verify_at(&whole_chain(leaf, others), Usage::Client, system_time(now))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls12_signature()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}
