//! OutboundCredential: our own kind, in Istio's style of keys.

use super::{List, Text, object};

object! {
    /// What the sidecar shows to hosts on its agent's behalf, so that the agent never holds the secret.
    struct OutboundCredentialSpec<'n> "OutboundCredential" {
        /// The hosts.
        hosts = "hosts": List<Text<'n>>, required;
    }
}
