//! Verifying a peer: chain, trust domain, the one SPIFFE ID, usage and validity.

use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::certificate::X509Certificate;

use crate::bundles::{Bundles, Domain, Fingerprint, fingerprint};
use crate::certificate;
use crate::refused::Refused;
use crate::spiffe::SpiffeId;

/// A chain has at most this many certificates: a leaf, an intermediate, and room for what companies stack above them.
pub(crate) const LONGEST_CHAIN: usize = 8;
/// A chain has at most this many bytes, as Envoy and OpenSSL limit the handshake message.
const LARGEST_CHAIN: usize = 64 << 10;

/// What a certificate is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Usage {
    /// The peer calls us.
    Client,
    /// The peer is called by us.
    Server,
}

/// A peer that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub id: SpiffeId,
    /// When its chain ends: the connection may not live much longer.
    pub not_after: SystemTime,
    /// The root that vouches for it; when that is trusted no more the connection has to end.
    pub root: Fingerprint,
    /// SHA-256 of its leaf, for `Hash=` in `x-forwarded-client-cert`.
    pub leaf: Fingerprint,
    /// What it showed, leaf first; shared by all its connections.
    pub chain: Arc<[CertificateDer<'static>]>,
}

/// A peer, and when every certificate that vouches for it is valid.
#[derive(Debug, Clone)]
pub(crate) struct Verified {
    pub(crate) peer: Peer,
    pub(crate) valid: RangeInclusive<SystemTime>,
}

impl Verified {
    /// What only time changes.
    pub(crate) fn at(&self, now: SystemTime) -> Result<&Peer, Refused> {
        if now < *self.valid.start() {
            return Err(Refused::NotYetValid(self.peer.id.clone()));
        }
        if now > *self.valid.end() {
            return Err(Refused::Expired(self.peer.id.clone()));
        }
        Ok(&self.peer)
    }
}

/// Verifies a chain, leaf first, at the time `now`.
///
/// The leaf has exactly one URI name, a SPIFFE ID, and only a root of that ID's own trust domain may vouch for it.
/// Nothing has to be forgiven for clocks: authorities put the beginning five minutes back.
///
/// # Errors
/// Why the peer is not taken.
pub fn verify_peer(
    chain: &[CertificateDer<'_>],
    bundles: &Bundles,
    usage: Usage,
    now: SystemTime,
) -> Result<Peer, Refused> {
    verify(chain, bundles, usage, now).map(|verified| verified.peer)
}

pub(crate) fn verify(
    chain: &[CertificateDer<'_>],
    bundles: &Bundles,
    usage: Usage,
    now: SystemTime,
) -> Result<Verified, Refused> {
    check_size(chain)?;
    let leaf = chain.first().ok_or(Refused::NoCertificate)?;
    let parsed = certificate::parse(leaf).map_err(Refused::Unreadable)?;
    let id = certificate::identity(&parsed)?;
    check_leaf(&parsed, &id)?;
    let domain = bundles.domain(id.trust_domain());
    let domain = domain.ok_or_else(|| Refused::UnknownDomain(id.trust_domain().clone()))?;
    let (root, valid) = build_path(leaf, &chain[1..], domain, usage, now).map_err(|why| refused(why, &id))?;
    let valid = narrowed(&valid, &certificate::validity(&parsed));
    let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
    let peer = Peer { id, not_after: *valid.end(), root, leaf: fingerprint(leaf), chain };
    let verified = Verified { peer, valid };
    // webpki looks at no root's validity.
    verified.at(now)?;
    Ok(verified)
}

/// Sizes alone, before anything is hashed or parsed.
pub(crate) fn check_size(chain: &[CertificateDer<'_>]) -> Result<(), Refused> {
    let bytes: usize = chain.iter().map(|der| der.len()).sum();
    if chain.len() > LONGEST_CHAIN || bytes > LARGEST_CHAIN { Err(Refused::TooLong) } else { Ok(()) }
}

/// A leaf signs handshakes, and nothing but handshakes (X509-SVID, section 4).
fn check_leaf(leaf: &X509Certificate<'_>, id: &SpiffeId) -> Result<(), Refused> {
    let usage = certificate::key_usage(leaf)?;
    if leaf.is_ca() || usage.is_some_and(|usage| usage.key_cert_sign() || usage.crl_sign()) {
        return Err(Refused::Authority);
    }
    if usage.is_some_and(|usage| !usage.digital_signature()) {
        return Err(Refused::WrongUsage(id.clone()));
    }
    Ok(())
}

/// The fingerprint of the root that vouches for the leaf, and when it and everything between them is valid.
fn build_path(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    domain: &Domain,
    usage: Usage,
    now: SystemTime,
) -> Result<(Fingerprint, RangeInclusive<SystemTime>), webpki::Error> {
    let leaf = EndEntityCert::try_from(leaf)?;
    let usage = match usage {
        Usage::Client => KeyUsage::client_auth(),
        Usage::Server => KeyUsage::server_auth(),
    };
    let now =
        UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO));
    let path = leaf.verify_for_usage(
        algorithms().all,
        &domain.anchors,
        intermediates,
        now,
        usage,
        None,
        Some(&only_authorities),
    )?;
    let root = domain.anchors.iter().position(|anchor| std::ptr::eq(anchor, path.anchor()));
    let root = root.and_then(|at| domain.roots.get(at)).ok_or(webpki::Error::UnknownIssuer)?;
    let mut valid = root.valid.clone();
    for certificate in path.intermediate_certificates() {
        let der = certificate.der();
        let parsed = certificate::parse(&der).map_err(|_| webpki::Error::BadDer)?;
        valid = narrowed(&valid, &certificate::validity(&parsed));
    }
    Ok((root.fingerprint, valid))
}

/// webpki reads no key usage: what may not sign certificates is no intermediate.
fn only_authorities(path: &VerifiedPath<'_>) -> Result<(), webpki::Error> {
    for certificate in path.intermediate_certificates() {
        let der = certificate.der();
        let parsed = certificate::parse(&der).map_err(|_| webpki::Error::BadDer)?;
        if !certificate::is_authority(&parsed) {
            return Err(webpki::Error::EndEntityUsedAsCa);
        }
    }
    Ok(())
}

/// Signatures that are taken: rustls' own list.
pub(crate) fn algorithms() -> WebPkiSupportedAlgorithms {
    static LIST: LazyLock<WebPkiSupportedAlgorithms> =
        LazyLock::new(|| rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms);
    *LIST
}

fn narrowed(
    one: &RangeInclusive<SystemTime>,
    other: &RangeInclusive<SystemTime>,
) -> RangeInclusive<SystemTime> {
    *one.start().max(other.start())..=*one.end().min(other.end())
}

fn refused(why: webpki::Error, id: &SpiffeId) -> Refused {
    use webpki::Error as E;
    match why {
        E::CertExpired { .. } => Refused::Expired(id.clone()),
        E::CertNotValidYet { .. } => Refused::NotYetValid(id.clone()),
        E::CaUsedAsEndEntity => Refused::Authority,
        E::EmptyEkuExtension | E::RequiredEkuNotFoundContext(_) => Refused::WrongUsage(id.clone()),
        E::BadDer
        | E::BadDerTime
        | E::ExtensionValueInvalid
        | E::InvalidCertValidity
        | E::InvalidSerialNumber
        | E::MalformedExtensions
        | E::TrailingData(_)
        | E::UnsupportedCertVersion
        | E::UnsupportedCriticalExtension => Refused::Unreadable(why.to_string()),
        _ => Refused::Untrusted(id.clone()),
    }
}
