//! AlertRule: thresholds in the unit of their type, times that control planes can keep.

use std::time::Duration;

use crate::model::{
    AgentName, AlertCalls, AlertCondition, AlertRule, AlertSeverity, Meta, StringMap, is_capability_name,
};
use crate::raw::{AlertRuleSpec, AlertTypeWord, SeverityWord, Text, TextMap, Time};
use crate::units::{self, print_duration};
use crate::yaml::{Node, clip_text};

use super::check::{Cx, is_dns_label};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// A sidecar reports every 5 s at most, and control planes add up in slots of ten.
const SHORTEST_WINDOW: Duration = Duration::from_secs(10);
/// The last bound of sidecars' histograms.
const LONGEST_LATENCY: Duration = Duration::from_secs(10);
/// Labels or annotations of a rule.
const MOST_LABELS: usize = 32;
/// What an alert says of itself.
const OWN_LABELS: [&str; 6] = ["alertname", "rule", "type", "severity", "agent", "namespace"];

/// Reads one.
pub(super) fn alert_rule(cx: &mut Cx<'_>, meta: Meta, spec: &AlertRuleSpec<'_>) -> Option<AlertRule> {
    let what = spec.what?.value;
    foreign_fields(cx, what, spec);
    let condition = condition(cx, what, spec);
    let hold = if what == AlertTypeWord::AgentUnavailable { 30 } else { 120 };
    let severity = match spec.severity.map(|word| word.value) {
        Some(SeverityWord::Info) => AlertSeverity::Info,
        None | Some(SeverityWord::Warning) => AlertSeverity::Warning,
        Some(SeverityWord::Critical) => AlertSeverity::Critical,
    };
    Some(AlertRule {
        meta,
        condition,
        agent: spec.agent.and_then(|agent| agent_name(cx, agent)),
        hold: time(cx, spec.hold, Duration::from_secs(hold), Duration::ZERO, DAY),
        keep: time(cx, spec.keep, Duration::from_secs(60), Duration::ZERO, DAY),
        severity,
        labels: labels(cx, spec.labels.as_ref()),
        annotations: annotations(cx, spec.annotations.as_ref()),
        disabled: spec.disabled.is_some_and(|disabled| disabled.value),
    })
}

/// Fields that the type does not look at: somebody means something that would not happen.
fn foreign_fields(cx: &mut Cx<'_>, what: AlertTypeWord, spec: &AlertRuleSpec<'_>) {
    let calls = matches!(what, AlertTypeWord::ErrorRate | AlertTypeWord::Latency);
    let fields: [(Option<Node<'_>>, bool, &str); 5] = [
        (spec.from.map(|field| field.node), calls, "error-rate and latency"),
        (spec.capability.map(|field| field.node), calls, "error-rate and latency"),
        (spec.window.map(|field| field.node), calls, "error-rate and latency"),
        (spec.min_calls.map(|field| field.node), calls, "error-rate and latency"),
        (spec.quantile.map(|field| field.node), what == AlertTypeWord::Latency, "latency"),
    ];
    for (node, used, of) in fields {
        if let Some(node) = node.filter(|_| !used) {
            cx.error_hint(
                node,
                format!("the type `{}` does not look at it", word(what)),
                format!("it is for {of}"),
            );
        }
    }
}

fn word(what: AlertTypeWord) -> &'static str {
    match what {
        AlertTypeWord::ErrorRate => "error-rate",
        AlertTypeWord::Latency => "latency",
        AlertTypeWord::Saturation => "saturation",
        AlertTypeWord::AgentUnavailable => "agent-unavailable",
    }
}

fn condition(cx: &mut Cx<'_>, what: AlertTypeWord, spec: &AlertRuleSpec<'_>) -> AlertCondition {
    let threshold = spec.threshold.map(|threshold| threshold.0);
    let mut wrong = |text: Text<'_>, wanted: &str| {
        let message = format!("`{}` is no threshold of the type `{}`", clip_text(text.value), word(what));
        cx.error_hint(text.node, message, wanted);
    };
    match what {
        AlertTypeWord::ErrorRate => {
            let above = match threshold {
                None => 0.05,
                Some(text) => match text.value.strip_suffix('%').and_then(number) {
                    Some(percent) if (0.0..100.0).contains(&percent) => percent / 100.0,
                    _ => {
                        wrong(text, "a share of calls with its sign, 0% or more and below 100%, as `5%`");
                        0.05
                    }
                },
            };
            AlertCondition::ErrorRate { calls: calls(cx, spec), above }
        }
        AlertTypeWord::Latency => {
            let above = match threshold {
                None => Duration::from_secs(5),
                Some(text) => match units::duration(text.value) {
                    Ok(above) if !above.is_zero() && above < LONGEST_LATENCY => above,
                    _ => {
                        wrong(
                            text,
                            "a time with its unit, above 0 and below 10s, as `2s`: sidecars do not tell apart what takes longer",
                        );
                        Duration::from_secs(5)
                    }
                },
            };
            AlertCondition::Latency { quantile: quantile(cx, spec), calls: calls(cx, spec), above }
        }
        AlertTypeWord::Saturation => AlertCondition::Saturation {
            above: match threshold {
                None => 100.0,
                Some(text) => match number(text.value) {
                    Some(above) if (0.0..=1e6).contains(&above) => above,
                    _ => {
                        wrong(text, "calls in flight at an instance, 0 to 1000000, as `100`");
                        100.0
                    }
                },
            },
        },
        AlertTypeWord::AgentUnavailable => AlertCondition::Unavailable {
            below: match threshold {
                None => 1,
                Some(text) => match text.value.parse() {
                    Ok(below @ 1..=1000) => below,
                    _ => {
                        wrong(text, "a number of instances, 1 to 1000");
                        1
                    }
                },
            },
        },
    }
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|number| number.is_finite())
}

fn quantile(cx: &mut Cx<'_>, spec: &AlertRuleSpec<'_>) -> f64 {
    let Some(quantile) = spec.quantile else { return 0.95 };
    if quantile.value <= 0.0 || quantile.value >= 1.0 {
        let hint = "above 0 and below 1: `0.95` is the time that 95 of 100 calls take at most";
        cx.error_hint(quantile.node, format!("{} is no quantile", quantile.value), hint);
    }
    quantile.value
}

fn calls(cx: &mut Cx<'_>, spec: &AlertRuleSpec<'_>) -> AlertCalls {
    let capability = spec.capability.map(|capability| {
        if !is_capability_name(capability.value) {
            let message = format!("`{}` is not a capability", clip_text(capability.value));
            cx.error_hint(
                capability.node,
                message,
                "letters, digits, `_` and `-`, at most 63; without a version",
            );
        }
        capability.value.to_ascii_lowercase()
    });
    let min_calls = spec.min_calls.map_or(10, |least| {
        if least.value == 0 {
            cx.error_hint(least.node, "without a call there is nothing to look at", "1 or more");
        }
        least.value
    });
    AlertCalls {
        from: spec.from.and_then(|from| agent_name(cx, from)),
        capability,
        window: time(cx, spec.window, Duration::from_secs(120), SHORTEST_WINDOW, HOUR),
        min_calls,
    }
}

fn time(
    cx: &mut Cx<'_>,
    time: Option<Time<'_>>,
    default: Duration,
    least: Duration,
    most: Duration,
) -> Duration {
    let Some(time) = time else { return default };
    if time.value < least || time.value > most {
        let message = format!("{} is out of range", print_duration(time.value));
        cx.error_hint(time.node, message, format!("{} to {}", print_duration(least), print_duration(most)));
    }
    time.value
}

/// `name` or `namespace/name`.
fn agent_name(cx: &mut Cx<'_>, text: Text<'_>) -> Option<AgentName> {
    let own = cx.namespace.to_string();
    let (namespace, name) = text.value.split_once('/').unwrap_or((&own, text.value));
    if !is_dns_label(namespace) || !is_dns_label(name) {
        let message = format!("`{}` is not an agent", clip_text(text.value));
        cx.error_hint(text.node, message, "write `name` or `namespace/name`; leave it out for every agent");
        return None;
    }
    Some(AgentName { namespace: namespace.to_owned(), name: name.to_owned() })
}

fn labels(cx: &mut Cx<'_>, map: Option<&TextMap<'_>>) -> StringMap {
    let own = |key: &str| OWN_LABELS.contains(&key);
    for (key, _) in map.into_iter().flatten() {
        if own(key.value) {
            let hint = format!("the alert sets it itself; its own labels: {}", OWN_LABELS.join(", "));
            cx.error_hint(key.node, format!("the label `{}` is taken", key.value), hint);
        } else if !is_label_name(key.value) {
            let message = format!("`{}` is not the name of a label", clip_text(key.value));
            cx.error_hint(
                key.node,
                message,
                "as Prometheus' labels: letters, digits and `_`, no digit first",
            );
        }
    }
    annotations(cx, map)
}

/// As Prometheus defines it.
fn is_label_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.len() <= 63
        && name.bytes().all(good)
        && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

fn annotations(cx: &mut Cx<'_>, map: Option<&TextMap<'_>>) -> StringMap {
    let mut read = StringMap::new();
    for (at, (key, value)) in map.into_iter().flatten().enumerate() {
        if at >= MOST_LABELS {
            cx.error(key.node, format!("more than {MOST_LABELS} of them"));
            break;
        }
        if key.value.is_empty() || key.value.len() > 63 || value.value.len() > 1024 {
            cx.error_hint(value.node, "too long", "names have 1 to 63 bytes, values at most 1024");
        }
        read.insert(key.value.to_owned(), value.value.to_owned());
    }
    read
}
