//! AuthorizationPolicies of one workload, compiled to an index.

use super::{Asking, Judgement};

/// Those that are for this workload.
#[derive(Debug, Default)]
pub struct Policies {}

/// An authorizer that has to be asked.
#[derive(Debug, Clone, Copy)]
pub struct Custom<'p> {
    /// The AuthorizationProvider's name: a place in [`crate::authorizer::Authorizers`].
    pub provider: &'p str,
    /// The policy and rule that want it.
    pub by: &'p str,
    /// Its answer is recorded, not obeyed.
    pub dry_run: bool,
}

impl Policies {
    /// The first CUSTOM policy that matches.
    pub fn custom(&self, _asking: &Asking<'_>) -> Option<Custom<'_>> {
        None
    }

    /// DENY, then ALLOW.
    pub fn decide(&self, _asking: &Asking<'_>) -> Judgement<'_> {
        Judgement::default()
    }

    /// Whether any of them asks for what only a body says.
    pub fn reads_body(&self) -> bool {
        false
    }
}
