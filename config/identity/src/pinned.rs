//! Knowing a control plane by nothing but the SHA-256 of its root certificate: for the first join, over a network that
//! nobody trusts. The chain that is presented has to contain that root, and has to lead up to it.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use crate::bundles::{Bundles, Fingerprint, fingerprint};
use crate::certificate;
use crate::refused::Refused;
use crate::tls::{provider, system_time, tls12_signature, tls13_signature, whole_chain};
use crate::verify::{Peer, Usage, algorithms, check_size, verify_peer};

/// Verifies a control plane's chain that has to contain, and lead up to, the root with this fingerprint. Anybody else of
/// the mesh is refused: a token would be theirs.
///
/// # Errors
/// Why the server is not taken.
pub fn verify_pinned(
    chain: &[CertificateDer<'_>],
    root: &Fingerprint,
    now: SystemTime,
) -> Result<Peer, Refused> {
    check_size(chain)?;
    let leaf = chain.first().ok_or(Refused::NoCertificate)?;
    let id = certificate::identity_of(leaf)?;
    let pinned = chain.iter().find(|certificate| fingerprint(certificate) == *root);
    let pinned = pinned.ok_or_else(|| Refused::Untrusted(id.clone()))?;
    let bundles = Bundles::single(id.trust_domain(), pinned).map_err(Refused::Unreadable)?;
    let peer = verify_peer(chain, &bundles, Usage::Server, now)?;
    if peer.id.as_control().is_some() { Ok(peer) } else { Err(Refused::NoControlPlane(peer.id)) }
}

/// What opens connections to a control plane that is known by its root alone. No certificate of one's own is shown.
///
/// # Errors
/// The cryptography that this program was built with has no TLS 1.3.
pub fn pinned_client_config(root: Fingerprint, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned(root)))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Pinned(Fingerprint);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_pinned(&whole_chain(leaf, others), &self.0, system_time(now))?;
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
