//! Who a peer is, and how it proves it: SPIFFE identities, trust bundles, certificates. No sockets.
//!
//! Sidecars and the control plane verify each other with the same code, so that neither takes what the other refuses.
//!
//! | to | use |
//! |---|---|
//! | make a key and ask for a certificate | [`KeyAndRequest`] |
//! | read a certificate chain and its key | [`Credentials`] |
//! | read whom to trust | [`Bundles`] |
//! | keep all of it, replaceable at any time | [`LiveIdentity`] |
//! | open or accept mesh connections | [`tls::client_config`], [`tls::server_config`] |
//! | know a control plane by a fingerprint | [`pinned_client_config`], [`verify_pinned`] |
//! | sign a statement, and know who signed one | [`Credentials::sign`], [`Peer::has_signed`] |
//! | know who is at the other end | [`tls::peer_of`], then [`tls::expect`] |

mod bundles;
mod certificate;
mod credentials;
mod live;
mod pinned;
mod refused;
mod request;
mod seen;
mod signed;
pub mod spiffe;
pub mod tls;
mod token;
mod verify;

pub use bundles::{Bundles, Fingerprint, fingerprint, hex};
pub use credentials::{Credentials, IdentityError};
pub use live::{Identity, LiveIdentity};
pub use pinned::{pinned_client_config, verify_pinned};
pub use refused::Refused;
pub use request::KeyAndRequest;
pub use spiffe::{SpiffeId, TrustDomain};
pub use token::{JoinToken, NotAToken};
pub use verify::{Peer, Usage, verify_peer};
