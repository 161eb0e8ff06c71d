//! An agent's processes: which of those on the machine are its, and how all of them are ended.
//!
//! An agent may fork, and its children may go into sessions of their own. They are found by whichever holds: the cgroup, the
//! session that the launcher began, their parents, and the mark `PILOTFISH_REPLICA` in their environment.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::orphans::reap;
use crate::stat::all;
use crate::{Id, Stat, signal};

/// The variable that marks an agent's processes: the replica's id.
pub const MARK: &str = "PILOTFISH_REPLICA";
/// Between two looks at what ends.
pub const LOOK: Duration = Duration::from_millis(10);
/// The longest environment that is searched for the mark: no kernel starts a program with more than 6 MiB (execve(2)).
const LONGEST_ENVIRONMENT: u64 = 8 << 20;

/// Which processes are an agent's. This process never is, wherever it is.
#[derive(Debug, Clone)]
pub struct Traits {
    /// The process that the launcher became: it leads its session.
    pub root: Option<Id>,
    /// The cgroup that it is in, with those within.
    pub cgroup: Option<PathBuf>,
    /// The mark's value.
    pub mark: String,
    /// This process is the subreaper of this agent alone: orphans that became its children, out of other sessions, are the
    /// agent's, and it is asked how they ended. Not so where it has children of several agents.
    pub orphans: bool,
    /// How long killed processes may take to be gone: the kernel frees their memory first, and a device may keep them.
    pub gone: Duration,
}

impl Traits {
    /// All that live now.
    pub fn find(&self) -> Vec<Stat> {
        let own = std::process::id();
        let all = all();
        let mut found: BTreeSet<u32> = self.cgroup.as_deref().map(members).unwrap_or_default();
        found.remove(&own);
        let own_session = all.get(&own).map_or(0, |stat| stat.session);
        for (pid, stat) in &all {
            let led = self.root.is_some_and(|root| root.pid == *pid || root.pid == stat.session);
            // Nobody joins a session that is there already: an orphan of another one is none of this process's own.
            let orphan = self.orphans && stat.parent == own && stat.session != own_session;
            if *pid != own && (led || orphan || self.marks(*pid)) {
                found.insert(*pid);
            }
        }
        // And whatever descends from these.
        loop {
            let children = all
                .iter()
                .filter(|(pid, stat)| **pid != own && found.contains(&stat.parent) && !found.contains(pid));
            let children: Vec<u32> = children.map(|(pid, _)| *pid).collect();
            if children.is_empty() {
                break;
            }
            found.extend(children);
        }
        let stats = found.iter().filter_map(|pid| all.get(pid).cloned().or_else(|| Stat::of(*pid)));
        stats.filter(|stat| !stat.zombie).collect()
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
    pub fn end(self, told: Option<u32>, grace: Duration) -> Vec<Stat> {
        let mut ending = Ending::begin(self, told, grace);
        loop {
            if let Some(left) = ending.look() {
                return left;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Kills all of them, again until none is left. Blocks; gives those that are still there after a while.
    pub fn kill(self) -> Vec<Stat> {
        self.end(None, Duration::ZERO)
    }
}

/// The end of all of an agent's processes, look by look: for those who may not block in between.
#[derive(Debug)]
pub struct Ending {
    traits: Traits,
    told: Option<u32>,
    kills: Instant,
    gives_up: Instant,
    heard: BTreeSet<Id>,
}

impl Ending {
    /// By SIGTERM, and after `grace` by SIGKILL. The session `told` has heard of it.
    pub fn begin(traits: Traits, told: Option<u32>, grace: Duration) -> Ending {
        let kills = Instant::now() + grace;
        let gives_up = kills + traits.gone;
        Ending { traits, told, kills, gives_up, heard: BTreeSet::new() }
    }

    /// One look, every [`LOOK`]. When it is over: those that are still there, which the kernel does not let go.
    pub fn look(&mut self) -> Option<Vec<Stat>> {
        let now = Instant::now();
        let kills = now >= self.kills;
        if let Some(cgroup) = self.traits.cgroup.as_ref().filter(|_| kills) {
            // All at once, where the kernel can (5.14).
            let _ = fs::write(cgroup.join("cgroup.kill"), "1");
        }
        let left = self.traits.find();
        if left.is_empty() || now >= self.gives_up {
            self.reap();
            return Some(left);
        }
        for stat in &left {
            if kills {
                self.heard.insert(stat.id);
                signal(stat.id, Signal::KILL);
            } else if self.told != Some(stat.session) && self.heard.insert(stat.id) {
                signal(stat.id, Signal::TERM);
                // One that was stopped hears it only when it goes on.
                signal(stat.id, Signal::CONT);
            }
        }
        None
    }

    /// Orphans among those that were ended are this process's children: they are asked how they ended, so that they are gone.
    /// The one that was started as its child is waited for where that was.
    fn reap(&self) {
        let orphans = self.heard.iter().filter(|id| self.traits.orphans && self.traits.root != Some(**id));
        orphans.copied().for_each(reap);
    }
}

/// The processes of a cgroup and of those within it.
pub fn members(cgroup: &Path) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    // 0 is one of another pid namespace.
    found.extend(text.lines().filter_map(|line| line.trim().parse::<u32>().ok()).filter(|pid| *pid != 0));
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(members(&entry.path()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    const GONE: Duration = Duration::from_secs(10);

    fn marked(mark: &str) -> Traits {
        Traits { root: None, cgroup: None, mark: mark.into(), orphans: false, gone: GONE }
    }

    fn wait(what: &str, is: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while !is() {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn sh(script: &str, mark: &str) -> Child {
        Command::new("sh").args(["-c", script]).env(MARK, mark).spawn().unwrap()
    }

    #[test]
    fn marked_processes_and_their_children_are_found_and_ended() {
        let mark = format!("ns/agent/{}", std::process::id());
        let mut child = sh("env -i sleep 60 & wait", &mark);
        let traits = marked(&mark);
        // `sleep` has lost the mark, and is found as a child.
        wait("both are there", || traits.find().iter().any(|stat| stat.name == "sleep"));
        let found = traits.find();
        assert!(found.iter().any(|stat| stat.id.pid == child.id()) && found.len() == 2, "{found:?}");
        assert!(marked("ns/agent/another").find().is_empty());
        assert_eq!(traits.clone().end(None, Duration::from_secs(20)), []);
        assert_eq!(crate::Exit::of(child.wait().unwrap()), Some(crate::Exit::Signal(15)));
    }

    #[test]
    fn what_does_not_hear_is_killed_after_its_time() {
        let mark = format!("ns/deaf/{}", std::process::id());
        let mut child = sh("trap '' TERM; sleep 60 & while :; do wait; done", &mark);
        let traits = marked(&mark);
        wait("both are there", || traits.find().len() == 2);
        wait("it is deaf", || {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            status.lines().any(|line| line.starts_with("SigIgn:") && !line.ends_with("0000"))
        });
        assert_eq!(traits.end(None, Duration::from_millis(100)), []);
        assert_eq!(crate::Exit::of(child.wait().unwrap()), Some(crate::Exit::Signal(9)));
    }

    /// A node has the sidecars of all replicas as its children, each in a session of its own.
    #[test]
    fn children_in_other_sessions_are_an_agents_only_for_its_own_subreaper() {
        let mut child = Command::new("setsid").args(["sleep", "60"]).spawn().unwrap();
        let pid = child.id();
        let mut traits = marked("nobody's");
        wait("it has a session", || Stat::of(pid).is_some_and(|stat| stat.session == pid));
        assert!(traits.find().is_empty(), "{:?}", traits.find());
        traits.orphans = true;
        assert!(traits.find().iter().any(|stat| stat.id.pid == pid));
        assert_eq!(traits.kill(), []);
        assert!(child.wait().is_err(), "it was taken in");
    }

    #[test]
    fn this_process_is_never_ended() {
        let cgroup = std::env::temp_dir().join(format!("pilotfish-members-{}", std::process::id()));
        fs::create_dir_all(cgroup.join("within")).unwrap();
        fs::write(cgroup.join("within/cgroup.procs"), format!("0\n{}\n", std::process::id())).unwrap();
        assert_eq!(members(&cgroup), BTreeSet::from([std::process::id()]));
        let traits = Traits { cgroup: Some(cgroup.clone()), ..marked("nobody's") };
        assert!(traits.find().is_empty());
        fs::remove_dir_all(cgroup).unwrap();
    }
}
