//! Processes: start one, wait until it says that it is ready, keep its log, stop them all.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;

const START_TIMEOUT: Duration = Duration::from_secs(15);
/// A sidecar goes on accepting for 2 s after SIGTERM, so that others stop choosing it; then it has nothing left to do.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the demo cannot go on.
#[derive(Debug)]
pub struct Failure {
    /// What is off, for a person.
    pub what: String,
    /// Whose log says more.
    pub log_of: Option<String>,
}

impl Failure {
    /// Something is off that no single process' log explains.
    pub fn new(what: impl Into<String>) -> Self {
        Failure { what: what.into(), log_of: None }
    }

    /// Something is off, and the log of `child` should say why.
    pub fn of(child: &str, what: impl Into<String>) -> Self {
        Failure { what: what.into(), log_of: Some(child.to_string()) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.what)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::new(error.to_string())
    }
}

struct Child {
    name: String,
    drains: bool,
    process: tokio::process::Child,
    _stdin: Option<ChildStdin>,
}

/// All processes of the demo.
pub struct Children {
    logs: PathBuf,
    children: Vec<Child>,
}

impl Children {
    /// No process yet; their logs go into `logs`.
    pub fn new(logs: PathBuf) -> Self {
        Children { logs, children: Vec::new() }
    }

    /// Starts `command` and waits for a line on stderr that begins with `ready`; gives the rest of that line.
    ///
    /// # Errors
    /// When it cannot be started, ends early or does not get ready within 15 s.
    pub async fn start(&mut self, name: &str, command: Command, ready: &str) -> Result<String, Failure> {
        let (rest, _, _) = self.spawn(name, command, ready, false).await?;
        Ok(rest)
    }

    /// The same, and gives its stdin and stdout to the caller.
    ///
    /// # Errors
    /// As [`Children::start`].
    pub async fn start_with_pipes(
        &mut self,
        name: &str,
        command: Command,
        ready: &str,
    ) -> Result<(String, ChildStdin, ChildStdout), Failure> {
        match self.spawn(name, command, ready, true).await? {
            (rest, Some(stdin), Some(stdout)) => Ok((rest, stdin, stdout)),
            _ => Err(Failure::of(name, format!("{name}: no pipes"))),
        }
    }

    async fn spawn(
        &mut self,
        name: &str,
        mut command: Command,
        ready: &str,
        pipes: bool,
    ) -> Result<(String, Option<ChildStdin>, Option<ChildStdout>), Failure> {
        command
            .stdin(Stdio::piped())
            .stdout(if pipes { Stdio::piped() } else { Stdio::null() })
            .stderr(Stdio::piped())
            // A group of its own: Ctrl-C reaches the demo, which then stops everything in order.
            .process_group(0)
            .kill_on_drop(true);
        let program = command.as_std().get_program().to_owned();
        let mut process = command.spawn().map_err(|error| {
            Failure::new(format!("{name}: {} cannot be started: {error}", program.display()))
        })?;
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        let (found, is_ready) = oneshot::channel();
        if let Some(stderr) = process.stderr.take() {
            let log = OpenOptions::new().create(true).append(true).open(self.log(name)).await?;
            tokio::spawn(keep_log(stderr, log, ready.to_string(), found));
        }
        let (given, kept) = if pipes { (stdin, None) } else { (None, stdin) };
        let drains =
            ["pilotfish-proxy", "pilotfish"].iter().any(|own| program.to_string_lossy().ends_with(own));
        self.children.push(Child { name: name.to_string(), drains, process, _stdin: kept });
        match tokio::time::timeout(START_TIMEOUT, is_ready).await {
            Ok(Ok(rest)) => Ok((rest, given, stdout)),
            Ok(Err(_)) => Err(Failure::of(name, format!("{name} ended before it was ready"))),
            Err(_) => Err(Failure::of(name, format!("{name} was not ready within {START_TIMEOUT:?}"))),
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// The last lines that `name` wrote to stderr.
    pub fn tail(&self, name: &str, lines: usize) -> String {
        tail(&self.log(name), lines)
    }

    /// Takes a process out, to be ended by the caller.
    pub fn take(&mut self, name: &str) -> Option<tokio::process::Child> {
        let at = self.children.iter().position(|child| child.name == name)?;
        Some(self.children.remove(at).process)
    }

    /// How many processes there are.
    pub fn count(&self) -> usize {
        self.children.len()
    }

    /// # Errors
    /// When a process has ended although nobody asked it to.
    pub fn all_alive(&mut self) -> Result<(), Failure> {
        for child in &mut self.children {
            if let Some(status) = child.process.try_wait()? {
                return Err(Failure::of(&child.name, format!("{} ended: {status}", child.name)));
            }
        }
        Ok(())
    }

    /// Asks every process to end and waits for all of them; kills what does not end.
    ///
    /// # Errors
    /// When a sidecar did not drain and exit with 0.
    pub async fn stop(&mut self) -> Result<(), Failure> {
        for child in &mut self.children {
            let pid = child.process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
            match pid {
                Some(pid) if child.drains => drop(kill_process(pid, Signal::TERM)),
                _ => drop(child.process.start_kill()),
            }
        }
        let mut outcome = Ok(());
        for mut child in self.children.drain(..) {
            let status = tokio::time::timeout(STOP_TIMEOUT, child.process.wait()).await;
            let complaint = match status {
                Ok(Ok(status)) if status.success() || !child.drains => continue,
                Ok(Ok(status)) => format!("{} ended with {status} when it was asked to drain", child.name),
                Ok(Err(error)) => format!("{}: {error}", child.name),
                Err(_) => format!("{} did not end within {STOP_TIMEOUT:?} of SIGTERM", child.name),
            };
            child.process.kill().await.ok();
            outcome = Err(Failure::of(&child.name, complaint));
        }
        outcome
    }
}

impl Drop for Children {
    /// Kills what is left, and sees it gone: whoever ended the demo may count on its ports and files being free.
    fn drop(&mut self) {
        for child in &mut self.children {
            child.process.start_kill().ok();
        }
        let begin = Instant::now();
        for child in &mut self.children {
            while matches!(child.process.try_wait(), Ok(None)) && begin.elapsed() < KILL_TIMEOUT {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        kill_strays(&self.logs);
    }
}

/// Kills what a node started: it outlives its node on purpose. A sidecar is known by the demo's own folder, which is in its arguments or
/// environment (nothing else has a sidecar's name and that folder), an agent by its sidecar.
fn kill_strays(logs: &Path) {
    let Some(folder) = logs.parent().and_then(Path::to_str).filter(|folder| folder.len() > 1) else { return };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let all: Vec<i32> = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let is_ours = |pid: i32| {
        let read = |what: &str| std::fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let (arguments, environment) = (read("cmdline"), read("environ"));
        let named = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(folder);
        let program = arguments.split(|byte| *byte == 0).next().unwrap_or_default();
        let ours = program.ends_with(b"pilotfish-proxy") || program.ends_with(b"demo-agent");
        ours && (named(&arguments) || named(&environment))
    };
    let mut strays: Vec<i32> = all.iter().copied().filter(|pid| is_ours(*pid)).collect();
    let mut at = 0;
    while let Some(parent) = strays.get(at).copied() {
        let known = strays.clone();
        strays.extend(all.iter().filter(|pid| parent_of(**pid) == Some(parent) && !known.contains(pid)));
        at += 1;
    }
    for pid in strays {
        Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL).ok());
    }
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name is in brackets, and may have any of them in it.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

async fn keep_log(stderr: ChildStderr, mut log: File, ready: String, found: oneshot::Sender<String>) {
    let mut found = Some(found);
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(rest) = line.strip_prefix(&ready)
            && let Some(found) = found.take()
        {
            found.send(rest.trim().to_string()).ok();
        }
        // A full disk must not stop the child: its pipe is read on.
        log.write_all(format!("{line}\n").as_bytes()).await.ok();
        log.flush().await.ok();
    }
}

/// The last `count` lines of a file; empty when it cannot be read.
pub fn tail(path: &Path, count: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut last = VecDeque::with_capacity(count);
    for line in text.lines() {
        if last.len() == count {
            last.pop_front();
        }
        last.push_back(line);
    }
    last.make_contiguous().join("\n")
}
