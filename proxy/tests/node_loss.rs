//! What callers see when a machine is lost: its network namespace is cut off, so that packets vanish without a word.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pilotfish_testkit::Agent;
use pilotfish_testkit::h1::H1;
use tokio::task::JoinSet;

use crate::tls::setup::{Mesh, with_identity};

const PATIENCE: Duration = Duration::from_secs(20);

/// A network namespace with one cable to this one. Dropping it removes both.
struct Machine {
    name: String,
    here: [u8; 4],
    there: [u8; 4],
}

fn ip(args: &str) -> Result<(), String> {
    let ran = Command::new("ip").args(args.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
    let why = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
    if ran.status.success() { Ok(()) } else { Err(format!("ip {args}: {why}")) }
}

impl Machine {
    /// One, or why this machine does not permit it.
    fn new() -> Result<Machine, String> {
        let id = std::process::id();
        let [_, _, high, low] = id.to_be_bytes();
        let net = [198, 18 | (high & 1), low, 0];
        let [mut here, mut there] = [net; 2];
        (here[3], there[3]) = (1, 2);
        let machine = Machine { name: format!("pft{id}"), here, there };
        let Machine { name, .. } = &machine;
        let text = |address: [u8; 4]| std::net::Ipv4Addr::from(address).to_string();
        ip(&format!("netns add {name}"))?;
        ip(&format!("link add {name}h type veth peer name {name}n netns {name}"))?;
        ip(&format!("addr add {}/30 dev {name}h", text(here)))?;
        ip(&format!("link set {name}h up"))?;
        ip(&format!("-n {name} addr add {}/30 dev {name}n", text(there)))?;
        ip(&format!("-n {name} link set {name}n address 02:00:00:00:00:02"))?;
        ip(&format!("-n {name} link set {name}n up"))?;
        ip(&format!("-n {name} link set lo up"))?;
        // Whoever asks for its address after the cut would be told that nobody has it, which a router would not say.
        ip(&format!("neigh replace {} lladdr 02:00:00:00:00:02 dev {name}h nud permanent", text(there)))?;
        Ok(machine)
    }

    /// From now on nothing comes or goes.
    fn cut(&self) {
        ip(&format!("-n {0} link set {0}n down", self.name)).unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = ip(&format!("link del {}h", self.name));
        let _ = ip(&format!("netns del {}", self.name));
    }
}

/// One call: when it began, how long it took, what it came to.
struct Call {
    safe: bool,
    began: Instant,
    took: Duration,
    status: u16,
    reason: String,
}

#[tokio::test]
async fn callers_of_a_lost_machine_go_elsewhere_within_seconds() {
    let machine = match Machine::new() {
        Ok(machine) => machine,
        Err(why) => {
            eprintln!("skipped: no network namespaces here: {why}");
            return;
        }
    };
    let mesh = Mesh::new();
    let near = Agent::start("near").await;
    let far = Agent::start_on("far", &format!("{}:0", std::net::Ipv4Addr::from(machine.here))).await;
    let stays = mesh.sidecar("ocr").app(near.addr()).start();
    // The other one runs in the namespace; its agent is this process, which it reaches by the cable.
    let script = mesh.folder.path().join("there.sh");
    let binary = env!("CARGO_BIN_EXE_pilotfish-proxy");
    std::fs::write(&script, format!("#!/bin/sh\nexec ip netns exec {} {binary} \"$@\"\n", machine.name))
        .unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let files = mesh.folder.path().join("lost");
    std::fs::create_dir(&files).unwrap();
    let (issued, bundle) = (mesh.issue("ocr"), mesh.ca.write_bundle(&files));
    let address = std::net::Ipv4Addr::from(machine.there);
    let lost = pilotfish_testkit::Sidecar::builder(&script).agent("ocr").app(far.addr());
    let lost = with_identity(lost, &issued.write(&files, "own"), &bundle)
        .args(&["--inbound", &format!("{address}:0")])
        .start();
    let endpoint = |at: SocketAddr| {
        format!(
            "  - address: {}\n    ports: {{ web: {} }}\n    labels: {{ pilotfish.dev/agent: ocr, pilotfish.dev/mesh: \"true\" }}\n",
            at.ip(),
            at.port()
        )
    };
    let yaml = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{ name: ocr }}\nspec:\n  hosts: [ocr.test]\n  ports:\n  - \
         {{ number: 80, name: web, protocol: HTTP }}\n  resolution: STATIC\n  endpoints:\n{}{}",
        endpoint(stays.inbound),
        endpoint(lost.inbound)
    );
    let caller = mesh.sidecar("caller").yaml("ocr.yaml", yaml).start();

    let (calls, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let mut callers = JoinSet::new();
    for number in 0..12 {
        let (calls, stop, to, safe) = (calls.clone(), stop.clone(), caller.outbound, number % 2 == 0);
        callers.spawn(async move {
            let mut client = H1::connect(to).await.patience(PATIENCE);
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let method = if safe { "GET" } else { "POST" };
                let request =
                    format!("{method} /delay/30 HTTP/1.1\r\nhost: ocr.test\r\ncontent-length: 0\r\n\r\n");
                let answer = client.ask(request).await.expect("an answer, whatever it says");
                let (status, reason) =
                    (answer.status(), answer.header("pilotfish-reason").unwrap_or_default());
                calls.lock().unwrap().push(Call { safe, began, took: began.elapsed(), status, reason });
            }
        });
    }
    let warm = Instant::now();
    while far.requests() < 50 || near.requests() < 50 {
        assert!(warm.elapsed() < PATIENCE, "both are called: {} {}", far.requests(), near.requests());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cut = Instant::now();
    machine.cut();
    tokio::time::sleep(Duration::from_secs(10)).await;
    stop.store(true, Ordering::Relaxed);
    while callers.join_next().await.is_some() {}

    let calls = calls.lock().unwrap();
    assert!(
        calls
            .iter()
            .filter(|call| call.began < cut)
            .filter(|call| call.status != 200)
            .all(|call| call.began + call.took > cut)
    );
    let failed: Vec<&Call> = calls.iter().filter(|call| call.status != 200).collect();
    let after = |call: &&Call| call.began.saturating_duration_since(cut);
    let last = failed.iter().map(after).max().unwrap_or_default();
    let longest =
        calls.iter().filter(|call| call.began + call.took > cut).map(|call| call.took).max().unwrap();
    let late = calls.iter().filter(|call| call.began > cut + Duration::from_secs(5)).count();
    eprintln!(
        "{} calls, {} failed; the last that failed began {last:?} after the cut; the longest took {longest:?}; {late} began 5 s after it or later",
        calls.len(),
        failed.len()
    );
    for call in &failed {
        assert!(!call.safe, "a GET may be repeated, and failed: {} {}", call.status, call.reason);
        assert_eq!((call.status, &*call.reason), (502, "outcome-unknown"));
        // About two seconds, and the machine's own slowness.
        assert!(call.took < Duration::from_secs(6), "{:?}", call.took);
    }
    // Two seconds, and the machine's own slowness.
    assert!(last < Duration::from_secs(5), "a call that began {last:?} after the cut failed");
    assert!(late > 50, "calls go on: {late}");
    drop((stays, lost));
}
