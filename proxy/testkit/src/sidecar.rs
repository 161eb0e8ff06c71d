//! The process under test: started with YAML in a temporary directory, ended when dropped.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(20);
/// How long the last lines of a process that has ended are waited for: an agent that lives on may hold its stderr open.
const LAST_LINES: Duration = Duration::from_secs(2);

/// How to start a sidecar.
#[derive(Debug)]
pub struct Builder {
    binary: PathBuf,
    files: Vec<(String, String)>,
    agent: String,
    namespace: String,
    app: Option<SocketAddr>,
    workers: usize,
    /// Whether its documents come from the configuration directory.
    with_config: bool,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

/// A sidecar that was started and may not listen yet. Dropping it kills the process.
#[derive(Debug)]
pub struct Launched(Option<Parts>);

#[derive(Debug)]
struct Parts {
    child: Child,
    dir: TempDir,
    log: Arc<Log>,
}

impl Drop for Parts {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- stderr of the sidecar (last 40 lines)");
            let lines = self.log.all();
            for line in &lines[lines.len().saturating_sub(40)..] {
                eprintln!("{line}");
            }
        }
    }
}

impl Launched {
    /// Waits, without blocking the runtime, until it listens.
    pub async fn ready(mut self) -> Sidecar {
        let parts = self.0.take().expect("parts until now");
        tokio::task::spawn_blocking(move || Builder::listening(parts)).await.expect("a sidecar that listens")
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> Vec<String> {
        self.0.as_ref().map(|parts| parts.log.all()).unwrap_or_default()
    }

    /// Waits for a line on stderr that fits.
    pub async fn said(&self, fits: impl Fn(&str) -> bool) -> String {
        let until = tokio::time::Instant::now() + START;
        loop {
            if let Some(line) = self.stderr().into_iter().find(|line| fits(line)) {
                return line;
            }
            assert!(tokio::time::Instant::now() < until, "it never said so: {:#?}", self.stderr());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for its end: its exit status and stderr.
    pub async fn exit(mut self) -> (ExitStatus, String) {
        let mut parts = self.0.take().expect("parts until now");
        tokio::task::spawn_blocking(move || Builder::end(&mut parts)).await.expect("an end")
    }
}

/// Lines of stderr as they come, and a bell for each.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    bell: Condvar,
}

/// A running sidecar. Dropping it kills the process and removes its directory.
#[derive(Debug)]
pub struct Sidecar {
    parts: Parts,
    /// Where the agent's own calls go in.
    pub outbound: SocketAddr,
    /// Where the mesh's calls go in.
    pub inbound: SocketAddr,
    /// `/ready`, `/live`, `/metrics`.
    pub admin: SocketAddr,
    /// The Unix socket with `/config`, `/why` and drain.
    pub admin_socket: PathBuf,
}

impl Builder {
    /// Adds a file to the configuration directory.
    #[must_use]
    pub fn yaml(mut self, name: &str, text: impl Into<String>) -> Self {
        self.files.push((name.into(), text.into()));
        self
    }

    /// The name of the agent beside it; `tester` by default.
    #[must_use]
    pub fn agent(mut self, name: &str) -> Self {
        self.agent = name.into();
        self
    }

    /// The namespace; `default` by default.
    #[must_use]
    pub fn namespace(mut self, name: &str) -> Self {
        self.namespace = name.into();
        self
    }

    /// Where inbound traffic goes.
    #[must_use]
    pub fn app(mut self, addr: SocketAddr) -> Self {
        self.app = Some(addr);
        self
    }

    /// The number of workers; 1 by default.
    #[must_use]
    pub fn workers(mut self, n: usize) -> Self {
        self.workers = n;
        self
    }

    /// Further arguments.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|a| (*a).to_owned()));
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Its documents come from elsewhere: no `--config`.
    #[must_use]
    pub fn without_config(mut self) -> Self {
        self.with_config = false;
        self
    }

    /// Starts it, and waits for nothing.
    pub fn launch(self) -> Launched {
        Launched(Some(self.spawn()))
    }

    fn spawn(&self) -> Parts {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = dir.path().join("config");
        std::fs::create_dir(&config).expect("a configuration directory");
        for (name, text) in &self.files {
            std::fs::write(config.join(name), text).expect("a configuration file");
        }
        let mut command = Command::new(&self.binary);
        if self.with_config {
            command.arg("--config").arg(&config);
        }
        command.args(["--agent", &self.agent, "--namespace", &self.namespace]);
        for listener in ["--outbound", "--inbound", "--admin"] {
            if !self.args.iter().any(|a| a == listener) {
                command.args([listener, "127.0.0.1:0"]);
            }
        }
        if let Some(app) = self.app {
            command.arg("--app").arg(app.to_string());
        }
        command.arg("--admin-socket").arg(dir.path().join("admin.sock"));
        command.arg("--workers").arg(self.workers.to_string()).args(&self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("start {}: {e}", self.binary.display()));
        let log = Arc::new(Log::default());
        let (stderr, sink) = (child.stderr.take().expect("stderr is piped"), log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                sink.lines.lock().unwrap_or_else(PoisonError::into_inner).0.push(line);
                sink.bell.notify_all();
            }
            sink.lines.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
            sink.bell.notify_all();
        });
        Parts { child, dir, log }
    }

    /// Starts it and waits until it listens; fails the test with its stderr when it does not.
    pub fn start(self) -> Sidecar {
        Builder::listening(self.spawn())
    }

    fn listening(parts: Parts) -> Sidecar {
        let Some(ready) = parts.log.wait(START, |l| l.starts_with("pilotfish-proxy: listening ")) else {
            panic!("the sidecar did not get ready; stderr:\n{}", parts.log.all().join("\n"));
        };
        let word = |name: &str| -> String {
            let found = ready.split(' ').find_map(|w| w.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_else(|| panic!("no {name} in {ready:?}")).to_owned()
        };
        let addr = |name: &str| -> SocketAddr { word(name).parse().expect("an address") };
        Sidecar {
            outbound: addr("outbound"),
            inbound: addr("inbound"),
            admin: addr("admin"),
            admin_socket: word("admin-socket").into(),
            parts,
        }
    }

    /// Starts it in the expectation that it refuses: its exit status and stderr.
    pub fn start_to_fail(self) -> (ExitStatus, String) {
        Builder::end(&mut self.spawn())
    }

    fn end(parts: &mut Parts) -> (ExitStatus, String) {
        let until = Instant::now() + START;
        loop {
            if let Some(status) = parts.child.try_wait().expect("a child to wait for") {
                parts.log.wait_end(LAST_LINES);
                return (status, parts.log.all().join("\n"));
            }
            assert!(
                Instant::now() < until,
                "the sidecar did not exit; stderr:\n{}",
                parts.log.all().join("\n")
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Log {
    fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// The first line that fits, waiting for it; `None` when time is over or the process ended.
    fn wait(&self, time: Duration, fits: impl Fn(&str) -> bool) -> Option<String> {
        let until = Instant::now() + time;
        let mut state = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(line) = state.0.iter().find(|l| fits(l)) {
                return Some(line.clone());
            }
            let left = until.checked_duration_since(Instant::now())?;
            if state.1 {
                return None;
            }
            state = self.bell.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wait_end(&self, time: Duration) {
        let state = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.bell.wait_timeout_while(state, time, |s| !s.1);
    }
}

impl Sidecar {
    /// A sidecar to be started from this binary (`env!("CARGO_BIN_EXE_pilotfish-proxy")` in the proxy's tests).
    pub fn builder(binary: impl Into<PathBuf>) -> Builder {
        Builder {
            binary: binary.into(),
            files: Vec::new(),
            agent: "tester".into(),
            namespace: "default".into(),
            app: None,
            workers: 1,
            with_config: true,
            args: Vec::new(),
            env: Vec::new(),
        }
    }

    /// The configuration directory.
    pub fn config(&self) -> PathBuf {
        self.parts.dir.path().join("config")
    }

    /// Replaces or adds a configuration file in one step (written beside, then renamed).
    pub fn rewrite(&self, name: &str, text: &str) {
        let beside = self.parts.dir.path().join(name);
        std::fs::write(&beside, text).expect("a configuration file");
        std::fs::rename(beside, self.config().join(name)).expect("a configuration file in place");
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> Vec<String> {
        self.parts.log.all()
    }

    /// Waits for a line on stderr that fits (also one already written). Blocks the thread: for use outside a runtime
    /// or in `spawn_blocking`.
    pub fn wait_stderr(&self, time: Duration, fits: impl Fn(&str) -> bool) -> Option<String> {
        self.parts.log.wait(time, fits)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.parts.child.id()
    }

    /// Resident memory of its own, bytes: without the pages of its program, which are there once they were run.
    pub fn rss(&self) -> u64 {
        self.status_kib("RssAnon:") * 1024
    }

    fn status_kib(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(Path::new("/proc").join(self.pid().to_string()).join("status"));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap_or("");
        line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
    }

    /// Whether the process still runs.
    pub fn alive(&mut self) -> bool {
        matches!(self.parts.child.try_wait(), Ok(None))
    }

    /// Sends SIGTERM: the sidecar drains.
    pub fn terminate(&self) {
        let pid = i32::try_from(self.parts.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        let _ = kill_process(pid, Signal::TERM);
    }

    /// Waits for the end and gives the exit status; `None` when it takes longer. What it wrote to stderr is there then.
    pub async fn exit(&mut self, time: Duration) -> Option<ExitStatus> {
        let until = tokio::time::Instant::now() + time;
        loop {
            if let Ok(Some(status)) = self.parts.child.try_wait() {
                let log = self.parts.log.clone();
                let _ = tokio::task::spawn_blocking(move || log.wait_end(LAST_LINES)).await;
                return Some(status);
            }
            if tokio::time::Instant::now() > until {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
