//! TrustDomain: our own kind, in Istio's style of keys.

use super::{Text, object};

object! {
    /// Another mesh whose certificates are taken: its name and its authorities.
    struct TrustDomainSpec<'n> "TrustDomain" {
        /// The trust domain, as in `spiffe://<trust domain>/...` (the document's name by default).
        trust_domain = "trustDomain": Text<'n>;
        /// Its root certificates: one or more PEM blocks `CERTIFICATE`.
        bundle = "bundle": Text<'n>, required;
    }
}
