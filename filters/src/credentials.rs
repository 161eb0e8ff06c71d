//! OutboundCredentials of one sidecar: what it shows to which host on its agent's behalf.

/// Those that are for this sidecar, by host.
#[derive(Debug, Default)]
pub struct Credentials {}
