//! Making certificates: roots, intermediates, leaves. No files and no clocks.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use pilotfish_identity::{SpiffeId, TrustDomain, fingerprint, hex};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use super::CaError;
use crate::api::types;

/// How long intermediates live.
pub const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a root lives: ten years, as istiod's own.
const ROOT: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Certificates begin in the past, for peers whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(300);
/// Longer than any request with a key that is taken.
const LONGEST_REQUEST: usize = 16 << 10;

/// A name besides the SPIFFE ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// A host's name.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

/// What signs leaves.
pub(super) struct Signing {
    issuer: Issuer<'static, KeyPair>,
    /// What peers need between a leaf and the root, PEM.
    pub(super) chain: String,
    /// When the first of the chain ends.
    pub(super) ends: SystemTime,
}

/// An intermediate and its key.
pub struct Intermediate {
    /// The certificate, PEM.
    pub certificate: String,
    /// The key, PKCS #8 in PEM.
    pub key: Zeroizing<String>,
}

pub(super) fn failed(error: rcgen::Error) -> CaError {
    CaError::Crypto(error.to_string())
}

fn unusable(error: impl std::fmt::Display) -> CaError {
    CaError::Unusable(error.to_string())
}

impl Signing {
    /// `chain`: PEM whose first certificate signs; `key`: PEM with its private key.
    pub(super) fn read(chain: &str, key: &str) -> Result<Signing, CaError> {
        let certificates = certificates(chain)?;
        let first = certificates.first().ok_or_else(|| unusable("there is no certificate in it"))?;
        let key = private_key(key)?;
        let mut earliest = ends(first)?;
        for certificate in &certificates {
            earliest = earliest.min(ends(certificate)?);
        }
        let issuer = Issuer::from_ca_cert_der(first, key).map_err(unusable)?;
        Ok(Signing { issuer, chain: certificates.iter().map(pem).collect(), ends: earliest })
    }
}

fn private_key(text: &str) -> Result<KeyPair, CaError> {
    let why =
        "there is no private key in it that can be used: give an ECDSA key as unencrypted PKCS #8 (PEM)";
    let der = rustls::pki_types::PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| unusable(why))?;
    KeyPair::try_from(&der).map_err(|_| unusable(why))
}

/// All certificates of a PEM text.
pub(super) fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, CaError> {
    CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().map_err(unusable)
}

/// The first certificate of a PEM text.
pub(super) fn certificate(text: &str) -> Result<CertificateDer<'static>, CaError> {
    CertificateDer::from_pem_slice(text.as_bytes()).map_err(unusable)
}

fn pem(der: &CertificateDer<'_>) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let encoded = data_encoding::BASE64.encode(der);
    for line in encoded.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

/// When a certificate ends.
pub(super) fn ends(der: &CertificateDer<'_>) -> Result<SystemTime, CaError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(unusable)?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// What people are shown of a certificate.
pub(super) fn describe(domain: &TrustDomain, der: &CertificateDer<'_>) -> Result<types::Root, CaError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(unusable)?;
    Ok(types::Root {
        trust_domain: domain.as_str().to_owned(),
        subject: parsed.subject().to_string(),
        fingerprint: hex(&fingerprint(der)),
        expires: u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0),
    })
}

/// Parts a brought chain from its root: the last certificate, signed by itself.
pub(super) fn split_root(text: &str) -> Result<(String, String), CaError> {
    let mut all = certificates(text)?;
    let root = all.pop().ok_or_else(|| unusable("there is no certificate in --ca-cert"))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&root).map_err(unusable)?;
    if parsed.subject() != parsed.issuer() {
        return Err(unusable("--ca-cert does not lead to its root: append the root's certificate"));
    }
    if all.is_empty() {
        return Err(unusable(
            "--ca-cert is a root: sign an intermediate with it (`pilotfish ca issue-intermediate`)",
        ));
    }
    Ok((all.iter().map(pem).collect(), pem(&root)))
}

/// A new root for a key.
pub(super) fn root(key: &KeyPair, domain: &TrustDomain, now: SystemTime) -> Result<String, CaError> {
    let params = authority(&format!("{domain} root"), BasicConstraints::Unconstrained, now, now + ROOT)?;
    params.self_signed(key).map(|made| made.pem()).map_err(failed)
}

/// A new intermediate with a new key, signed by a root whose certificate and key are PEM. It may sign leaves only, lives
/// for `ttl` and not longer than the root.
///
/// # Errors
/// The root cannot be read, has ended, or its key is another one's.
pub fn issue_intermediate(
    root_pem: &str,
    root_key: &str,
    domain: &TrustDomain,
    now: SystemTime,
    ttl: Duration,
) -> Result<Intermediate, CaError> {
    let root = certificate(root_pem)?;
    let root_key = private_key(root_key)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&root).map_err(unusable)?;
    if parsed.public_key().raw != root_key.subject_public_key_info() {
        return Err(unusable("the root's key is another certificate's"));
    }
    let until = ends(&root)?.min(now + ttl);
    if until <= now {
        return Err(unusable("the root has ended"));
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut params =
        authority(&format!("{domain} intermediate"), BasicConstraints::Constrained(0), now, until)?;
    params.use_authority_key_identifier_extension = true;
    let issuer = Issuer::from_ca_cert_der(&root, root_key).map_err(unusable)?;
    let made = params.signed_by(&key, &issuer).map_err(failed)?;
    Ok(Intermediate { certificate: made.pem(), key: Zeroizing::new(key.serialize_pem()) })
}

fn authority(
    name: &str,
    constraints: BasicConstraints,
    now: SystemTime,
    until: SystemTime,
) -> Result<CertificateParams, CaError> {
    let mut params = lasting(now, until)?;
    params.distinguished_name.push(DnType::OrganizationName, "Pilotfish");
    // The common name of an X.509 name has at most 64 characters.
    params.distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// What every certificate has: an unguessable serial number, and a beginning that is a little in the past.
fn lasting(now: SystemTime, until: SystemTime) -> Result<CertificateParams, CaError> {
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| CaError::Crypto("no randomness".into()))?;
    // Positive, and never shorter than its 16 bytes.
    serial[0] = serial[0] & 0x3f | 0x40;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = OffsetDateTime::from(now - BACKDATED);
    params.not_after = OffsetDateTime::from(until);
    Ok(params)
}

/// The public key of a request (PEM) that is signed by its private half.
pub(super) fn key_of_request(text: &str) -> Result<SubjectPublicKeyInfo, CaError> {
    let refused = |why: &str| CaError::Request(why.to_owned());
    if text.len() > LONGEST_REQUEST {
        return Err(refused("it is too long"));
    }
    let der = CertificateSigningRequestDer::from_pem_slice(text.as_bytes())
        .map_err(|_| refused("it is no PKCS #10 request in PEM"))?;
    let (rest, parsed) =
        X509CertificationRequest::from_der(&der).map_err(|_| refused("it is no PKCS #10 request"))?;
    let key = SubjectPublicKeyInfo::from_der(parsed.certification_request_info.subject_pki.raw);
    let key = key.map_err(|_| refused("its key's type is not known"))?;
    let taken = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519];
    if !taken.contains(&key.algorithm()) {
        return Err(refused("its key is none of ECDSA P-256, ECDSA P-384 and Ed25519"));
    }
    let verified = CertificateSigningRequestParams::from_der(&der);
    let verified =
        verified.map_err(|_| refused("its signature is wrong, or it asks for unknown extensions"))?;
    if !rest.is_empty() || verified.public_key.algorithm() != key.algorithm() {
        return Err(refused("its signature is not of its key's type"));
    }
    Ok(key)
}

/// A leaf, PEM.
pub(super) fn leaf(
    signing: &Signing,
    key: &SubjectPublicKeyInfo,
    id: &SpiffeId,
    names: &[Name],
    now: SystemTime,
    until: SystemTime,
) -> Result<String, CaError> {
    let mut params = lasting(now, until)?;
    params.subject_alt_names.push(SanType::URI(id.as_str().try_into().map_err(failed)?));
    for name in names {
        params.subject_alt_names.push(match name {
            Name::Dns(name) => SanType::DnsName(name.as_str().try_into().map_err(failed)?),
            Name::Ip(address) => SanType::IpAddress(*address),
        });
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.signed_by(key, &signing.issuer).map(|made| made.pem()).map_err(failed)
}
