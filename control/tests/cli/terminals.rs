//! What a terminal gets and a pipe does not: colours, widths, progress, a screen that is redrawn.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pilotfish_control::api::types::{Action, Applied, FleetStatus, SidecarStatus, Waited};

use super::changing::{change, sidecar, undecided};
use super::scripted::{Scripted, ok};

/// Runs a command on a terminal of 60 columns, made by script(1); ended after the time, if it does not end itself.
fn on_a_terminal(control: &Scripted, args: &str, envs: &[(&str, &str)]) -> String {
    let inner = format!("stty cols 60 rows 10; exec {} {args}", env!("CARGO_BIN_EXE_pilotfish"));
    let mut command = Command::new("script");
    command
        .args(["-qec", &inner, "/dev/null"])
        .env("PILOTFISH_DATA", control.dir.path())
        .env("TERM", "xterm");
    command.env_remove("NO_COLOR").envs(envs.iter().copied()).stdin(Stdio::null());
    String::from_utf8(command.output().unwrap().stdout).unwrap().replace("\r\n", "\n")
}

fn fleet() -> Scripted {
    let web = SidecarStatus { serving: 6, ..sidecar("a-sidecar-with-a-long-name") };
    let status = FleetStatus {
        documents: 7,
        version: 9,
        default_deny: false,
        actions: vec![],
        sidecars: vec![sidecar("chat"), web],
    };
    Scripted::on_socket(move |asked| (asked.line == "GET /v1/status").then(|| ok(&status)))
}

#[test]
fn colours_and_widths_are_for_terminals() {
    let control = fleet();
    let text = on_a_terminal(&control, "status", &[]);
    assert!(text.contains("\x1b[1mAGENT\x1b[0m") && text.contains("\x1b[32mready\x1b[0m"), "{text:?}");
    assert!(text.contains("\x1b[33m6\x1b[0m"), "what is behind is marked: {text:?}");
    assert!(text.contains("a-sid") && !text.contains("a-sidecar-with-a-long-name"), "{text:?}");
    let plain = on_a_terminal(&control, "status", &[("NO_COLOR", "1")]);
    assert!(!plain.contains('\x1b') && plain.contains('…'), "{plain:?}");
    let piped = control.run(&["status"]).out;
    assert!(!piped.contains('\x1b') && piped.contains("a-sidecar-with-a-long-name"), "{piped:?}");
}

#[test]
fn waiting_shows_progress_on_a_terminal_only() {
    let script = || {
        let polls = AtomicUsize::new(0);
        Scripted::on_socket(move |asked| match asked.line.as_str() {
            "POST /v1/apply" => {
                let changes = vec![change("chat", Action::Created)];
                Some(ok(&Applied { version: 7, changes, warnings: vec![] }))
            }
            line if line.starts_with("GET /v1/wait") => {
                let done = polls.fetch_add(1, Ordering::Relaxed) >= 2;
                let missing = if done { vec![] } else { vec![sidecar("web")] };
                let waited = Waited { done, concerned: 3, missing };
                Some(if done { ok(&waited) } else { undecided(line, &waited) })
            }
            _ => None,
        })
    };
    let control = script();
    let file = control.file("a.yaml", "a: 1");
    let text = on_a_terminal(&control, &format!("apply -f {file} --wait"), &[]);
    assert!(text.contains("\r\x1b[Kversion 7: 2 of 3 sidecars serve it (0 s)"), "{text:?}");
    assert!(text.ends_with("\r\x1b[K3 sidecars serve it\n"), "{text:?}");
    let control = script();
    let ran = control.run(&["apply", "-f", &file, "--wait", "100ms"]);
    assert_eq!(ran.code, Some(5));
    assert!(!ran.err.contains('\r'), "{}", ran.err);
}

/// Each status once, then the last again and again.
fn changing(statuses: Vec<FleetStatus>) -> Scripted {
    let polls = AtomicUsize::new(0);
    Scripted::on_socket(move |asked| {
        let at = || polls.fetch_add(1, Ordering::Relaxed).min(statuses.len() - 1);
        (asked.line == "GET /v1/status").then(|| ok(&statuses[at()]))
    })
}

fn watched() -> Vec<FleetStatus> {
    let behind = SidecarStatus { serving: 6, ..sidecar("chat") };
    vec![
        FleetStatus {
            documents: 7,
            version: 9,
            default_deny: false,
            actions: vec![],
            sidecars: vec![behind],
        },
        FleetStatus {
            documents: 7,
            version: 9,
            default_deny: false,
            actions: vec![],
            sidecars: vec![sidecar("chat"), sidecar("web")],
        },
    ]
}

#[test]
fn a_watch_prints_changes_into_a_pipe() {
    let control = changing(watched());
    let mut child = control.command(&["status", "--watch"]).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut text = String::new();
    let started = Instant::now();
    let mut buffer = [0; 4096];
    while text.lines().count() < 4 && started.elapsed() < Duration::from_secs(20) {
        let read = out.read(&mut buffer).unwrap();
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let lines: Vec<&str> = text.lines().map(|line| line.split_once(" UTC  ").unwrap().1).collect();
    let expected = [
        "documents are version 7",
        "production/chat ready, serves 6",
        "production/chat serves 7 (was 6)",
        "production/web ready, serves 7",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_watch_redraws_a_terminal() {
    let control = changing(watched());
    let mut command = Command::new("timeout");
    let inner = format!("stty cols 100 rows 10; exec {} status --watch", env!("CARGO_BIN_EXE_pilotfish"));
    command.args(["--signal=INT", "2.5", "script", "-qec", &inner, "/dev/null"]).stdin(Stdio::null());
    command.env("PILOTFISH_DATA", control.dir.path()).env("TERM", "xterm").env("NO_COLOR", "1");
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(text.contains("\x1b[3A\r"), "goes up over the three lines before: {text:?}");
    assert!(text.contains("2 sidecars, documents version 7\x1b[K"), "{text:?}");
    assert!(
        !text.contains("\x1b[2J") && !text.contains("?25l"),
        "nothing that Ctrl-C would leave broken: {text:?}"
    );
}
