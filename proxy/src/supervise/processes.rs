//! The agent's processes: which of those on the machine are its, and how all of them are ended.
//!
//! An agent may fork, and its children may go into sessions of their own. They are found by whichever holds: the cgroup, the
//! session that the launcher began, their parents (orphans become this sidecar's children: it is a subreaper), and the mark
//! `PILOTFISH_REPLICA` in their environment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, pidfd_send_signal, waitpid,
};

/// The variable that marks an agent's processes.
pub const MARK: &str = "PILOTFISH_REPLICA";
/// The longest environment that is searched for the mark.
const LONGEST_ENVIRONMENT: u64 = 1 << 20;
/// How long killed processes may take to be gone: the kernel frees their memory first.
const GONE: Duration = Duration::from_secs(5);

/// Between two looks at what ends.
const LOOK: Duration = Duration::from_millis(10);

/// One process, never mixed up with a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// Its number.
    pub pid: u32,
    /// When it started, in the kernel's ticks since the machine did.
    pub start: u64,
}

/// What `/proc/<pid>/stat` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Which process.
    pub id: Id,
    /// The program's name, 15 bytes at most.
    pub name: String,
    /// It has ended, and its parent has not asked how.
    pub zombie: bool,
    /// Its parent.
    pub parent: u32,
    /// Its session.
    pub session: u32,
    /// Time on cores, its own, in ticks.
    pub ticks: u64,
    /// Resident, in pages.
    pub pages: u64,
}

impl Stat {
    /// Of a process that is there.
    pub fn of(pid: u32) -> Option<Stat> {
        Stat::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(pid: u32, text: &str) -> Option<Stat> {
        // The name may hold anything, parentheses too: the last one closes it.
        let (before, after) = text.rsplit_once(") ")?;
        let name = before.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = after.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let small = |at: usize| number(at).and_then(|number| u32::try_from(number).ok());
        Some(Stat {
            id: Id { pid, start: number(19)? },
            name,
            zombie: matches!(fields.first(), Some(&"Z" | &"X" | &"x")),
            parent: small(1)?,
            session: small(3)?,
            ticks: number(11)?.saturating_add(number(12)?),
            pages: number(21)?,
        })
    }
}

/// A handle that stays with the process, also when its number is used again; `None`: it is gone.
pub fn handle(id: Id) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(id.pid).ok()?)?;
    let handle = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
    // Opened before it is compared: now it cannot be another one any more.
    Stat::of(id.pid).filter(|stat| stat.id == id && !stat.zombie).map(|_| handle)
}

/// Sends a signal to exactly this process; whether it was there.
pub fn signal(id: Id, signal: Signal) -> bool {
    handle(id).is_some_and(|handle| pidfd_send_signal(&handle, signal).is_ok())
}

/// Sends a signal to the group that the process leads.
pub fn signal_group(leader: Id, signal: Signal) {
    // While the leader is there, also unreaped, its number is the group's.
    let here = Stat::of(leader.pid).is_some_and(|stat| stat.id == leader);
    if let Some(pid) = Pid::from_raw(i32::try_from(leader.pid).unwrap_or(0)).filter(|_| here) {
        let _ = kill_process_group(pid, signal);
    }
}

/// Which processes are an agent's.
#[derive(Debug, Clone)]
pub struct Traits {
    /// The process that the launcher became: it leads its session.
    pub root: Option<Id>,
    /// The cgroup that it is in.
    pub cgroup: Option<PathBuf>,
    /// The mark's value.
    pub mark: String,
}

impl Traits {
    /// All that live now.
    pub fn find(&self) -> Vec<Stat> {
        let own = std::process::id();
        let all = all();
        let mut found: BTreeSet<u32> = self.cgroup.as_deref().map(members).unwrap_or_default();
        let own_session = all.get(&own).map_or(0, |stat| stat.session);
        for (pid, stat) in &all {
            let led = self.root.is_some_and(|root| root.pid == *pid || root.pid == stat.session);
            // Nobody joins a session that is there already: an orphan of another one is none of this sidecar's own.
            let orphan = stat.parent == own && stat.session != own_session;
            if *pid != own && (led || orphan || self.marks(*pid)) {
                found.insert(*pid);
            }
        }
        // And whatever descends from these.
        loop {
            let children =
                all.iter().filter(|(pid, stat)| found.contains(&stat.parent) && !found.contains(pid));
            let children: Vec<u32> = children.map(|(pid, _)| *pid).collect();
            if children.is_empty() {
                break;
            }
            found.extend(children);
        }
        let stats = found.iter().filter_map(|pid| all.get(pid).cloned().or_else(|| Stat::of(*pid)));
        stats.filter(|stat| !stat.zombie).collect()
    }

    /// Orphans among those that were ended are this process's children: they are asked how they ended, so that they are gone.
    /// The one that was started as its child is waited for where that was.
    fn reap(&self, ended: &BTreeSet<Id>) {
        for id in ended.iter().filter(|id| self.root != Some(**id)) {
            reap(*id);
        }
    }

    fn marks(&self, pid: u32) -> bool {
        use io::Read;
        let Ok(file) = fs::File::open(format!("/proc/{pid}/environ")) else { return false };
        let mut environment = Vec::new();
        if file.take(LONGEST_ENVIRONMENT).read_to_end(&mut environment).is_err() {
            return false;
        }
        let marked = |pair: &[u8]| {
            let value = pair.strip_prefix(MARK.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
            value == Some(self.mark.as_bytes())
        };
        environment.split(|byte| *byte == 0).any(marked)
    }

    /// Ends all of them by SIGTERM, and after `grace` by SIGKILL. The session `told` has heard of it. Blocks; gives those that
    /// are still there after a while.
    pub fn end(&self, told: Option<u32>, grace: Duration) -> Vec<Stat> {
        let until = Instant::now() + grace;
        let mut heard = BTreeSet::new();
        loop {
            let left = self.find();
            if left.is_empty() {
                self.reap(&heard);
                return left;
            }
            if Instant::now() >= until {
                let left = self.kill();
                self.reap(&heard);
                return left;
            }
            for stat in left.iter().filter(|stat| told != Some(stat.session)) {
                if heard.insert(stat.id) {
                    signal(stat.id, Signal::TERM);
                    signal(stat.id, Signal::CONT);
                }
            }
            pause(LOOK);
        }
    }

    /// Kills all of them, again until none is left. Blocks; gives those that are still there after a while.
    pub fn kill(&self) -> Vec<Stat> {
        let until = Instant::now() + GONE;
        let mut killed = BTreeSet::new();
        loop {
            if let Some(cgroup) = &self.cgroup {
                let _ = fs::write(cgroup.join("cgroup.kill"), "1");
            }
            let left = self.find();
            if left.is_empty() || Instant::now() >= until {
                self.reap(&killed);
                return left;
            }
            for stat in &left {
                killed.insert(stat.id);
                signal(stat.id, Signal::KILL);
            }
            pause(LOOK);
        }
    }
}

/// Who listens on this port; `None`: it is not to be seen. Blocks.
pub fn listener(port: u16) -> Option<Stat> {
    let sockets: BTreeSet<PathBuf> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|table| {
            let text = fs::read_to_string(table).unwrap_or_default();
            let sockets = text.lines().filter_map(|line| listening(line, port));
            sockets.map(|inode| PathBuf::from(format!("socket:[{inode}]"))).collect::<Vec<_>>()
        })
        .collect();
    let opens = |pid: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        targets.any(|target| sockets.contains(&target))
    };
    if sockets.is_empty() {
        return None;
    }
    all().into_iter().find(|(pid, _)| opens(pid)).map(|(_, stat)| stat)
}

/// The inode of a line of `/proc/net/tcp` that listens on this port.
fn listening(line: &str, port: u16) -> Option<&str> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let own = fields.get(1)?.rsplit_once(':')?.1;
    let fits = u16::from_str_radix(own, 16) == Ok(port) && fields.get(3) == Some(&LISTEN);
    fields.get(9).copied().filter(|_| fits)
}

/// Asks a child that has ended how; of another's child, or one that runs, nothing comes.
fn reap(id: Id) {
    let pid = i32::try_from(id.pid).ok().and_then(Pid::from_raw);
    let _ = pid.map(|pid| waitpid(Some(pid), WaitOptions::NOHANG));
}

/// Waits in a thread that may.
#[expect(clippy::disallowed_methods, reason = "only called in a thread for what blocks")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Every process of the machine that is to be seen.
fn all() -> BTreeMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, Stat::of(pid)?))).collect()
}

/// The processes of a cgroup and of those within it.
pub fn members(cgroup: &Path) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.lines().filter_map(|line| line.trim().parse::<u32>().ok()));
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(members(&entry.path()));
        }
    }
    found
}

/// Orphans that became this process's children and ended: they are asked how, so that they do not pile up. What this process
/// started itself is waited for elsewhere within milliseconds; only who was a zombie at two looks is taken.
#[derive(Debug, Default)]
pub struct Orphans(BTreeSet<Id>);

impl Orphans {
    /// One look.
    pub fn reap(&mut self) {
        let own = std::process::id();
        let ended = all().into_values().filter(|stat| stat.zombie && stat.parent == own);
        let ended: BTreeSet<Id> = ended.map(|stat| stat.id).collect();
        for id in ended.intersection(&self.0) {
            reap(*id);
        }
        self.0 = ended;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_and_spaces_do_not_shift_fields() {
        let text = "7 (a ) b) S 5 7 7 0 -1 0 0 0 0 0 11 4 0 0 20 0 1 0 99 1000 12 0";
        let stat = Stat::parse(7, text).unwrap();
        assert_eq!(stat.name, "a ) b");
        assert_eq!((stat.id.start, stat.parent, stat.session), (99, 5, 7));
        assert_eq!((stat.ticks, stat.pages, stat.zombie), (15, 12, false));
        assert_eq!(Stat::parse(7, "7 (x"), None);
    }

    #[test]
    fn who_listens_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(super::listener(port).map(|stat| stat.id.pid), Some(std::process::id()));
        drop(listener);
        assert_eq!(super::listener(port), None);
    }

    #[test]
    fn a_number_that_was_used_again_is_another_process() {
        let own = Stat::of(std::process::id()).unwrap().id;
        assert!(handle(own).is_some());
        assert!(handle(Id { start: own.start + 1, ..own }).is_none());
    }
}
