//! A throw-away certificate authority: a root, an intermediate, and leaves with any odd property.
//!
//! ```
//! use pilotfish_testkit::ca::{Ca, Leaf};
//! let ca = Ca::new("mesh.test");
//! let good = ca.issue(&Leaf::agent("mesh.test", "default", "planner"));
//! let bad = ca.issue(&Leaf { uris: vec![], ..Leaf::agent("mesh.test", "default", "planner") });
//! let folder = tempfile::tempdir().unwrap();
//! let files = good.write(folder.path(), "planner"); // planner.pem and planner.key
//! let bundle = ca.write_bundle(folder.path());      // bundle.pem
//! let tls = ca.client(Some(&good), &[b"http/1.1"]); // a client that takes any server: ask it for its certificates
//! # let _ = (bad, files, bundle, tls);
//! ```
//! [`Ca::new_intermediate`] rotates the intermediate; a second [`Ca`] of the same domain is a second root.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, CustomExtension,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme};
use time::{Duration, OffsetDateTime};

/// A root and the intermediate that it signed.
pub struct Ca {
    root: Certificate,
    root_issuer: Issuer<'static, KeyPair>,
    intermediate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// What a leaf says. [`Leaf::agent`] and [`Leaf::of`] are right in everything; change what has to be wrong.
#[derive(Clone)]
pub struct Leaf {
    /// URI names; a good leaf has one.
    pub uris: Vec<String>,
    /// DNS names besides.
    pub dns: Vec<String>,
    /// Starts so many seconds from now; -300 by default.
    pub starts: i64,
    /// Ends so many seconds from now; a day by default.
    pub ends: i64,
    /// Extended key usages; client and server by default, empty for none.
    pub usages: Vec<ExtendedKeyUsagePurpose>,
    /// Key usages; `digitalSignature` by default.
    pub key_usages: Vec<KeyUsagePurpose>,
    /// Whether it says that it is an authority.
    pub authority: bool,
    /// Whether the root signs it instead of the intermediate.
    pub by_root: bool,
    /// Bytes of an extension that nobody knows, to make it long.
    pub padding: usize,
}

impl Leaf {
    /// An agent's leaf.
    pub fn agent(domain: &str, namespace: &str, agent: &str) -> Leaf {
        Leaf::of(&format!("spiffe://{domain}/ns/{namespace}/agent/{agent}"))
    }

    /// A leaf with this URI name.
    pub fn of(uri: &str) -> Leaf {
        Leaf {
            uris: vec![uri.to_owned()],
            dns: Vec::new(),
            starts: -300,
            ends: 24 * 3600,
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            key_usages: vec![KeyUsagePurpose::DigitalSignature],
            authority: false,
            by_root: false,
            padding: 0,
        }
    }
}

/// A chain and its key, both PEM.
#[derive(Clone)]
pub struct Issued {
    /// The leaf, then the intermediate.
    pub chain: String,
    /// The private key.
    pub key: String,
}

/// Where an [`Issued`] was written.
#[derive(Clone, Debug)]
pub struct Files {
    /// For `--identity-cert`.
    pub chain: PathBuf,
    /// For `--identity-key`.
    pub key: PathBuf,
}

impl Issued {
    /// Writes `NAME.pem` and `NAME.key`, each by renaming a finished file.
    pub fn write(&self, folder: &Path, name: &str) -> Files {
        let files =
            Files { chain: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) };
        replace(&files.key, &self.key);
        replace(&files.chain, &self.chain);
        files
    }

    /// The chain as rustls takes it.
    pub fn chain_der(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.chain.as_bytes()).map(Result::unwrap).collect()
    }

    /// The key as rustls takes it.
    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

impl Ca {
    /// A new root with its intermediate. The domain is in the subject only: what a leaf says is up to [`Leaf`].
    pub fn new(domain: &str) -> Ca {
        Ca::lasting(domain, -3600, 3600 * 24 * 3650)
    }

    /// One whose root and intermediate start and end so many seconds from now.
    pub fn lasting(domain: &str, starts: i64, ends: i64) -> Ca {
        let root_key = KeyPair::generate().unwrap();
        let root_params = authority(&format!("{domain} root"), BasicConstraints::Unconstrained, starts, ends);
        let root = root_params.self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(root_params, root_key);
        let (intermediate, issuer) = sub_authority(&root_issuer, domain, starts, ends);
        Ca { root, root_issuer, intermediate, issuer }
    }

    /// Another intermediate, by the same root, signs from now on.
    pub fn new_intermediate(&mut self) {
        (self.intermediate, self.issuer) =
            sub_authority(&self.root_issuer, "another", -3600, 3600 * 24 * 365);
    }

    /// The root certificate, PEM: a trust bundle.
    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// The root certificate, DER.
    pub fn root_der(&self) -> CertificateDer<'static> {
        self.root.der().clone()
    }

    /// The root's private key, PEM.
    pub fn root_key_pem(&self) -> String {
        self.root_issuer.key().serialize_pem()
    }

    /// The intermediate certificate, PEM.
    pub fn intermediate_pem(&self) -> String {
        self.intermediate.pem()
    }

    /// The intermediate's private key, PEM.
    pub fn intermediate_key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Writes `bundle.pem` with the root.
    pub fn write_bundle(&self, folder: &Path) -> PathBuf {
        let path = folder.join("bundle.pem");
        replace(&path, &self.root_pem());
        path
    }

    /// Signs a leaf with a new key.
    pub fn issue(&self, leaf: &Leaf) -> Issued {
        let key = KeyPair::generate().unwrap();
        let issuer = if leaf.by_root { &self.root_issuer } else { &self.issuer };
        let certificate = params(leaf).signed_by(&key, issuer).unwrap();
        Issued { chain: self.chain(&certificate, leaf), key: key.serialize_pem() }
    }

    /// Signs a leaf with the key of a request (PEM), whatever name the request asks for; the chain as PEM.
    pub fn sign(&self, request: &str, leaf: &Leaf) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(request).unwrap();
        request.params = params(leaf);
        let issuer = if leaf.by_root { &self.root_issuer } else { &self.issuer };
        self.chain(&request.signed_by(issuer).unwrap(), leaf)
    }

    fn chain(&self, certificate: &Certificate, leaf: &Leaf) -> String {
        let mut chain = certificate.pem();
        if !leaf.by_root {
            chain.push_str(&self.intermediate.pem());
        }
        chain
    }

    /// A client of TLS 1.2 and 1.3 that takes every server's certificate, with a certificate of its own or none.
    pub fn client(&self, own: Option<&Issued>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TakesAll));
        let mut config = match own {
            Some(own) => builder.with_client_auth_cert(own.chain_der(), own.key_der()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    /// A server that demands a certificate of this root from its clients, or none.
    pub fn server(&self, own: &Issued, clients: bool, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let builder =
            ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let builder = if clients {
            let mut roots = RootCertStore::empty();
            roots.add(self.root_der()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(own.chain_der(), own.key_der()).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }
}

fn authority(name: &str, constraints: BasicConstraints, starts: i64, ends: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (from_now(starts), from_now(ends));
    params
}

fn sub_authority(
    root: &Issuer<'static, KeyPair>,
    domain: &str,
    starts: i64,
    ends: i64,
) -> (Certificate, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let params = authority(&format!("{domain} intermediate"), BasicConstraints::Constrained(0), starts, ends);
    let certificate = params.signed_by(&key, root).unwrap();
    (certificate, Issuer::new(params, key))
}

fn params(leaf: &Leaf) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let uris = leaf.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap()));
    let dns = leaf.dns.iter().map(|name| SanType::DnsName(name.as_str().try_into().unwrap()));
    params.subject_alt_names = uris.chain(dns).collect();
    params.is_ca =
        if leaf.authority { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
    params.extended_key_usages = leaf.usages.clone();
    params.key_usages = leaf.key_usages.clone();
    (params.not_before, params.not_after) = (from_now(leaf.starts), from_now(leaf.ends));
    if leaf.padding > 0 {
        let padding = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![4; leaf.padding]);
        params.custom_extensions.push(padding);
    }
    params
}

fn from_now(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::seconds(seconds)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Takes every certificate, but only from whoever has its key.
#[derive(Debug)]
struct TakesAll;

impl ServerCertVerifier for TakesAll {
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
        verify_tls12_signature(message, certificate, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
