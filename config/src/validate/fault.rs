//! Faults of HTTP rules: what is delayed or aborted, how often, and with what.

use std::time::Duration;

use crate::model::{Abort, Fault};
use crate::raw::{AbortSpec, DelaySpec, FaultSpec, HttpRouteSpec, PercentSpec, Signed, Text, nearest};
use crate::yaml::{Node, clip_text};

use super::check::Cx;

/// The statuses of gRPC; each is the number of its place (grpc/grpc, `doc/statuscodes.md`).
const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The error codes of HTTP/2; each is the number of its place (RFC 9113 section 7).
const HTTP2_ERRORS: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

/// Faults to inject.
pub(super) fn fault(cx: &mut Cx<'_>, spec: &FaultSpec<'_>, rule: &HttpRouteSpec<'_>) -> Fault {
    if spec.delay.is_none() && spec.abort.is_none() {
        cx.error_hint(spec.node, "the fault does nothing", "write delay or abort");
    }
    for other in ["timeout", "retries"] {
        if let Some(node) = rule.node.get(other) {
            let message = format!("`{other}` is not applied while the rule injects faults, as in Istio");
            cx.diagnose.warn_at_key(node, message, Some("remove it, or the fault".into()));
        }
    }
    Fault {
        delay: spec.delay.as_ref().and_then(|delay| self::delay(cx, delay)),
        abort: spec.abort.as_ref().and_then(|abort| self::abort(cx, abort)),
    }
}

fn delay(cx: &mut Cx<'_>, spec: &DelaySpec<'_>) -> Option<(f64, Duration)> {
    if let Some(time) = spec.exponential_delay {
        cx.error_hint(time.node, "`exponentialDelay` was never implemented", "write `fixedDelay`");
    }
    let share = share(cx, spec.percentage.as_ref(), spec.percent);
    if spec.percentage.is_none() && spec.percent.is_none() {
        nobody(cx, spec.node);
    }
    let Some(time) = spec.fixed_delay else {
        // A value that could not be read was complained about already.
        if spec.node.get("fixedDelay").is_none() && spec.exponential_delay.is_none() {
            cx.warn(spec.node, "the delay does not say how long", "write `fixedDelay`");
        }
        return None;
    };
    Some((share, cx.duration(time)))
}

fn abort(cx: &mut Cx<'_>, spec: &AbortSpec<'_>) -> Option<(f64, Abort)> {
    let share = share(cx, spec.percentage.as_ref(), None);
    if spec.percentage.is_none() {
        nobody(cx, spec.node);
    }
    if let Some(error) = spec.http2_error {
        return http2_error(cx, error).map(|code| (share, Abort::Http2(code)));
    }
    if let Some(status) = spec.grpc_status {
        return grpc_status(cx, status).map(|status| (share, Abort::Grpc(status)));
    }
    let Some(status) = spec.http_status else {
        cx.warn(
            spec.node,
            "the abort does not say with what",
            "write one of httpStatus, grpcStatus, http2Error",
        );
        return None;
    };
    if !(200..=600).contains(&status.value) {
        cx.error_hint(status.node, format!("{} is not a status", status.value), "allowed: 200 to 600");
    }
    Some((share, Abort::Http(u16::try_from(status.value).unwrap_or(500))))
}

/// Istio's default is none, not all.
fn nobody(cx: &mut Cx<'_>, node: Node<'_>) {
    cx.warn(
        node,
        "no call meets this fault, because its share is not written",
        "write `percentage: {value: 100}`",
    );
}

/// By name, as Istio has it, or by number.
fn grpc_status(cx: &mut Cx<'_>, word: Text<'_>) -> Option<u8> {
    let by_number = || word.value.parse().ok().filter(|number: &usize| *number < GRPC_STATUSES.len());
    let number = GRPC_STATUSES.iter().position(|name| *name == word.value).or_else(by_number);
    if number.is_none() {
        let hint = match nearest(word.value, GRPC_STATUSES) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("known: 0 to 16, or {}", GRPC_STATUSES.join(", ")),
        };
        cx.error_hint(word.node, format!("`{}` is not a gRPC status", clip_text(word.value)), hint);
    }
    number.and_then(|number| u8::try_from(number).ok())
}

/// Istio has the field and refuses it.
fn http2_error(cx: &mut Cx<'_>, word: Text<'_>) -> Option<u32> {
    if cx.strict_istio {
        cx.error_hint(
            word.node,
            "`http2Error` was never implemented",
            "Pilotfish has it without --strict-istio",
        );
        return None;
    }
    let code = HTTP2_ERRORS.iter().position(|name| *name == word.value);
    if code.is_none() {
        let hint = match nearest(word.value, HTTP2_ERRORS) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("known: {}", HTTP2_ERRORS.join(", ")),
        };
        cx.error_hint(word.node, format!("`{}` is not an error of HTTP/2", clip_text(word.value)), hint);
    }
    code.and_then(|code| u32::try_from(code).ok())
}

/// A share of requests: 0 when nothing is written, as in Istio.
fn share(cx: &mut Cx<'_>, percentage: Option<&PercentSpec<'_>>, percent: Option<Signed<'_>>) -> f64 {
    match (percentage, percent) {
        (Some(percentage), _) => percentage.value.map_or(0.0, |value| {
            if value.value > 0.0 && value.value < 0.0001 {
                cx.error_hint(value.node, format!("{} is too small", value.value), "0, or 0.0001 to 100");
            }
            cx.percent(value)
        }),
        (None, Some(percent)) => f64::from(cx.whole_percent(percent)),
        (None, None) => 0.0,
    }
}
