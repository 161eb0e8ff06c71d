//! Fault injection: a share of the calls is delayed or aborted.

/// The faults of a rule.
#[derive(Debug, Clone)]
pub struct Fault {}
