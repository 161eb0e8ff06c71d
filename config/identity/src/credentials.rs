//! An own identity: a certificate chain and its private key.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::bundles::Bundles;
use crate::certificate;
use crate::refused::Refused;
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::verify::{LONGEST_CHAIN, Peer, Usage, verify_peer};

/// Why files are no identity. Never shows a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityError {
    /// The certificate chain cannot be read.
    Chain(String),
    /// The leaf has no SPIFFE ID of its own.
    Identity(Refused),
    /// The private key cannot be read.
    Key(String),
    /// The private key is another certificate's.
    Mismatch(SpiffeId),
    /// Roots of a trust domain cannot be read.
    Bundle {
        /// Whose.
        domain: TrustDomain,
        /// What is wrong.
        why: String,
    },
    /// A name is no trust domain.
    Name(String),
    /// Cryptography failed, for want of randomness for example.
    Crypto(String),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityError::Chain(why) => write!(out, "the certificate chain cannot be used: {why}"),
            IdentityError::Identity(why) => write!(out, "the certificate is no identity: {why}"),
            IdentityError::Key(why) => write!(out, "the private key cannot be used: {why}"),
            IdentityError::Mismatch(id) => {
                write!(out, "the private key does not belong to the certificate of {id}")
            }
            IdentityError::Bundle { domain, why } => {
                write!(out, "the trust bundle of {domain} cannot be used: {why}")
            }
            IdentityError::Name(why) => out.write_str(why),
            IdentityError::Crypto(why) => write!(out, "cryptography failed: {why}"),
        }
    }
}

impl std::error::Error for IdentityError {}

/// A certificate chain, its key, and who that makes us.
#[derive(Clone)]
pub struct Credentials {
    /// Who.
    pub id: SpiffeId,
    /// The leaf, then what signed it.
    pub chain: Vec<CertificateDer<'static>>,
    /// When the leaf begins to be valid.
    pub not_before: SystemTime,
    /// When the chain ends: the leaf's end, or an earlier one of what signed it.
    pub not_after: SystemTime,
    /// Chain and key as rustls wants them; the key is nowhere else.
    pub(crate) certified: Arc<CertifiedKey>,
}

impl Credentials {
    /// Reads a chain (leaf first) and its private key (PKCS #8, SEC 1 or PKCS #1), both PEM.
    ///
    /// # Errors
    /// Which of the two is wrong, and how.
    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Credentials, IdentityError> {
        let chain = certificate::from_pem(chain_pem, LONGEST_CHAIN).map_err(IdentityError::Chain)?;
        if chain.is_empty() {
            return Err(IdentityError::Chain("there is no certificate in it".into()));
        }
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|_| IdentityError::Key("there is no unencrypted private key in it (PEM)".into()))?;
        Credentials::new(chain, key)
    }

    /// The same from DER: what the SPIFFE Workload API gives.
    ///
    /// # Errors
    /// As [`Credentials::from_pem`].
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Credentials, IdentityError> {
        let leaf =
            chain.first().ok_or_else(|| IdentityError::Chain("there is no certificate in it".into()))?;
        let parsed = certificate::parse(leaf).map_err(IdentityError::Chain)?;
        let id = certificate::identity(&parsed).map_err(IdentityError::Identity)?;
        let (not_before, mut not_after) = certificate::validity(&parsed).into_inner();
        for der in &chain[1..] {
            let parsed = certificate::parse(der).map_err(IdentityError::Chain)?;
            not_after = not_after.min(*certificate::validity(&parsed).end());
        }
        let key = any_supported_type(&key)
            .map_err(|_| IdentityError::Key("its type is not supported: use ECDSA P-256".into()))?;
        let certified = CertifiedKey::new(chain.clone(), key);
        certified.keys_match().map_err(|_| IdentityError::Mismatch(id.clone()))?;
        Ok(Credentials { id, chain, not_before, not_after, certified: Arc::new(certified) })
    }

    /// Whether peers with these bundles would take it, as client and as server.
    ///
    /// # Errors
    /// Why they would not.
    pub fn self_check(&self, bundles: &Bundles, now: SystemTime) -> Result<Peer, Refused> {
        verify_peer(&self.chain, bundles, Usage::Client, now)?;
        verify_peer(&self.chain, bundles, Usage::Server, now)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Credentials({}, {} certificates)", self.id, self.chain.len())
    }
}
