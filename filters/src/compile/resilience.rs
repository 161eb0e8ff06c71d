//! The policies of a rule about failure, load and time: one line for each, one function for each policy.

use std::sync::Arc;

use pilotfish_config::model::{self, HttpRoute, VirtualService};
use pilotfish_config::units::duration;

use super::destination::Destinations;
use super::retry;
use crate::call_path::PathPolicy;
use crate::cors::Cors;
use crate::deadline::Timeouts;
use crate::fault::Fault;
use crate::mirror::Mirror;
use crate::plan::Resilience;
use crate::share::Share;

/// What a written rule says. `destinations` finds where copies go.
pub(super) fn of_route<'a>(
    route: &'a HttpRoute,
    service: &'a VirtualService,
    destinations: &mut Destinations<'a>,
) -> Resilience {
    let own = |name: &str| service.meta.annotation_for(name, route.name.as_deref());
    let fault = route.fault.as_ref().and_then(Fault::new).map(Box::new);
    let (mut timeouts, mut retries) = (timeouts(own), retry::policy(route, service));
    if fault.is_some() {
        // Istio: neither timeouts nor retries where faults are injected. `compile::route` leaves the rule's timeout out.
        timeouts.response_header = None;
        retries.attempts = 0;
        retries.per_try_timeout = None;
    }
    Resilience {
        hedge: retry::hedge(route, service).filter(|_| fault.is_none()),
        retry: Arc::new(retries),
        timeouts,
        path: PathPolicy::read(own),
        fault,
        mirrors: route.mirrors.iter().map(|mirror| self::mirror(mirror, destinations)).collect(),
        cors: route.cors.as_ref().map(|cors| Arc::new(Cors::new(cors))),
        ..Resilience::default()
    }
}

fn mirror<'a>(mirror: &'a model::Mirror, destinations: &mut Destinations<'a>) -> Mirror {
    let target = destinations.find(&mirror.destination).target.clone();
    Mirror { target, share: Share::percent(mirror.percentage) }
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
