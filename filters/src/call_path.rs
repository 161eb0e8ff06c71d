//! What sidecars tell each other of a call: hops, the agents on its path, priority. Loops and depth.

/// What a rule says of depth, cycles and fan-out.
#[derive(Debug, Clone, Default)]
pub struct PathPolicy {}
