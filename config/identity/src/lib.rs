//! Who a peer is, and how it proves it: SPIFFE identities, trust bundles, certificates. No sockets.
//!
//! Sidecars and the control plane verify each other with the same code, so that neither takes what the other refuses.

pub mod spiffe;

pub use spiffe::{SpiffeId, TrustDomain};
