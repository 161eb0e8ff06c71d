//! What a rule sees: for each agent that it is about a number, and whether that is too much.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use pilotfish_config::model::{AlertCalls, AlertCondition, AlertRule};

use super::rules::percent;
use crate::cli::human;
use crate::fleet::Fleet;
use crate::fleet::edges::{EdgeTraffic, OTHERS, Traffic};
use crate::fleet::presence::Presence;

/// What is known at one time.
pub trait Facts {
    /// Who called whom within the last `window`.
    fn edges(&self, window: Duration) -> Vec<EdgeTraffic>;
    /// Every agent that is there, or was.
    fn agents(&self) -> Vec<Presence>;
}

impl Facts for Fleet {
    fn edges(&self, window: Duration) -> Vec<EdgeTraffic> {
        Fleet::edges(self, window)
    }

    fn agents(&self) -> Vec<Presence> {
        self.presence()
    }
}

/// Facts of one evaluation, each asked for once.
#[derive(Debug)]
pub struct Seen<'f, F> {
    facts: &'f F,
    edges: HashMap<Duration, Vec<EdgeTraffic>>,
    agents: Option<Vec<Presence>>,
}

/// What a rule measured of one agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// `namespace/name`, or a host.
    pub agent: String,
    /// In the unit of [`threshold`].
    pub value: f64,
    /// Calls that it stands on, for those that look at calls.
    pub calls: u64,
    /// It is too much.
    pub holds: bool,
}

impl<'f, F: Facts> Seen<'f, F> {
    /// Of these facts.
    pub fn new(facts: &'f F) -> Seen<'f, F> {
        Seen { facts, edges: HashMap::new(), agents: None }
    }

    /// Every agent that the rule is about and of which something is known.
    pub fn measure(&mut self, rule: &AlertRule) -> Vec<Measured> {
        match &rule.condition {
            AlertCondition::ErrorRate { calls, above } => {
                let measured = |agent: String, traffic: Traffic| {
                    let value = traffic.error_rate()?;
                    let holds = traffic.calls >= calls.min_calls.into() && value > *above;
                    Some(Measured { agent, value, calls: traffic.calls, holds })
                };
                self.calls(rule, calls).into_iter().filter_map(|(agent, sum)| measured(agent, sum)).collect()
            }
            AlertCondition::Latency { calls, quantile, above } => {
                let measured = |agent: String, traffic: Traffic| {
                    let value = Duration::from_micros(traffic.quantile(*quantile)?).as_secs_f64();
                    let holds = traffic.calls >= calls.min_calls.into() && value > above.as_secs_f64();
                    Some(Measured { agent, value, calls: traffic.calls, holds })
                };
                self.calls(rule, calls).into_iter().filter_map(|(agent, sum)| measured(agent, sum)).collect()
            }
            AlertCondition::Saturation { above } => {
                let measured = |own: &Presence| {
                    let value = own.in_flight as f64 / f64::from(own.here.max(1));
                    Measured { agent: own.agent.clone(), value, calls: 0, holds: value > *above }
                };
                let here = |own: &&Presence| own.here > 0 && rule.is_about(&own.agent);
                self.agents().iter().filter(here).map(measured).collect()
            }
            AlertCondition::Unavailable { below } => {
                let measured = |own: &Presence| Measured {
                    agent: own.agent.clone(),
                    value: own.routable.into(),
                    calls: 0,
                    holds: own.routable < *below,
                };
                let meant = |own: &&Presence| !own.retired && rule.is_about(&own.agent);
                let agents = self.agents();
                let mut all: Vec<Measured> = agents.iter().filter(meant).map(measured).collect();
                // One that is asked for by its name has to be there, whether it ever was or not.
                let named = rule.agent.as_ref().map(ToString::to_string);
                let absent = |name: &String| !agents.iter().any(|own| own.agent == *name);
                let missing = named.filter(absent).map(|agent| Presence { agent, ..Presence::default() });
                all.extend(missing.iter().map(measured));
                all
            }
        }
    }

    /// Calls by the agent that is called.
    fn calls(&mut self, rule: &AlertRule, calls: &AlertCalls) -> BTreeMap<String, Traffic> {
        let facts = self.facts;
        let edges = self.edges.entry(calls.window).or_insert_with(|| facts.edges(calls.window));
        let from = calls.from.as_ref().map(ToString::to_string);
        let mut sums: BTreeMap<String, Traffic> = BTreeMap::new();
        for edge in edges.iter().filter(|edge| edge.traffic.calls > 0 && &*edge.to != OTHERS) {
            let meant = rule.is_about(&edge.to)
                && from.as_ref().is_none_or(|from| **from == *edge.from)
                && calls.capability.as_ref().is_none_or(|name| {
                    edge.capability.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(name))
                });
            if meant {
                sums.entry(edge.to.to_string()).or_default().add(&edge.traffic);
            }
        }
        sums
    }

    fn agents(&mut self) -> &[Presence] {
        let facts = self.facts;
        self.agents.get_or_insert_with(|| facts.agents())
    }
}

/// What a rule compares with: a share, seconds, calls in flight, instances.
pub fn threshold(condition: &AlertCondition) -> f64 {
    match condition {
        AlertCondition::ErrorRate { above, .. } | AlertCondition::Saturation { above } => *above,
        AlertCondition::Latency { above, .. } => above.as_secs_f64(),
        AlertCondition::Unavailable { below } => (*below).into(),
    }
}

/// A value or a threshold for people.
pub fn shown(condition: &AlertCondition, value: f64) -> String {
    match condition {
        AlertCondition::ErrorRate { .. } => percent(value),
        AlertCondition::Latency { .. } => {
            let time = Duration::try_from_secs_f64(value).unwrap_or_default();
            human::latency(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
        }
        AlertCondition::Saturation { .. } => format!("{} in flight", (value * 10.0).round() / 10.0),
        AlertCondition::Unavailable { .. } => {
            format!("{value} instance{}", if value == 1.0 { "" } else { "s" })
        }
    }
}

/// One sentence with the numbers.
pub fn sentence(rule: &AlertRule, measured: &Measured) -> String {
    let (agent, calls) = (&measured.agent, measured.calls);
    let value = shown(&rule.condition, measured.value);
    let limit = shown(&rule.condition, threshold(&rule.condition));
    let window = |calls: &AlertCalls| pilotfish_config::units::print_duration(calls.window);
    match &rule.condition {
        AlertCondition::ErrorRate { calls: which, .. } => {
            format!("{agent}: {value} of {calls} calls failed within {} (more than {limit})", window(which))
        }
        AlertCondition::Latency { calls: which, quantile, .. } => format!(
            "{agent}: {} of {calls} calls took at most {value} within {} (more than {limit})",
            percent(*quantile),
            window(which)
        ),
        AlertCondition::Saturation { .. } => format!("{agent}: {value} at each instance (more than {limit})"),
        AlertCondition::Unavailable { .. } => format!("{agent}: {value} may be chosen (fewer than {limit})"),
    }
}
