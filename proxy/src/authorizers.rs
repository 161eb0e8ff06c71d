//! Connections to external authorizers, and answers that hold for a while.

/// Those in use.
#[derive(Debug, Default)]
pub struct Authorizers {}
