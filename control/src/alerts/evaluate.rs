//! From what rules measure to alerts: pending until it held long enough, firing until it was over long enough, resolved
//! for a while. Time is a parameter, nothing here waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::measure::{Facts, Measured, Seen, sentence, shown, threshold};
use super::rules::Rule;
use crate::api::types::AlertRow;

/// Alerts that are kept; more than agents that a fleet has.
const MOST: usize = 10_000;
/// How long a resolved alert is shown, milliseconds.
const SHOWN: u64 = 15 * 60_000;
/// How often one that fires is told again (Alertmanager's `repeat_interval`).
const REPEAT: Duration = Duration::from_secs(4 * 3600);

/// How an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It does not hold.
    Inactive,
    /// It held and is over.
    Resolved,
    /// It holds, not long enough yet.
    Pending,
    /// It holds, or was over for a moment only.
    Firing,
}

/// A rule that holds for an agent, or did.
#[derive(Debug, Clone)]
pub struct Alert {
    /// Which rule.
    pub rule: Arc<Rule>,
    /// Of whom.
    pub agent: String,
    /// How it is.
    pub state: State,
    /// Since when, milliseconds since 1970.
    pub since: u64,
    /// When it began to hold, milliseconds since 1970.
    pub began: u64,
    /// What was measured last while it held.
    pub measured: Measured,
    /// It held at the newest look.
    holds: bool,
    /// When it held last.
    held: u64,
    /// When it was told last.
    told: u64,
}

/// What others should know.
#[derive(Debug, Clone)]
pub enum Turn {
    /// It fires from now on.
    Fires(Alert),
    /// It has been firing for hours.
    StillFires(Alert),
    /// It is over.
    Resolved(Alert),
}

/// Alerts by rule and agent.
#[derive(Debug, Default)]
pub struct Evaluator {
    alerts: BTreeMap<(Arc<str>, String), Alert>,
}

impl State {
    /// The word in tables and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            State::Inactive => "inactive",
            State::Resolved => "resolved",
            State::Pending => "pending",
            State::Firing => "firing",
        }
    }
}

impl Alert {
    /// One sentence with the numbers.
    pub fn summary(&self) -> String {
        sentence(&self.rule.rule, &self.measured)
    }

    /// What it is told apart by, for Alertmanager: the same on every control plane.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let rule = &self.rule.rule;
        let namespace = self.agent.split_once('/').map_or("", |(namespace, _)| namespace);
        let mut labels = rule.labels.clone();
        for (name, value) in [
            ("alertname", rule.meta.name()),
            ("rule", &self.rule.name),
            ("type", rule.condition.word()),
            ("severity", rule.severity.word()),
            ("agent", &self.agent),
            ("namespace", namespace),
        ] {
            labels.insert(name.to_owned(), value.to_owned());
        }
        labels
    }

    /// What it says to people.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let mut annotations = self.rule.rule.annotations.clone();
        annotations.entry("summary".into()).or_insert_with(|| self.summary());
        annotations
    }
}

impl Evaluator {
    /// Looks at everything once; `now` is milliseconds since 1970 and never goes back. Gives what others should know.
    pub fn step<F: Facts>(&mut self, rules: &[Arc<Rule>], facts: &F, now: u64) -> Vec<Turn> {
        self.alerts.values_mut().for_each(|alert| alert.holds = false);
        let mut seen = Seen::new(facts);
        let active = rules.iter().filter(|rule| !rule.rule.disabled);
        let active: BTreeMap<&str, &Arc<Rule>> = active.map(|rule| (&*rule.name, rule)).collect();
        for rule in active.values() {
            for measured in seen.measure(&rule.rule).into_iter().filter(|measured| measured.holds) {
                self.holds(rule, measured, now);
            }
        }
        let mut turns = Vec::new();
        for alert in self.alerts.values_mut() {
            let rule = active.get(&*alert.rule.name);
            if let Some(rule) = rule {
                alert.rule = (*rule).clone();
            }
            turns.extend(alert.proceed(rule.is_some(), now));
        }
        self.alerts.retain(|_, alert| match alert.state {
            State::Inactive => false,
            State::Resolved => now.saturating_sub(alert.since) < SHOWN,
            State::Pending | State::Firing => true,
        });
        turns
    }

    /// Every alert that is not inactive.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.values()
    }

    /// A rule holds now.
    fn holds(&mut self, rule: &Arc<Rule>, measured: Measured, now: u64) {
        let key = (rule.name.clone(), measured.agent.clone());
        if !self.alerts.contains_key(&key) && self.alerts.len() >= MOST {
            return;
        }
        let alert = self.alerts.entry(key).or_insert_with(|| Alert {
            rule: rule.clone(),
            agent: measured.agent.clone(),
            state: State::Inactive,
            since: now,
            began: now,
            measured: measured.clone(),
            holds: true,
            held: now,
            told: now,
        });
        (alert.holds, alert.held, alert.measured) = (true, now, measured);
        if matches!(alert.state, State::Inactive | State::Resolved) {
            alert.began = now;
            alert.enter(State::Pending, now);
        }
    }
}

impl Alert {
    fn enter(&mut self, state: State, now: u64) {
        (self.state, self.since) = (state, now);
    }

    /// What time and the newest look make of it; `wanted`: there is still a rule that asks.
    fn proceed(&mut self, wanted: bool, now: u64) -> Option<Turn> {
        let passed = |since: u64, least: Duration| u128::from(now.saturating_sub(since)) >= least.as_millis();
        match self.state {
            State::Pending if !wanted || !self.holds => self.enter(State::Inactive, now),
            State::Pending if passed(self.began, self.rule.rule.hold) => {
                self.enter(State::Firing, now);
                self.told = now;
                return Some(Turn::Fires(self.clone()));
            }
            State::Firing if !wanted || !self.holds && passed(self.held, self.rule.rule.keep) => {
                self.enter(State::Resolved, now);
                return Some(Turn::Resolved(self.clone()));
            }
            State::Firing if passed(self.told, REPEAT) => {
                self.told = now;
                return Some(Turn::StillFires(self.clone()));
            }
            State::Pending | State::Firing | State::Inactive | State::Resolved => {}
        }
        None
    }
}

impl From<&Alert> for AlertRow {
    fn from(alert: &Alert) -> AlertRow {
        let condition = &alert.rule.rule.condition;
        AlertRow {
            rule: alert.rule.name.to_string(),
            what: condition.word().into(),
            severity: alert.rule.rule.severity.word().into(),
            agent: alert.agent.clone(),
            state: alert.state.word().into(),
            since: alert.since / 1000,
            value: alert.measured.value,
            threshold: threshold(condition),
            shown: shown(condition, alert.measured.value),
            shown_threshold: shown(condition, threshold(condition)),
            summary: alert.summary(),
            labels: alert.labels(),
            annotations: alert.annotations(),
        }
    }
}

#[cfg(test)]
mod tests;
