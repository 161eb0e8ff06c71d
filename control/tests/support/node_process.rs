//! `pilotfish node` as a process, with a sidecar of a few lines of shell.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pilotfish_config::wire::node::ReplicaOrder;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Starts the agent unless it lives, says so, and ends it on SIGTERM; children of the agent it leaves to the node.
const SIDECAR: &str = r#"#!/bin/sh
state= token= all="$*"
while [ $# -gt 0 ]; do
    case "$1" in
    --state-dir) state=$2 ;;
    --token-file) token=$2 ;;
    --) shift; break ;;
    esac
    shift
done
echo "$all" >>"$state/starts"
[ -z "$token" ] || ls -l "$token" | cut -c 1-10 >>"$state/token-mode"
echo $$ >"$state/sidecar.pid"
pid=$(cat "$state/agent.pid" 2>/dev/null)
# One that has ended and is not taken in yet is none.
[ -r "/proc/$pid/exe" ] && [ -e "/proc/$pid/exe" ] || pid=
if [ -z "$pid" ] || ! kill -0 "$pid" 2>/dev/null; then
    env >"$state/env"
    setsid "$@" >"$state/agent.log" 2>&1 &
    pid=$!
    echo $pid >"$state/agent.pid"
    echo $pid >>"$state/agents"
fi
printf '{"id":"","generation":"","phase":"running","pid":%s,"since_ms":1}' $pid >"$state/supervisor.new"
mv "$state/supervisor.new" "$state/supervisor.json"
trap 'kill -TERM $pid; exit 0' TERM
while kill -0 $pid 2>/dev/null; do sleep 0.05; done
echo "the agent has ended" >&2
exit 1
"#;

/// A running node.
#[derive(Debug)]
pub struct Node {
    child: Child,
    /// Where its data is.
    pub folder: Arc<TempDir>,
    args: Vec<String>,
}

/// A folder with the sidecar of shell and a token.
pub fn folder(token: &str) -> Arc<TempDir> {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = folder.path().join("sidecar");
    fs::write(&sidecar, SIDECAR).unwrap();
    fs::set_permissions(&sidecar, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("token"), token).unwrap();
    Arc::new(folder)
}

impl Node {
    /// Starts one with the sidecar of shell.
    pub fn start(folder: &Arc<TempDir>, control: &str, more: &[&str]) -> Node {
        let sidecar = folder.path().join("sidecar").display().to_string();
        Node::start_with(folder, control, &sidecar, more)
    }

    /// Starts one.
    pub fn start_with(folder: &Arc<TempDir>, control: &str, sidecar: &str, more: &[&str]) -> Node {
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut args = vec!["node".to_owned(), "--no-nvml".into(), "--name".into(), "n1".into()];
        if !more.contains(&"--data") {
            args.extend(["--data".into(), path("data")]);
        }
        args.extend(["--control".into(), control.into(), "--token-file".into(), path("token")]);
        args.extend(["--proxy".into(), sidecar.into()]);
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        Node { child: spawn(&args, folder), folder: folder.clone(), args }
    }

    /// Kills it with -9 and starts it again.
    pub fn again(&mut self) {
        self.kill();
        self.child = spawn(&self.args, &self.folder);
    }

    /// Kills it with -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it with SIGTERM, and gives its exit code.
    pub fn end(&mut self) -> Option<i32> {
        signal(self.child.id(), Signal::TERM);
        self.child.wait().unwrap().code()
    }

    /// A replica's folder.
    pub fn place(&self, id: &str) -> PathBuf {
        self.folder.path().join("data/replicas").join(id)
    }

    /// What it wrote to stderr.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("node.log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- stderr of the node\n{}", self.log());
        }
        for (pid, _) in marked(&self.folder) {
            signal(pid, Signal::KILL);
        }
    }
}

fn spawn(args: &[String], folder: &TempDir) -> Child {
    let log = fs::File::options().create(true).append(true).open(folder.path().join("node.log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_pilotfish"))
        .args(args)
        // By which a test finds all that it started.
        .env("TEST_FOLDER", folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// All processes that a test started, with their command lines.
pub fn marked(folder: &TempDir) -> BTreeMap<u32, String> {
    let mark = format!("TEST_FOLDER={}", folder.path().display());
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if environ.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            found.insert(pid, String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    found
}

/// Processes of a test whose command line begins so.
pub fn running(folder: &TempDir, begins: &str) -> Vec<u32> {
    marked(folder).into_iter().filter(|(_, line)| line.starts_with(begins)).map(|(pid, _)| pid).collect()
}

/// Sends a signal; nobody there is fine.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Waits for something to come true.
pub async fn eventually<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A number that the sidecar of shell wrote.
pub async fn number(path: &Path) -> u32 {
    eventually(&path.display().to_string(), || fs::read_to_string(path).ok()?.trim().parse().ok()).await
}

/// An order of an agent. Tests run beside each other on one machine: no two replicas of them have one id.
pub fn order(name: &str, command: &[&str]) -> ReplicaOrder {
    ReplicaOrder {
        id: format!("default/{name}/{}", (0..10).map(|_| fastrand::lowercase()).collect::<String>()),
        agent: name.into(),
        namespace: "default".into(),
        generation: "1".into(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        start_timeout_ms: 10_000,
        stop_timeout_ms: 1_000,
        ..ReplicaOrder::default()
    }
}
