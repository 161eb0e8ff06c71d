//! `pilotfish serve` as a process: started in a temporary folder, ended when dropped.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(30);

/// Lines of stderr as they come, and a bell for each.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    bell: Condvar,
}

/// A running control plane.
#[derive(Debug)]
pub struct Serve {
    child: Child,
    folder: Arc<TempDir>,
    log: Arc<Log>,
    /// TLS.
    pub listen: SocketAddr,
    /// The page.
    pub local: Option<SocketAddr>,
    /// Probes.
    pub status: Option<SocketAddr>,
    /// OTLP of this machine, by gRPC and by HTTP, and of others.
    pub otlp_grpc: Option<SocketAddr>,
    pub otlp_http: Option<SocketAddr>,
    pub otlp_listen: Option<SocketAddr>,
    /// Jaeger's API.
    pub jaeger: Option<SocketAddr>,
    /// The owner's socket.
    pub socket: PathBuf,
    /// The administrator's token, printed by the first start.
    pub token: Option<String>,
}

/// An empty folder.
pub fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().unwrap())
}

/// The command with a data folder; every listener takes a free port.
pub fn command(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pilotfish"));
    command.arg("serve").arg("--data").arg(data);
    for flag in ["--listen", "--local", "--status", "--otlp-grpc", "--otlp-http", "--jaeger"] {
        if !args.contains(&flag) {
            command.args([flag, "127.0.0.1:0"]);
        }
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts one in the expectation that it refuses: its exit status and stderr.
pub fn start_to_fail(data: &Path, args: &[&str]) -> (ExitStatus, String) {
    let mut child = command(data, args).spawn().unwrap();
    let until = Instant::now() + START;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < until, "it did not end");
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (status, text)
}

impl Serve {
    /// A new one in an empty folder.
    pub fn start(args: &[&str]) -> Serve {
        Serve::start_in(folder(), args)
    }

    /// One in a folder, perhaps of an earlier one.
    pub fn start_in(folder: Arc<TempDir>, args: &[&str]) -> Serve {
        let command = command(&folder.path().join("data"), args);
        Serve::spawned(folder, command)
    }

    /// A new one that another program starts: its words come before the command.
    pub fn start_by(words: &[&str], args: &[&str]) -> Serve {
        let folder = folder();
        let own = command(&folder.path().join("data"), args);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(own.get_program()).args(own.get_args());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Serve::spawned(folder, command)
    }

    fn spawned(folder: Arc<TempDir>, mut command: Command) -> Serve {
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Log::default());
        let (stderr, sink) = (child.stderr.take().unwrap(), log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                sink.lines.lock().unwrap_or_else(PoisonError::into_inner).0.push(line);
                sink.bell.notify_all();
            }
            sink.lines.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
            sink.bell.notify_all();
        });
        let Some(ready) = log.wait(START, |line| line.starts_with("pilotfish: serving ")) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the control plane did not get ready; stderr:\n{}", log.all().join("\n"));
        };
        let first = log.all().iter().any(|line| line.contains("administrator's token"));
        let token = first.then(|| {
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            line.trim().to_owned()
        });
        let word = |name: &str| {
            let found = ready.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_else(|| panic!("no {name} in {ready:?}")).to_owned()
        };
        Serve {
            listen: word("listen").parse().unwrap(),
            local: word("local").parse().ok(),
            status: word("status").parse().ok(),
            otlp_grpc: word("otlp-grpc").parse().ok(),
            otlp_http: word("otlp-http").parse().ok(),
            otlp_listen: word("otlp-listen").parse().ok(),
            jaeger: word("jaeger").parse().ok(),
            socket: word("socket").into(),
            token,
            child,
            folder,
            log,
        }
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The folder around its data, to start another one in.
    pub fn folder(&self) -> Arc<TempDir> {
        self.folder.clone()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> Vec<String> {
        self.log.all()
    }

    /// Waits for a line on stderr that fits.
    pub async fn said(&self, fits: impl Fn(&str) -> bool + Send + 'static) -> String {
        let log = self.log.clone();
        let waited = tokio::task::spawn_blocking(move || log.wait(START, fits)).await.unwrap();
        waited.unwrap_or_else(|| panic!("no such line on stderr:\n{}", self.stderr().join("\n")))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Kills it with -9; its folder stays.
    pub fn kill(mut self) -> Arc<TempDir> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.folder.clone()
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + START;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it did not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Log {
    fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    fn wait(&self, time: Duration, fits: impl Fn(&str) -> bool) -> Option<String> {
        let until = Instant::now() + time;
        let mut state = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(line) = state.0.iter().find(|line| fits(line)) {
                return Some(line.clone());
            }
            let left = until.checked_duration_since(Instant::now())?;
            if state.1 {
                return None;
            }
            state = self.bell.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- stderr of the control plane (last 40 lines)");
            let lines = self.stderr();
            lines[lines.len().saturating_sub(40)..].iter().for_each(|line| eprintln!("{line}"));
        }
    }
}
