//! The policies of a rule about failure, load and time: one line for each, one function for each policy.

use pilotfish_config::model::{HttpRoute, VirtualService};
use pilotfish_config::units::duration;

use super::destination::Destinations;
use crate::call_path::PathPolicy;
use crate::deadline::Timeouts;
use crate::plan::Resilience;

/// What a written rule says. `destinations` finds where copies go.
pub(super) fn of_route<'a>(
    route: &'a HttpRoute,
    service: &'a VirtualService,
    destinations: &mut Destinations<'a>,
) -> Resilience {
    let _ = destinations;
    let own = |name: &str| service.meta.annotation_for(name, route.name.as_deref());
    Resilience { timeouts: timeouts(own), path: PathPolicy::read(own), ..Resilience::default() }
}

/// Times by annotation; bad values were refused before.
pub(crate) fn timeouts<'a>(find: impl Fn(&str) -> Option<&'a str>) -> Timeouts {
    let time = |name| find(name).and_then(|text| duration(text).ok());
    Timeouts {
        response_header: time("response-header-timeout"),
        stream_idle: time("stream-idle-timeout")
            .map_or(Timeouts::default().stream_idle, |idle| Some(idle).filter(|idle| !idle.is_zero())),
    }
}
