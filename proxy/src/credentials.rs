//! Secrets that the sidecar shows on its agent's behalf: obtained, exchanged, renewed, read from files. Never in a log.

/// What there is at present.
#[derive(Debug, Default)]
pub struct Credentials {}
