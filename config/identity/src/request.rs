//! A new private key, and the request for a certificate of it.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use zeroize::Zeroizing;

use crate::credentials::IdentityError;
use crate::spiffe::SpiffeId;

/// An ECDSA P-256 key that stays here, and a signing request that goes to the authority.
pub struct KeyAndRequest {
    /// The private key, PKCS #8 in PEM.
    pub key_pem: Zeroizing<String>,
    /// The request, PKCS #10 in PEM.
    pub csr_pem: String,
}

impl KeyAndRequest {
    /// Makes a key and a request that names `id`. The authority decides by itself which name it certifies.
    ///
    /// # Errors
    /// There is no randomness, or the name cannot be encoded.
    pub fn new(id: &SpiffeId) -> Result<KeyAndRequest, IdentityError> {
        let failed = |error: rcgen::Error| IdentityError::Crypto(error.to_string());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut wanted = CertificateParams::default();
        wanted.distinguished_name = DistinguishedName::new();
        wanted.subject_alt_names = vec![SanType::URI(id.as_str().try_into().map_err(failed)?)];
        let csr_pem = wanted.serialize_request(&key).and_then(|request| request.pem()).map_err(failed)?;
        Ok(KeyAndRequest { key_pem: Zeroizing::new(key.serialize_pem()), csr_pem })
    }
}

impl std::fmt::Debug for KeyAndRequest {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("KeyAndRequest")
    }
}
