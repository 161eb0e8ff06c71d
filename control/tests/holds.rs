//! Response actions through the whole: `pilotfish quarantine`, `restrict` and `release`, a control plane, real sidecars.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use pilotfish_testkit::sidecar::Sidecar;
use pilotfish_testkit::{Agent, Nobody, h1::H1};
use tokio::io::AsyncReadExt;

use crate::mesh::{binary, pilotfish, sidecar};
use crate::support::serve::Serve;

/// A change has to be in force within a second; a busy machine gets longer.
const SOON: Duration = Duration::from_secs(20);

/// One call by capability: its status and reason.
async fn call(caller: &Sidecar) -> (u16, String) {
    let headers = ["agent-capability: planning"];
    match pilotfish_testkit::h1::get(caller.outbound, "planning.capability.mesh", "/", &headers).await {
        Ok(answer) => (answer.status(), answer.header("pilotfish-reason").unwrap_or_default()),
        Err(_) => (0, String::new()),
    }
}

async fn until(caller: &Sidecar, status: u16, reason: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        let now = call(caller).await;
        if (now.0, now.1.as_str()) == (status, reason) {
            return;
        }
        assert!(Instant::now() < deadline, "still {now:?}, not {status} {reason}: {:#?}", caller.stderr());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A call whose body has not ended: its agent has begun to answer, or waits for more.
async fn stream(outbound: SocketAddr, agent: &Agent) -> H1 {
    let before = agent.requests();
    let mut stream = H1::connect(outbound).await;
    let head = "POST /stream HTTP/1.1\r\nhost: planning.capability.mesh\r\nagent-capability: planning\r\n\
                transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    assert!(stream.send(head).await);
    let deadline = Instant::now() + SOON;
    while agent.open() == 0 && agent.requests() == before {
        assert!(Instant::now() < deadline, "the stream does not arrive");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stream
}

/// How long until a stream is cut.
async fn cut(mut stream: H1) -> Duration {
    let start = Instant::now();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(SOON, stream.stream().read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the stream goes on");
    start.elapsed()
}

/// Why a call to a host outside of the mesh is refused.
async fn egress(caller: &Sidecar) -> String {
    let mut proxy = H1::connect(caller.outbound).await;
    let head =
        "GET http://example.test/ HTTP/1.1\r\nhost: example.test\r\nagent-capability: planning\r\n\r\n";
    proxy.ask(head).await.unwrap().header("pilotfish-reason").unwrap_or_default()
}

struct Mesh {
    control: Serve,
    /// Where the control plane listens, and the one after it.
    place: Nobody,
    agent: Agent,
    planner: Sidecar,
    caller: Sidecar,
}

async fn mesh(binary: &std::path::Path) -> Mesh {
    let place = Nobody::new();
    let control = Serve::start(&["--listen", &place.addr().to_string()]);
    let agent = Agent::start("planner").await;
    let planner = sidecar(binary, &control, "planner").app(agent.addr()).args(&["--capability", "planning"]);
    let (planner, caller) = (planner.launch(), sidecar(binary, &control, "caller").launch());
    let (planner, caller) = (planner.ready().await, caller.ready().await);
    until(&caller, 200, "").await;
    Mesh { control, place, agent, planner, caller }
}

fn fails(control: &Serve, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pilotfish"));
    let output = command.args(args).arg("--data").arg(control.data()).output().unwrap();
    assert!(!output.status.success(), "pilotfish {args:?} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_quarantined_caller_is_cut_off_until_it_is_released() {
    let Some(binary) = binary() else { return };
    let Mesh { control, place, agent, planner, caller } = mesh(&binary).await;
    let open = stream(caller.outbound, &agent).await;
    let said = pilotfish(&control, &["quarantine", "caller", "--why", "a test"]);
    assert!(
        said.contains("default/caller is quarantined") && said.contains("pilotfish release default/caller"),
        "{said}"
    );
    let took = cut(open).await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    until(&caller, 403, "quarantined").await;
    // Also where it goes past other agents.
    assert_eq!(egress(&caller).await, "quarantined");
    let mut tunnel = H1::connect(caller.outbound).await;
    let refused =
        tunnel.ask("CONNECT example.test:443 HTTP/1.1\r\nhost: example.test:443\r\n\r\n").await.unwrap();
    assert_eq!(refused.header("pilotfish-reason").as_deref(), Some("quarantined"));
    let status = pilotfish(&control, &["status"]);
    assert!(status.contains("default/caller is quarantined") && status.contains("a test"), "{status}");
    let json: serde_json::Value =
        serde_json::from_str(&pilotfish(&control, &["status", "-o", "json"])).unwrap();
    assert_eq!(json["actions"][0]["hold"], "quarantine");

    // It survives the control plane, and the sidecar, and its being away.
    let folder = control.kill();
    assert_eq!(call(&caller).await.1, "quarantined");
    let control = Serve::start_in(folder, &["--listen", &place.addr().to_string()]);
    assert_eq!(call(&caller).await.1, "quarantined");
    assert!(pilotfish(&control, &["status"]).contains("default/caller is quarantined"));
    pilotfish(&control, &["release", "caller"]);
    until(&caller, 200, "").await;
    assert!(fails(&control, &["release", "caller"]).contains("neither quarantined nor restricted"));
    let unknown = fails(&control, &["quarantine", "caler"]);
    assert!(unknown.contains("did you mean default/caller?") && unknown.contains("--force"), "{unknown}");
    drop(planner);
}

#[tokio::test]
async fn a_quarantined_agent_is_not_called_until_its_time_is_over() {
    let Some(binary) = binary() else { return };
    let Mesh { control, place: _place, agent, planner, caller } = mesh(&binary).await;
    let open = stream(caller.outbound, &agent).await;
    pilotfish(&control, &["quarantine", "planner"]);
    let took = cut(open).await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    let agents = pilotfish(&control, &["agents"]);
    assert!(agents.contains("quarantined"), "{agents}");
    // It has an end now.
    let said = pilotfish(&control, &["quarantine", "planner", "--for", "3s"]);
    assert!(said.contains("in place of what was: it was quarantined"), "{said}");
    until(&caller, 200, "").await;
    // Sidecars and the control plane each look at their own clocks.
    let deadline = Instant::now() + SOON;
    while pilotfish(&control, &["status"]).contains("quarantined") {
        assert!(Instant::now() < deadline, "it is still shown");
    }
    drop(planner);
}

#[tokio::test]
async fn a_restricted_caller_asks_for_what_it_may() {
    let Some(binary) = binary() else { return };
    let Mesh { control, place: _place, agent, planner, caller } = mesh(&binary).await;
    let open = stream(caller.outbound, &agent).await;
    pilotfish(&control, &["restrict", "caller", "--to", "ocr,nlu", "--for", "1h"]);
    let took = cut(open).await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    until(&caller, 403, "restricted").await;
    assert_eq!(egress(&caller).await, "restricted");
    let unknown = pilotfish(&control, &["restrict", "caller", "--to", "planing"]);
    assert!(
        unknown.contains("nobody has the capability `planing` now; did you mean `planning`?"),
        "{unknown}"
    );
    let known = pilotfish(&control, &["restrict", "caller", "--to", "planning"]);
    assert!(!known.contains("nobody has"), "{known}");
    until(&caller, 200, "").await;
    // The host alone names the capability, and the receiver is told it.
    let by_host =
        pilotfish_testkit::h1::get(caller.outbound, "planning.capability.mesh", "/", &[]).await.unwrap();
    assert_eq!(by_host.status(), 200, "{}", by_host.text());
    assert!(fails(&control, &["restrict", "caller", "--to", "a b"]).contains("is not a capability"));
    drop(planner);
}
