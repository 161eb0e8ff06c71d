//! Hedging: one more try for a safe call that takes long.

/// When one more try is sent.
#[derive(Debug, Clone)]
pub struct Hedge {}
