//! What a rule's `retries` and its annotations mean.

use pilotfish_config::model::{HttpRoute, VirtualService};
use pilotfish_config::units::duration;

use crate::hedge::Hedge;
use crate::retry::{RetryOn, RetryPolicy, Safety, Word};

/// The retries of a written rule.
pub(super) fn policy(route: &HttpRoute, service: &VirtualService) -> RetryPolicy {
    let annotation = |name: &str| service.meta.annotation_for(name, route.name.as_deref());
    let default = RetryPolicy::default();
    let written = match &route.retries {
        None => default,
        Some(retry) => RetryPolicy {
            attempts: retry.attempts,
            per_try_timeout: retry.per_try_timeout,
            on: if retry.retry_on.is_empty() && retry.status_codes.is_empty() {
                default.on
            } else {
                RetryOn::new(retry.retry_on.iter().filter_map(|word| Word::parse(word)), &retry.status_codes)
            },
            remote_localities: retry.remote_localities.unwrap_or_default(),
            ignore_previous_hosts: retry.ignore_previous_hosts,
            backoff: retry.backoff,
            ..default
        },
    };
    RetryPolicy {
        safety: match annotation("retry-safety") {
            Some("istio") => Safety::Istio,
            _ => Safety::Strict,
        },
        buffer: annotation("retry-buffer-bytes")
            .and_then(|bytes| bytes.parse().ok())
            .unwrap_or(written.buffer),
        ..written
    }
}

/// When a written rule sends another try beside the first.
pub(super) fn hedge(route: &HttpRoute, service: &VirtualService) -> Option<Hedge> {
    match service.meta.annotation_for("hedge", route.name.as_deref())? {
        "p95" => Some(Hedge::P95),
        delay => duration(delay).ok().map(Hedge::After),
    }
}
