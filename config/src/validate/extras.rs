//! Retries and mirrors of HTTP rules.

use std::time::Duration;

use crate::model::{Mirror, Retry};
use crate::raw::{HttpRouteSpec, RetrySpec, Text, nearest};
use crate::yaml::clip_text;

use super::check::Cx;
use super::http_route::destination;

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
