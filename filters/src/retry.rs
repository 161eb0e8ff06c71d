//! Retries: which failures, how often, after which wait.

/// When to try again, compiled for a rule.
#[derive(Debug, Clone, Default)]
pub struct RetryPolicy {}
