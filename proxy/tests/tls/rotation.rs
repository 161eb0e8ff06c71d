//! Certificates and roots change under load: nothing closes, nothing is lost; what is not trusted any more is cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use pilotfish_testkit::ca::{Ca, Leaf};
use pilotfish_testkit::{Agent, H1, Origin, Sidecar};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::setup::{DOMAIN, Mesh, PATIENCE, ask, get, mesh_service, metric, open};

/// Writes what a sidecar of [`Mesh::sidecar`] reads.
fn rewrite(mesh: &Mesh, agent: &str, ca: &Ca, bundle: &[&Ca]) {
    let folder = mesh.folder.path().join(agent);
    let roots: String = bundle.iter().map(|ca| ca.root_pem()).collect();
    let beside = folder.join("bundle.new");
    std::fs::write(&beside, roots).unwrap();
    std::fs::rename(beside, folder.join("bundle.pem")).unwrap();
    ca.issue(&Leaf::agent(DOMAIN, "default", agent)).write(&folder, "own");
}

/// Waits until so many identities were taken by a sidecar.
async fn taken(sidecar: &Sidecar, n: usize) {
    let until = Instant::now() + PATIENCE;
    while sidecar.stderr().iter().filter(|line| line.contains("identity taken")).count() < n {
        assert!(Instant::now() < until, "identity {n} was not taken: {:?}", sidecar.stderr());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaf_intermediate_and_root_rotate_under_load() {
    let (mut mesh, agent) = (Mesh::new(), Agent::start("a").await);
    let callee = mesh.sidecar("callee").app(agent.addr()).start();
    let caller =
        mesh.sidecar("caller").yaml("a.yaml", mesh_service("s.test", "callee", callee.inbound)).start();
    let (stop, done, outbound) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), caller.outbound);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, done) = (stop.clone(), done.clone());
            tokio::spawn(async move {
                let mut client = H1::connect(outbound).await;
                while !stop.load(Relaxed) {
                    let answer = client.get("s.test", "/", &[]).await.unwrap();
                    assert_eq!(answer.status(), 200, "{}", answer.text());
                    done.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    let both = |mesh: &Mesh, ca: &Ca, bundle: &[&Ca]| {
        rewrite(mesh, "callee", ca, bundle);
        rewrite(mesh, "caller", ca, bundle);
    };
    // A leaf, then an intermediate of the same root.
    both(&mesh, &mesh.ca, &[&mesh.ca]);
    tokio::join!(taken(&callee, 1), taken(&caller, 1));
    mesh.ca.new_intermediate();
    both(&mesh, &mesh.ca, &[&mesh.ca]);
    tokio::join!(taken(&callee, 2), taken(&caller, 2));
    // A second root: first trusted, then used.
    let second = Ca::new(DOMAIN);
    both(&mesh, &mesh.ca, &[&mesh.ca, &second]);
    tokio::join!(taken(&callee, 3), taken(&caller, 3));
    both(&mesh, &second, &[&mesh.ca, &second]);
    tokio::join!(taken(&callee, 4), taken(&caller, 4));
    let before = done.load(Relaxed);
    let until = Instant::now() + PATIENCE;
    while done.load(Relaxed) < before + 50 {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.store(true, Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let good = "pilotfish_tls_handshakes_total{direction=\"inbound\",result=\"ok\"}";
    assert!(metric(&callee, good).await <= 4, "no connection was made anew");
    // A new connection is by the new root.
    let own = second.issue(&Leaf::agent(DOMAIN, "default", "x"));
    assert!(ask(callee.inbound, mesh.client(Some(&own)), &get("/")).await.is_ok());
}

#[tokio::test]
async fn without_its_root_a_connection_is_cut_within_a_second_in_flight_or_not() {
    let (mesh, origin) =
        (Mesh::new(), Origin::start(|_, _| vec![pilotfish_testkit::origin::Step::Hang]).await);
    let callee = mesh.sidecar("callee").app(origin.addr()).start();
    let second = Ca::new(DOMAIN);
    rewrite(&mesh, "callee", &second, &[&mesh.ca, &second]);
    taken(&callee, 1).await;
    let old = mesh.issue("caller");
    let mut idle = open(callee.inbound, mesh.client(Some(&old))).await.unwrap();
    let mut busy = open(callee.inbound, mesh.client(Some(&old))).await.unwrap();
    busy.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let new = second.issue(&Leaf::agent(DOMAIN, "default", "caller"));
    let mut stays = open(callee.inbound, mesh.client(Some(&new))).await.unwrap();
    let until = Instant::now() + PATIENCE;
    while origin.requests().is_empty() {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rewrite(&mesh, "callee", &second, &[&second]);
    taken(&callee, 2).await;
    for stream in [&mut idle, &mut busy] {
        let mut byte = [0];
        // A second, and the machine's own slowness: nothing else would end them.
        let end = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut byte)).await;
        assert!(!matches!(end.expect("cut within a second"), Ok(n) if n > 0));
    }
    let mut byte = [0];
    let end = tokio::time::timeout(Duration::from_millis(300), stays.read(&mut byte)).await;
    assert!(end.is_err(), "the other root's connection stays");
}

#[tokio::test]
async fn what_is_not_valid_leaves_the_last_good_identity() {
    let (mesh, origin) = (Mesh::new(), Origin::plain().await);
    let callee = mesh.sidecar("callee").app(origin.addr()).start();
    let folder = mesh.folder.path().join("callee");
    mesh.issue("callee").write(&folder, "other");
    std::fs::rename(folder.join("other.key"), folder.join("own.key")).unwrap();
    let until = Instant::now() + PATIENCE;
    while !callee.stderr().iter().any(|line| line.contains("identity refused")) {
        assert!(Instant::now() < until, "{:?}", callee.stderr());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(ask(callee.inbound, mesh.client(Some(&mesh.issue("x"))), &get("/")).await.is_ok());
}

#[tokio::test]
async fn a_peers_expiry_lets_nothing_new_begin_on_its_connections() {
    let (mesh, agent) = (Mesh::new(), Agent::start("a").await);
    let callee = mesh.sidecar("callee").app(agent.addr()).start();
    let short = mesh.ca.issue(&Leaf { ends: 5, ..Leaf::agent(DOMAIN, "default", "caller") });
    let mut idle = open(callee.inbound, mesh.client(Some(&short))).await.unwrap();
    let mut busy = open(callee.inbound, mesh.client(Some(&short))).await.unwrap();
    busy.write_all(b"GET /delay/7000 HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut nothing = Vec::new();
    let end = tokio::time::timeout(PATIENCE, idle.read_to_end(&mut nothing)).await;
    assert!(end.is_ok() && nothing.is_empty(), "the idle one is closed");
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, busy.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
}
