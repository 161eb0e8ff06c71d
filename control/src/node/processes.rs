//! Processes that outlive the node: known by pid, start time and boot, watched by pidfd, found by the mark in their environment.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, wait};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

/// The variable that every process of a replica has: its id.
pub(super) const MARK: &str = "PILOTFISH_REPLICA";
/// How long an end that was seen may take until it can be taken in.
const TAKEN_IN: Duration = Duration::from_secs(1);
/// How soon what was killed is looked for again.
const LOOK: Duration = Duration::from_millis(20);
/// After so long a process that was killed is left to the kernel: it waits for a device.
const GIVE_UP: Duration = Duration::from_secs(10);

/// Which process: a pid alone may be another's by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Which {
    /// Its id.
    pub(super) pid: u32,
    /// Ticks after boot at which it started.
    pub(super) start: u64,
    /// Which boot.
    pub(super) boot: String,
}

impl Which {
    /// A process that runs now.
    pub(super) fn of(pid: u32) -> Option<Which> {
        Some(Which { pid, start: stat(pid)?.start, boot: boot() })
    }
}

/// What `/proc/PID/stat` says.
struct Stat {
    parent: u32,
    start: u64,
    ended: bool,
}

/// Fields 3, 4 and 22 of proc(5); the name before them may have spaces and parentheses.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let ended = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some(Stat { parent, start, ended })
}

/// This boot's id; empty where the kernel has none.
pub(super) fn boot() -> String {
    let read = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// A process that is watched, own child or not.
#[derive(Debug)]
pub(super) struct Process {
    /// Which.
    pub(super) which: Which,
    fd: AsyncFd<OwnedFd>,
}

impl Process {
    /// Finds it; `None` when it has ended.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn find(which: &Which) -> io::Result<Option<Process>> {
        let Some(pid) = i32::try_from(which.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        if which.boot != boot() {
            return Ok(None);
        }
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Looked at after the descriptor is there: now the pid cannot become another's unseen.
        match stat(which.pid) {
            Some(found) if found.start == which.start && !found.ended => {
                #[expect(
                    deprecated,
                    reason = "sound for a descriptor that is owned; its successor is unsafe"
                )]
                let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
                Ok(Some(Process { which: which.clone(), fd }))
            }
            _ => Ok(None),
        }
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) {
        // An error is one of the reactor, at the end of the program.
        let _ = self.fd.readable().await;
    }

    /// Sends a signal; one that has ended gets none.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(self.fd.get_ref(), signal);
    }
}

/// Starts children and takes in all that end, also those that others left behind: the node is their subreaper.
#[derive(Debug, Default)]
pub(super) struct Reaper(Mutex<HashMap<i32, Option<Exit>>>);

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// With a code.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(out, "with exit code {code}"),
            Exit::Signal(9) => out.write_str("by SIGKILL"),
            Exit::Signal(signal) => write!(out, "by signal {signal}"),
        }
    }
}

impl Reaper {
    /// Makes this process the parent of what its descendants leave behind, and takes in whatever ends.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn start() -> io::Result<Arc<Reaper>> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let reaper = Arc::new(Reaper::default());
        let mut ends = signal(SignalKind::child())?;
        let reaping = reaper.clone();
        tokio::spawn(async move {
            while ends.recv().await.is_some() {
                reaping.reap(&mut reaping.lock());
            }
        });
        Ok(reaper)
    }

    /// Starts a child.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<u32> {
        // Held over the start: nobody else may take in a child that is not known yet.
        let mut known = self.lock();
        let child = command.spawn()?;
        let pid = child.id();
        known.insert(i32::try_from(pid).unwrap_or_default(), None);
        Ok(pid)
    }

    /// How a child that has ended did so; `None` for one that is not ours.
    pub(super) async fn exit(&self, pid: u32) -> Option<Exit> {
        let pid = i32::try_from(pid).ok()?;
        let until = Instant::now() + TAKEN_IN;
        loop {
            {
                let mut known = self.lock();
                self.reap(&mut known);
                match known.get(&pid)? {
                    None if Instant::now() < until => {}
                    _ => return known.remove(&pid)?,
                }
            }
            // Its descriptor may tell of the end before the parent can take it in.
            sleep(Duration::from_millis(1)).await;
        }
    }

    #[expect(clippy::unused_self, reason = "whoever calls holds its lock")]
    fn reap(&self, known: &mut HashMap<i32, Option<Exit>>) {
        // Of every process group: a sidecar has one of its own.
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let exit = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => continue,
            };
            if let Some(known) = known.get_mut(&pid.as_raw_nonzero().get()) {
                *known = Some(exit);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i32, Option<Exit>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The processes of a replica: those with its mark, those in its cgroup, and the descendants of both. Never this process.
pub(super) fn of_replica(id: &str, cgroup: &[u32]) -> Vec<u32> {
    let mark = format!("{MARK}={id}");
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut found: Vec<u32> = cgroup.to_vec();
    let own = std::process::id();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        match stat(pid) {
            Some(stat) if !stat.ended => children.entry(stat.parent).or_default().push(pid),
            _ => continue,
        }
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if environ.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
            found.push(pid);
        }
    }
    let mut seen = HashSet::from([own]);
    let mut all = Vec::new();
    while let Some(pid) = found.pop() {
        if seen.insert(pid) {
            all.push(pid);
            found.extend(children.get(&pid).into_iter().flatten());
        }
    }
    all.sort_unstable();
    all
}

/// Sends a signal to each.
pub(super) fn signal_all(pids: &[u32], signal: Signal) {
    for pid in pids {
        if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// Ends what `find` finds: SIGTERM, then after `patience` SIGKILL, until nothing is left. Whether that came true.
pub(super) async fn end_all(find: impl Fn() -> Vec<u32>, patience: Duration) -> bool {
    let started = Instant::now();
    let mut told = HashSet::new();
    loop {
        let left = find();
        if left.is_empty() {
            return true;
        }
        if started.elapsed() >= patience {
            signal_all(&left, Signal::KILL);
        } else {
            let fresh: Vec<u32> = left.into_iter().filter(|pid| told.insert(*pid)).collect();
            signal_all(&fresh, Signal::TERM);
        }
        if started.elapsed() > patience + GIVE_UP {
            return false;
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_by_its_start_and_no_other() {
        let own = Which::of(std::process::id()).unwrap();
        assert_eq!(own, Which::of(std::process::id()).unwrap());
        assert!(own.start > 0 && own.boot.len() == 36, "{own:?}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        assert!(Process::find(&own).unwrap().is_some());
        assert!(Process::find(&Which { start: own.start + 1, ..own.clone() }).unwrap().is_none());
        assert!(Process::find(&Which { boot: "another".into(), ..own }).unwrap().is_none());
    }

    #[test]
    fn marked_processes_and_their_children_are_found() {
        let id = format!("ns/agent/{}", fastrand::u64(..));
        let mut child =
            Command::new("sh").args(["-c", "env -i sleep 60 & wait"]).env(MARK, &id).spawn().unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(20);
        let found = loop {
            let found = of_replica(&id, &[]);
            // `sleep` has lost the mark, and is found as a child.
            if found.len() == 2 || std::time::Instant::now() > until {
                break found;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(found.contains(&child.id()) && found.len() == 2, "{found:?}");
        signal_all(&found, Signal::KILL);
        child.wait().unwrap();
        while !of_replica(&id, &[]).is_empty() {}
    }
}
