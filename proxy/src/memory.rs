//! The memory watermark: a sidecar that uses too much refuses new work, with a reason, before the kernel kills it.
//!
//! Ten times a second the resident memory is compared with the limit (`--memory-limit`, else 90 % of the cgroup's). Above 80 % of
//! it sheddable calls are refused, above 90 % all new calls, and kept upstream connections are closed. A call looks at one atomic.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use pilotfish_filters::shed::Priority;
use pilotfish_filters::verdict::{Deny, Reason};

use crate::server::Shared;
use crate::telemetry::log;

/// How often memory is looked at.
const EVERY: Duration = Duration::from_millis(100);
/// The part of the cgroup's limit that is the sidecar's own limit, in percent.
const OF_CGROUP: u64 = 90;
/// Above this many percent of the limit sheddable calls are refused.
const HIGH: u64 = 80;
/// Above this many percent of the limit all new calls are.
const FULL: u64 = 90;
/// Cgroups without a limit say so by a number of about 2^63 (v1).
const NO_LIMIT: u64 = 1 << 60;

/// What is known of the process's memory.
#[derive(Debug)]
pub struct Memory {
    limit: Option<u64>,
    used: AtomicU64,
    level: AtomicU8,
}

/// How much of the limit is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Below 80 %.
    Fine,
    /// Sheddable calls are refused.
    High,
    /// All new calls are.
    Full,
}

impl Memory {
    /// With this limit in bytes, else that of the cgroup, if it has one.
    pub fn new(flag: Option<u64>) -> Memory {
        let limit = flag.or_else(|| cgroup_limit(Path::new("/")).map(|limit| limit / 100 * OF_CGROUP));
        Memory { limit, used: AtomicU64::new(0), level: AtomicU8::new(Level::Fine as u8) }
    }

    /// Refuses a new call while there is too little memory for it.
    ///
    /// # Errors
    /// `memory-pressure`, with `retry-after`.
    #[inline]
    pub fn check(&self, priority: Priority) -> Result<(), Deny> {
        let level = self.level.load(Relaxed);
        if level == Level::Fine as u8 || (level == Level::High as u8 && priority > Priority::Sheddable) {
            return Ok(());
        }
        let detail = "the sidecar uses as much memory as it may (--memory-limit)";
        Err(Deny::with(Reason::MemoryPressure, detail).and_header("retry-after", "1"))
    }

    /// The limit in bytes, when there is one.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// How much of it is used.
    pub fn level(&self) -> Level {
        match self.level.load(Relaxed) {
            0 => Level::Fine,
            1 => Level::High,
            _ => Level::Full,
        }
    }

    /// Looks at the memory.
    fn look(&self) -> Level {
        if let (Some(limit), Some(used)) = (self.limit, resident()) {
            self.used.store(used, Relaxed);
            self.level.store(level_of(used, limit) as u8, Relaxed);
        }
        self.level()
    }
}

fn level_of(used: u64, limit: u64) -> Level {
    match used.saturating_mul(100) / limit.max(1) {
        percent if percent > FULL => Level::Full,
        percent if percent > HIGH => Level::High,
        _ => Level::Fine,
    }
}

/// Watches the memory for the life of the process; ends at once when there is no limit.
pub async fn watch(shared: Arc<Shared>) {
    let Some(limit) = shared.memory.limit else { return };
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut said = Level::Fine;
    loop {
        tick.tick().await;
        let now = shared.memory.look();
        if now == Level::Full {
            // Workers give up what they keep.
            shared.pressure.notify_waiters();
        }
        if now != said {
            let used = shared.memory.used.load(Relaxed);
            match now {
                Level::Fine => log::info!("memory is fine again", used = used, limit = limit),
                Level::High => {
                    log::warn!("memory is high: sheddable calls are refused", used = used, limit = limit)
                }
                Level::Full => {
                    log::warn!("memory is full: new calls are refused", used = used, limit = limit)
                }
            }
            said = now;
        }
    }
}

/// Resident memory of this process, bytes.
pub fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The lowest limit of the cgroups that this process is in. `root` is where `/proc` and `/sys` are.
fn cgroup_limit(root: &Path) -> Option<u64> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let limits = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (folder, file) = match controllers {
            "" => (root.join("sys/fs/cgroup"), "memory.max"),
            list if list.split(',').any(|one| one == "memory") => {
                (root.join("sys/fs/cgroup/memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        lowest(&folder, path, file)
    });
    limits.min()
}

/// The lowest limit from a cgroup up to the top; within a container the group's own path may not be visible.
fn lowest(folder: &Path, path: &str, file: &str) -> Option<u64> {
    let own: PathBuf = folder.join(path.trim_start_matches('/'));
    let up = own.ancestors().take_while(|place| place.starts_with(folder));
    let read = |place: &Path| std::fs::read_to_string(place.join(file)).ok()?.trim().parse::<u64>().ok();
    up.filter_map(read).filter(|limit| *limit < NO_LIMIT).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn levels_are_at_80_and_90_percent() {
        let level = |percent: u64| level_of(percent * 10, 1000);
        assert_eq!([80, 81, 90, 91].map(level), [Level::Fine, Level::High, Level::High, Level::Full]);
    }

    #[test]
    fn the_lowest_limit_of_nested_cgroups_holds() {
        let root = tree(&[
            ("proc/self/cgroup", "0::/pod/container\n"),
            ("sys/fs/cgroup/pod/container/memory.max", "max\n"),
            ("sys/fs/cgroup/pod/memory.max", "268435456\n"),
            ("sys/fs/cgroup/memory.max", "1073741824\n"),
        ]);
        assert_eq!(cgroup_limit(root.path()), Some(268_435_456));
    }

    #[test]
    fn the_first_version_of_cgroups_is_read_too() {
        let root = tree(&[
            ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/x\n"),
            ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "1000000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(cgroup_limit(root.path()), Some(1_000_000));
    }

    #[test]
    fn without_a_limit_nothing_is_refused() {
        let root = tree(&[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "max\n")]);
        assert_eq!(cgroup_limit(root.path()), None);
        let memory = Memory { limit: None, used: AtomicU64::new(0), level: AtomicU8::new(0) };
        memory.look();
        assert!(memory.check(Priority::Sheddable).is_ok());
    }
}
