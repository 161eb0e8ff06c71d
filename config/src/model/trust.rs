//! TrustDomain: other meshes whose certificates are taken.

use super::Meta;

/// Another mesh and its authorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustDomain {
    /// Key, labels, annotations, place.
    pub meta: Meta,
    /// The trust domain, without `spiffe://`.
    pub name: String,
    /// Its root certificates, PEM, one or more; each block is DER of the right length, not looked into further.
    pub bundle: String,
}
