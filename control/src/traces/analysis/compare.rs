//! Two windows of time side by side: what is new, gone, slower, faster, failing or well again, where that is no chance.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::who::maker;
use crate::alerts::rules::percent;
use crate::api::analysis::{Calls, Change, ChangeKind, Comparison, Operation, Window};
use crate::cli::human;
use crate::traces::span::{Kind, Trace};

/// Operations that are told apart; what is more is not looked at.
const MOST_OPERATIONS: usize = 5_000;
/// Durations of one operation that are kept.
const MOST_DURATIONS: usize = 5_000;
/// Operations that are told.
const MOST_TOLD: usize = 200;
/// With fewer calls on either side nothing is said about them.
const ENOUGH: u64 = 20;
/// An operation is new when it has at least so many calls.
const ENOUGH_NEW: u64 = 5;
/// A difference that chance alone makes in one of a hundred cases (two sides of a normal distribution).
const SIGNIFICANT: f64 = 2.576;
/// What is less than this of a difference is nobody's business: a fifth of the time, and a millisecond ...
const RATIO: f64 = 1.2;
const LEAST_NS: u64 = 1_000_000;
/// ... or two calls in a hundred.
const LEAST_RATE: f64 = 0.02;

/// Calls of one window, by agent and operation.
#[derive(Debug, Default)]
pub struct Sample {
    operations: BTreeMap<(String, String), Seen>,
    traces: usize,
}

#[derive(Debug, Default)]
struct Seen {
    count: u64,
    errors: u64,
    durations: Vec<u64>,
}

impl Sample {
    /// Adds the calls of a trace.
    pub fn add(&mut self, trace: &Trace) {
        self.traces += 1;
        for span in &trace.spans {
            // Tries are told with their call.
            let own = span.text("pilotfish.direction").is_some();
            if span.kind == Kind::Client && own || matches!(span.kind, Kind::Producer) {
                continue;
            }
            let key = (maker(span), span.name.clone());
            if self.operations.len() >= MOST_OPERATIONS && !self.operations.contains_key(&key) {
                continue;
            }
            let seen = self.operations.entry(key).or_default();
            seen.count += 1;
            seen.errors += u64::from(span.error);
            if seen.durations.len() < MOST_DURATIONS {
                seen.durations.push(span.duration());
            }
        }
    }
}

impl Seen {
    fn calls(&self) -> Calls {
        Calls {
            count: self.count,
            error_rate: if self.count == 0 { 0.0 } else { self.errors as f64 / self.count as f64 },
            p50_ns: quantile(&self.durations, 50),
            p95_ns: quantile(&self.durations, 95),
        }
    }
}

/// Of sorted numbers.
fn quantile(sorted: &[u64], percent: usize) -> u64 {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

/// What is different; `now` and `before` say which windows these are.
pub fn compare(now: (Window, Sample), before: (Window, Sample)) -> Comparison {
    let ((mut window, mut later), (mut window_before, mut earlier)) = (now, before);
    (window.traces, window_before.traces) = (later.traces, earlier.traces);
    let keys: Vec<(String, String)> = later
        .operations
        .keys()
        .chain(earlier.operations.keys())
        .cloned()
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    let (mut changes, mut operations) = (Vec::new(), Vec::new());
    for key in keys {
        let take = |of: &mut Sample| {
            let mut seen = of.operations.remove(&key).unwrap_or_default();
            seen.durations.sort_unstable();
            seen
        };
        let (new, old) = (take(&mut later), take(&mut earlier));
        let (agent, name) = key;
        let operation = Operation { agent, name, now: new.calls(), before: old.calls() };
        changes.extend(judge(&operation, &new, &old, earlier.traces > 0, later.traces > 0));
        operations.push(operation);
    }
    changes.sort_by(|a, b| {
        let size = |change: &Change| change.operation.now.count.max(change.operation.before.count);
        (a.kind, Reverse(size(a))).cmp(&(b.kind, Reverse(size(b))))
    });
    operations.sort_by_key(|own| Reverse(own.now.count.max(own.before.count)));
    operations.truncate(MOST_TOLD);
    Comparison { now: window, before: window_before, changes, operations }
}

fn judge(operation: &Operation, new: &Seen, old: &Seen, was: bool, is: bool) -> Vec<Change> {
    let (now, before) = (operation.now, operation.before);
    let told = |kind, finding| Change { kind, operation: operation.clone(), finding };
    let calls = |count: u64| human::count(usize::try_from(count).unwrap_or(usize::MAX), "call");
    // A window without traces says nothing.
    if !was || !is {
        return Vec::new();
    }
    if before.count == 0 {
        let new = now.count >= ENOUGH_NEW;
        return new.then(|| told(ChangeKind::New, calls(now.count))).into_iter().collect();
    }
    if now.count == 0 {
        let gone = before.count >= ENOUGH;
        let finding = format!("{} before, none now", calls(before.count));
        return gone.then(|| told(ChangeKind::Vanished, finding)).into_iter().collect();
    }
    if now.count < ENOUGH || before.count < ENOUGH {
        return Vec::new();
    }
    let mut changes = Vec::new();
    let rise = now.error_rate - before.error_rate;
    if rise.abs() >= LEAST_RATE && proportions(new, old).abs() >= SIGNIFICANT {
        let kind = if rise > 0.0 { ChangeKind::Failing } else { ChangeKind::Recovered };
        let finding = format!(
            "{} of {} fail, before {} of {}",
            percent(now.error_rate),
            calls(now.count),
            percent(before.error_rate),
            calls(before.count)
        );
        changes.push(told(kind, finding));
    }
    let (median, tail) = (ranks(&new.durations, &old.durations), tails(&new.durations, &old.durations));
    for (what, z, now, before) in
        [("p50", median, now.p50_ns, before.p50_ns), ("p95", tail, now.p95_ns, before.p95_ns)]
    {
        let differs = now.abs_diff(before) >= LEAST_NS
            && now.max(before) as f64 >= now.min(before) as f64 * RATIO
            && z.abs() >= SIGNIFICANT
            && (z > 0.0) == (now > before);
        if differs {
            let kind = if now > before { ChangeKind::Slower } else { ChangeKind::Faster };
            let time = |nanoseconds: u64| human::latency(nanoseconds / 1000);
            changes.push(told(kind, format!("{what} {}, before {}", time(now), time(before))));
            break;
        }
    }
    changes
}

/// How unlikely two shares of errors are by chance: z of two proportions.
fn proportions(new: &Seen, old: &Seen) -> f64 {
    let (n, m) = (new.count as f64, old.count as f64);
    let (p, q) = (new.errors as f64 / n, old.errors as f64 / m);
    let both = (new.errors + old.errors) as f64 / (n + m);
    let spread = (both * (1.0 - both) * (1.0 / n + 1.0 / m)).sqrt();
    if spread > 0.0 { (p - q) / spread } else { 0.0 }
}

/// Mann and Whitney: whether one of the new is rather longer than one of the old, whatever the distribution. Both are
/// sorted; positive when the new ones are longer.
fn ranks(new: &[u64], old: &[u64]) -> f64 {
    let (n, m) = (new.len() as f64, old.len() as f64);
    // Pairs in which the new one is longer; equal ones are half a pair.
    let (mut wins, mut shorter, mut not_longer) = (0.0, 0, 0);
    for one in new {
        while old.get(shorter).is_some_and(|other| other < one) {
            shorter += 1;
        }
        while old.get(not_longer).is_some_and(|other| other <= one) {
            not_longer += 1;
        }
        wins += (shorter + not_longer) as f64 / 2.0;
    }
    let spread = (n * m * (n + m + 1.0) / 12.0).sqrt();
    if spread > 0.0 { (wins - n * m / 2.0) / spread } else { 0.0 }
}

/// Whether more (or fewer) of the new ones are in the slowest twentieth of all than their share.
fn tails(new: &[u64], old: &[u64]) -> f64 {
    let mut all: Vec<u64> = new.iter().chain(old).copied().collect();
    all.sort_unstable();
    let limit = quantile(&all, 95);
    let slow = |of: &[u64]| (of.len() - of.partition_point(|one| *one <= limit)) as u64;
    let of = |durations: &[u64]| Seen {
        count: durations.len() as u64,
        errors: slow(durations),
        durations: Vec::new(),
    };
    proportions(&of(new), &of(old))
}
