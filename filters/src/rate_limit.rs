//! Rate limits: who may call how often.

/// The limits of a rule.
#[derive(Debug, Clone, Default)]
pub struct RuleLimits {}
