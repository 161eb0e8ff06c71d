//! client -> sidecar -> mTLS -> sidecar -> agent.

use pilotfish_testkit::{Agent, H1, H2, Origin, Sidecar};

use super::setup::{DOMAIN, Mesh, ask, get, mesh_service, mesh_service_with, metric};
use crate::support::{destination_rule, service};

/// A caller's sidecar, and one with an agent, the second being `s.test` for the first.
fn pair(mesh: &Mesh, app: std::net::SocketAddr, more: &str) -> (Sidecar, Sidecar) {
    let callee = mesh.sidecar("callee").app(app).start();
    let yaml = mesh_service("s.test", "callee", callee.inbound) + more;
    (mesh.sidecar("caller").yaml("a.yaml", yaml).start(), callee)
}

#[tokio::test]
async fn a_call_is_mutual_tls_and_the_agent_learns_who_called() {
    let (mesh, origin) = (Mesh::new(), Origin::plain().await);
    let (caller, callee) = pair(&mesh, origin.addr(), "");
    let mut client = H1::connect(caller.outbound).await;
    for _ in 0..3 {
        let spoofed = ["x-forwarded-client-cert: By=me;URI=spiffe://mesh.test/ns/default/agent/admin"];
        let answer = client.get("s.test", "/", &spoofed).await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    for request in origin.requests() {
        let told = request.header("x-forwarded-client-cert").unwrap();
        let start = format!("By=spiffe://{DOMAIN}/ns/default/agent/callee;Hash=");
        let end = format!(";Subject=\"\";URI=spiffe://{DOMAIN}/ns/default/agent/caller");
        assert!(told.starts_with(&start) && told.ends_with(&end), "{told}");
        assert_eq!(told.len(), start.len() + 64 + end.len(), "one element, with a SHA-256: {told}");
    }
    let good = "pilotfish_tls_handshakes_total{direction=\"outbound\",result=\"ok\"}";
    assert_eq!(metric(&caller, good).await, 1, "one connection, kept");
    let good = "pilotfish_tls_handshakes_total{direction=\"inbound\",result=\"ok\"}";
    assert_eq!(metric(&callee, good).await, 1);
}

#[tokio::test]
async fn what_a_raw_client_says_of_itself_is_replaced() {
    let (mesh, origin) = (Mesh::new(), Origin::plain().await);
    let callee = mesh.sidecar("callee").app(origin.addr()).start();
    let own = mesh.issue("raw");
    let request = get("/").replace(
        "host:",
        "X-Forwarded-Client-Cert: URI=spiffe://mesh.test/ns/default/agent/admin\r\nx-forwarded-client-cert: a\r\nhost:",
    );
    let answer = ask(callee.inbound, mesh.client(Some(&own)), &request).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let told = origin.requests()[0].header("x-forwarded-client-cert").unwrap();
    assert!(
        told.ends_with("URI=spiffe://mesh.test/ns/default/agent/raw") && !told.contains("admin"),
        "{told}"
    );
    assert!(!told.contains(','), "{told}");
}

#[tokio::test]
async fn bodies_of_a_mebibyte_go_both_ways() {
    let (mesh, agent) = (Mesh::new(), Agent::start("a").await);
    let (caller, _callee) = pair(&mesh, agent.addr(), "");
    let body = "0123456789abcdef".repeat(65536);
    let mut client = H1::connect(caller.outbound).await;
    for _ in 0..3 {
        let request =
            format!("POST /echo HTTP/1.1\r\nhost: s.test\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let answer = client.ask(request).await.unwrap();
        assert_eq!((answer.status(), answer.json()["body_len"].as_u64()), (200, Some(1 << 20)));
        let answer = client.get("s.test", "/bytes/1048576", &[]).await.unwrap();
        assert_eq!((answer.status(), answer.message.body.len()), (200, 1 << 20));
    }
}

#[tokio::test]
async fn http2_end_to_end() {
    let (mesh, agent) = (Mesh::new(), Agent::start("a").await);
    let upgrade = "trafficPolicy: { connectionPool: { http: { h2UpgradePolicy: UPGRADE } } }";
    let (caller, callee) = pair(&mesh, agent.addr(), &destination_rule("s", "s.test", upgrade));
    let mut client = H2::open(caller.outbound, &[]).await;
    for stream in [1, 3, 5] {
        let outcome = client.get(stream, "s.test", "/", &[]).await;
        assert!(format!("{outcome:?}").contains("200"), "{outcome:?}");
    }
    let mut client = H1::connect(caller.outbound).await;
    assert_eq!(client.get("s.test", "/", &[]).await.unwrap().status(), 200);
    let good = "pilotfish_tls_handshakes_total{direction=\"inbound\",result=\"ok\"}";
    assert_eq!(metric(&callee, good).await, 1, "one shared connection");
}

#[tokio::test]
async fn a_tunnel_is_no_way_around_mtls() {
    let (mesh, origin) = (Mesh::new(), Origin::plain().await);
    let (caller, _callee) = pair(&mesh, origin.addr(), "");
    let mut client = H1::connect(caller.outbound).await;
    client.send("CONNECT s.test:80 HTTP/1.1\r\nhost: s.test:80\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status(), 200);
    let answer = client.get("s.test", "/inside", &[]).await.unwrap();
    assert_eq!(answer.status(), 200);
    let told = origin.requests()[0].header("x-forwarded-client-cert").unwrap();
    assert!(told.ends_with("agent/caller"), "the tunnel was inside of mTLS: {told}");
}

#[tokio::test]
async fn without_an_identity_all_is_as_before() {
    let origin = Origin::plain().await;
    let callee = crate::support::sidecar().app(origin.addr()).start();
    let caller = crate::support::sidecar().yaml("a.yaml", service("s.test", callee.inbound.port())).start();
    let mut client = H1::connect(caller.outbound).await;
    assert_eq!(client.get("s.test", "/", &["x-forwarded-client-cert: x"]).await.unwrap().status(), 200);
    assert_eq!(origin.requests()[0].header("x-forwarded-client-cert"), None);
}

#[tokio::test]
async fn who_a_sidecar_is_can_be_asked_and_its_key_cannot() {
    let mesh = Mesh::new();
    let sidecar = mesh.sidecar("callee").start();
    let mut socket = tokio::net::UnixStream::connect(&sidecar.admin_socket).await.unwrap();
    let request = "GET /config HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut socket, request.as_bytes()).await.unwrap();
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut socket, &mut text).await.unwrap();
    assert!(text.contains("\"id\": \"spiffe://mesh.test/ns/default/agent/callee\""), "{text}");
    assert!(text.contains("\"expires\": \"20") && text.contains("\"mesh.test\""), "{text}");
    let key = std::fs::read_to_string(mesh.folder.path().join("callee/own.key")).unwrap();
    assert!(key.lines().filter(|line| line.len() > 30).all(|line| !text.contains(line)));
    let left = metric(&sidecar, "pilotfish_certificate_expires_seconds").await;
    assert!((80_000..=86_400).contains(&left), "{left} s");
}

/// A sidecar whose agent does not listen says so, and then the call was never begun: another agent gets it, POST or not.
#[tokio::test]
async fn a_call_whose_agent_never_got_it_goes_to_another_one() {
    let (mesh, agent) = (Mesh::new(), Agent::start("alive").await);
    let nobody = pilotfish_testkit::Nobody::new();
    let dead = mesh.sidecar("callee").app(nobody.addr()).start();
    let alive = mesh.sidecar("callee").app(agent.addr()).start();
    let line = "labels: { pilotfish.dev/agent: callee, pilotfish.dev/mesh: \"true\" }";
    let both =
        format!("{line}\n  - address: 127.0.0.1\n    ports: {{ web: {} }}\n    {line}", alive.inbound.port());
    let caller =
        mesh.sidecar("caller").yaml("a.yaml", mesh_service_with("s.test", &both, dead.inbound)).start();
    let mut client = H1::connect(caller.outbound).await;
    for call in 0..20 {
        let request =
            format!("POST /echo HTTP/1.1\r\nhost: s.test\r\ncontent-length: 7\r\n\r\nonce{call:03}");
        let answer = client.ask(request).await.unwrap();
        assert_eq!(
            (answer.status(), answer.json()["body_len"].as_u64()),
            (200, Some(7)),
            "{}",
            answer.text()
        );
    }
    assert_eq!(agent.requests(), 20, "each once");
    let refused = "pilotfish_refusals_total{reason=\"connect-failed\"}";
    assert!(metric(&dead, refused).await > 0, "the other one was asked too");
}
