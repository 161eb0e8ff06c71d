//! The machine: what it is, and how busy it was with other things while a run lasted.

use std::fs;
use std::io;
use std::time::Instant;

use serde_json::{Value, json};

/// The kernel's accounting unit on Linux: USER_HZ is 100 on every architecture that this runs on.
const TICK_NS: f64 = 1e7;

const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// Another TCP congestion control, until this is dropped.
pub struct Congestion {
    before: String,
}

impl Congestion {
    /// Sets `name` for connections made from now on.
    ///
    /// # Errors
    /// When we are not root or the kernel has no such algorithm.
    pub fn set(name: &str) -> io::Result<Self> {
        let before = fs::read_to_string(CONGESTION)?;
        fs::write(CONGESTION, name)
            .map_err(|e| io::Error::new(e.kind(), format!("--congestion {name}: {e}")))?;
        Ok(Self { before })
    }
}

impl Drop for Congestion {
    fn drop(&mut self) {
        if let Err(e) = fs::write(CONGESTION, &self.before) {
            eprintln!("cannot set {CONGESTION} back to {}: {e}", self.before.trim());
        }
    }
}

/// What to know of the machine to read its figures.
pub fn facts() -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("unknown");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let congestion = fs::read_to_string(CONGESTION).unwrap_or_default();
    json!({
        "cpu": model.trim_start_matches([' ', '\t', ':']),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "kernel": kernel.trim(),
        "tcp_congestion_control": congestion.trim(),
    })
}

/// Ticks that each core was busy, and all ticks of one core.
fn core_ticks() -> Vec<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let cores = text.lines().filter(|l| l.starts_with("cpu") && !l.starts_with("cpu "));
    cores
        .map(|line| {
            let n: Vec<u64> = line.split_whitespace().skip(1).filter_map(|v| v.parse().ok()).collect();
            let at = |i: usize| n.get(i).copied().unwrap_or(0);
            (at(0) + at(1) + at(2) + at(5) + at(6), n.iter().take(8).sum())
        })
        .collect()
}

/// Ticks of our own process and of its children that have ended (the load generators).
fn own_ticks() -> u64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let fields = after_name.split_whitespace().skip(11).take(4);
    fields.filter_map(|v| v.parse::<u64>().ok()).sum()
}

/// The beginning of a time over which use is measured.
pub struct Since {
    at: Instant,
    cores: Vec<(u64, u64)>,
    own: u64,
}

impl Since {
    /// Starts now.
    pub fn now() -> Self {
        Self { at: Instant::now(), cores: core_ticks(), own: own_ticks() }
    }

    /// Seconds since then.
    pub fn secs(&self) -> f64 {
        self.at.elapsed().as_secs_f64()
    }

    /// How busy core `core` was since then, per cent.
    pub fn core_pct(&self, core: usize) -> f64 {
        let now = core_ticks();
        match (self.cores.get(core), now.get(core)) {
            (Some(a), Some(b)) if b.1 > a.1 => (b.0 - a.0) as f64 / (b.1 - a.1) as f64 * 100.0,
            _ => 0.0,
        }
    }

    /// What others used of all cores since then, in per cent of one core: all that was busy less `known_ns` (proxy and
    /// upstream) and our own.
    pub fn foreign_pct(&self, known_ns: u64) -> f64 {
        let busy: u64 = core_ticks().iter().zip(&self.cores).map(|(b, a)| b.0 - a.0).sum();
        let ours = (own_ticks() - self.own) as f64 * TICK_NS + known_ns as f64;
        ((busy as f64 * TICK_NS - ours) / (self.secs() * 1e9) * 100.0).max(0.0)
    }
}
