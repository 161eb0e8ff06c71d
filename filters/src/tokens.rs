//! RequestAuthentications of one workload: whose tokens are valid, where they are found, what is done with them.

use pilotfish_config::model::JwtRule;

/// The issuers, in the order in which tokens are looked for.
#[derive(Debug, Default)]
pub struct TokenRules {
    /// One each.
    pub rules: Box<[JwtRule]>,
}
