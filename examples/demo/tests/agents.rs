//! The calling agent against another agent, with no sidecar between: what it reports is what happened.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use pilotfish_demo::job::{Job, Report, Target};

/// A `demo-agent` process, killed when dropped.
struct Agent {
    process: Child,
    address: String,
    reports: BufReader<ChildStdout>,
}

impl Agent {
    fn start(flags: &[&str]) -> Agent {
        let mut process = Command::new(env!("CARGO_BIN_EXE_demo-agent"))
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(process.stderr.take().unwrap()).read_line(&mut ready).unwrap();
        let address =
            ready.strip_prefix("demo-agent: listening ").unwrap().split(' ').next().unwrap().to_string();
        let reports = BufReader::new(process.stdout.take().unwrap());
        Agent { process, address, reports }
    }

    fn order(&mut self, job: &Job) {
        let line = serde_json::to_string(job).unwrap() + "\n";
        self.process.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }

    fn report(&mut self) -> Report {
        let mut line = String::new();
        self.reports.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn pair() -> (Agent, Agent) {
    let agent = Agent::start(&["--name", "nlp", "--version", "v7"]);
    let mut caller = Agent::start(&["--name", "caller", "--jobs"]);
    caller.order(&Job::UseSidecar { outbound: agent.address.parse().unwrap() });
    (agent, caller)
}

fn target(path: &str) -> Target {
    Target { id: "t-1".into(), host: "anything".into(), path: path.into(), ..Target::default() }
}

#[test]
fn an_answer_says_who_gave_it() {
    let (_agent, mut caller) = pair();
    caller.order(&Job::Ask { target: target("/") });
    let Report::Answer { status: 200, reason: None, who, .. } = caller.report() else { panic!() };
    assert_eq!((who.agent.as_str(), who.version.as_str()), ("nlp", "v7"));
}

#[test]
fn a_token_stream_is_timed_piece_by_piece() {
    let (_agent, mut caller) = pair();
    caller.order(&Job::Ask { target: target("/stream?tokens=4&gap_ms=30") });
    let Report::Answer { status: 200, arrivals, .. } = caller.report() else { panic!() };
    assert_eq!(arrivals.len(), 5, "four tokens and the end: {arrivals:?}");
    assert!(arrivals[4] - arrivals[0] >= 4 * 30_000, "the agent pauses 30 ms before each: {arrivals:?}");
}

#[test]
fn a_websocket_says_everything_back_and_closes() {
    let (_agent, mut caller) = pair();
    caller.order(&Job::WebSocket { target: target("/ws"), say: vec!["a".into(), "b\u{fc}".into()] });
    let Report::Echo { status: 101, round_trips, clean_close: true } = caller.report() else { panic!() };
    assert_eq!(round_trips.len(), 2);
}

#[test]
fn load_counts_what_failed() {
    let (agent, mut caller) = pair();
    caller.order(&Job::Load { target: target("/"), connections: 2, pause_millis: 1 });
    let mut failed_in_total = 0;
    let mut asked_to_stop = false;
    loop {
        match caller.report() {
            // The agent is v7, which the demo does not know: everything counts as failed.
            Report::Tick { v1, v2, failed, .. } => {
                assert_eq!((v1, v2), (0, 0));
                failed_in_total += failed;
                if failed_in_total > 0 && !std::mem::replace(&mut asked_to_stop, true) {
                    caller.order(&Job::StopLoad);
                }
            }
            Report::LoadOver => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(failed_in_total > 0);
    drop(agent);
    caller.order(&Job::Ask { target: target("/") });
    assert!(matches!(caller.report(), Report::Failed { .. }), "nobody listens any more");
}

#[test]
fn a_caller_ends_with_its_stdin() {
    let (_agent, mut caller) = pair();
    drop(caller.process.stdin.take());
    assert!(caller.process.wait().unwrap().success());
}
