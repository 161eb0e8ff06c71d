//! The control plane as a process, and its command line.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::process::{Place, Process};

/// VirtualServices, and routes in each.
const SERVICES: usize = 100;
const ROUTES: usize = 10;

/// Everybody sees the own namespace, but watchers see all.
pub(crate) const NARROW: &str = "apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: pilotfish-system}
spec:
  egress:
  - hosts: ['./*']
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: watch}
spec:
  egress:
  - hosts: ['*/*']
";

/// A control plane that runs.
pub(crate) struct Control {
    pub(crate) address: SocketAddr,
    process: Process,
    binary: PathBuf,
    dir: PathBuf,
}

impl Control {
    /// Starts it with an empty data folder below `dir`, and waits until it listens.
    pub(crate) fn start(binary: &Path, dir: &Path, port: u16, place: Place) -> io::Result<Control> {
        let dir = dir.join("fleet");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let (program, data, listen) = (binary.display(), dir.join("data"), address.to_string());
        let args = [
            &program.to_string(),
            "serve",
            "--data",
            &data.display().to_string(),
            "--listen",
            &listen,
            "--local",
            "off",
        ]
        .map(str::to_owned);
        let mut process = Process::start(place, &args, &dir.join("log"))?;
        process.wait_for_port(port)?;
        Ok(Control { address, process, binary: binary.to_owned(), dir })
    }

    /// The last line of its log.
    pub(crate) fn said(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        log.lines().last().unwrap_or("nothing").to_owned()
    }

    pub(crate) fn cpu_ns(&self) -> u64 {
        self.process.cpu_ns()
    }

    pub(crate) fn rss_mib(&self) -> f64 {
        self.process.rss_kib() as f64 / 1024.0
    }

    /// A join token.
    pub(crate) async fn token(&self, namespace: &str, agent: &str) -> io::Result<String> {
        let said = self.command(&["token", "create", "--agent", agent, "--namespace", namespace]).await?;
        Ok(said.trim().to_owned())
    }

    /// A node's join token.
    pub(crate) async fn node_token(&self, node: &str) -> io::Result<String> {
        Ok(self.command(&["token", "create", "--node", node]).await?.trim().to_owned())
    }

    /// Applies documents.
    pub(crate) async fn apply_at_once(&self, text: &str) -> io::Result<()> {
        let file = self.dir.join("apply.yaml");
        fs::write(&file, text)?;
        self.command(&["apply", "-f", &file.display().to_string()]).await.map(drop)
    }

    /// Applies documents, and waits until everybody serves them.
    pub(crate) async fn apply(&self, text: &str) -> io::Result<()> {
        let file = self.dir.join("apply.yaml");
        fs::write(&file, text)?;
        self.command(&["apply", "-f", &file.display().to_string(), "--wait", "30s"]).await.map(drop)
    }

    /// Applies documents; how long it takes from their being stored until everybody serves them.
    pub(crate) async fn push(&self, text: &str) -> io::Result<Duration> {
        let file = self.dir.join("apply.yaml");
        fs::write(&file, text)?;
        let mut command = Command::new(&self.binary);
        command
            .args(["apply", "--wait", "30s", "-f"])
            .arg(&file)
            .env("PILOTFISH_DATA", self.dir.join("data"));
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?).lines();
        // It says what it has stored before it waits.
        said.next_line().await?;
        let stored = Instant::now();
        while said.next_line().await?.is_some() {}
        let done = child.wait().await?;
        let took = stored.elapsed();
        if done.success() { Ok(took) } else { Err(io::Error::other("the sidecar does not serve it")) }
    }

    async fn command(&self, args: &[&str]) -> io::Result<String> {
        let mut command = Command::new(&self.binary);
        let done = command.args(args).env("PILOTFISH_DATA", self.dir.join("data")).output().await?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            return Err(io::Error::other(format!("pilotfish {}: {}", args.join(" "), said.trim())));
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }
}

/// All routes.
pub(crate) fn routes() -> String {
    (0..SERVICES).map(|service| route(service, 0)).collect::<Vec<_>>().join("---\n")
}

/// The routes of one service; the first has a time limit that says which change it is of.
pub(crate) fn route(service: usize, change: usize) -> String {
    let mut text = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: s{service}, namespace: bench}}\n\
         spec:\n  hosts: [s{service}.bench.example]\n  http:\n"
    );
    for route in 0..ROUTES {
        let timeout = if route == 0 { 10 + change } else { 10 };
        let _ = write!(
            text,
            "  - match: [{{uri: {{prefix: /r{route}/}}}}]\n    timeout: {timeout}s\n    route: [{{destination: {{host: \
             agent-{}.bench.svc.cluster.local}}}}]\n",
            service % 10
        );
    }
    text
}
