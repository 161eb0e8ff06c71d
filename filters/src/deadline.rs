//! How long a call may still take: `agent-deadline-ms`, `grpc-timeout`, the route's timeout.

/// The times of a rule besides its timeout.
#[derive(Debug, Clone, Default)]
pub struct Timeouts {}
