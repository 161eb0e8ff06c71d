//! Whoever is killed with -9, and whenever, there is one copy of the agent: sidecar, node and control plane as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pilotfish_testkit::Nobody;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::Serve;
use crate::support::node_process::{Node, eventually, folder, signal};

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Sidecar,
    Node,
    Control,
}

/// When: the sidecar is there and its agent is not; the agent is there and not ready; it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    During,
    After,
}

/// Notes each start, waits until it may listen, and answers.
const AGENT: &str = r#"
import http.server, os, sys, time
open(sys.argv[1] + "/starts", "a").write("%d\n" % os.getpid())
while not os.path.exists(sys.argv[1] + "/go"): time.sleep(0.02)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// The sidecar, when it is built: `make test` builds every binary first.
fn sidecar() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_pilotfish")).with_file_name("pilotfish-proxy");
    if !path.exists() {
        assert!(std::env::var_os("CI").is_none(), "{} is not built", path.display());
        eprintln!("skipped: {} is not built", path.display());
        return None;
    }
    Some(path)
}

fn command(serve: &Serve, args: &[&str]) -> Vec<u8> {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pilotfish"));
    command.args(args).arg("--data").arg(serve.data());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn ready(serve: &Serve) -> Option<()> {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pilotfish"))
        .args(["placement", "-o", "json", "--data"])
        .arg(serve.data())
        .output()
        .unwrap();
    let view: Value = serde_json::from_slice(&output.stdout).ok()?;
    (view["agents"][0]["ready"] == 1).then_some(())
}

async fn survives(victim: Victim, moment: Moment) {
    let Some(sidecar) = sidecar() else { return };
    let place = Nobody::new();
    let port = place.addr().to_string();
    let mut serve = Serve::start(&["--listen", &port]);
    let token = command(&serve, &["token", "create", "--node", "n1"]);
    let folder = folder(std::str::from_utf8(&token).unwrap().trim());
    let path = folder.path().display().to_string();
    fs::write(folder.path().join("agent.py"), AGENT).unwrap();
    // Every copy says so before it does anything else.
    let starts = || fs::read_to_string(folder.path().join("starts")).unwrap_or_default();
    let copies = || {
        let alive = |pid: &&str| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("agent.py")
        };
        starts().lines().filter(alive).count()
    };
    let document = format!(
        "apiVersion: pilotfish.dev/v1\nkind: AgentCluster\nmetadata: {{name: matrix}}\nspec:\n  agents:\n  - name: ticker\n    \
         replicas: 1\n    command: [python3, {path}/agent.py, {path}]\n    resources: {{cpu: 10m, memory: 16Mi}}\n"
    );
    let file = folder.path().join("doc.yaml");
    fs::write(&file, document).unwrap();
    let control = format!("https://{port}");
    let more = ["--advertise", "127.0.0.1"];
    let mut node = Node::start_with(&folder, &control, sidecar.to_str().unwrap(), &more);
    command(&serve, &["apply", "-f", file.to_str().unwrap()]);
    let replicas = folder.path().join("data/replicas/default/ticker");
    let run = || -> Option<(PathBuf, Value)> {
        let place = fs::read_dir(&replicas).ok()?.flatten().next()?.path();
        let text = fs::read(place.join("run.json")).ok()?;
        Some((place, serde_json::from_slice(&text).ok()?))
    };
    let (_, sidecar) = eventually("a sidecar", run).await;
    let one = || (copies() == 1).then_some(());
    if moment != Moment::Before {
        eventually("the agent", one).await;
    }
    if moment == Moment::After {
        fs::write(folder.path().join("go"), "").unwrap();
        eventually("readiness", || ready(&serve)).await;
    }
    match victim {
        Victim::Sidecar => signal(u32::try_from(sidecar["pid"].as_u64().unwrap()).unwrap(), Signal::KILL),
        Victim::Node => node.again(),
        Victim::Control => {
            let place = serve.kill();
            serve = Serve::start_in(place, &["--listen", &port]);
        }
    }
    fs::write(folder.path().join("go"), "").unwrap();
    eventually("readiness after the kill", || {
        let copies = copies();
        assert!(copies <= 1, "{victim:?} {moment:?}: {copies} copies");
        ready(&serve).filter(|()| copies == 1)
    })
    .await;
    // A second one would come late.
    for _ in 0..10 {
        assert_eq!(copies(), 1, "{victim:?} {moment:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if moment != Moment::Before {
        assert_eq!(starts().lines().count(), 1, "{victim:?} {moment:?}: it was started again");
    }
    drop(node);
}

macro_rules! cell {
    ($name:ident, $victim:ident, $moment:ident) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            survives(Victim::$victim, Moment::$moment).await;
        }
    };
}

cell!(one_copy_when_the_sidecar_is_killed_before_the_agent_starts, Sidecar, Before);
cell!(one_copy_when_the_sidecar_is_killed_while_the_agent_starts, Sidecar, During);
cell!(one_copy_when_the_sidecar_is_killed_beside_a_ready_agent, Sidecar, After);
cell!(one_copy_when_the_node_is_killed_before_the_agent_starts, Node, Before);
cell!(one_copy_when_the_node_is_killed_while_the_agent_starts, Node, During);
cell!(one_copy_when_the_node_is_killed_beside_a_ready_agent, Node, After);
cell!(one_copy_when_the_control_plane_is_killed_before_the_agent_starts, Control, Before);
cell!(one_copy_when_the_control_plane_is_killed_while_the_agent_starts, Control, During);
cell!(one_copy_when_the_control_plane_is_killed_beside_a_ready_agent, Control, After);
