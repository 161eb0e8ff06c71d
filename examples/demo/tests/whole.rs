//! `make demo` itself, with the sidecar that lies beside the demo's binary.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// `make test` builds them first; a lone `cargo test -p pilotfish-demo` may have to do it here.
fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_demo")).with_file_name(name);
    if !path.is_file() {
        let built = Command::new(env!("CARGO")).args(["build", "-p", name]).status().unwrap();
        assert!(built.success());
    }
    path
}

fn demo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command
        .arg("--proxy")
        .arg(program("pilotfish-proxy"))
        .arg("--control")
        .arg(program("pilotfish"))
        .env_remove("KEEP")
        .stdin(Stdio::null());
    command
}

#[test]
fn it_shows_every_row_and_ends_by_itself() {
    let output = demo().output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{stdout}\n{stderr}");
    for shown in [
        "communication-pattern: streaming",
        "agent-type: nlp-agent, 200 times",
        "agent-affinity-key: 8 keys",
        "agent-capability: sentiment_analysis",
        "refused: nobody-qualifies",
        "refused: no-route",
        "/stream: 20 tokens",
        "WebSocket, 3 messages echoed",
        "apply --wait: weights 20/80",
        "refused at mistake.yaml:18:7, nothing changed",
        "mistake.yaml:18:7: error: spec.http[0].route[0].wieght: unknown field",
        "rollback --wait",
        "6 new certificates, no connection closed for it",
        "kill -9 of the control plane",
        "all 6 sidecars connected again",
        "$ pilotfish status",
        "$ pilotfish agents --capability natural_language_understanding",
        "the same, from agents that the control plane started",
        "agent-capability: archive_search, which waits for its agent",
        "$ pilotfish nodes",
        "demo-node",
        "$ pilotfish placement --replicas",
        "default/archivist/",
        "GET /stream, which the policies allow",
        "refused: access-denied",
        "refused: it acts for caller",
        "streaming-agent, cut after",
        "refused: quarantined",
        "$ pilotfish authz explain --to streaming-agent --from caller --method POST --path /book",
        "method: it wants GET, and this is POST",
        "agent default/caller has no role that gives http:read on salaries, and the caller acts for it",
        "$ pilotfish audit --denied --agent streaming-agent",
        "the line was changed: its hash is another",
        "through all of this, and 0 were lost",
        "every sidecar drained and exited with 0",
    ] {
        assert!(stdout.contains(shown), "no {shown:?} in\n{stdout}");
    }
    assert!(!stdout.contains('\x1b'), "a pipe gets no colours");
}

#[test]
fn kept_it_says_how_to_ask_and_ctrl_c_ends_every_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut process =
        demo().arg("--keep").env("TMPDIR", folder.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
    let curl = lines.find(|line| line.contains("curl ")).expect("an instruction with curl");
    let address = curl.split("http://").nth(1).unwrap().trim_end_matches('/').to_string();
    TcpStream::connect(&address).expect("the sidecar still listens");
    lines.find(|line| line.contains("Ctrl-C")).expect("how to end it");
    let agents = supervised(folder.path());
    assert!(agents.len() >= 2, "{agents:?}");
    kill_process(Pid::from_child(&process), Signal::INT).unwrap();
    assert!(process.wait().unwrap().success());
    assert!(TcpStream::connect(&address).is_err(), "the sidecar is gone with the demo");
    // They were killed; whoever inherited them may still have to see it.
    let until = Instant::now() + Duration::from_secs(20);
    let lives = |pid: &i32| command_line(*pid).contains("demo-agent");
    while agents.iter().any(lives) {
        assert!(Instant::now() < until, "agents that the control plane started outlive the demo: {agents:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Empty when there is none, and when it has ended.
fn command_line(pid: i32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The agents that sidecars with this folder started.
fn supervised(folder: &Path) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let all: Vec<i32> = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let parent = |pid: i32| -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let of_sidecar = |pid: &i32| {
        let above = parent(*pid).map(command_line).unwrap_or_default();
        above.contains("pilotfish-proxy") && above.contains(folder.to_str().unwrap())
    };
    all.into_iter().filter(|pid| command_line(*pid).contains("demo-agent") && of_sidecar(pid)).collect()
}

#[test]
fn a_sidecar_that_does_not_start_is_named_with_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("pilotfish-proxy");
    std::fs::write(&broken, "#!/bin/sh\necho 'no such luck' >&2\nexit 3\n").unwrap();
    std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_demo"))
        .arg("--proxy")
        .arg(&broken)
        .arg("--control")
        .arg(program("pilotfish"))
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("nlp-v1-a-sidecar ended before it was ready"), "{stderr}");
    assert!(stderr.contains("no such luck"), "{stderr}");
}
