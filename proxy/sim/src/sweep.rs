//! Many seeds, on all cores, each twice: what fails, or differs the second time, is told with how to see it again.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::mesh::{Run, simulate};
use crate::scenario::Options;

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Seeds that were run.
    pub seeds: u64,
    /// Calls that were made.
    pub calls: usize,
    /// Calls that were executed.
    pub executed: usize,
    /// How calls ended, and how often.
    pub ends: BTreeMap<String, usize>,
    /// The lowest seed that failed, and what a person should see of it.
    pub failed: Option<(u64, String)>,
}

/// Runs `count` seeds from `first`, each twice; stops after the first that fails. `each` hears of every good one.
pub fn sweep(first: u64, count: u64, options: Options, each: impl Fn(u64) + Sync) -> Sweep {
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let all = Mutex::new(Sweep::default());
    let work = || {
        while !stop.load(Relaxed) {
            let seed = next.fetch_add(1, Relaxed);
            if seed - first >= count {
                break;
            }
            let (run, again) = (simulate(seed, options), simulate(seed, options));
            let Ok(mut all) = all.lock() else { break };
            all.seeds += 1;
            all.calls += run.calls.0;
            all.executed += run.calls.1;
            for (end, n) in &run.ends {
                *all.ends.entry(end.clone()).or_default() += n;
            }
            if run.wrong.is_empty() && run.hash == again.hash {
                each(all.seeds);
            } else {
                stop.store(true, Relaxed);
                if all.failed.as_ref().is_none_or(|(known, _)| seed < *known) {
                    all.failed = Some((seed, report(&run, &again)));
                }
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    all.into_inner().unwrap_or_default()
}

/// What a person should see of a seed that failed: its events, what is wrong, and how to run it again.
pub fn report(run: &Run, again: &Run) -> String {
    let Run { seed, events, wrong, .. } = run;
    let mut lines = events.clone();
    if run.hash != again.hash {
        let at = events.iter().zip(&again.events).position(|(one, other)| one != other);
        let at = at.unwrap_or_else(|| events.len().min(again.events.len()));
        let other = again.events.get(at).map_or("(end)", String::as_str);
        lines.push(format!("seed {seed}: the second run differs from line {}: {other}", at + 1));
    }
    lines.extend(wrong.iter().map(|wrong| format!("seed {seed}: {wrong}")));
    lines.push(format!("seed {seed}: replay it with: make sim FIRST={seed} SEEDS=1"));
    lines.join("\n")
}
