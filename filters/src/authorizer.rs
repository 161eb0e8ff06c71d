//! AuthorizationProviders: who is asked by the action CUSTOM, and how.

/// Those that a sidecar may have to ask, by name.
#[derive(Debug, Default)]
pub struct Authorizers {}
