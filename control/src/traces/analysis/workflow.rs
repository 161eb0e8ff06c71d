//! All traces of a workflow, added up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use super::advice::percent;
use crate::api::analysis::{
    AgentTime, Bottleneck, Part, Recommendation, Time, TraceAnalysis, WorkflowAnalysis,
};

/// Bottlenecks and slowest traces that are told.
const MOST_BOTTLENECKS: usize = 20;
/// The same for traces.
const MOST_SLOWEST: usize = 10;

/// Adds up traces one after the other, so that only their sums are kept.
#[derive(Debug, Default)]
pub struct Sum {
    sum: WorkflowAnalysis,
    runs: Vec<(u64, u64)>,
    agents: BTreeMap<String, AgentTime>,
    bottlenecks: HashMap<(String, String, Option<String>, Part), Bottleneck>,
    /// By id: the one with the most to save, and the number of traces.
    recommendations: BTreeMap<String, (Recommendation, usize)>,
}

impl Sum {
    /// Of a workflow.
    pub fn of(workflow: &str) -> Sum {
        Sum {
            sum: WorkflowAnalysis { workflow: workflow.to_owned(), ..WorkflowAnalysis::default() },
            ..Sum::default()
        }
    }

    /// Adds a trace.
    pub fn add(&mut self, one: TraceAnalysis) {
        let sum = &mut self.sum;
        sum.traces += 1;
        sum.spans += one.spans;
        sum.failed += usize::from(one.errors > 0);
        sum.errors += one.errors;
        sum.retries += one.retries;
        add_time(&mut sum.time, &one.time);
        for (reason, count) in one.refusals {
            *sum.refusals.entry(reason).or_default() += count;
        }
        self.runs.push((one.start_ns, one.start_ns.saturating_add(one.total_ns)));
        sum.slowest.push((one.trace, one.total_ns));
        for own in one.agents {
            let into = self.agents.entry(own.agent.clone()).or_default();
            into.agent = own.agent;
            into.spans += own.spans;
            into.self_ns = into.self_ns.saturating_add(own.self_ns);
            into.critical_ns = into.critical_ns.saturating_add(own.critical_ns);
            into.errors += own.errors;
            into.retries += own.retries;
            into.input_tokens += own.input_tokens;
            into.output_tokens += own.output_tokens;
        }
        for own in one.bottlenecks {
            let key = (own.agent.clone(), own.name.clone(), own.capability.clone(), own.part);
            match self.bottlenecks.get_mut(&key) {
                Some(into) => {
                    into.spans += own.spans;
                    into.self_ns = into.self_ns.saturating_add(own.self_ns);
                    into.critical_ns = into.critical_ns.saturating_add(own.critical_ns);
                    if own.longest_ns > into.longest_ns {
                        (into.longest_ns, into.evidence) = (own.longest_ns, own.evidence);
                    }
                }
                None => drop(self.bottlenecks.insert(key, own)),
            }
        }
        for own in one.recommendations {
            let rank = |own: &Recommendation| (own.severity, own.saving_ns);
            match self.recommendations.get_mut(&own.id) {
                Some((best, traces)) => {
                    *traces += 1;
                    if rank(&own) > rank(best) {
                        *best = own;
                    }
                }
                None => drop(self.recommendations.insert(own.id.clone(), (own, 1))),
            }
        }
    }

    /// What they say together; `more`: there are others that were not looked at.
    pub fn end(mut self, more: bool) -> WorkflowAnalysis {
        let mut sum = self.sum;
        sum.more = more;
        sum.start_ns = self.runs.iter().map(|run| run.0).min().unwrap_or_default();
        sum.total_ns = self.runs.iter().map(|run| run.1).max().unwrap_or_default() - sum.start_ns;
        sum.busy_ns = union(&mut self.runs);
        sum.slowest.sort_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
        sum.slowest.truncate(MOST_SLOWEST);
        sum.agents = self.agents.into_values().collect();
        sum.agents.sort_by_key(|own| Reverse((own.critical_ns, own.self_ns)));
        sum.bottlenecks = self.bottlenecks.into_values().collect();
        sum.bottlenecks.sort_by(|a, b| {
            (b.critical_ns, b.self_ns)
                .cmp(&(a.critical_ns, a.self_ns))
                .then_with(|| (&a.agent, &a.name).cmp(&(&b.agent, &b.name)))
        });
        sum.bottlenecks.truncate(MOST_BOTTLENECKS);
        let traces = sum.traces;
        let told = |(best, count): (Recommendation, usize)| {
            let share = percent(count as u64, traces as u64);
            let finding = format!("in {count} of {traces} traces ({share} %), at most: {}", best.finding);
            Recommendation { finding: if traces > 1 { finding } else { best.finding }, ..best }
        };
        sum.recommendations = self.recommendations.into_values().map(told).collect();
        sum.recommendations.sort_by_key(|one| Reverse((one.severity, one.saving_ns)));
        sum
    }
}

fn add_time(into: &mut Time, own: &Time) {
    into.agent_ns = into.agent_ns.saturating_add(own.agent_ns);
    into.mesh_ns = into.mesh_ns.saturating_add(own.mesh_ns);
    into.outside_ns = into.outside_ns.saturating_add(own.outside_ns);
    into.nobody_ns = into.nobody_ns.saturating_add(own.nobody_ns);
}

/// Time that at least one run covers.
fn union(runs: &mut [(u64, u64)]) -> u64 {
    runs.sort_unstable();
    let (mut busy, mut until) = (0, 0);
    for (from, to) in runs.iter() {
        busy += to.saturating_sub((*from).max(until));
        until = until.max(*to);
    }
    busy
}
