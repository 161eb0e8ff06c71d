//! The launcher: this program once more, between the sidecar and the agent. It takes the lock that only one copy of the agent
//! can have, writes down which process it is, and becomes the agent (`exec`), so that there is no moment at which an agent
//! runs that nobody knows of.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use pilotfish_processes::{Id, Stat, Which};
use rustix::process::{Signal, getppid, set_parent_process_death_signal, setsid};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use super::environment::{self, Environment};
use super::place::{Agent, lock_agent, write_agent};
use crate::control::disk::StateDir;

/// The first argument of the launcher.
pub const WORD: &str = "launch-agent";
/// Where the agent writes: stdout, stderr.
pub const PIPES: [&str; 2] = ["agent.out", "agent.err"];
/// How long the launcher may take to become the agent.
const LAUNCH: Duration = Duration::from_secs(30);
/// The longest report.
const REPORT: u64 = 4096;

/// What the launcher is told, as JSON in its second argument; the agent's command follows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// The state folder.
    pub dir: PathBuf,
    /// The cgroup to join.
    pub cgroup: Option<PathBuf>,
    /// The agent ends with this process: the sidecar.
    pub with: Option<u32>,
    /// For [`Agent`].
    pub app: u16,
    /// For [`Agent`].
    pub outbound: u16,
    /// For [`Agent`].
    pub digest: String,
}

/// Why the launcher did not become the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotLaunched {
    /// Another copy lives.
    Another,
    /// It cannot: no such command, a full disk.
    Cannot(String),
}

/// Starts a launcher, and waits until it has become the agent. To be called on a thread that lives as long as the process:
/// the agent's end with its parent is the end with the thread that started it.
///
/// # Errors
/// Why there is no agent.
pub async fn launch(
    order: &Order,
    command: &[String],
    environment: &Environment,
) -> Result<(tokio::process::Child, Id), NotLaunched> {
    let cannot = |why: String| NotLaunched::Cannot(why);
    let order = serde_json::to_string(order).map_err(|error| cannot(error.to_string()))?;
    let mut launcher = tokio::process::Command::new("/proc/self/exe");
    launcher.arg0("pilotfish-proxy").arg(WORD).arg(order).args(command);
    launcher.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    for name in environment::removed() {
        launcher.env_remove(name);
    }
    launcher.envs(environment.set.iter().map(|(name, value)| (name, value)));
    let spawned = launcher.spawn();
    let mut child = spawned.map_err(|error| cannot(format!("cannot start a process: {error}")))?;
    let pid = child.id().unwrap_or_default();
    let mut report = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        // The pipe closes when the launcher becomes the agent.
        let read = async { pipe.take(REPORT).read_to_end(&mut report).await };
        if tokio::time::timeout(LAUNCH, read).await.is_err() {
            let _ = child.kill().await;
            return Err(cannot(format!("the agent was not started within {LAUNCH:?}")));
        }
    }
    if !report.is_empty() {
        let _ = child.wait().await;
        let unreadable = || cannot(String::from_utf8_lossy(&report).into_owned());
        return Err(serde_json::from_slice(&report).unwrap_or_else(|_| unreadable()));
    }
    // Not reaped yet, so its number is still its own; a zombie has a start too.
    let start = Stat::of(pid).map(|stat| stat.id);
    Ok((child, start.unwrap_or(Id { pid, start: 0 })))
}

/// The launcher's `main`. Returns only when it could not become the agent.
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let order = arguments.next().unwrap_or_default();
    let command: Vec<OsString> = arguments.collect();
    let Ok(order) = serde_json::from_slice::<Order>(order.as_encoded_bytes()) else {
        eprintln!("pilotfish-proxy {WORD} is for the sidecar's own use; see --help");
        return ExitCode::from(2);
    };
    // Kept beside the agent's stdout, and closed by the kernel when the agent begins.
    let Ok(report) = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3) else { return ExitCode::from(126) };
    let (failed, code) = match become_agent(&order, &command) {
        Ok(never) => match never {},
        Err(failed) => failed,
    };
    say(report, &failed);
    ExitCode::from(code)
}

fn say(report: OwnedFd, failed: &NotLaunched) {
    let text = serde_json::to_vec(failed).unwrap_or_default();
    let _ = File::from(report).write_all(&text);
}

/// The exit codes are the shell's.
fn become_agent(order: &Order, command: &[OsString]) -> Result<std::convert::Infallible, (NotLaunched, u8)> {
    let cannot = |why: String| (NotLaunched::Cannot(why), 126);
    let (program, arguments) = command.split_first().ok_or_else(|| cannot("the command is empty".into()))?;
    // Locked before anything else: who has no lock changes nothing.
    let lock = lock_agent(&order.dir).map_err(|error| cannot(format!("agent.lock: {error}")))?;
    let _lock = lock.ok_or((NotLaunched::Another, 125))?;
    setsid().map_err(|error| cannot(format!("no session for the agent: {error}")))?;
    if let Some(parent) = order.with {
        let set = set_parent_process_death_signal(Some(Signal::KILL));
        set.map_err(|error| cannot(format!("cannot end with the sidecar: {error}")))?;
        // It may have ended before that was said.
        let now = getppid().map(|parent| parent.as_raw_nonzero().get().unsigned_abs());
        if now != Some(parent) {
            return Err(cannot("its sidecar has ended".into()));
        }
    }
    let cgroup = order.cgroup.as_deref().filter(|cgroup| match join(cgroup) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("pilotfish-proxy: the agent is in no cgroup of its own: {}: {error}", cgroup.display());
            false
        }
    });
    let which = Which::of(std::process::id()).ok_or_else(|| cannot("/proc cannot be read".into()))?;
    let agent = Agent {
        which,
        cgroup: cgroup.map(Path::to_owned),
        app: order.app,
        outbound: order.outbound,
        digest: order.digest.clone(),
    };
    let dir = StateDir::open(&order.dir).map_err(|error| cannot(error.to_string()))?;
    write_agent(&dir, &agent).map_err(|error| cannot(error.to_string()))?;
    let [out, err] = PIPES.map(|name| {
        // For reading too: then writing to it fails at no time, also while no sidecar reads.
        OpenOptions::new().read(true).write(true).open(order.dir.join(name))
    });
    let (out, err) = (out.map_err(|e| cannot(e.to_string()))?, err.map_err(|e| cannot(e.to_string()))?);
    let error = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(out).stderr(err).exec();
    Err(refused(program, &error))
}

/// Goes into the cgroup, which is made when it is not there.
fn join(cgroup: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(cgroup)?;
    std::fs::write(cgroup.join("cgroup.procs"), "0")
}

fn refused(program: &OsString, error: &io::Error) -> (NotLaunched, u8) {
    let program = program.to_string_lossy();
    let (why, code) = match error.kind() {
        io::ErrorKind::NotFound if program.contains('/') && Path::new(&*program).exists() => {
            (format!("{program}: its interpreter (the first line after #!) is not there"), 127)
        }
        io::ErrorKind::NotFound if program.contains('/') => (format!("{program}: no such command"), 127),
        io::ErrorKind::NotFound => (format!("{program}: no such command in PATH"), 127),
        io::ErrorKind::PermissionDenied => (format!("{program}: not executable"), 126),
        _ => (format!("{program}: {error}"), 126),
    };
    (NotLaunched::Cannot(why), code)
}
