//! RateLimit: amounts that can be kept, targets that can be told.

use std::time::Duration;

use crate::model::{
    Host, HttpRoute, LimitAmount, LimitKey, LimitTarget, Meta, Model, RateLimit, is_capability_name,
};
use crate::raw::{
    LimitDirectionWord, LimitKeySpec, LimitKeyWord, LimitSpec, LimitTargetSpec, RateLimitSpec, Text,
};
use crate::units::print_duration;
use crate::yaml::{Node, clip_text};

use super::Drafts;
use super::check::{Cx, wildcard_domain};
use super::headers::is_header_name;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A bucket counts in microseconds, one call in each at the most.
const FASTEST: f64 = 1_000_000.0;

/// A limit, and where each of its targets is written.
pub(super) struct RateLimitDraft<'n> {
    pub(super) limit: RateLimit,
    targets: Vec<Node<'n>>,
}

/// Reads one.
pub(super) fn rate_limit<'n>(
    cx: &mut Cx<'_>,
    meta: Meta,
    spec: &RateLimitSpec<'n>,
) -> Option<RateLimitDraft<'n>> {
    let inbound = spec.direction.is_some_and(|word| word.value == LimitDirectionWord::Inbound);
    let written = spec.targets.as_deref().unwrap_or_default();
    if !inbound && written.is_empty() {
        let hint = "write `targets` with a host, a route or a capability; or `direction: inbound` for every call that the \
                    agent gets";
        cx.error_hint(spec.node, "the limit has no target", hint);
    }
    let (mut targets, mut places) = (Vec::<LimitTarget>::new(), Vec::new());
    for (at, one) in written.iter().enumerate() {
        let Some(target) = target(cx, one, inbound) else { continue };
        if targets.contains(&target) {
            cx.error(one.node, format!("target {} is in the list already", at + 1));
        }
        targets.push(target);
        places.push(one.node);
    }
    let by = keys(cx, spec, inbound);
    let amount = amount(cx, spec.limit.as_ref()?)?;
    let limit = RateLimit {
        meta,
        inbound,
        selector: spec
            .selector
            .as_ref()
            .map(|s| cx.selector(s.node, s.match_labels.as_ref()))
            .unwrap_or_default(),
        targets,
        by,
        amount,
        fleet: spec.fleet.is_some_and(|fleet| fleet.value),
        dry_run: spec.dry_run.is_some_and(|dry| dry.value),
    };
    Some(RateLimitDraft { limit, targets: places })
}

fn target(cx: &mut Cx<'_>, spec: &LimitTargetSpec<'_>, inbound: bool) -> Option<LimitTarget> {
    if let Some(text) = spec.host.or(spec.route).filter(|_| inbound) {
        let message = "calls that the agent gets follow no rule, and their host is the agent";
        cx.error_hint(text.node, message, "inbound targets are capabilities; none: every call");
        return None;
    }
    if let Some(host) = spec.host {
        let resolved = cx.host(host);
        if wildcard_domain(host.value).is_err() {
            return None;
        }
        if let Some(capability) = resolved.capability() {
            cx.error_hint(
                host.node,
                "this host stands for a capability",
                format!("write `capability: {capability}`"),
            );
            return None;
        }
        return Some(LimitTarget::Host(resolved));
    }
    if let Some(route) = spec.route {
        return self::route(cx, route);
    }
    if let Some(capability) = spec.capability {
        if !is_capability_name(capability.value) {
            let message = format!("`{}` is not a capability", clip_text(capability.value));
            let hint = if capability.value.contains('@') {
                "without a version: a limit is for all of them"
            } else {
                "letters, digits, `_` and `-`, at most 63"
            };
            cx.error_hint(capability.node, message, hint);
        }
        return Some(LimitTarget::Capability(capability.value.to_ascii_lowercase()));
    }
    cx.error_hint(spec.node, "the target says nothing", "write `host`, `route` or `capability`");
    None
}

fn route(cx: &mut Cx<'_>, text: Text<'_>) -> Option<LimitTarget> {
    let parts: Vec<&str> = text.value.split('/').collect();
    if parts.iter().any(|part| part.is_empty() || part.contains(['*', ' '])) || parts.len() > 3 {
        let message = format!("`{}` is not a rule's name", clip_text(text.value));
        let hint = "write `virtualservice`, `virtualservice/rule` or `namespace/virtualservice/rule`";
        cx.error_hint(text.node, message, hint);
        return None;
    }
    let own = cx.namespace.to_string();
    let (namespace, service, rule) = match parts.as_slice() {
        [service] => (own, service, None),
        [service, rule] => (own, service, Some((*rule).to_owned())),
        [namespace, service, rule] => ((*namespace).to_owned(), service, Some((*rule).to_owned())),
        _ => return None,
    };
    Some(LimitTarget::Route { namespace, service: (*service).to_owned(), rule })
}

fn keys(cx: &mut Cx<'_>, spec: &RateLimitSpec<'_>, inbound: bool) -> Vec<LimitKey> {
    let mut keys: Vec<LimitKey> = Vec::new();
    for key in spec.by.iter().flatten() {
        let (node, key) = match key {
            LimitKeySpec::Word(word) if word.value == LimitKeyWord::Caller => {
                if !inbound {
                    let hint =
                        "the caller is the local agent always; `direction: inbound` tells callers apart";
                    cx.warn(word.node, "does nothing for calls that the agent makes", hint);
                }
                (word.node, LimitKey::Caller)
            }
            LimitKeySpec::Word(word) => (word.node, LimitKey::Capability),
            LimitKeySpec::Header(spec) => {
                let Some(name) = spec.header else { continue };
                if !is_header_name(name.value) {
                    let message = format!("`{}` is not a header name", clip_text(name.value));
                    cx.error_hint(name.node, message, "letters, digits and `-`, as in `x-tenant`");
                }
                (name.node, LimitKey::Header(name.value.to_ascii_lowercase()))
            }
        };
        if keys.contains(&key) {
            cx.error(node, "is in the list already");
        }
        keys.push(key);
    }
    keys
}

fn amount(cx: &mut Cx<'_>, spec: &LimitSpec<'_>) -> Option<LimitAmount> {
    let requests = spec.requests?;
    let zero = "to let nothing through, use a rule that answers: `directResponse: {status: 403}`";
    if requests.value == 0 {
        cx.error_hint(requests.node, "0 requests are no rate", zero);
        return None;
    }
    let per = spec.per.map_or(Duration::from_secs(1), |per| {
        let value = cx.duration(per);
        if value > DAY {
            let message = format!("{} is too long", print_duration(value));
            cx.error_hint(per.node, message, "at most 24h: a sidecar does not remember over a restart");
        }
        value
    });
    let burst = spec.burst.map_or(requests.value, |burst| {
        if burst.value == 0 {
            cx.error_hint(burst.node, "with a burst of 0 no call gets through", "1 or more");
        }
        burst.value
    });
    let amount =
        LimitAmount { requests: requests.value, per: per.max(Duration::from_millis(1)), burst: burst.max(1) };
    if amount.per_second() > FASTEST {
        let message =
            format!("{} in {} is more than a million a second", requests.value, print_duration(per));
        cx.error_hint(requests.node, message, "no sidecar serves that many: leave the limit out");
    }
    Some(amount)
}

/// Targets that no document here says anything about.
pub(super) fn unknown_targets(cx: &mut Cx<'_>, drafts: &Drafts<'_>, model: &Model) {
    let rules = || drafts.virtual_services.iter().map(|draft| &draft.service);
    let entries = model.service_entries.iter().flat_map(|entry| &entry.hosts);
    let hosts: Vec<&Host> = entries.chain(rules().flat_map(|service| &service.hosts)).collect();
    for draft in &drafts.rate_limits {
        for (target, place) in draft.limit.targets.iter().zip(&draft.targets) {
            let place = *place;
            match target {
                LimitTarget::Host(host) => {
                    if !hosts.iter().any(|known| known.covers(host) || host.covers(known)) {
                        let message = format!("no document here has the host {host}");
                        cx.warn(
                            place,
                            message,
                            "without one, only an agent that registers as it makes the limit count",
                        );
                    }
                }
                LimitTarget::Route { namespace, service: name, rule } => {
                    let found = rules()
                        .find(|known| known.meta.namespace() == namespace && known.meta.name() == name);
                    let Some(found) = found else {
                        let message = format!("there is no VirtualService {namespace}/{name} here");
                        cx.warn(place, message, "until there is one, the limit counts nothing");
                        continue;
                    };
                    let names: Vec<String> =
                        found.http.iter().enumerate().map(|(at, rule)| rule_name(rule, at)).collect();
                    if let Some(rule) = rule.as_ref().filter(|rule| !names.contains(rule)) {
                        let message = format!(
                            "the VirtualService {namespace}/{name} has no rule `{}`",
                            clip_text(rule)
                        );
                        cx.warn(place, message, format!("it has: {}", names.join(", ")));
                    }
                }
                LimitTarget::Capability(_) => {}
            }
        }
    }
}

/// The name by which a target calls a rule.
fn rule_name(rule: &HttpRoute, at: usize) -> String {
    rule.name.clone().unwrap_or_else(|| at.to_string())
}
