//! Retries, faults, mirrors and CORS of HTTP rules.

use std::time::Duration;

use crate::model::{Abort, Cors, Fault, Mirror, Retry, StringMatch};
use crate::raw::{
    AbortSpec, CorsSpec, DelaySpec, FaultSpec, HttpRouteSpec, PercentSpec, RetrySpec, Signed, Text,
    UnmatchedPreflights, nearest,
};
use crate::yaml::clip_text;

use super::check::Cx;
use super::headers::is_header_name;
use super::http_route::destination;
use super::matching::string_match;

/// The words of `retryOn` besides numbers.
const RETRY_ON: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// When to try again.
pub(super) fn retry(cx: &mut Cx<'_>, spec: &RetrySpec<'_>) -> Retry {
    let attempts = spec.attempts.map_or(0, |attempts| cx.not_negative(attempts));
    let says_more = spec.per_try_timeout.is_some()
        || spec.retry_on.is_some_and(|on| !on.value.is_empty())
        || spec.retry_remote_localities.is_some();
    if attempts == 0 && says_more {
        cx.error_hint(spec.node, "`attempts` is 0, so the rest says nothing", "write `attempts`");
    }
    let (mut retry_on, mut status_codes) = (Vec::new(), Vec::new());
    if let Some(words) = spec.retry_on.filter(|words| !words.value.is_empty()) {
        for word in words.value.split(',').map(str::trim) {
            match word.parse::<u16>() {
                Ok(status) if (100..=599).contains(&status) => status_codes.push(status),
                _ if RETRY_ON.contains(&word) => retry_on.push(word.to_owned()),
                _ => unknown_retry_word(cx, words, word),
            }
        }
    }
    Retry {
        attempts,
        per_try_timeout: spec.per_try_timeout.map(|time| cx.duration(time)),
        retry_on,
        status_codes,
        remote_localities: spec.retry_remote_localities.map(|remote| remote.value),
        ignore_previous_hosts: spec.retry_ignore_previous_hosts.is_none_or(|ignore| ignore.value),
        backoff: spec.backoff.map_or(Duration::from_millis(25), |time| cx.duration(time)),
    }
}

fn unknown_retry_word(cx: &mut Cx<'_>, words: Text<'_>, word: &str) {
    let hint = match nearest(word, RETRY_ON.iter().copied()) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("known: {}, or a status", RETRY_ON.join(", ")),
    };
    cx.error_hint(words.node, format!("`{}` is not a reason to retry", clip_text(word)), hint);
}

/// Faults to inject.
pub(super) fn fault(cx: &mut Cx<'_>, spec: &FaultSpec<'_>) -> Fault {
    if spec.delay.is_none() && spec.abort.is_none() {
        cx.error_hint(spec.node, "the fault does nothing", "write delay or abort");
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
    let Some(time) = spec.fixed_delay else {
        if spec.exponential_delay.is_none() {
            cx.warn(spec.node, "the delay does not say how long", "write `fixedDelay`");
        }
        return None;
    };
    Some((share, cx.duration(time)))
}

fn abort(cx: &mut Cx<'_>, spec: &AbortSpec<'_>) -> Option<(f64, Abort)> {
    let share = share(cx, spec.percentage.as_ref(), None);
    if let Some(error) = spec.http2_error {
        cx.error(error.node, "`http2Error` was never implemented");
        return None;
    }
    if let Some(status) = spec.grpc_status {
        if !is_grpc_status(status.value) {
            let hint = "for example UNAVAILABLE";
            cx.error_hint(status.node, format!("`{}` is not a gRPC status", clip_text(status.value)), hint);
        }
        return Some((share, Abort::Grpc(status.value.to_owned())));
    }
    let Some(status) = spec.http_status else {
        cx.warn(spec.node, "the abort does not say with what", "write httpStatus or grpcStatus");
        return None;
    };
    if !(200..=600).contains(&status.value) {
        cx.error_hint(status.node, format!("{} is not a status", status.value), "allowed: 200 to 599");
    }
    Some((share, Abort::Http(u16::try_from(status.value).unwrap_or(500))))
}

fn is_grpc_status(word: &str) -> bool {
    const WORDS: &[&str] = &[
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
    WORDS.contains(&word)
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

/// Cross-origin rules.
pub(super) fn cors(cx: &mut Cx<'_>, spec: &CorsSpec<'_>) -> Cors {
    let mut allow_origins: Vec<StringMatch> = Vec::new();
    for origin in spec.allow_origins.iter().flatten() {
        let texts = [origin.exact, origin.prefix, origin.regex];
        if texts.iter().flatten().all(|text| text.value.is_empty()) {
            cx.error_hint(origin.node, "the origin is empty", "write exact, prefix or regex");
        } else {
            allow_origins.extend(string_match(cx, origin, false));
        }
    }
    let exact = spec.allow_origin.iter().flatten().map(|origin| match origin.value {
        "*" => StringMatch::Presence,
        origin => StringMatch::Exact(origin.to_owned()),
    });
    allow_origins.extend(exact);
    if let Some(age) = spec.max_age.filter(|age| age.subsec_nanos() > 0) {
        cx.error(age.node, "`maxAge` must be in whole seconds");
    }
    Cors {
        allow_origins,
        allow_methods: methods(cx, spec.allow_methods.as_deref().unwrap_or_default()),
        allow_headers: header_names(cx, spec.allow_headers.as_deref().unwrap_or_default()),
        expose_headers: header_names(cx, spec.expose_headers.as_deref().unwrap_or_default()),
        max_age: spec.max_age.map(|age| cx.duration(age)),
        allow_credentials: spec.allow_credentials.map(|allow| allow.value),
        forward_unmatched_preflights: spec
            .unmatched_preflights
            .is_none_or(|word| word.value != UnmatchedPreflights::Ignore),
    }
}

fn methods(cx: &mut Cx<'_>, list: &[Text<'_>]) -> Vec<String> {
    const METHODS: &[&str] =
        &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];
    for method in list.iter().filter(|method| !METHODS.contains(&method.value)) {
        let hint = format!("known: {}", METHODS.join(", "));
        cx.error_hint(method.node, format!("`{}` is not a method", clip_text(method.value)), hint);
    }
    list.iter().map(|method| method.value.to_owned()).collect()
}

fn header_names(cx: &mut Cx<'_>, list: &[Text<'_>]) -> Vec<String> {
    for name in list.iter().filter(|name| !is_header_name(name.value)) {
        cx.error(name.node, format!("`{}` is not a header name", clip_text(name.value)));
    }
    list.iter().map(|name| name.value.to_ascii_lowercase()).collect()
}
