//! The policies of a rule about failure, load and time: one line for each, one function for each policy.

use pilotfish_config::model::{HttpRoute, VirtualService};

use super::destination::Destinations;
use crate::plan::Resilience;

/// What a written rule says. `destinations` finds where copies go.
pub(super) fn of_route<'a>(
    route: &'a HttpRoute,
    service: &'a VirtualService,
    destinations: &mut Destinations<'a>,
) -> Resilience {
    let _ = (route, service, destinations);
    Resilience::default()
}
