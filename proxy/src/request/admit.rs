//! admit: may this caller do this? In this release there is nothing to ask: documents of the security kinds keep
//! the sidecar from starting (see [`crate::source`]) until the policies behind them are enforced here.

use pilotfish_filters::call::Caller;

use crate::request::route::Way;

/// Proof that a request passed the policies of its way. Made here and nowhere else.
#[derive(Debug)]
pub struct Permit(());

/// Asks the policies in their order: authorization, rate limit, budget.
pub fn admit(_caller: &Caller, _way: &Way<'_>) -> Permit {
    Permit(())
}
