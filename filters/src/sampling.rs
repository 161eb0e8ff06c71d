//! Which traces are kept: the decision at the head of a trace.

/// How many of the traces that begin here are kept: a share, and besides some each second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sampling {
    /// Of all, 0 to 1.
    pub ratio: f64,
    /// Each second, whatever the share says.
    pub per_second: u32,
}
