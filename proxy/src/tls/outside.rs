//! TLS to hosts outside of the mesh, as the `tls` of a DestinationRule asks for it. Files are read when a plan is made, so that
//! a wrong one refuses the configuration and no request ever waits for a disk.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use pilotfish_config::model::{ClientTls, TlsMode};
use pilotfish_filters::cluster::Cluster;
use pilotfish_filters::plan::Plan;
use pilotfish_identity::tls::provider;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::request::dial::Protocol;

/// Where Debian and its like keep the authorities that everybody trusts; `SSL_CERT_FILE` names another file (as OpenSSL).
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// TLS settings of one cluster, ready for connections.
#[derive(Debug)]
pub struct Outside {
    /// Of everything that they were made of, files included: connections made under others are not used for them.
    pub digest: [u8; 32],
    /// The name to ask for and to verify (`sni`); `None`: the host's.
    pub name: Option<Box<str>>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl Outside {
    /// The name as rustls wants it.
    ///
    /// # Errors
    /// It is neither a DNS name nor an address.
    pub fn server_name(&self, name: &str) -> Result<ServerName<'static>, Error> {
        ServerName::try_from(name.to_owned())
            .map_err(|_| Error::General(format!("{name:?} is no name that a certificate could have")))
    }

    pub(crate) fn client(&self, protocol: Protocol) -> Arc<ClientConfig> {
        match protocol {
            Protocol::Http1 => self.http1.clone(),
            Protocol::Http2 => self.http2.clone(),
        }
    }
}

/// The settings of every cluster of a plan that has some.
#[derive(Debug, Default)]
pub struct OutsideSet(HashMap<usize, Arc<Outside>>);

impl OutsideSet {
    /// Reads what the clusters of a plan name.
    ///
    /// # Errors
    /// One line for each cluster whose settings cannot be used.
    pub fn of_plan(plan: &Plan) -> Result<OutsideSet, Vec<String>> {
        let (mut all, mut wrong) = (HashMap::new(), Vec::new());
        // The same settings are read once.
        let mut known: HashMap<String, Arc<Outside>> = HashMap::new();
        for cluster in plan.clusters() {
            let Some(tls) = &cluster.settings.tls else { continue };
            if !matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual) {
                continue;
            }
            let names = cluster.settings.subject_alt_names.to_vec();
            let written = format!("{tls:?}{names:?}");
            let made = match known.get(&written) {
                Some(made) => Ok(made.clone()),
                None => load(tls, &names, plan.governance().tls13_only).map(Arc::new),
            };
            match made {
                Ok(made) => {
                    all.insert(key(cluster), made.clone());
                    known.insert(written, made);
                }
                Err(why) => wrong.push(format!("{}: error: trafficPolicy.tls: {why}", cluster.name)),
            }
        }
        wrong.sort();
        wrong.dedup();
        if wrong.is_empty() { Ok(OutsideSet(all)) } else { Err(wrong) }
    }

    /// The settings of a cluster of the plan that this was made of.
    pub fn of(&self, cluster: &Cluster) -> Option<&Outside> {
        self.0.get(&key(cluster)).map(AsRef::as_ref)
    }
}

/// The plan keeps its clusters where they are.
fn key(cluster: &Cluster) -> usize {
    std::ptr::from_ref(cluster) as usize
}

/// `newest`: a policy allows no TLS before 1.3.
fn load(tls: &ClientTls, names: &[Arc<str>], newest: bool) -> Result<Outside, String> {
    if let Some(name) = &tls.credential_name {
        return Err(format!(
            "credentialName `{name}` is a Kubernetes secret, which sidecars do not read: mount it and name its files \
             (caCertificates, clientCertificate, privateKey)"
        ));
    }
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    digest.update(format!("{tls:?}{names:?}{newest}").as_bytes());
    let verifier: Arc<dyn ServerCertVerifier> = if tls.insecure_skip_verify == Some(true) {
        Arc::new(Anybody)
    } else {
        Arc::new(Named { chain: chain_verifier(tls, &mut digest)?, names: names.into() })
    };
    let versions = if newest { &[&rustls::version::TLS13][..] } else { rustls::DEFAULT_VERSIONS };
    let builder = || {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions);
        builder.map(|builder| builder.dangerous().with_custom_certificate_verifier(verifier.clone()))
    };
    let builder = builder().map_err(|error| error.to_string())?;
    let mut http1 = match tls.mode {
        TlsMode::Mutual => {
            let (chain, key) = own_certificate(tls, &mut digest)?;
            let built = builder.with_client_auth_cert(chain, key);
            built.map_err(|error| format!("clientCertificate and privateKey: {error}"))?
        }
        _ => builder.with_no_client_auth(),
    };
    // A resumed session would not look at the certificate again, whatever has happened to it.
    http1.resumption = rustls::client::Resumption::disabled();
    let mut http2 = http1.clone();
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    http2.alpn_protocols = vec![b"h2".to_vec()];
    let mut made = Outside {
        digest: [0; 32],
        name: tls.sni.as_deref().map(Box::from),
        http1: Arc::new(http1),
        http2: Arc::new(http2),
    };
    if let Some(name) = &made.name {
        made.server_name(name).map_err(|error| format!("sni: {error}"))?;
    }
    made.digest.copy_from_slice(digest.finish().as_ref());
    Ok(made)
}

fn chain_verifier(
    tls: &ClientTls,
    digest: &mut aws_lc_rs::digest::Context,
) -> Result<Arc<WebPkiServerVerifier>, String> {
    let roots = match &tls.ca_certificates {
        Some(path) => {
            let text = read(path, "caCertificates", digest)?;
            Arc::new(roots(&text).map_err(|why| format!("caCertificates {path}: {why}"))?)
        }
        None => system_roots().clone()?,
    };
    let mut builder = WebPkiServerVerifier::builder_with_provider(roots, provider());
    if let Some(path) = &tls.ca_crl {
        let text = read(path, "caCrl", digest)?;
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&text).collect();
        let lists = lists.map_err(|error| format!("caCrl {path}: {error}"))?;
        builder = builder.with_crls(lists).allow_unknown_revocation_status();
    }
    builder.build().map_err(|error| error.to_string())
}

fn own_certificate(
    tls: &ClientTls,
    digest: &mut aws_lc_rs::digest::Context,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let path = tls.client_certificate.as_deref().ok_or("mode MUTUAL needs clientCertificate")?;
    let chain = chain(path).map_err(|why| format!("clientCertificate {why}"))?;
    chain.iter().for_each(|certificate| digest.update(certificate));
    let path = tls.private_key.as_deref().ok_or("mode MUTUAL needs privateKey")?;
    let key = private_key(path).map_err(|why| format!("privateKey {why}"))?;
    Ok((chain, key))
}

/// The certificates of a file.
///
/// # Errors
/// It cannot be read, or there is none in it; begins with the path.
pub(crate) fn chain(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| format!("{path}: {error}"))?;
    if chain.is_empty() { Err(format!("{path}: there is no certificate in it")) } else { Ok(chain) }
}

/// The private key of a file.
///
/// # Errors
/// It cannot be read, or there is none in it; begins with the path.
pub(crate) fn private_key(path: &str) -> Result<PrivateKeyDer<'static>, String> {
    let text = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    PrivateKeyDer::from_pem_slice(&zeroize::Zeroizing::new(text))
        .map_err(|_| format!("{path}: there is no unencrypted private key in it (PEM)"))
}

fn read(path: &str, field: &str, digest: &mut aws_lc_rs::digest::Context) -> Result<Vec<u8>, String> {
    let text = std::fs::read(Path::new(path)).map_err(|error| format!("{field} {path}: {error}"))?;
    digest.update(&text);
    Ok(text)
}

/// The authorities of a PEM text.
///
/// # Errors
/// There is none in it, or one that cannot be read.
pub(crate) fn roots(text: &[u8]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text) {
        store.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    if store.is_empty() { Err("there is no certificate in it".into()) } else { Ok(store) }
}

/// The machine's authorities, read once. A few that cannot be read are nobody's fault; none at all is.
pub(crate) fn system_roots() -> &'static Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Result<Arc<RootCertStore>, String>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        #[expect(
            clippy::disallowed_methods,
            reason = "every TLS client's variable, which is no setting of ours"
        )]
        let path = std::env::var("SSL_CERT_FILE").unwrap_or_else(|_| SYSTEM_ROOTS.to_owned());
        let text = std::fs::read(&path)
            .map_err(|error| format!("the system's authorities {path}: {error}; name caCertificates"))?;
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).flatten());
        if store.is_empty() {
            Err(format!("{path}: there is no certificate in it"))
        } else {
            Ok(Arc::new(store))
        }
    })
}

/// A chain that the authorities vouch for, and one of the names, or the host's when none are written.
#[derive(Debug)]
struct Named {
    chain: Arc<WebPkiServerVerifier>,
    names: Box<[Arc<str>]>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.chain.verify_server_cert(leaf, others, host, ocsp, now);
        if self.names.is_empty() {
            return verified;
        }
        match verified {
            // The chain was judged before the name.
            Ok(_)
            | Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => {}
            Err(error) => return Err(error),
        }
        if has_any_name(leaf, &self.names) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::NotValidForName))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn has_any_name(leaf: &CertificateDer<'_>, wanted: &[Arc<str>]) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else { return false };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
    names.value.general_names.iter().any(|name| match name {
        GeneralName::DNSName(found) => wanted.iter().any(|wanted| covers(found, wanted)),
        GeneralName::URI(found) => wanted.iter().any(|wanted| **wanted == **found),
        GeneralName::IPAddress(bytes) => {
            let found = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            let found = found.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from));
            found.is_ok_and(|found| wanted.iter().any(|wanted| wanted.parse() == Ok(found)))
        }
        _ => false,
    })
}

/// Whether a DNS name of a certificate, perhaps with a wildcard for its first label, is the wanted one.
fn covers(found: &str, wanted: &str) -> bool {
    if found.eq_ignore_ascii_case(wanted) {
        return true;
    }
    let under = found.strip_prefix("*.").zip(wanted.split_once('.'));
    under.is_some_and(|(domain, (label, rest))| !label.is_empty() && domain.eq_ignore_ascii_case(rest))
}

/// Anybody who has the key of the certificate that is shown (`insecureSkipVerify`).
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
