//! The whole as processes: a control plane, sidecars that join it, calls between them, and what is lost when parts die.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pilotfish_testkit::sidecar::{Builder, Sidecar};
use pilotfish_testkit::{Agent, Nobody, h1};

use crate::support::serve::Serve;

/// A change has to be served within this time; a busy machine needs most of it.
const SOON: Duration = Duration::from_secs(20);

/// The sidecar's binary, beside our own; `None` when only this package was built.
pub fn binary() -> Option<std::path::PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_pilotfish")).with_file_name("pilotfish-proxy");
    if !path.exists() {
        eprintln!("skipped: {} is not built (cargo build -p pilotfish-proxy)", path.display());
        return None;
    }
    Some(path)
}

/// Runs `pilotfish` against the control plane's own data folder.
pub fn pilotfish(control: &Serve, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pilotfish"));
    let output = command.args(args).arg("--data").arg(control.data()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "pilotfish {args:?}: {out}{err}");
    out.into_owned()
}

/// A sidecar that joins with a new token, its state beside the control plane's.
pub fn sidecar(binary: &Path, control: &Serve, agent: &str) -> Builder {
    let token = pilotfish(control, &["token", "create", "--agent", agent, "--namespace", "default"]);
    let state = control.folder().path().join(agent);
    let url = format!("https://{}", control.listen);
    let flags = ["--control", &url, "--token", token.trim(), "--state-dir", state.to_str().unwrap()];
    Sidecar::builder(binary).without_config().agent(agent).args(&flags)
}

/// Waits until so many sidecars are connected.
async fn connected(control: &Serve, sidecars: usize) {
    let deadline = Instant::now() + SOON;
    loop {
        let status = pilotfish(control, &["status", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let rows = status["sidecars"].as_array().unwrap();
        if rows.iter().filter(|row| row["connected"] == true).count() == sidecars {
            return;
        }
        assert!(Instant::now() < deadline, "{status:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One call by capability: its status.
async fn call(caller: &Sidecar) -> u16 {
    let headers = ["agent-capability: planning"];
    let answer = h1::get(caller.outbound, "planning.capability.mesh", "/", &headers).await;
    answer.map_or(0, |answer| answer.status())
}

async fn until(caller: &Sidecar, status: u16) {
    let deadline = Instant::now() + SOON;
    loop {
        let now = call(caller).await;
        if now == status {
            return;
        }
        assert!(Instant::now() < deadline, "calls still answer {now}, not {status}: {:#?}", caller.stderr());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Calls without a pause until it is stopped; counts those that were answered and those that were lost.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    good: AtomicUsize,
    lost: AtomicUsize,
}

impl Load {
    fn start(caller: &Arc<Sidecar>) -> (Arc<Load>, tokio::task::JoinHandle<()>) {
        let (load, caller) = (Arc::new(Load::default()), caller.clone());
        let running = load.clone();
        let task = tokio::spawn(async move {
            while !running.stop.load(Ordering::Relaxed) {
                let counter = if call(&caller).await == 200 { &running.good } else { &running.lost };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        (load, task)
    }

    async fn more(&self, calls: usize) {
        let (from, deadline) = (self.good.load(Ordering::Relaxed), Instant::now() + SOON);
        while self.good.load(Ordering::Relaxed) < from + calls {
            assert!(Instant::now() < deadline, "the load stands still");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn calls_go_on_while_the_control_plane_is_killed_and_started_again() {
    let Some(binary) = binary() else { return };
    let place = Nobody::new();
    let listen = place.addr().to_string();
    let control = Serve::start(&["--listen", &listen]);
    let agent = Agent::start("planner").await;
    let planner =
        sidecar(&binary, &control, "planner").app(agent.addr()).args(&["--capability", "planning@1.0.0"]);
    let (planner, caller) = (planner.launch(), sidecar(&binary, &control, "caller").launch());
    let (mut planner, caller) = (planner.ready().await, Arc::new(caller.ready().await));
    until(&caller, 200).await;

    // What arrives at the agent came over mutual TLS: its port takes nothing else.
    let plain = h1::get(planner.inbound, "planner", "/", &[]).await;
    assert!(plain.is_err() || plain.is_ok_and(|answer| answer.status() != 200), "plain text was taken");

    let (load, task) = Load::start(&caller);
    load.more(50).await;
    let folder = control.kill();
    load.more(50).await;
    let control = Serve::start_in(folder, &["--listen", &listen]);
    load.more(50).await;
    // Whoever is not back yet is not waited for.
    connected(&control, 2).await;
    let file = control.folder().path().join("w.yaml");
    let service = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: w}\nspec:\n  hosts: [w.test]\n  \
         ports: [{number: 80, name: http, protocol: HTTP}]\n  resolution: STATIC\n  endpoints: [{address: 127.0.0.1}]\n";
    std::fs::write(&file, service).unwrap();
    let said = pilotfish(&control, &["apply", "-f", file.to_str().unwrap(), "--wait", "20s"]);
    assert!(said.contains("2 sidecars serve it"), "{said}");
    load.stop.store(true, Ordering::Relaxed);
    task.await.unwrap();
    let (good, lost) = (load.good.load(Ordering::Relaxed), load.lost.load(Ordering::Relaxed));
    assert!(good > 150 && lost == 0, "{lost} calls of {} were lost", good + lost);

    // A sidecar that drains is not chosen any more; nobody waits for its lease.
    planner.terminate();
    assert!(planner.exit(SOON).await.is_some_and(|status| status.success()));
    until(&caller, 503).await;
}

#[tokio::test]
async fn a_revoked_agent_is_not_called_any_more() {
    let Some(binary) = binary() else { return };
    let control = Serve::start(&[]);
    let agent = Agent::start("planner").await;
    let planner = sidecar(&binary, &control, "planner").app(agent.addr()).args(&["--capability", "planning"]);
    let (planner, caller) = (planner.launch(), sidecar(&binary, &control, "caller").launch());
    let (planner, caller) = (planner.ready().await, caller.ready().await);
    until(&caller, 200).await;
    pilotfish(&control, &["revoke", "planner", "-n", "default"]);
    let start = Instant::now();
    until(&caller, 503).await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    drop(planner);
}
