//! What the agent uses: processor time and resident memory of all its processes, from its cgroup when it has one, else from
//! `/proc`. What it uses of cards is for the node to say: the sidecar is not linked to NVML.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use pilotfish_config::wire::node::Usage;
use pilotfish_processes::{Id, Orphans, Stat, Traits, members};
use rustix::param::{clock_ticks_per_second, page_size};

/// How often the agent's processes are looked for among all of the machine; those that are known are asked each time.
const SEARCH: Duration = Duration::from_secs(30);

/// Measures one process of the agent and what it started.
#[derive(Debug)]
pub struct Meter {
    /// Which processes.
    pub traits: Traits,
    /// Each process's ticks when it was last looked at.
    known: BTreeMap<Id, u64>,
    searched: Option<Instant>,
    orphans: Orphans,
    /// Microseconds on cores, all processes that were seen, and when that was.
    cpu: u64,
    at: Instant,
}

impl Meter {
    /// Begins with a process that has just been started or adopted.
    pub fn new(traits: Traits) -> Meter {
        let mut meter = Meter {
            known: BTreeMap::new(),
            searched: None,
            orphans: Orphans::default(),
            cpu: 0,
            at: Instant::now(),
            traits,
        };
        // An adopted one has used its time before: only what comes counts.
        let root = meter.traits.root.and_then(|root| Stat::of(root.pid)).map(|stat| (stat.id, stat.ticks));
        meter.known.extend(root);
        meter.cpu = meter.measure().0;
        meter
    }

    /// Whether it is time to search the whole machine, which may take a while.
    pub fn searches(&self) -> bool {
        self.searched.is_none_or(|searched| searched.elapsed() >= SEARCH)
    }

    /// Looks for processes that are not known yet. Blocks.
    pub fn search(&mut self) {
        self.searched = Some(Instant::now());
        self.orphans.reap();
        if self.traits.cgroup.is_none() {
            for stat in self.traits.find() {
                // Whoever was not known has used all of its time since.
                self.known.entry(stat.id).or_insert(0);
            }
        }
    }

    /// What is used now, and the time on cores since the last look, microseconds.
    pub fn look(&mut self) -> (Usage, u64) {
        let (before, since) = (self.cpu, self.at);
        let (cpu, memory) = self.measure();
        (self.cpu, self.at) = (cpu, Instant::now());
        let used = cpu.saturating_sub(before);
        let elapsed = since.elapsed().as_micros().max(1);
        let cpu_milli = u32::try_from(u128::from(used) * 1000 / elapsed).unwrap_or(u32::MAX);
        (Usage { cpu_milli, memory, ..Usage::default() }, used)
    }

    /// Microseconds on cores, and resident bytes.
    fn measure(&mut self) -> (u64, u64) {
        if let Some(cgroup) = &self.traits.cgroup
            && let Some(cpu) = number(&cgroup.join("cpu.stat"), "usage_usec ")
        {
            // Without the controller for memory there is no such file.
            let memory = number(&cgroup.join("memory.current"), "");
            let resident = || members(cgroup).into_iter().filter_map(Stat::of).map(resident).sum();
            return (cpu, memory.unwrap_or_else(resident));
        }
        let (mut cpu, mut memory) = (self.cpu, 0);
        self.known.retain(|id, before| {
            let Some(stat) = Stat::of(id.pid).filter(|stat| stat.id == *id) else { return false };
            let ticks = stat.ticks.saturating_sub(*before);
            cpu = cpu.saturating_add(ticks * 1_000_000 / clock_ticks_per_second().max(1));
            *before = stat.ticks;
            memory += resident(stat);
            true
        });
        (cpu, memory)
    }
}

fn resident(stat: Stat) -> u64 {
    stat.pages.saturating_mul(page_size() as u64)
}

/// The number after a word at the start of a line.
fn number(path: &Path, word: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(word)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_uses_a_core() {
        let root = Stat::of(std::process::id()).map(|stat| stat.id);
        let traits =
            Traits { root, cgroup: None, mark: "nobody's".into(), orphans: true, gone: Duration::ZERO };
        let mut meter = Meter::new(traits);
        let begun = Instant::now();
        let mut waste = 0_u64;
        while begun.elapsed() < Duration::from_millis(300) {
            waste = std::hint::black_box(waste + 1);
        }
        let (usage, used) = meter.look();
        assert!(usage.cpu_milli > 0 && usage.memory > 1 << 20 && used > 0, "{usage:?} {used}");
    }
}
