//! The folder of a replica, and the start of its sidecar in it.
//!
//! | file | what |
//! |---|---|
//! | `order.json` | what was ordered |
//! | `ports.json` | its ports |
//! | `run.json` | which process is its sidecar, written by that process before it becomes the sidecar |
//! | `sidecar.lock` | locked by the sidecar for its life: there is never a second one |
//! | `token` | the join token, until the sidecar has joined |
//! | `sidecar.log` | what the sidecar said |
//! | `state/` | the sidecar's own: its identity, `supervisor.json`, `agent.log` |
//! | `work/` | where the agent starts |

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use pilotfish_config::wire::node::{ReplicaOrder, ReplicaState};
use pilotfish_identity::Credentials;
use pilotfish_processes::{MARK, Which};
use rustix::fs::FlockOperation;
use rustix::io::FdFlags;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::cgroups::Cgroup;
use super::disk;
use super::ports::Ports;

/// The hidden command that becomes the sidecar.
pub const LAUNCH: &str = "launch-sidecar";
/// A longer path is no socket's (sockaddr_un).
const LONGEST_SOCKET: usize = 107;
/// The sidecar's log is cut at this length, bytes.
const LONGEST_LOG: u64 = 4 << 20;
/// What of it is kept beside, bytes.
const KEPT_LOG: u64 = 1 << 20;
/// How often a launcher tries to get the lock of the sidecar before it, which has just ended.
const TRIES: u32 = 50;

/// A replica's folder.
#[derive(Debug, Clone)]
pub(super) struct Place(PathBuf);

/// What is the same for all sidecars of a node.
#[derive(Debug, Clone)]
pub(super) struct Common {
    /// `pilotfish-proxy`.
    pub(super) proxy: PathBuf,
    /// Control planes, separated by commas.
    pub(super) controls: String,
    /// The address of inbound listeners.
    pub(super) inbound: std::net::IpAddr,
    /// `region/zone`.
    pub(super) locality: Option<String>,
}

impl Place {
    /// The folder of a replica. `None` for an id that names none.
    pub(super) fn of(replicas: &Path, id: &str) -> Option<Place> {
        let parts: Vec<&str> = id.split('/').collect();
        let good = |part: &&str| {
            let byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            !part.is_empty() && part.len() <= 128 && part.bytes().all(byte) && !part.starts_with('.')
        };
        (parts.len() == 3 && parts.iter().all(good)).then(|| Place(replicas.join(id)))
    }

    /// All that are there, with their ids.
    pub(super) fn all(replicas: &Path) -> Vec<(String, Place)> {
        let below = |folder: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
        };
        let folders =
            below(replicas).into_iter().flat_map(|space| below(&space)).flat_map(|agent| below(&agent));
        let named = folders.filter_map(|folder| {
            let id = folder.strip_prefix(replicas).ok()?.to_str()?.to_owned();
            Some((id.clone(), Place::of(replicas, &id)?))
        });
        named.collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The sidecar's folder.
    pub(super) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// What was ordered.
    pub(super) fn order(&self) -> Option<ReplicaOrder> {
        disk::read_json(&self.path("order.json"))
    }

    /// Keeps what is ordered.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn keep_order(&self, order: &ReplicaOrder) -> io::Result<()> {
        disk::private_folder(&self.path("work"))?;
        disk::private_folder(&self.state())?;
        if self.order().as_ref() == Some(order) {
            return Ok(());
        }
        disk::replace_json(&self.path("order.json"), order)
    }

    /// The ports of an earlier start.
    pub(super) fn ports(&self) -> Option<Ports> {
        disk::read_json(&self.path("ports.json"))
    }

    /// Keeps ports.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn keep_ports(&self, ports: Ports) -> io::Result<()> {
        if self.ports() == Some(ports) {
            return Ok(());
        }
        disk::replace_json(&self.path("ports.json"), &ports)
    }

    /// Which process was its sidecar last.
    pub(super) fn sidecar(&self) -> Option<Which> {
        disk::read_json(&self.path("run.json"))
    }

    /// Whether the sidecar has an identity that is still good.
    pub(super) fn has_identity(&self) -> bool {
        #[derive(Deserialize)]
        struct Stored {
            key: String,
            chain: String,
        }
        let stored: Option<Stored> = disk::read_json(&self.state().join("identity.json"));
        let Some(Stored { key, chain }) = stored else { return false };
        let read = Credentials::from_pem(&chain, &Zeroizing::new(key));
        read.is_ok_and(|own| own.not_after > SystemTime::now())
    }

    /// Gives the sidecar a token.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn put_token(&self, token: &str) -> io::Result<()> {
        disk::replace(&self.path("token"), format!("{token}\n").as_bytes())
    }

    /// Takes the token away: it was spent, or nobody will.
    pub(super) fn drop_token(&self) {
        let _ = fs::remove_file(self.path("token"));
    }

    /// What the supervisor in the sidecar says.
    pub(super) fn supervisor(&self) -> Option<ReplicaState> {
        disk::read_json(&self.state().join("supervisor.json"))
    }

    /// What an earlier sidecar said of an agent that has ended.
    pub(super) fn drop_supervisor(&self) {
        let _ = fs::remove_file(self.state().join("supervisor.json"));
    }

    /// The last line that the sidecar said, shortened.
    pub(super) fn last_words(&self) -> Option<String> {
        let bytes = disk::end_of(&self.path("sidecar.log"), 4096).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(line.chars().filter(|letter| !letter.is_control()).take(300).collect())
    }

    /// Files with the agent's output, older ones first; with the sidecar's when the agent has none.
    pub(super) fn logs(&self) -> Vec<PathBuf> {
        let agent = ["agent.log.1", "agent.log"].map(|name| self.state().join(name));
        let there: Vec<PathBuf> = agent.into_iter().filter(|path| path.exists()).collect();
        if there.is_empty() { vec![self.path("sidecar.log")] } else { there }
    }

    /// Keeps the sidecar's log short: it writes on, at the beginning of the same file.
    pub(super) fn cut_log(&self) {
        let path = self.path("sidecar.log");
        if fs::metadata(&path).is_ok_and(|meta| meta.len() > LONGEST_LOG) {
            let end = disk::end_of(&path, KEPT_LOG).unwrap_or_default();
            let _ = fs::write(self.path("sidecar.log.1"), end);
            let _ = File::options().write(true).open(&path).and_then(|file| file.set_len(0));
        }
    }

    /// Removes the folder, and those above it that are empty now.
    pub(super) fn remove(&self) {
        let _ = fs::remove_dir_all(&self.0);
        for above in self.0.ancestors().skip(1).take(2) {
            let _ = fs::remove_dir(above);
        }
    }

    /// The command that becomes the sidecar.
    ///
    /// # Errors
    /// The disk's, or the folder to start in is not there.
    pub(super) fn command(
        &self,
        common: &Common,
        order: &ReplicaOrder,
        ports: Ports,
        token: bool,
        cgroup: Option<&Cgroup>,
    ) -> io::Result<Command> {
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(self.path("sidecar.log"));
        let log = log.map_err(|error| disk::named(&self.path("sidecar.log"), &error))?;
        let folder = order.working_dir.as_ref().map_or_else(|| self.path("work"), PathBuf::from);
        if !folder.is_dir() {
            return Err(io::Error::other(format!("the working directory {} is not there", folder.display())));
        }
        // The program that runs now, whatever is in its place on the disk by then.
        let mut command = Command::new("/proc/self/exe");
        command.arg(LAUNCH).arg("--folder").arg(&self.0);
        if let Some(cgroup) = cgroup {
            command.arg("--cgroup").arg(cgroup.sidecar());
        }
        command.arg("--").arg(&common.proxy);
        self.arguments(&mut command, common, order, ports, token, cgroup);
        // What belongs to the node is not the sidecar's.
        for name in ["TOKEN", "TOKEN_FILE", "ADMIN_TOKEN", "ADMIN_TOKEN_FILE", "DATA", "NAME", "ADVERTISE"] {
            command.env_remove(format!("PILOTFISH_{name}"));
        }
        command.envs(order.env.iter().filter(|(name, _)| !name.starts_with("PILOTFISH_")));
        let cards = cards(order);
        command
            .env(MARK, &order.id)
            .env("CUDA_VISIBLE_DEVICES", &cards)
            .env("NVIDIA_VISIBLE_DEVICES", &cards);
        command.current_dir(folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    fn arguments(
        &self,
        command: &mut Command,
        common: &Common,
        order: &ReplicaOrder,
        ports: Ports,
        token: bool,
        cgroup: Option<&Cgroup>,
    ) {
        command.args([
            "--agent",
            &order.agent,
            "--namespace",
            &order.namespace,
            "--control",
            &common.controls,
        ]);
        if token {
            command.arg("--token-file").arg(self.path("token"));
        }
        command.arg("--state-dir").arg(self.state());
        let local = |port: u16| format!("127.0.0.1:{port}");
        let inbound = std::net::SocketAddr::new(common.inbound, ports.inbound);
        command.args(["--outbound", &local(ports.outbound), "--inbound", &inbound.to_string()]);
        command.args(["--admin", &local(ports.admin), "--app", &local(ports.app)]);
        let socket = self.path("admin.sock");
        if socket.as_os_str().len() <= LONGEST_SOCKET {
            command.arg("--admin-socket").arg(socket);
        }
        for (key, value) in &order.labels {
            // The flag takes several, separated by commas.
            if !value.contains(',') {
                command.arg("--label").arg(format!("{key}={value}"));
            }
        }
        if let Some(locality) = &common.locality {
            command.args(["--locality", locality]);
        }
        if let Some(probe) = &order.probe {
            command.args(["--probe", probe]);
        }
        for capability in &order.capabilities {
            command.args(["--capability", capability]);
        }
        if let Some(cgroup) = cgroup {
            command.arg("--agent-cgroup").arg(cgroup.agent());
        }
        command.args(["--agent-log", "file"]);
        command.args(["--agent-capacity", &order.capacity.to_string()]);
        let stop = format!("{}ms", order.stop_timeout_ms);
        let start = format!("{}ms", order.start_timeout_ms);
        command.args(["--agent-stop", &stop, "--agent-start", &start]);
        for duty in ["task_coordination", "failure_recovery", "performance_optimization"] {
            if order.without.iter().any(|without| without == duty) {
                command.args(["--agent-without", &duty.replace('_', "-")]);
            }
        }
        if order.without.iter().any(|without| without == "task_coordination") {
            command.args(["--drain", "0s", "--drain-delay", "0s"]);
        }
        command.arg("--").args(&order.command);
    }
}

/// The cards that a replica sees: UUIDs of cards or of MIG instances. Empty: none, also where there are some.
fn cards(order: &ReplicaOrder) -> String {
    let ids: Vec<&str> =
        order.gpus.iter().map(|share| share.slice.as_deref().unwrap_or(&share.gpu)).collect();
    ids.join(",")
}

/// Becomes a sidecar: in a session of its own, in its cgroup, with its process written down first.
///
/// Gives the error for which it did not; else it does not return.
pub fn launch(folder: &Path, cgroup: Option<&Path>, command: &[std::ffi::OsString]) -> io::Error {
    match prepare(folder, cgroup) {
        Ok(()) => {}
        Err(error) => return error,
    }
    let Some((program, arguments)) = command.split_first() else {
        return io::Error::other("there is no program to become");
    };
    let error = std::os::unix::process::CommandExt::exec(Command::new(program).args(arguments));
    disk::named(Path::new(program), &error)
}

fn prepare(folder: &Path, cgroup: Option<&Path>) -> io::Result<()> {
    let path = folder.join("sidecar.lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let lock = lock.map_err(|error| disk::named(&path, &error))?;
    // A record lock is this process's alone, whatever it becomes, and goes to no child of it.
    let mut tries = 0;
    while rustix::fs::fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        tries += 1;
        if tries == TRIES {
            return Err(disk::named(&path, &io::Error::other("another sidecar of this replica runs")));
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    rustix::io::fcntl_setfd(&lock, FdFlags::empty())?;
    // It is closed by the end of the process, and by nothing before.
    std::mem::forget(lock);
    // Fails for the leader of a session, which is fine.
    let _ = rustix::process::setsid();
    if let Some(cgroup) = cgroup {
        let joined = fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string());
        if let Err(error) = joined {
            let _ = writeln!(io::stderr(), "{}: {error}", cgroup.display());
        }
    }
    let own =
        Which::of(std::process::id()).ok_or_else(|| io::Error::other("/proc does not have this process"))?;
    disk::replace_json(&folder.join("run.json"), &own)
}

#[cfg(test)]
mod tests {
    use pilotfish_config::wire::node::GpuShare;

    use super::*;

    #[test]
    fn an_id_names_a_folder_of_its_own_or_none() {
        let data = tempfile::tempdir().unwrap();
        let place = Place::of(data.path(), "ns/agent/abc123").unwrap();
        place.keep_order(&ReplicaOrder { id: "ns/agent/abc123".into(), ..ReplicaOrder::default() }).unwrap();
        assert_eq!(place.order().unwrap().id, "ns/agent/abc123");
        let all = Place::all(data.path());
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].0, "ns/agent/abc123");
        place.remove();
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
        for bad in ["", "a/b", "a/b/c/d", "a//c", "../b/c", "a/b/..", "a/b/c d", "/a/b", "a/.b/c"] {
            assert!(Place::of(data.path(), bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_replica_sees_its_cards_only() {
        let share = |gpu: &str, slice: Option<&str>| GpuShare {
            gpu: gpu.into(),
            slice: slice.map(str::to_owned),
            memory: 1,
        };
        let order = ReplicaOrder {
            gpus: vec![share("GPU-1", None), share("GPU-2", Some("MIG-3"))],
            ..ReplicaOrder::default()
        };
        assert_eq!(cards(&order), "GPU-1,MIG-3");
        assert_eq!(cards(&ReplicaOrder::default()), "");
    }

    #[test]
    fn a_log_that_floods_is_cut_and_its_end_kept() {
        let data = tempfile::tempdir().unwrap();
        let place = Place(data.path().to_owned());
        let path = data.path().join("sidecar.log");
        fs::write(&path, vec![b'x'; LONGEST_LOG as usize + 1]).unwrap();
        place.cut_log();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        assert_eq!(fs::metadata(data.path().join("sidecar.log.1")).unwrap().len(), KEPT_LOG);
        fs::write(&path, "one\n\ntwo \n\n").unwrap();
        assert_eq!(place.last_words().unwrap(), "two ");
    }
}
