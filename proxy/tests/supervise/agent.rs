//! The agent that is supervised: this test program once more, with `TEST_AGENT` saying what it does; and the folder in which a
//! test's sidecars and agents live.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use pilotfish_testkit::sidecar::Builder;
use pilotfish_testkit::{Agent, Sidecar, h1};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal as hear};

use crate::support::sidecar;

/// What the agent does, words separated by commas, in their order.
const DOES: &str = "TEST_AGENT";
/// The folder in which it writes down what happens.
const DIR: &str = "TEST_AGENT_DIR";
/// The file whose being there lets an agent go on.
const GO: &str = "go";
/// For what takes long on a busy machine.
const LONG: Duration = Duration::from_secs(30);

/// A folder for a sidecar's state and its agent's notes. Its end is the end of every agent that belongs to it.
pub struct Place(tempfile::TempDir);

impl Drop for Place {
    fn drop(&mut self) {
        for pid in self.copies() {
            signal(pid, "KILL");
        }
    }
}

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub fn file(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Lets an agent go on that is held.
    pub fn release(&self) {
        std::fs::write(self.file(GO), "").unwrap();
    }

    /// A sidecar with an agent that does this.
    pub fn sidecar(&self, does: &str) -> Builder {
        self.sidecar_with(does, &[])
    }

    /// The same with further flags.
    pub fn sidecar_with(&self, does: &str, flags: &[&str]) -> Builder {
        let own = std::env::current_exe().unwrap();
        let program =
            [own.to_str().unwrap(), "--exact", "supervise::agent::program", "--ignored", "--nocapture"];
        self.command(&program, flags).env(DOES, does)
    }

    /// A sidecar with this command.
    pub fn command(&self, command: &[&str], flags: &[&str]) -> Builder {
        let state = self.file("state");
        let own = ["--state-dir", &state, "--drain-delay", "10ms"];
        let builder = sidecar().args(&own).args(flags).args(&["--"]).args(command);
        builder.env(DIR, &self.file(""))
    }

    /// Waits until the agent is ready; its process.
    pub async fn ready(&self, sidecar: &Sidecar) -> u32 {
        until("the agent is ready", async || {
            h1::get(sidecar.admin, "x", "/ready", &[]).await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        let state = self.state_is(|state| state["phase"] == "running").await;
        u32::try_from(state["pid"].as_u64().unwrap()).unwrap()
    }

    /// What the sidecar tells of its agent.
    pub fn state(&self) -> Value {
        let text = std::fs::read(self.0.path().join("state/supervisor.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Waits until it tells this.
    pub async fn state_is(&self, fits: impl Fn(&Value) -> bool) -> Value {
        let until = tokio::time::Instant::now() + LONG;
        loop {
            let state = self.state();
            if fits(&state) {
                return state;
            }
            assert!(tokio::time::Instant::now() < until, "it never was so: {state}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What the agent wrote down.
    pub fn notes(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.0.path().join("notes")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub fn says(&self, note: &str) -> bool {
        self.notes().iter().any(|own| own == note)
    }

    /// The environment of a process, a line each.
    pub fn environment(&self, pid: u32) -> String {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        String::from_utf8_lossy(&environment).replace('\0', "\n")
    }

    /// One variable; empty when it is not there.
    pub fn variable(&self, pid: u32, name: &str) -> String {
        let environment = self.environment(pid);
        let found = environment.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.map(str::to_owned).unwrap_or_default()
    }

    /// How often an agent began.
    pub fn starts(&self) -> usize {
        self.notes().iter().filter(|note| note.starts_with("start ")).count()
    }

    /// Every process of an agent of this folder that lives, whoever is its parent.
    pub fn copies(&self) -> Vec<u32> {
        let mark = format!("{DIR}={}", self.file(""));
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let marked = environment.split(|byte| *byte == 0).any(|pair| pair == mark.as_bytes());
            let program = std::fs::read_link(entry.path().join("exe")).unwrap_or_default();
            let sidecar =
                program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pilotfish-proxy"));
            if marked && !sidecar {
                found.push(pid);
            }
        }
        found
    }
}

/// Waits until it is so.
pub async fn until(what: &str, so: impl AsyncFn() -> bool) {
    let until = tokio::time::Instant::now() + LONG;
    while !so().await {
        assert!(tokio::time::Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn signal(pid: u32, name: &str) {
    let signal = match name {
        "HUP" => Signal::HUP,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "KILL" => Signal::KILL,
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        _ => Signal::TERM,
    };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    let _ = kill_process(pid, signal);
}

/// Ends a sidecar as the kernel does for want of memory: it can do nothing about it.
pub fn kill(sidecar: Sidecar) {
    drop(sidecar);
}

fn note(text: &str) {
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("notes")).unwrap();
    file.write_all(format!("{text}\n").as_bytes()).unwrap();
}

/// No test: the agent.
#[test]
#[ignore = "the agent of the tests beside it"]
fn program() {
    let Ok(does) = std::env::var(DOES) else { return };
    note(&format!("start {}", std::process::id()));
    for word in does.split(',') {
        let (word, value) = word.split_once('=').unwrap_or((word, ""));
        let number = || value.parse::<u64>().unwrap();
        match word {
            "slow" => std::thread::sleep(Duration::from_millis(number())),
            "held" => held(),
            "say" => eprintln!("{value}"),
            "out" => println!("{value}"),
            "exit" => std::process::exit(i32::try_from(number()).unwrap()),
            "exit-first" if starts() <= number() => std::process::exit(7),
            "exit-first" => {}
            "die" => std::process::abort(),
            "sleep" => std::thread::sleep(Duration::from_secs(600)),
            "flood" => std::thread::spawn(flood).thread().unpark(),
            "fork" => fork(value),
            "serve" => serve(false),
            "deaf" => serve(true),
            word => panic!("{word}"),
        }
    }
}

/// Waits for [`Place::release`].
fn held() {
    let go = PathBuf::from(std::env::var_os(DIR).unwrap()).join(GO);
    while !go.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn starts() -> u64 {
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    let notes = std::fs::read_to_string(dir.join("notes")).unwrap();
    notes.lines().filter(|note| note.starts_with("start ")).count() as u64
}

fn flood() {
    let line = [b'x'; 100];
    let mut out = std::io::stdout().lock();
    for number in 0.. {
        out.write_all(&line).unwrap();
        writeln!(out).unwrap();
        if number % 100_000 == 99_999 {
            note("flooded");
        }
    }
}

/// Starts itself in a session of its own, to do something else.
#[expect(clippy::zombie_processes, reason = "an agent that does not care for its children")]
fn fork(does: &str) {
    let own = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new("setsid");
    child.arg(own).args(std::env::args_os().skip(1)).env(DOES, does.replace('+', ",").replace(':', "="));
    child.stdin(std::process::Stdio::null()).spawn().unwrap();
}

fn serve(deaf: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let kinds = [
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        let [mut term, mut hup, mut usr1, mut usr2] = kinds.map(|kind| hear(kind).unwrap());
        let agent = Agent::start_on("agent", &format!("127.0.0.1:{}", std::env::var("PORT").unwrap())).await;
        let mut most = 0;
        loop {
            let heard = tokio::select! {
                _ = term.recv() => "term",
                _ = hup.recv() => "hup",
                _ = usr1.recv() => "usr1",
                _ = usr2.recv() => "usr2",
                () = tokio::time::sleep(Duration::from_millis(10)) => {
                    if agent.open() > most {
                        most = agent.open();
                        note(&format!("open {most}"));
                    }
                    continue;
                }
            };
            note(heard);
            note(&format!("{heard} with {} open", agent.open()));
            if heard == "term" && !deaf {
                std::process::exit(0);
            }
        }
    });
}
