//! Cgroups (version 2) of replicas: to hold agents to what they were given, and to end all that an agent left behind.
//!
//! `<base>/agents/<replica>/{sidecar,agent}`. Only the agent is limited. Where this process may not make folders there, or version 2 is
//! not mounted, there are none, and replicas are found by their mark alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where cgroups are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Below the own one, when that is permitted.
    Auto,
    /// In this folder; an error when that cannot be.
    In(PathBuf),
    /// None.
    Off,
}

/// The controllers that limits need.
const CONTROLLERS: [&str; 2] = ["cpu", "memory"];
/// The cgroup that this process goes to when agents have to be beside it: version 2 allows no processes in one that is divided.
const OWN: &str = "node";
/// The period of `cpu.max`, microseconds: the kernel's default.
const PERIOD: u64 = 100_000;

/// Where the agents' cgroups are.
#[derive(Debug)]
pub(super) struct Cgroups {
    agents: PathBuf,
    /// Of [`CONTROLLERS`], those that are there.
    pub(super) enforces: Vec<String>,
}

/// One replica's.
#[derive(Debug, Clone)]
pub(super) struct Cgroup(PathBuf);

impl Cgroups {
    /// Makes the folder for all agents. `None`: none are wanted, or none can be.
    ///
    /// # Errors
    /// The folder that was named is no use.
    pub(super) fn open(wanted: &Wanted, node: &str) -> Result<Option<Cgroups>, String> {
        match wanted {
            Wanted::Off => Ok(None),
            Wanted::In(folder) => {
                let named = |error: io::Error| format!("--cgroup {}: {error}", folder.display());
                Cgroups::within(folder).map(Some).map_err(named)
            }
            Wanted::Auto => Ok(own(node).and_then(|folder| Cgroups::within(&folder).ok())),
        }
    }

    fn within(base: &Path) -> io::Result<Cgroups> {
        let agents = base.join("agents");
        fs::create_dir_all(&agents)?;
        if !agents.join("cgroup.procs").exists() {
            let _ = fs::remove_dir(&agents);
            return Err(io::Error::other("it is no cgroup of version 2"));
        }
        let offered = fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
        let mut enforces = Vec::new();
        for controller in CONTROLLERS {
            let there = offered.split_whitespace().any(|offered| offered == controller);
            let base_has = there && (enable(base, controller).is_ok() || move_away(base, controller).is_ok());
            if base_has && enable(&agents, controller).is_ok() {
                enforces.push(controller.to_owned());
            }
        }
        Ok(Cgroups { agents, enforces })
    }

    /// Makes a replica's. 0: no limit.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn make(&self, replica: &str, cpu_milli: u64, memory: u64) -> io::Result<Cgroup> {
        let cgroup = self.of(replica);
        let agent = cgroup.agent();
        fs::create_dir_all(cgroup.sidecar())?;
        fs::create_dir_all(&agent)?;
        for controller in &self.enforces {
            enable(&cgroup.0, controller)?;
        }
        let limit = |controller: &str, file: &str, text: String| {
            let wanted = self.enforces.iter().any(|enforced| enforced == controller);
            if wanted { fs::write(agent.join(file), text) } else { Ok(()) }
        };
        let cpu = match cpu_milli {
            0 => format!("max {PERIOD}"),
            milli => format!("{} {PERIOD}", (milli.saturating_mul(PERIOD) / 1000).max(1000)),
        };
        limit("cpu", "cpu.max", cpu)?;
        limit("memory", "memory.max", if memory == 0 { "max".into() } else { memory.to_string() })?;
        Ok(cgroup)
    }

    /// A replica's, which may not be there.
    pub(super) fn of(&self, replica: &str) -> Cgroup {
        // The last part is unique by itself; a cgroup's name has no `/`.
        Cgroup(self.agents.join(replica.rsplit('/').next().unwrap_or(replica)))
    }
}

impl Cgroup {
    /// Where the sidecar goes.
    pub(super) fn sidecar(&self) -> PathBuf {
        self.0.join("sidecar")
    }

    /// Where the agent goes.
    pub(super) fn agent(&self) -> PathBuf {
        self.0.join("agent")
    }

    /// All of it.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Removes it; it has to be empty.
    pub(super) fn remove(&self) {
        for folder in folders(&self.0).into_iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// A folder and all below it, parents first.
fn folders(top: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut next = vec![top.to_owned()];
    while let Some(folder) = next.pop() {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        next.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
        all.push(folder);
    }
    all
}

fn enable(folder: &Path, controller: &str) -> io::Result<()> {
    fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"))
}

/// Version 2 divides no cgroup with processes in it: this one goes a level down.
fn move_away(base: &Path, controller: &str) -> io::Result<()> {
    let own = base.join(OWN);
    fs::create_dir_all(&own)?;
    fs::write(own.join("cgroup.procs"), std::process::id().to_string())?;
    enable(base, controller)
}

/// The folder for agents' cgroups: beside the own one when a unit put this process into a part of its own, else in it.
fn own(node: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("cgroup2 ").then(|| before.split(' ').nth(4))?
    })?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?.trim_matches('/').to_owned();
    let path = path.strip_suffix(&format!("/{OWN}")).map(str::to_owned).unwrap_or(path);
    let base = Path::new(mount).join(&path);
    // The root is everybody's.
    Some(if path.is_empty() { base.join("pilotfish").join(node) } else { base })
}
