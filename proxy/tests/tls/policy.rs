//! PeerAuthentication on the inbound port, and TLS to hosts outside of the mesh.

use pilotfish_testkit::ca::{Ca, Issued, Leaf};
use pilotfish_testkit::{H1, Origin, h1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::setup::{Mesh, ask, get, mesh_service_with};
use crate::support::{destination_rule, service, sidecar};

fn peer_authentication(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: p\nspec: {spec}\n---\n"
    )
}

#[tokio::test]
async fn modes_and_port_levels_are_istios() {
    let (mesh, origin) = (Mesh::new(), Origin::plain().await);
    let port = origin.port();
    let by_port = |all: &str, one: &str| {
        format!(
            "{{ mtls: {{ mode: {all} }}, selector: {{ matchLabels: {{ app: x }} }}, portLevelMtls: {{ {port}: {{ mode: {one} }} }} }}"
        )
    };
    // The policy, and whether plaintext and whether mTLS is served.
    let rows = [
        ("{ mtls: { mode: STRICT } }".to_owned(), false, true),
        ("{ mtls: { mode: PERMISSIVE } }".to_owned(), true, true),
        ("{ mtls: { mode: DISABLE } }".to_owned(), true, false),
        (by_port("STRICT", "DISABLE"), true, false),
        (by_port("DISABLE", "STRICT"), false, true),
        (by_port("STRICT", "PERMISSIVE"), true, true),
    ];
    for (spec, plain, mtls) in rows {
        let callee = mesh.sidecar("callee").app(origin.addr()).args(&["--label", "app=x"]);
        let callee = callee.yaml("p.yaml", peer_authentication(&spec)).start();
        let answer = h1::get(callee.inbound, "s.test", "/", &["x-forwarded-client-cert: me"]).await.unwrap();
        assert_eq!(answer.status(), if plain { 200 } else { 403 }, "{spec} in plaintext");
        if plain {
            let request = origin.requests().pop().unwrap();
            assert_eq!(request.header("x-forwarded-client-cert"), None, "nobody proved that");
        }
        let answer = ask(callee.inbound, mesh.client(Some(&mesh.issue("caller"))), &get("/")).await;
        assert_eq!(answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")), mtls, "{spec} by mTLS");
    }
}

#[tokio::test]
async fn strict_without_an_identity_does_not_start() {
    let builder = sidecar().yaml("p.yaml", peer_authentication("{ mtls: { mode: STRICT } }"));
    let (status, said) = builder.start_to_fail();
    assert!(!status.success() && said.contains("no identity"), "{said}");
}

#[tokio::test]
async fn an_identity_that_does_not_verify_does_not_start() {
    let mesh = Mesh::new();
    let (status, said) = mesh
        .sidecar_as("a", &Ca::new("mesh.test").issue(&Leaf::agent("mesh.test", "default", "a")))
        .start_to_fail();
    assert!(!status.success() && said.contains("no identity"), "{said}");
    let other_key = Issued { key: mesh.issue("a").key, ..mesh.issue("a") };
    let (status, said) = mesh.sidecar_as("a", &other_key).start_to_fail();
    assert!(!status.success() && said.contains("does not belong"), "{said}");
    assert!(!said.contains("PRIVATE KEY"));
}

/// An HTTP/1.1 origin behind TLS; answers every request with the server name that was asked for.
async fn https(ca: &Ca, issued: &Issued, clients: bool) -> u16 {
    https_by(TlsAcceptor::from(ca.server(issued, clients, &[b"http/1.1"]))).await
}

async fn https_by(acceptor: TlsAcceptor) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let name = stream.get_ref().1.server_name().unwrap_or("none").to_owned();
                let mut request = vec![0; 16384];
                while matches!(stream.read(&mut request).await, Ok(n) if n > 0) {
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
                    if stream.write_all(head.as_bytes()).await.is_err() || stream.flush().await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn destination_rules_originate_tls_and_verify_names() {
    let (ca, folder) = (Ca::new("outside"), tempfile::tempdir().unwrap());
    let path = |file: &str| folder.path().join(file).to_str().unwrap().to_owned();
    let bundle = ca.write_bundle(folder.path()).to_str().unwrap().to_owned();
    ca.issue(&Leaf { uris: vec![], dns: vec!["client".into()], ..Leaf::of("spiffe://a/b") })
        .write(folder.path(), "client");
    let server =
        Leaf { dns: vec!["s.test".into(), "*.wild.test".into()], ..Leaf::of("spiffe://outside/server") };
    let issued = ca.issue(&server);
    let (open, closed) = (https(&ca, &issued, false).await, https(&ca, &issued, true).await);
    let trust = format!("caCertificates: \"{bundle}\"");
    let own =
        format!("clientCertificate: \"{}\", privateKey: \"{}\"", path("client.pem"), path("client.key"));
    // The port, tls of the rule, the status, and the server name or the reason.
    let rows = [
        (open, format!("mode: SIMPLE, {trust}"), 200, "s.test"),
        (open, format!("mode: SIMPLE, {trust}, sni: a.wild.test"), 200, "a.wild.test"),
        (open, format!("mode: SIMPLE, {trust}, sni: other.test"), 503, "upstream-identity"),
        (
            open,
            format!("mode: SIMPLE, {trust}, sni: other.test, subjectAltNames: [\"spiffe://outside/server\"]"),
            200,
            "other.test",
        ),
        (open, format!("mode: SIMPLE, {trust}, subjectAltNames: [other.test, s.test]"), 200, "s.test"),
        (open, format!("mode: SIMPLE, {trust}, subjectAltNames: [other.test]"), 503, "upstream-identity"),
        (open, "mode: SIMPLE".to_owned(), 503, "upstream-identity"),
        (open, "mode: SIMPLE, insecureSkipVerify: true".to_owned(), 200, "s.test"),
        (closed, format!("mode: MUTUAL, {trust}, {own}"), 200, "s.test"),
    ];
    for (port, tls, status, said) in rows {
        let rule = destination_rule("s", "s.test", &format!("trafficPolicy: {{ tls: {{ {tls} }} }}"));
        let sidecar = sidecar().yaml("a.yaml", service("s.test", port) + &rule).start();
        let mut client = H1::connect(sidecar.outbound).await;
        for _ in 0..2 {
            let answer = client.get("s.test", "/", &[]).await.unwrap();
            let found = if status == 200 { answer.text() } else { answer.reason() };
            assert_eq!((answer.status(), &*found), (status, said), "{tls}");
        }
    }
}

#[tokio::test]
async fn hosts_outside_may_speak_tls_12() {
    let (ca, folder) = (Ca::new("outside"), tempfile::tempdir().unwrap());
    let bundle = ca.write_bundle(folder.path()).to_str().unwrap().to_owned();
    let issued = ca.issue(&Leaf { uris: vec![], dns: vec!["s.test".into()], ..Leaf::of("spiffe://a/b") });
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(issued.chain_der(), issued.key_der())
        .unwrap();
    let port = https_by(TlsAcceptor::from(std::sync::Arc::new(config))).await;
    let rule = format!("trafficPolicy: {{ tls: {{ mode: SIMPLE, caCertificates: \"{bundle}\" }} }}");
    let rule = destination_rule("s", "s.test", &rule);
    let sidecar = sidecar().yaml("a.yaml", service("s.test", port) + &rule).start();
    let mut client = H1::connect(sidecar.outbound).await;
    for _ in 0..3 {
        let answer = client.get("s.test", "/", &[]).await.unwrap();
        assert_eq!((answer.status(), &*answer.text()), (200, "s.test"));
    }
}

#[tokio::test]
async fn tls_settings_that_cannot_be_used_refuse_the_configuration() {
    let rows = [
        ("mode: SIMPLE, caCertificates: /nowhere/ca.pem", "/nowhere/ca.pem"),
        ("mode: SIMPLE, credentialName: secret", "credentialName"),
        ("mode: MUTUAL, clientCertificate: /nowhere/c.pem, privateKey: /nowhere/k.pem", "/nowhere/c.pem"),
    ];
    for (tls, word) in rows {
        let rule = destination_rule("s", "s.test", &format!("trafficPolicy: {{ tls: {{ {tls} }} }}"));
        let (status, said) = sidecar().yaml("a.yaml", service("s.test", 1) + &rule).start_to_fail();
        assert!(!status.success() && said.contains(word), "{tls}: {said}");
    }
}

#[tokio::test]
async fn another_policy_never_uses_connections_made_before() {
    let (mesh, origin) = (Mesh::new(), Origin::plain().await);
    let callee = mesh.sidecar("callee").app(origin.addr());
    let callee = callee.yaml("p.yaml", peer_authentication("{ mtls: { mode: PERMISSIVE } }")).start();
    let yaml = |agent: &str, mode: &str| {
        let labels = format!("labels: {{ pilotfish.dev/agent: {agent}, pilotfish.dev/mesh: \"true\" }}");
        mesh_service_with("s.test", &labels, callee.inbound)
            + &destination_rule("s", "s.test", &format!("trafficPolicy: {{ tls: {{ mode: {mode} }} }}"))
    };
    let caller = mesh.sidecar("caller").yaml("a.yaml", yaml("callee", "ISTIO_MUTUAL")).start();
    let mut client = H1::connect(caller.outbound).await;
    let told = |origin: &Origin| origin.requests().pop().unwrap().header("x-forwarded-client-cert").is_some();
    assert_eq!(client.get("s.test", "/1", &[]).await.unwrap().status(), 200);
    assert!(told(&origin));
    // Each change is seen once its answer is.
    caller.rewrite("a.yaml", &yaml("callee", "DISABLE"));
    let until = tokio::time::Instant::now() + super::setup::PATIENCE;
    while told(&origin) {
        assert!(tokio::time::Instant::now() < until, "still the connection by mTLS");
        assert_eq!(client.get("s.test", "/2", &[]).await.unwrap().status(), 200);
    }
    caller.rewrite("a.yaml", &yaml("another", "ISTIO_MUTUAL"));
    loop {
        assert!(tokio::time::Instant::now() < until, "still an old connection");
        let answer = client.get("s.test", "/3", &[]).await.unwrap();
        if answer.status() == 503 {
            assert_eq!(answer.reason(), "upstream-identity");
            break;
        }
    }
}
