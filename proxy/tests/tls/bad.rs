//! Peers that are not taken: nothing of theirs is served, and nothing is sent to them.

use std::time::Duration;

use pilotfish_config::wire::AuditRecord;
use pilotfish_testkit::ca::{Ca, Issued, Leaf};
use pilotfish_testkit::{H1, Origin};
use rcgen::ExtendedKeyUsagePurpose;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::setup::{DOMAIN, Mesh, ask, counted, get, mesh_service, metric};

/// Every kind of certificate that must not be taken: what it is, and the word that tells it.
fn bad(mesh: &Mesh) -> Vec<(&'static str, &'static str, Issued)> {
    let leaf = || Leaf::agent(DOMAIN, "default", "callee");
    let day = 24 * 3600;
    let uri = "spiffe://mesh.test/ns/default/agent/callee".to_owned();
    let other_ca = Ca::new(DOMAIN);
    let issue = |leaf: Leaf| mesh.ca.issue(&leaf);
    vec![
        ("another authority", "untrusted", other_ca.issue(&leaf())),
        (
            "another trust domain",
            "unknown-trust-domain",
            issue(Leaf::agent("other.test", "default", "callee")),
        ),
        ("expired", "expired", issue(Leaf { starts: -2 * day, ends: -600, ..leaf() })),
        ("not yet valid", "not-yet-valid", issue(Leaf { starts: 600, ends: day, ..leaf() })),
        ("no URI name", "no-spiffe-id", issue(Leaf { uris: vec![], dns: vec!["callee".into()], ..leaf() })),
        ("two URI names", "several-uri-names", issue(Leaf { uris: vec![uri.clone(), uri + "2"], ..leaf() })),
        ("no SPIFFE ID", "no-spiffe-id", issue(Leaf::of("https://callee.mesh.test/"))),
        ("an authority", "leaf-is-authority", issue(Leaf { authority: true, ..leaf() })),
        (
            "for mail",
            "wrong-usage",
            issue(Leaf { usages: vec![ExtendedKeyUsagePurpose::EmailProtection], ..leaf() }),
        ),
    ]
}

#[tokio::test]
async fn a_caller_with_a_bad_certificate_is_refused_and_no_byte_reaches_the_agent() {
    let (mesh, origin) = (Mesh::new(), Origin::plain().await);
    let callee = mesh.sidecar("callee").app(origin.addr()).start();
    let mut words = std::collections::BTreeMap::new();
    for (what, word, issued) in bad(&mesh) {
        let answer = ask(callee.inbound, mesh.client(Some(&issued)), &get("/")).await;
        let error = answer.expect_err(what);
        assert!(error.contains("alert"), "{what}: an alert says so: {error}");
        let sample = format!("pilotfish_tls_handshakes_total{{direction=\"inbound\",result=\"{word}\"}}");
        let before = words.entry(word).or_insert(0);
        *before += 1;
        counted(&callee, &sample, *before).await;
    }
    let error = ask(callee.inbound, mesh.client(None), &get("/")).await.expect_err("no certificate");
    assert!(error.contains("alert"), "{error}");
    let sample = "pilotfish_tls_handshakes_total{direction=\"inbound\",result=\"no-certificate\"}";
    counted(&callee, sample, 1).await;
    assert!(origin.connections().is_empty(), "the agent heard of one of them");
    let good = mesh.issue("other");
    assert!(ask(callee.inbound, mesh.client(Some(&good)), &get("/")).await.is_ok());
}

/// A TLS server with this certificate: gives what plaintext it got on each connection.
async fn impostor(mesh: &Mesh, issued: &Issued) -> (u16, tokio::sync::mpsc::UnboundedReceiver<usize>) {
    let acceptor = TlsAcceptor::from(mesh.ca.server(issued, true, &[b"http/1.1"]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, told) = (acceptor.clone(), told.clone());
            tokio::spawn(async move {
                let mut got = Vec::new();
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut got)).await;
                }
                let _ = told.send(got.len());
            });
        }
    });
    (port, heard)
}

#[tokio::test]
async fn an_upstream_with_a_bad_certificate_gets_no_byte_of_the_request() {
    let mesh = Mesh::new();
    let mut rows = bad(&mesh);
    rows.push(("another agent", "wrong-identity", mesh.issue("somebody")));
    for (what, word, issued) in rows {
        let (port, mut heard) = impostor(&mesh, &issued).await;
        let yaml = mesh_service("s.test", "callee", ([127, 0, 0, 1], port).into());
        let caller = mesh.sidecar("caller").yaml("a.yaml", yaml).start();
        let mut client = H1::connect(caller.outbound).await;
        let answer = client.get("s.test", "/secret", &[]).await.unwrap();
        assert_eq!((answer.status(), &*answer.reason()), (503, "upstream-identity"), "{what}");
        assert_eq!(heard.recv().await, Some(0), "{what}: a byte of the request was sent");
        let sample = format!("pilotfish_tls_handshakes_total{{direction=\"outbound\",result=\"{word}\"}}");
        assert!(metric(&caller, &sample).await > 0, "{what}: counted as {word}");
    }
}

#[tokio::test]
async fn a_mesh_endpoint_without_a_known_identity_is_not_called() {
    let (mesh, origin) = (Mesh::new(), Origin::plain().await);
    let lines = "labels: { pilotfish.dev/mesh: \"true\" }";
    let yaml = super::setup::mesh_service_with("s.test", lines, origin.addr());
    let caller = mesh.sidecar("caller").yaml("a.yaml", yaml).start();
    let mut client = H1::connect(caller.outbound).await;
    let answer = client.get("s.test", "/", &[]).await.unwrap();
    assert_eq!((answer.status(), &*answer.reason()), (503, "upstream-identity"));
    assert!(answer.text().contains("SPIFFE ID is not known"), "{}", answer.text());
    assert!(origin.connections().is_empty());
}

#[tokio::test]
async fn an_upstream_that_speaks_no_tls_is_not_called() {
    let (mesh, origin) = (Mesh::new(), Origin::plain().await);
    let yaml = mesh_service("s.test", "callee", origin.addr());
    let caller = mesh.sidecar("caller").yaml("a.yaml", yaml).start();
    let mut client = H1::connect(caller.outbound).await;
    let answer = client.get("s.test", "/secret", &[]).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(["tls-handshake-failed", "connect-timeout"].contains(&&*answer.reason()), "{}", answer.reason());
    let heard = origin.connections().concat();
    assert!(!String::from_utf8_lossy(&heard).contains("secret"));
}

#[tokio::test]
async fn plaintext_on_a_strict_port_gets_one_fixed_answer() {
    let (mesh, origin) = (Mesh::new(), Origin::plain().await);
    let folder = tempfile::tempdir().unwrap();
    let audit = ["--audit-dir", folder.path().to_str().unwrap()];
    let callee = mesh.sidecar("callee").app(origin.addr()).args(&audit).start();
    for bytes in [
        &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0",
        b"\xff\xff\xff",
        b"\x15\x03\x03\0\x02\x01\0",
    ] {
        let mut stream = TcpStream::connect(callee.inbound).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(
            answer.starts_with("HTTP/1.1 403 ") && answer.contains("pilotfish-reason: mtls-required\r\n"),
            "{answer}"
        );
    }
    let sample = "pilotfish_tls_handshakes_total{direction=\"inbound\",result=\"mtls-required\"}";
    counted(&callee, sample, 5).await;
    assert!(origin.connections().is_empty());
    // One record for those of an address and a second; how many others there were is told too.
    let mut told = (String::new(), 0);
    for _ in 0..600 {
        let records = records(folder.path());
        let first = records.iter().filter(|record| record.reason == "mtls-required");
        let callers: Vec<&str> = first.map(|record| record.caller.as_str()).collect();
        assert!(callers.iter().all(|caller| *caller == "127.0.0.1"), "{records:?}");
        let more = records.iter().filter_map(|record| {
            record.detail.strip_suffix(" more were turned away, too many to tell of each")
        });
        let more: usize = more.map(|count| count.parse::<usize>().unwrap()).sum();
        told = (format!("{records:?}"), callers.len() + more);
        if told.1 >= 5 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(told.1, 5, "{}", told.0);
}

/// The refusals in an audit log.
fn records(folder: &std::path::Path) -> Vec<AuditRecord> {
    let files = pilotfish_audit::folder::stretches(folder).unwrap();
    let text: String = files.iter().map(|file| std::fs::read_to_string(&file.path).unwrap()).collect();
    let all = text.lines().map(|line| serde_json::from_str::<AuditRecord>(line).unwrap());
    all.filter(|record| record.outcome == "denied").collect()
}

#[tokio::test]
async fn noise_on_the_tls_port_harms_nobody() {
    let (mesh, origin) = (Mesh::new(), Origin::plain().await);
    let mut callee = mesh.sidecar("callee").app(origin.addr()).start();
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..300 {
        let mut bytes: Vec<u8> = (0..rng.usize(1..600)).map(|_| rng.u8(..)).collect();
        if rng.bool() {
            // A record that says it is a handshake, of any length.
            bytes.splice(0..0, [0x16, 3, rng.u8(1..4), rng.u8(..), rng.u8(..), rng.u8(0..3), 0]);
        }
        let mut stream = TcpStream::connect(callee.inbound).await.unwrap();
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(12), stream.read_to_end(&mut answer)).await.unwrap();
    }
    assert!(callee.alive() && origin.connections().is_empty());
    let good = mesh.issue("other");
    assert!(
        ask(callee.inbound, mesh.client(Some(&good)), &get("/")).await.unwrap().starts_with("HTTP/1.1 200")
    );
}
