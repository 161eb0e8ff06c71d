//! Reading what is inside a certificate: names, validity, whether it is an authority's.

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, KeyUsage};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::refused::Refused;
use crate::spiffe::SpiffeId;

/// Certificates of a PEM text. More than `most` are refused.
pub fn from_pem(text: &str, most: usize) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut all = Vec::new();
    for item in CertificateDer::pem_slice_iter(text.as_bytes()) {
        all.push(item.map_err(|error| format!("not PEM: {error}"))?);
        if all.len() > most {
            return Err(format!("more than {most} certificates"));
        }
    }
    Ok(all)
}

/// A certificate whose DER is whole: nothing comes after it.
pub fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    match X509Certificate::from_der(der.as_ref()) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err("bytes follow the certificate".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// When it is valid, both ends included.
pub fn validity(certificate: &X509Certificate<'_>) -> RangeInclusive<SystemTime> {
    time(certificate.validity.not_before)..=time(certificate.validity.not_after)
}

fn time(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// The one URI name, which has to be a SPIFFE ID (X509-SVID, sections 2 and 5.2). Other kinds of names do not matter.
pub fn identity(certificate: &X509Certificate<'_>) -> Result<SpiffeId, Refused> {
    let names = certificate.subject_alternative_name();
    let names = names.map_err(|error| Refused::Unreadable(format!("subjectAltName: {error}")))?;
    let mut found = None;
    for name in names.iter().flat_map(|extension| &extension.value.general_names) {
        let GeneralName::URI(text) = name else { continue };
        if found.replace(*text).is_some() {
            return Err(Refused::SeveralIdentities);
        }
    }
    let text = found.ok_or_else(|| Refused::NoIdentity("it has no URI name".into()))?;
    SpiffeId::parse(text).map_err(|error| Refused::NoIdentity(error.to_string()))
}

/// The identity within a certificate that nothing vouches for yet.
pub fn identity_of(der: &CertificateDer<'_>) -> Result<SpiffeId, Refused> {
    identity(&parse(der).map_err(Refused::Unreadable)?)
}

/// Its key usage, if it says any.
pub fn key_usage<'a>(certificate: &'a X509Certificate<'_>) -> Result<Option<&'a KeyUsage>, Refused> {
    match certificate.key_usage() {
        Ok(extension) => Ok(extension.map(|extension| extension.value)),
        Err(error) => Err(Refused::Unreadable(format!("keyUsage: {error}"))),
    }
}

/// Whether it may sign other certificates.
pub fn is_authority(certificate: &X509Certificate<'_>) -> bool {
    let signs = key_usage(certificate).is_ok_and(|usage| usage.is_none_or(KeyUsage::key_cert_sign));
    certificate.is_ca() && signs
}
