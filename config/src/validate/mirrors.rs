//! Mirrors of HTTP rules.

use crate::model::Mirror;
use crate::raw::HttpRouteSpec;

use super::check::Cx;
use super::http_route::destination;

/// Where copies go.
pub(super) fn mirrors(cx: &mut Cx<'_>, spec: &HttpRouteSpec<'_>) -> Vec<Mirror> {
    let percent = spec.mirror_percent.or(spec.mirror_percent_old).map(|percent| {
        if percent.value > 100 {
            cx.error_hint(
                percent.node,
                format!("{} is not a percentage", percent.value),
                "allowed: 0 to 100",
            );
        }
        f64::from(percent.value)
    });
    let percentage = spec.mirror_percentage.as_ref().map(|p| p.value.map_or(0.0, |value| cx.percent(value)));
    if spec.mirror.is_none() && (percent.is_some() || percentage.is_some()) {
        let hint = "each of `mirrors` has a percentage of its own";
        cx.warn(spec.node, "the percentage of mirrored requests is for `mirror`, which is not there", hint);
    }
    let mut mirrors = Vec::new();
    if let Some(destination) = spec.mirror.as_ref().and_then(|mirror| destination(cx, mirror)) {
        mirrors.push(Mirror { destination, percentage: percentage.or(percent).unwrap_or(100.0) });
    }
    for mirror in spec.mirrors.iter().flatten() {
        let percentage = mirror.percentage.as_ref().map(|p| p.value.map_or(0.0, |value| cx.percent(value)));
        if let Some(destination) = mirror.destination.as_ref().and_then(|d| destination(cx, d)) {
            mirrors.push(Mirror { destination, percentage: percentage.unwrap_or(100.0) });
        }
    }
    mirrors
}
