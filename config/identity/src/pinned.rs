//! Knowing a control plane by nothing but the SHA-256 of its root certificate: for the first join, over a network that
//! nobody trusts. The chain that is presented has to contain that root, and has to lead up to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use data_encoding::BASE64;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, PeerMisbehaved, SignatureScheme};

use crate::bundles::{Bundles, Fingerprint, fingerprint};
use crate::certificate;
use crate::refused::Refused;
use crate::tls::provider;
use crate::verify::{Peer, Usage, algorithms, check_size, verify_peer};

/// Verifies a server's chain that has to contain, and lead up to, the root with this fingerprint.
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
    let id = certificate::identity(&certificate::parse(leaf).map_err(Refused::Unreadable)?)?;
    let pinned = chain.iter().find(|certificate| fingerprint(certificate) == *root);
    let pinned = pinned.ok_or_else(|| Refused::Untrusted(id.clone()))?;
    let bundle = BTreeMap::from([(id.trust_domain().clone(), pem(pinned))]);
    let bundles = Bundles::from_pem(&bundle).map_err(|why| Refused::Unreadable(why.to_string()))?;
    verify_peer(chain, &bundles, Usage::Server, now)
}

/// What opens connections to a server that is known by its root alone. No certificate of one's own is shown.
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

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = BASE64.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
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
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(now.as_secs());
        let chain: Vec<CertificateDer<'_>> =
            std::iter::once(leaf).chain(others).map(|der| CertificateDer::from(der.as_ref())).collect();
        verify_pinned(&chain, &self.0, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerMisbehaved(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}
