//! OutboundCredential: what the sidecar shows to a host on its agent's behalf.

use super::Meta;

/// What is shown to whom.
#[derive(Debug, Clone)]
pub struct OutboundCredential {
    /// Key, labels, annotations, place.
    pub meta: Meta,
}
