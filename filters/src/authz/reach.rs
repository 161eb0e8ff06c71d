//! How far calls get of which not everything is known: what `pilotfish authz matrix` shows.
//!
//! The caller is known, and that it acts for itself. What is not known may be anything: addresses, ports, hosts, headers, tokens; and
//! method, path and what the call is, where nobody says. `Yes` and `No` hold whatever it is.

use super::Asking;
use crate::plan::Plan;

/// How far calls get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// All of them are refused.
    No,
    /// It hangs on what is not known.
    Some,
    /// None of them is refused.
    Yes,
}

impl Reach {
    pub(super) fn of(certain: bool) -> Reach {
        if certain { Reach::Yes } else { Reach::No }
    }

    pub(super) fn not(self) -> Reach {
        match self {
            Reach::No => Reach::Yes,
            Reach::Some => Reach::Some,
            Reach::Yes => Reach::No,
        }
    }
}

/// Calls, and what is known of them.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// One of them, of which the caller counts, and what the others say.
    pub asking: &'a Asking<'a>,
    /// Its method is that of all.
    pub method: bool,
    /// Its path is that of all.
    pub path: bool,
    /// What it is (protocol, method, skill, tool, model, capability) is what all are.
    pub call: bool,
}

impl Known<'_> {
    /// Whether all that permissions hang on is known, headers apart.
    pub(super) fn is_whole(&self) -> bool {
        self.method && self.path && self.call
    }
}

impl Plan {
    /// How far such calls get here. With it whether an external authorizer is asked about some of them, which may refuse what else is
    /// allowed.
    pub fn reach(&self, known: &Known<'_>) -> (Reach, bool) {
        let (policies, asks) = self.authz.policies.reach(known);
        (policies.min(self.authz.governance.reach(known)), asks)
    }
}

#[cfg(test)]
mod tests;
