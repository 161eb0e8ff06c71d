//! Mirroring: copies of a share of the calls.

/// One destination of copies.
#[derive(Debug, Clone)]
pub struct Mirror {}
