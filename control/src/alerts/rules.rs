//! The rules that are evaluated: documents, and the four that are there until a document takes their place.

use std::sync::Arc;
use std::time::Duration;

use pilotfish_config::model::{
    AlertCalls, AlertCondition, AlertRule, AlertSeverity, Kind, Meta, Model, ROOT_NAMESPACES, ResourceKey,
    Source, StringMap,
};
use pilotfish_config::units::print_duration;

/// A rule with its name.
#[derive(Debug)]
pub struct Rule {
    /// `namespace/name`.
    pub name: Arc<str>,
    /// What it says.
    pub rule: AlertRule,
    /// It is there without a document.
    pub default: bool,
}

/// Rules of the newest documents.
#[derive(Debug, Default)]
pub struct Rules {
    model: Option<Arc<Model>>,
    rules: Vec<Arc<Rule>>,
}

impl Rules {
    /// Takes other documents in.
    pub fn follow(&mut self, model: &Arc<Model>) {
        if self.model.as_ref().is_some_and(|own| Arc::ptr_eq(own, model)) {
            return;
        }
        self.model = Some(model.clone());
        let named = |rule: AlertRule, default: bool| {
            let name = format!("{}/{}", rule.meta.namespace(), rule.meta.name()).into();
            Arc::new(Rule { name, rule, default })
        };
        let replaced = |name: &str| {
            let same = |rule: &AlertRule| {
                rule.meta.name() == name && ROOT_NAMESPACES.contains(&rule.meta.namespace())
            };
            model.alert_rules.iter().any(same)
        };
        let kept = defaults().into_iter().filter(|rule| !replaced(rule.meta.name()));
        self.rules = kept.map(|rule| named(rule, true)).collect();
        self.rules.extend(model.alert_rules.iter().map(|rule| named(rule.clone(), false)));
    }

    /// All of them, those that are disabled too.
    pub fn all(&self) -> &[Arc<Rule>] {
        &self.rules
    }
}

/// The four that a newcomer wants. `pilotfish dashboards` writes the same for Prometheus.
pub fn defaults() -> Vec<AlertRule> {
    let calls =
        || AlertCalls { from: None, capability: None, window: Duration::from_secs(120), min_calls: 10 };
    let rule = |name: &str, condition, hold, severity| AlertRule {
        meta: Meta {
            key: ResourceKey {
                kind: Kind::AlertRule,
                namespace: ROOT_NAMESPACES[0].into(),
                name: name.into(),
            },
            labels: StringMap::new(),
            annotations: StringMap::new(),
            source: Source { file: "(there by default)".into(), line: 1, column: 1 },
        },
        condition,
        agent: None,
        hold: Duration::from_secs(hold),
        keep: Duration::from_secs(60),
        severity,
        labels: StringMap::new(),
        annotations: StringMap::new(),
        disabled: false,
    };
    use AlertSeverity::{Critical, Warning};
    let latency = AlertCondition::Latency { calls: calls(), quantile: 0.95, above: Duration::from_secs(5) };
    vec![
        rule("error-rate", AlertCondition::ErrorRate { calls: calls(), above: 0.05 }, 120, Critical),
        rule("latency", latency, 120, Warning),
        rule("saturation", AlertCondition::Saturation { above: 100.0 }, 120, Warning),
        rule("agent-unavailable", AlertCondition::Unavailable { below: 1 }, 30, Critical),
    ]
}

/// A rule in words: `more than 5 % of calls fail over 2m, for 2m`.
pub fn words(rule: &AlertRule) -> String {
    let about = match &rule.agent {
        Some(agent) => format!(" of {agent}"),
        None => String::new(),
    };
    let which = |calls: &AlertCalls| {
        let capability = calls.capability.as_ref().map(|name| format!(" for {name}")).unwrap_or_default();
        let from = calls.from.as_ref().map(|from| format!(" by {from}")).unwrap_or_default();
        format!("calls{about}{capability}{from}")
    };
    let condition = match &rule.condition {
        AlertCondition::ErrorRate { calls, above } => {
            format!(
                "more than {} of {} fail over {}",
                percent(*above),
                which(calls),
                print_duration(calls.window)
            )
        }
        AlertCondition::Latency { calls, quantile, above } => format!(
            "{} of {} take longer than {} over {}",
            percent(1.0 - quantile),
            which(calls),
            print_duration(*above),
            print_duration(calls.window)
        ),
        AlertCondition::Saturation { above } => {
            format!("more than {above} calls in flight at an instance{about}")
        }
        AlertCondition::Unavailable { below } => format!("fewer than {below} instances{about} may be chosen"),
    };
    format!("{condition}, for {}", print_duration(rule.hold))
}

/// `5 %`, `12.5 %`.
pub fn percent(share: f64) -> String {
    let percent = (share * 1000.0).round() / 10.0;
    format!("{percent} %")
}
