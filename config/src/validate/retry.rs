//! Retries of a rule, and what of them could never act.

use std::time::Duration;

use crate::model::{HttpMatch, HttpRoute, Meta, Retry, RetryBudget, StringMatch};
use crate::raw::{HttpRouteSpec, RetryBudgetSpec, RetrySpec, Text, nearest};
use crate::yaml::clip_text;

use super::annotations::Wrong;
use super::check::Cx;

/// More tries than this help nobody: the waits between them add up to 25 s by then.
const MOST_ATTEMPTS: u32 = 100;
/// The largest part of a body that may be kept.
const MOST_BYTES: u32 = 64 << 20;

/// What a word of `retryOn` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// That the upstream provably did nothing.
    NotStarted,
    /// An answer, or none, after the upstream may have done something.
    Failed,
    /// A gRPC status; every gRPC call is a POST.
    Grpc,
    /// Numbers beside it.
    Numbers,
    /// Nothing.
    Never(&'static str),
}

/// The words of `retryOn` besides numbers.
const RETRY_ON: &[(&str, Sign)] = &[
    ("5xx", Sign::Failed),
    ("gateway-error", Sign::Failed),
    ("reset", Sign::Failed),
    ("reset-before-request", Sign::NotStarted),
    ("connect-failure", Sign::NotStarted),
    ("retriable-4xx", Sign::Failed),
    ("refused-stream", Sign::NotStarted),
    ("retriable-status-codes", Sign::Numbers),
    ("retriable-headers", Sign::Never("Istio has no field for the headers")),
    ("envoy-ratelimited", Sign::Failed),
    ("http3-post-connect-failure", Sign::Never("there is no HTTP/3 here")),
    ("cancelled", Sign::Grpc),
    ("deadline-exceeded", Sign::Grpc),
    ("internal", Sign::Grpc),
    ("resource-exhausted", Sign::Grpc),
    ("unavailable", Sign::Grpc),
];

fn sign(word: &str) -> Option<Sign> {
    RETRY_ON.iter().find(|(known, _)| *known == word).map(|(_, sign)| *sign)
}

/// When to try again. `timeout` is the rule's.
pub(super) fn retry(cx: &mut Cx<'_>, spec: &RetrySpec<'_>, timeout: Option<Duration>) -> Retry {
    let mut attempts = spec.attempts.map_or(0, |attempts| cx.not_negative(attempts));
    if let Some(written) = spec.attempts.filter(|_| attempts > MOST_ATTEMPTS) {
        let hint =
            "at most 100; Istio's default is 2, and each one comes on top of what callers repeat themselves";
        cx.error_hint(written.node, format!("{attempts} attempts are too many"), hint);
        attempts = MOST_ATTEMPTS;
    }
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
                _ if sign(word).is_some() => retry_on.push(word.to_owned()),
                _ => unknown_word(cx, words, word),
            }
        }
        never_acts(cx, words, &retry_on, &status_codes);
    }
    let per_try_timeout = spec.per_try_timeout.map(|time| cx.duration(time));
    if let (Some(written), Some(each), Some(whole)) = (spec.per_try_timeout, per_try_timeout, timeout)
        && each > whole
    {
        let message =
            format!("each try may take {each:?}, but the rule's `timeout` ends all of them after {whole:?}");
        cx.warn(written.node, message, "make it shorter than `timeout`, or leave it out");
    }
    Retry {
        attempts,
        per_try_timeout,
        retry_on,
        status_codes,
        remote_localities: spec.retry_remote_localities.map(|remote| remote.value),
        ignore_previous_hosts: spec.retry_ignore_previous_hosts.is_none_or(|ignore| ignore.value),
        backoff: spec.backoff.map_or(Duration::from_millis(25), |time| cx.duration(time)),
    }
}

fn unknown_word(cx: &mut Cx<'_>, words: Text<'_>, word: &str) {
    let known = RETRY_ON.iter().map(|(known, _)| *known);
    let hint = match nearest(word, known.clone()) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("known: {}, or a status from 100 to 599", known.collect::<Vec<_>>().join(", ")),
    };
    cx.error_hint(words.node, format!("`{}` is not a reason to retry", clip_text(word)), hint);
}

fn never_acts(cx: &mut Cx<'_>, words: Text<'_>, retry_on: &[String], status_codes: &[u16]) {
    for word in retry_on {
        match sign(word) {
            Some(Sign::Never(why)) => {
                cx.warn(words.node, format!("`{word}` never acts: {why}"), "leave it out");
            }
            Some(Sign::Numbers) if status_codes.is_empty() => {
                cx.warn(
                    words.node,
                    format!("`{word}` names no status"),
                    "write the numbers beside it, such as 503",
                );
            }
            _ => {}
        }
    }
}

/// Warns when what `retryOn` waits for could only be seen after a call may have been done that must not be done twice.
pub(super) fn only_unsafe(cx: &mut Cx<'_>, meta: &Meta, spec: &HttpRouteSpec<'_>, route: &HttpRoute) {
    let Some((written, retries)) = spec.retries.as_ref().and_then(|r| r.retry_on).zip(route.retries.as_ref())
    else {
        return;
    };
    if retries.attempts == 0 || meta.annotation_for("retry-safety", route.name.as_deref()) == Some("istio") {
        return;
    }
    let is_once = |block: &HttpMatch| match &block.method {
        Some(StringMatch::Exact(method)) => {
            !matches!(&**method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
        }
        _ => false,
    };
    let once = !route.matches.is_empty() && route.matches.iter().all(is_once);
    let of = |wanted: Sign| retries.retry_on.iter().filter(move |word| sign(word) == Some(wanted)).cloned();
    let numbers = retries.status_codes.iter().map(u16::to_string);
    let failed: Vec<String> = of(Sign::Failed).chain(numbers).collect();
    let grpc: Vec<String> = of(Sign::Grpc).collect();
    let proven = of(Sign::NotStarted).next().is_some();
    // Who writes gRPC's words beside those of Istio's default need not be told that they are stricter here.
    let idle = if once && !(failed.is_empty() && proven) {
        [failed, grpc].concat()
    } else if failed.is_empty() && !proven {
        grpc
    } else {
        return;
    };
    if idle.is_empty() {
        return;
    }
    let what = if once { "the rule's calls are not idempotent" } else { "gRPC calls are POST" };
    let message = format!(
        "{}: {what}, and what may have been done is not done again, so a try is repeated only when nothing of it was sent",
        idle.join(", ")
    );
    let hint = "calls with an `idempotency-key` to a sidecar that remembers keys are repeated; \
                `pilotfish.dev/retry-safety: istio` repeats all of them, as Istio does";
    cx.warn(written.node, message, hint);
}

/// How many retries there may be.
pub(super) fn budget(cx: &mut Cx<'_>, spec: &RetryBudgetSpec<'_>) -> RetryBudget {
    RetryBudget {
        percent: spec.percent.map_or(20.0, |percent| cx.percent(percent)),
        min_retry_concurrency: spec.min_retry_concurrency.map_or(3, |min| min.value),
        budget_interval: spec.budget_interval.and_then(|time| cx.duration_or_zero(time)).unwrap_or_default(),
    }
}

/// The check of `pilotfish.dev/retry-buffer-bytes`.
pub(super) fn buffer_bytes(value: &str) -> Result<(), Wrong> {
    match value.parse::<u32>() {
        Ok(bytes) if bytes <= MOST_BYTES => Ok(()),
        Ok(_) => Err(Wrong::new(
            "is more than a sidecar should keep of each call",
            "at most 67108864, which is 64 MiB",
        )),
        Err(_) => Err(Wrong::new(
            "is not a number of bytes",
            "a whole number such as \"262144\"; \"0\" keeps nothing",
        )),
    }
}

/// The check of `pilotfish.dev/hedge`.
pub(super) fn hedge(value: &str) -> Result<(), Wrong> {
    if value == "p95" {
        return Ok(());
    }
    match crate::units::duration(value) {
        Ok(delay) if delay >= Duration::from_millis(1) => Ok(()),
        Ok(_) => Err(Wrong::new("is too short", "at least 1ms, or `p95`")),
        Err(why) => Err(Wrong::new(format!("is no delay: {why}"), "a time such as `200ms`, or `p95`")),
    }
}
