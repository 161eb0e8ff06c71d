//! AuthorizationProvider: who is asked by AuthorizationPolicies with the action CUSTOM.

use super::Meta;

/// Who is asked.
#[derive(Debug, Clone)]
pub struct AuthorizationProvider {
    /// Key, labels, annotations, place.
    pub meta: Meta,
}
