//! TLS 1.3 to a control plane: it is known by its root, and its certificate has to be a control plane's, because every
//! agent has one of the same root.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pilotfish_identity::{
    Bundles, Fingerprint, Peer, Refused, SpiffeId, TrustDomain, Usage, tls, verify_peer, verify_pinned,
};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use super::{Connection, Failed, Why};
use crate::cli::trust::fingerprint;

/// How to verify the control plane, and what to show it.
#[derive(Debug)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
}

/// By what a control plane is known.
#[derive(Debug)]
enum Known {
    /// The root with this SHA-256, which it has to present.
    Pinned(Fingerprint),
    /// One of these roots (PEM).
    Roots(String),
}

impl Tls {
    /// By the flags.
    ///
    /// # Errors
    /// Nothing says how the control plane is known, or a file cannot be read.
    pub(super) fn of(connection: &Connection) -> Result<Tls, Failed> {
        let known = known(connection)?;
        let provider = tls::provider();
        let verifier = Verifier { known, provider: provider.clone() };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| Failed::refused(format!("TLS: {error}")))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match (&connection.client_cert, &connection.client_key) {
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(certificates(cert)?, private_key(key)?)
                .map_err(|error| Failed::usage(format!("--client-cert and --client-key: {error}")))?,
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(Tls { config: Arc::new(config) })
    }

    /// Both ends' handshake.
    ///
    /// # Errors
    /// It is not the control plane that was meant, or no TLS is spoken there.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        place: &str,
    ) -> Result<TlsStream<TcpStream>, Failed> {
        let connected = TlsConnector::from(self.config.clone()).connect(tls::any_name(), stream).await;
        connected.map_err(|error| {
            let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
            match cause {
                Some(Error::InvalidCertificate(why)) => impostor(place, why),
                Some(error) => Failed::unreachable(format!("TLS with the control plane at {place}: {error}")),
                None => Failed::unreachable(format!(
                    "the control plane at {place} ended the connection within the TLS handshake ({error})"
                )),
            }
        })
    }
}

fn impostor(place: &str, why: &CertificateError) -> Failed {
    let why = match why {
        CertificateError::UnknownIssuer => "no root that was named vouches for it".into(),
        CertificateError::Expired => "its certificate has expired".into(),
        CertificateError::NotValidYet => "its certificate is not valid yet (compare the clocks)".into(),
        CertificateError::Other(OtherError(inner)) => inner.to_string(),
        other => format!("{other:?}"),
    };
    Failed {
        why: Why::NotAuthorised,
        message: format!(
            "what answers at {place} is not the control plane that was meant: {why}; compare --ca-fingerprint or \
             --ca-file with `pilotfish trust list` on the control plane's machine"
        ),
    }
}

fn known(connection: &Connection) -> Result<Known, Failed> {
    if let Some(text) = &connection.ca_fingerprint {
        let digits = fingerprint(text).map_err(|why| Failed::usage(format!("--ca-fingerprint: {why}")))?;
        let bytes = data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap_or_default();
        let pinned = Fingerprint::try_from(bytes.as_slice());
        return pinned
            .map(Known::Pinned)
            .map_err(|_| Failed::usage("--ca-fingerprint: 64 digits are needed"));
    }
    let Some(file) = &connection.ca_file else {
        return Err(Failed::usage(
            "how shall the control plane be known? Give --ca-fingerprint SHA256 (`pilotfish trust list` on its machine \
             prints it, of the root) or --ca-file FILE",
        ));
    };
    // Read as certificates once, so that a wrong file is named here and not as a stranger's certificate.
    certificates(file)?;
    let text = std::fs::read_to_string(file);
    text.map(Known::Roots).map_err(|error| Failed::usage(format!("{}: {error}", file.display())))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failed> {
    let bad = |why: String| Failed::usage(format!("{}: {why}", file.display()));
    let text = std::fs::read(file).map_err(|error| bad(error.to_string()))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|error| bad(format!("no certificates (PEM): {error}")))?;
    if all.is_empty() { Err(bad("no certificate (PEM)".into())) } else { Ok(all) }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Failed> {
    let text = std::fs::read(file).map(Zeroizing::new);
    let text = text.map_err(|error| Failed::usage(format!("{}: {error}", file.display())))?;
    // What is wrong with a key is not told in detail: it would quote the key.
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| Failed::usage(format!("{}: no private key (PEM)", file.display())))
}

/// Verifies control planes.
#[derive(Debug)]
struct Verifier {
    known: Known,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn verify(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Peer, Refused> {
        match &self.known {
            Known::Pinned(root) => verify_pinned(chain, root, now),
            Known::Roots(pem) => {
                let domain = chain.first().and_then(trust_domain);
                let domain = domain.ok_or_else(|| Refused::NoIdentity("it has no SPIFFE ID".into()))?;
                let bundles =
                    Bundles::one(&domain, pem).map_err(|why| Refused::Unreadable(why.to_string()))?;
                verify_peer(chain, &bundles, Usage::Server, now)
            }
        }
    }
}

/// The trust domain that a certificate claims: that it may is for the roots to say.
fn trust_domain(leaf: &CertificateDer<'_>) -> Option<TrustDomain> {
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    let names = leaf.subject_alternative_name().ok()??;
    let uri = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => SpiffeId::parse(uri).ok(),
        _ => None,
    })?;
    Some(uri.trust_domain().clone())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let chain: Vec<CertificateDer<'_>> =
            std::iter::once(leaf).chain(others).map(|der| CertificateDer::from(der.as_ref())).collect();
        let peer = self.verify(&chain, now)?;
        match peer.id.as_control() {
            Some(_) => Ok(ServerCertVerified::assertion()),
            None => Err(Refused::NoControlPlane(peer.id).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
