//! Why a peer's certificate is not taken.

use std::fmt;

use rustls::{CertificateError, Error, OtherError};

use crate::spiffe::{SpiffeId, TrustDomain};

/// Why a peer is refused. [`Refused::reason`] is stable: logs, metrics and headers carry it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The peer sent none.
    NoCertificate,
    /// More certificates, or longer ones, than a chain may have.
    TooLong,
    /// No certificate, or one that breaks X.509.
    Unreadable(String),
    /// It has no URI name, or one that is no SPIFFE ID.
    NoIdentity(String),
    /// It has more than one URI name.
    SeveralIdentities,
    /// No root is known of the domain that its SPIFFE ID names.
    UnknownDomain(TrustDomain),
    /// No root of that domain signed it.
    Untrusted(SpiffeId),
    /// It, or what signed it, has ended.
    Expired(SpiffeId),
    /// It, or what signed it, begins later.
    NotYetValid(SpiffeId),
    /// It is an authority's certificate, which speaks for nobody.
    Authority,
    /// It may not be used for this, for example a server's for a client.
    WrongUsage(SpiffeId),
    /// The identity was revoked.
    Revoked(SpiffeId),
    /// The peer is not a control plane.
    NoControlPlane(SpiffeId),
    /// The peer is somebody, but not the one that was called.
    WrongIdentity {
        /// Who was called.
        expected: SpiffeId,
        /// Who answered.
        found: SpiffeId,
    },
}

impl Refused {
    /// One word for logs and metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Refused::NoCertificate => "no-certificate",
            Refused::TooLong => "chain-too-long",
            Refused::Unreadable(_) => "certificate-unreadable",
            Refused::NoIdentity(_) => "no-spiffe-id",
            Refused::SeveralIdentities => "several-uri-names",
            Refused::UnknownDomain(_) => "unknown-trust-domain",
            Refused::Untrusted(_) => "untrusted",
            Refused::Expired(_) => "expired",
            Refused::NotYetValid(_) => "not-yet-valid",
            Refused::Authority => "leaf-is-authority",
            Refused::WrongUsage(_) => "wrong-usage",
            Refused::Revoked(_) => "revoked",
            Refused::NoControlPlane(_) | Refused::WrongIdentity { .. } => "wrong-identity",
        }
    }

    /// The reason within a failed handshake's error, or `tls` when it failed for another one.
    pub fn reason_of(error: &Error) -> &'static str {
        let Error::InvalidCertificate(why) = error else {
            return match error {
                Error::NoCertificatesPresented => "no-certificate",
                Error::AlertReceived(_) => "refused-by-peer",
                _ => "tls",
            };
        };
        match why {
            CertificateError::Other(OtherError(other)) => {
                other.downcast_ref::<Refused>().map_or("tls", Refused::reason)
            }
            CertificateError::BadEncoding => "certificate-unreadable",
            CertificateError::Expired => "expired",
            CertificateError::NotValidYet => "not-yet-valid",
            CertificateError::UnknownIssuer => "untrusted",
            CertificateError::Revoked => "revoked",
            CertificateError::InvalidPurpose => "wrong-usage",
            _ => "tls",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::NoCertificate => out.write_str("the peer has no certificate"),
            Refused::TooLong => out.write_str("the peer's chain has more than 8 certificates or 64 KiB"),
            Refused::Unreadable(why) => write!(out, "the peer's certificate cannot be read: {why}"),
            Refused::NoIdentity(why) => write!(out, "the peer's certificate names nobody: {why}"),
            Refused::SeveralIdentities => out.write_str("the peer's certificate has more than one URI name"),
            Refused::UnknownDomain(domain) => {
                write!(
                    out,
                    "the trust domain {domain} is not known; add a TrustDomain document to federate it"
                )
            }
            Refused::Untrusted(id) => {
                write!(out, "no root of {} signed the certificate of {id}", id.trust_domain())
            }
            Refused::Expired(id) => write!(out, "the certificate of {id} has expired"),
            Refused::NotYetValid(id) => {
                write!(out, "the certificate of {id} is not valid yet: compare the clocks of both machines")
            }
            Refused::Authority => out.write_str("the peer's certificate is an authority's"),
            Refused::WrongUsage(id) => write!(out, "the certificate of {id} is not for this usage"),
            Refused::Revoked(id) => write!(out, "{id} was revoked"),
            Refused::NoControlPlane(id) => write!(out, "{id} is no control plane of this mesh"),
            Refused::WrongIdentity { expected, found } => {
                write!(out, "the peer is {found}, expected was {expected}")
            }
        }
    }
}

impl std::error::Error for Refused {}

/// The error that makes rustls send the fitting alert.
impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        let why = match refused {
            Refused::NoCertificate => return Error::NoCertificatesPresented,
            Refused::Unreadable(_) => CertificateError::BadEncoding,
            Refused::Untrusted(_) => CertificateError::UnknownIssuer,
            Refused::Expired(_) => CertificateError::Expired,
            Refused::NotYetValid(_) => CertificateError::NotValidYet,
            Refused::WrongUsage(_) => CertificateError::InvalidPurpose,
            Refused::Revoked(_) => CertificateError::Revoked,
            other => CertificateError::Other(OtherError(std::sync::Arc::new(other))),
        };
        Error::InvalidCertificate(why)
    }
}
