//! What a supervised agent keeps from one start of its sidecar to the next: ports, its mark, its secret. They are in its
//! environment, so a sidecar that adopts it has to have the same ones.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use pilotfish_processes::{Id, Stat, Which};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::set_child_subreaper;
use serde::{Deserialize, Serialize};

use crate::bootstrap::{HostPort, Settings};
use crate::control::disk::StateDir;
use crate::net::fill_unique;
use crate::server::{Failure, Listening};

/// Held by the sidecar that the folder belongs to.
const SIDECAR_LOCK: &str = "sidecar.lock";
/// Held by the agent's processes.
const AGENT_LOCK: &str = "agent.lock";
/// What is kept.
const KEPT: &str = "supervise.json";
/// Which process the agent is.
const AGENT: &str = "agent.json";
/// The generated secret.
const SECRET: &str = "agent-secret";
/// How long killed processes may take to be gone: the kernel frees their memory first.
pub const GONE: Duration = Duration::from_secs(5);
/// How long a sidecar that is about to end, or its guard, is waited for: longer than [`GONE`].
const BEFORE_US: Duration = Duration::from_secs(6);
/// The label that a node gives its replicas' sidecars.
const REPLICA: &str = "pilotfish.dev/replica";

/// The folder, locked, and what it keeps.
#[derive(Debug)]
pub struct Place {
    /// The folder.
    pub dir: StateDir,
    kept: Kept,
    /// Held for as long as this process lives.
    lock: File,
}

/// Ports and mark, as they are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    app: u16,
    outbound: u16,
    inbound: u16,
    admin: u16,
    otlp: u16,
    mark: String,
}

/// The agent's process, as the launcher wrote it down before it became it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Which process.
    #[serde(flatten)]
    pub which: Which,
    /// The cgroup that it joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// The port that it was told.
    pub app: u16,
    /// The port that its own calls go to.
    pub outbound: u16,
    /// Of its command and of what else it was told: another one means that it has to be started anew.
    pub digest: String,
}

impl Agent {
    /// Which process that was, if it was since the machine started.
    pub fn id(&self) -> Option<Id> {
        self.which.id()
    }
}

/// What there is of an agent that an earlier sidecar started.
#[derive(Debug)]
pub enum Copy {
    /// Nothing.
    None,
    /// It runs.
    Alive(Agent),
    /// It has ended, and something that it started has not.
    Left(Option<Agent>),
}

/// Makes the settings those of a sidecar with a supervised agent; `None`: it has none.
///
/// # Errors
/// A setting is wrong, the folder cannot be used, or another sidecar uses it.
pub fn prepare(settings: &mut Settings) -> Result<Option<Place>, Failure> {
    if !settings.supervise.is_on() {
        return Ok(None);
    }
    let path = settings.control.state_dir(&settings.namespace, &settings.agent);
    let dir = StateDir::open(&path)?;
    let lock = lock_folder(&path)?;
    let kept = std::fs::read(path.join(KEPT)).unwrap_or_default();
    let mut kept: Kept = serde_json::from_slice(&kept).unwrap_or_default();
    let replica = settings.labels.iter().find(|(key, _)| key == REPLICA);
    if let Some((_, replica)) = replica {
        kept.mark.clone_from(replica);
    } else if kept.mark.is_empty() {
        kept.mark = format!("{}/{}/{}", settings.namespace, settings.agent, random::<8>());
    }
    let mut place = Place { dir, kept, lock };
    let lives = !matches!(place.copy(), Copy::None);
    place.take_app(settings, lives)?;
    for (address, kept) in [
        (&mut settings.outbound, place.kept.outbound),
        (&mut settings.inbound, place.kept.inbound),
        (&mut settings.admin, place.kept.admin),
    ] {
        // Whoever runs has the port in its environment. Else it is only good to have the same one again.
        if address.port() == 0 && (lives || is_free(SocketAddr::new(address.ip(), kept))) {
            address.set_port(kept);
        }
    }
    if settings.control.local_secret_file.is_none() {
        settings.control.local_secret_file = Some(secret_file(&path)?);
    }
    // Children of the agent whose parents end become this process's.
    set_child_subreaper(Some(rustix::process::getpid())).map_err(io::Error::from)?;
    Ok(Some(place))
}

impl Place {
    /// Where the agent has to listen: `--app`, else the port of the start before, else a free one.
    fn take_app(&mut self, settings: &mut Settings, lives: bool) -> Result<(), Failure> {
        if let Some(app) = &settings.app {
            let local = app.host == "localhost" || app.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
            if !local {
                let why = format!(
                    "--app {app}: an agent that the sidecar starts listens on this machine: --app 127.0.0.1:{}",
                    app.port
                );
                return Err(Failure::Usage(why));
            }
            self.kept.app = app.port;
            return Ok(());
        }
        let on = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        if self.kept.app == 0 || !lives && !is_free(on(self.kept.app)) {
            self.kept.app = TcpListener::bind(on(0))?.local_addr()?.port();
        }
        settings.app = Some(HostPort { host: Ipv4Addr::LOCALHOST.to_string(), port: self.kept.app });
        Ok(())
    }

    /// Keeps the ports that the kernel chose.
    ///
    /// # Errors
    /// The disk's.
    pub fn keep(&mut self, listening: &Listening, otlp: Option<SocketAddr>) -> io::Result<()> {
        self.kept.otlp = otlp.map_or(0, |otlp| otlp.port());
        self.kept.outbound = listening.outbound.port();
        self.kept.inbound = listening.inbound.port();
        self.kept.admin = listening.admin.port();
        let bytes = serde_json::to_vec(&self.kept).map_err(io::Error::other)?;
        self.dir.keep(KEPT, &bytes)
    }

    /// The value of the mark in the environment of the agent's processes.
    pub fn mark(&self) -> &str {
        &self.kept.mark
    }

    /// The port that the agent is told.
    pub fn app(&self) -> u16 {
        self.kept.app
    }

    /// The port that took the agent's own spans before; 0: none did.
    pub fn otlp(&self) -> u16 {
        self.kept.otlp
    }

    /// Which process the agent is, or was.
    pub fn agent(&self) -> Option<Agent> {
        read_agent(self.dir.path())
    }

    /// The folder's lock, for another process to hold it too.
    ///
    /// # Errors
    /// The kernel's.
    pub fn lock(&self) -> io::Result<File> {
        self.lock.try_clone()
    }

    /// What there is of an agent already.
    pub fn copy(&self) -> Copy {
        let agent = self.agent();
        let alive = agent
            .as_ref()
            .and_then(Agent::id)
            .filter(|id| Stat::of(id.pid).is_some_and(|stat| stat.id == *id && !stat.zombie));
        match agent {
            Some(agent) if alive.is_some() => Copy::Alive(agent),
            agent if is_locked(self.dir.path()) => Copy::Left(agent),
            _ => Copy::None,
        }
    }
}

/// Which process the agent of this folder is, or was.
pub fn read_agent(dir: &Path) -> Option<Agent> {
    serde_json::from_slice(&std::fs::read(dir.join(AGENT)).ok()?).ok()
}

/// Writes down which process the agent is.
///
/// # Errors
/// The disk's.
pub fn write_agent(dir: &StateDir, agent: &Agent) -> io::Result<()> {
    dir.keep(AGENT, &serde_json::to_vec(agent).map_err(io::Error::other)?)
}

/// Takes the lock that is held for as long as a process of the agent lives: its descriptor stays open when the launcher
/// becomes the agent. `None`: another copy has it.
///
/// # Errors
/// The disk's.
pub fn lock_agent(dir: &Path) -> io::Result<Option<File>> {
    let file = open_lock(&dir.join(AGENT_LOCK))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())?;
            Ok(Some(file))
        }
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_locked(dir: &Path) -> bool {
    let lock = open_lock(&dir.join(AGENT_LOCK));
    lock.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK))
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

/// One sidecar for a folder. The one before may be about to end.
fn lock_folder(path: &Path) -> Result<File, Failure> {
    let file = open_lock(&path.join(SIDECAR_LOCK))?;
    let until = Instant::now() + BEFORE_US;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() >= until {
            let why = format!(
                "another sidecar has the state folder {}: --state-dir names one for each agent process",
                path.display()
            );
            return Err(Failure::Io(io::Error::other(why)));
        }
        wait();
    }
    Ok(file)
}

#[expect(clippy::disallowed_methods, reason = "nothing is served yet")]
fn wait() {
    std::thread::sleep(Duration::from_millis(20));
}

/// Whether nobody listens there.
pub fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

fn random<const N: usize>() -> String {
    let mut bytes = [0; N];
    fill_unique(&mut bytes);
    HEXLOWER.encode(&bytes)
}

/// The file of the secret that the agent shows; made when it is not there.
fn secret_file(dir: &Path) -> Result<PathBuf, Failure> {
    let path = dir.join(SECRET);
    if std::fs::metadata(&path).is_ok_and(|meta| meta.len() >= 32) {
        return Ok(path);
    }
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| io::Error::other("no randomness for the agent's secret"))?;
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
    writeln!(file, "{}", HEXLOWER.encode(&bytes))?;
    Ok(path)
}
