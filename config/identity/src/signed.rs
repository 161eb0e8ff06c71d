//! Statements that an agent's key signs besides its handshakes. What is signed has to begin with words that no handshake has: those of
//! TLS 1.3 begin with 64 spaces (RFC 8446 section 4.4.3).

use rustls::SignatureScheme;
use webpki::EndEntityCert;

use crate::credentials::Credentials;
use crate::verify::{Peer, algorithms};

/// Those that keys of the types we take can make, the usual one first.
const SCHEMES: [SignatureScheme; 4] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
];

impl Credentials {
    /// Signs a statement; some 15 us with ECDSA P-256. `None`: the key is of a type that can sign handshakes only.
    pub fn sign(&self, statement: &[u8]) -> Option<Vec<u8>> {
        let signer = self.certified.key.choose_scheme(&SCHEMES)?;
        signer.sign(statement).ok()
    }
}

impl Peer {
    /// Whether the key of its leaf signed a statement; some 50 us with ECDSA P-256.
    pub fn has_signed(&self, statement: &[u8], signature: &[u8]) -> bool {
        let Some(leaf) = self.chain.first().and_then(|leaf| EndEntityCert::try_from(leaf).ok()) else {
            return false;
        };
        let usable = algorithms().mapping.iter().filter(|(scheme, _)| SCHEMES.contains(scheme));
        let mut all = usable.flat_map(|(_, all)| all.iter());
        all.any(|algorithm| leaf.verify_signature(*algorithm, statement, signature).is_ok())
    }
}
