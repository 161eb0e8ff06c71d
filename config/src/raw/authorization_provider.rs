//! AuthorizationProvider: our own kind, in Istio's style of keys; what are `envoyExtAuthzGrpc` and `envoyExtAuthzHttp` in Istio's
//! MeshConfig.

use super::{Text, object};

object! {
    /// Who is asked by AuthorizationPolicies with the action CUSTOM, by its name.
    struct AuthorizationProviderSpec<'n> "AuthorizationProvider" {
        /// The authorizer's host.
        service = "service": Text<'n>, required;
    }
}
