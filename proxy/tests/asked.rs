//! What the sidecar itself asks: authorizers, issuers and token endpoints that are services of the mesh, by whose certificate they are
//! believed, and what is asked of nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use pilotfish_testkit::ca::{Ca, Leaf};
use pilotfish_testkit::origin::{Origin, ok};
use pilotfish_testkit::tokens::{Signer, key_set};
use pilotfish_testkit::{H1, Nobody, Sidecar};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::support::{destination_rule, metric, service, service_with, sidecar};
use crate::tls::setup::{Mesh, ask, get, mesh_service};
use crate::tokens::{call, claims, policy};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything but `/open` is asked about.
fn checked(provider: &str) -> String {
    format!(
        "apiVersion: pilotfish.dev/v1\nkind: AuthorizationProvider\nmetadata: {{ name: checker }}\nspec: {{ {provider}, timeout: 20s }}\n\
         ---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{ name: p }}\n\
         spec: {{ action: CUSTOM, provider: {{ name: checker }}, rules: [{{ to: [{{ operation: {{ notPaths: ['/open'] }} }}] }}] }}\n---\n"
    )
}

#[tokio::test]
async fn an_authorizer_beside_a_sidecar_is_asked_by_mtls_and_no_other() {
    let (mesh, agent) = (Mesh::new(), Origin::plain().await);
    let authorizer = Origin::plain().await;
    let beside = mesh.sidecar("authorizer").app(authorizer.addr()).start();
    let client = || mesh.client(Some(&mesh.issue("caller")));
    for (name, good) in [("authorizer", true), ("somebody-else", false)] {
        let yaml = mesh_service("authz.default.svc.cluster.local", name, beside.inbound)
            + &checked("http: { service: authz.default, port: 80 }");
        let guarded = mesh.sidecar("guarded").app(agent.addr()).yaml("a.yaml", yaml).start();
        for n in 1..=3 {
            let answer = ask(guarded.inbound, client(), &get("/a")).await.unwrap();
            let expected = if good { "HTTP/1.1 200" } else { "HTTP/1.1 403" };
            assert!(answer.starts_with(expected), "{answer}");
            assert!(
                good || answer.contains("authorizer-unavailable") && answer.contains("not spiffe"),
                "{answer}"
            );
            assert_eq!(authorizer.requests().len(), if good { n } else { 3 });
        }
        let handshakes = "pilotfish_tls_handshakes_total{direction=\"inbound\",result=\"ok\"}";
        assert!(metric(&beside, handshakes).await <= 4, "the connection is kept");
    }
    let who = authorizer.requests()[0].header("x-forwarded-client-cert").unwrap();
    assert!(who.ends_with("URI=spiffe://mesh.test/ns/default/agent/guarded"), "{who}");
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_not_the_end() {
    let (agent, authorizer) = (Origin::plain().await, Origin::plain().await);
    let gone = Nobody::new();
    let yaml = service_with("authz.test", "HTTP", &[(gone.port(), ""), (authorizer.port(), "")])
        + &checked("http: { service: mesh-ns/authz.test, port: 80 }");
    let guarded = sidecar().app(agent.addr()).yaml("a.yaml", yaml).start();
    for _ in 0..10 {
        let answer =
            H1::connect(guarded.inbound).await.patience(PATIENCE).get("x.test", "/a", &[]).await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    assert_eq!(authorizer.requests().len(), 10);
}

/// An HTTPS server of this name, whose authority is the folder's; it answers everything with this text. How often it was asked.
async fn https(folder: &TempDir, name: &str, text: String, clients: bool) -> (u16, Arc<AtomicUsize>, Ca) {
    let ca = Ca::new("outside");
    ca.write_bundle(folder.path());
    let leaf = Leaf { dns: vec![name.into()], ..Leaf::of("spiffe://outside/idp") };
    let acceptor = TlsAcceptor::from(ca.server(&ca.issue(&leaf), clients, &[b"http/1.1"]));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, asked) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, text, count) = (acceptor.clone(), text.clone(), count.clone());
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(stream).await else { return };
                let mut bytes = vec![0; 16384];
                while let Ok(1..) = tls.read(&mut bytes).await {
                    count.fetch_add(1, SeqCst);
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                    let _ = tls.write_all(answer.as_bytes()).await;
                    let _ = tls.flush().await;
                }
            });
        }
    });
    (port, asked, ca)
}

/// `idp.test` on port 443 is 127.0.0.1 at this port.
fn idp(port: u16) -> String {
    service("idp.test", port).replace("number: 80", "number: 443")
}

fn trusting(tls: &str) -> String {
    destination_rule("idp", "idp.test", &format!("trafficPolicy: {{ tls: {{ {tls} }} }}"))
}

/// Asks until the keys were looked at; the last status.
async fn status_with(sidecar: &Sidecar, token: &str) -> u16 {
    let began = Instant::now();
    loop {
        let status = call(sidecar, token).await.status();
        let looks = ["good", "failed"]
            .map(|result| format!("pilotfish_key_set_fetches_total{{result=\"{result}\"}}"));
        let looks = metric(sidecar, &looks[0]).await + metric(sidecar, &looks[1]).await;
        if status == 200 || looks > 0 || began.elapsed() > PATIENCE {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_issuer_is_believed_by_its_destination_rule_or_by_the_flag() {
    let (agent, signer, folder) =
        (Origin::plain().await, Signer::new("ES256", "k"), tempfile::tempdir().unwrap());
    let (port, asked, ca) = https(&folder, "idp.test", key_set([&signer]).to_string(), true).await;
    let own = ca.issue(&Leaf::of("spiffe://outside/client")).write(folder.path(), "own");
    let others = folder.path().join("others.pem");
    std::fs::write(&others, Ca::new("others").root_pem()).unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, ca.root_pem()).unwrap();
    let (roots, others) = (roots.display().to_string(), others.display().to_string());
    // A call waits so long for keys that do not come.
    let rule = |status: u16| {
        let patience = if status == 200 { "20s" } else { "500ms" };
        policy(&format!(
            "issuer: https://issuer.test\naudiences: [us]\njwksUri: https://idp.test/keys\ntimeout: {patience}"
        ))
    };
    let client = format!("clientCertificate: {}, privateKey: {}", own.chain.display(), own.key.display());
    let mutual = trusting(&format!("mode: MUTUAL, caCertificates: {roots}, {client}"));
    let other = trusting(&format!("mode: MUTUAL, caCertificates: {others}, {client}"));
    let named =
        trusting(&format!("mode: MUTUAL, caCertificates: {roots}, subjectAltNames: [else.test], {client}"));
    let without = trusting(&format!("mode: SIMPLE, caCertificates: {roots}"));
    for (name, tls, flag, status) in [
        ("MUTUAL by its own authority", &*mutual, None, 200),
        ("another authority", &*other, None, 401),
        ("the rule goes before the flag", &*other, Some(&*roots), 401),
        ("another name", &*named, None, 401),
        ("no certificate is shown", &*without, None, 401),
        ("the system's authorities", "", None, 401),
    ] {
        let before = asked.load(SeqCst);
        let flags: Vec<&str> = flag.map_or(vec![], |file| vec!["--issuer-ca", file]);
        let yaml = idp(port) + tls + &rule(status);
        let sidecar = sidecar().app(agent.addr()).yaml("a.yaml", yaml).args(&flags).start();
        let token = signer.token(&claims(json!({})));
        assert_eq!(status_with(&sidecar, &token).await, status, "{name}");
        assert_eq!(asked.load(SeqCst) > before, status == 200, "{name}");
    }
    // Where no rule says, the flag's roots are taken.
    let (port, asked, ca) = https(&folder, "idp.test", key_set([&signer]).to_string(), false).await;
    std::fs::write(&roots, ca.root_pem()).unwrap();
    let sidecar = sidecar()
        .app(agent.addr())
        .yaml("a.yaml", idp(port) + &rule(200))
        .args(&["--issuer-ca", &roots])
        .start();
    assert_eq!(status_with(&sidecar, &signer.token(&claims(json!({})))).await, 200);
    assert!(asked.load(SeqCst) > 0);
}

#[tokio::test]
async fn a_token_endpoint_is_told_the_secret_only_when_it_is_verified() {
    let (api, folder) = (Origin::plain().await, tempfile::tempdir().unwrap());
    let token = r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#;
    let (port, asked, ca) = https(&folder, "idp.test", token.to_owned(), false).await;
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (roots, others) = (write("r.pem", &ca.root_pem()), write("o.pem", &Ca::new("others").root_pem()));
    let secret = write("secret", "s3cret");
    let good = trusting(&format!("mode: SIMPLE, caCertificates: {roots}"));
    let other = trusting(&format!("mode: SIMPLE, caCertificates: {others}"));
    let field = format!(", caCertificates: {roots}");
    for (name, tls, more, insecure, status) in [
        ("by its rule", &*good, "", "false", 200),
        ("by another authority", &*other, "", "false", 503),
        ("the field goes before the rule", &*other, &*field, "false", 200),
        ("no TLS in the rule is no word about https", &*trusting("mode: DISABLE"), &*field, "false", 200),
        ("unverified", &*trusting("mode: SIMPLE, insecureSkipVerify: true"), "", "false", 503),
        ("unverified, meant", &*trusting("mode: SIMPLE, insecureSkipVerify: true"), "", "true", 200),
    ] {
        let before = asked.load(SeqCst);
        let credential = format!(
            "apiVersion: pilotfish.dev/v1\nkind: OutboundCredential\nmetadata: {{ name: api }}\nspec:\n  hosts: [api.test]\n  \
             insecure: {insecure}\n  oauth2: {{ tokenUrl: \"https://idp.test/token\", clientId: me, clientSecretFile: {secret}, \
             timeout: 20s{more} }}\n---\n"
        );
        let yaml = idp(port) + tls + &service("api.test", api.port()) + &credential;
        let sidecar = sidecar().yaml("a.yaml", yaml).start();
        let answer =
            H1::connect(sidecar.outbound).await.patience(PATIENCE).get("api.test", "/", &[]).await.unwrap();
        assert_eq!(answer.status(), status, "{name}: {}", answer.text());
        assert_eq!(asked.load(SeqCst) > before, status == 200, "{name}");
        assert!(!answer.text().contains("s3cret"));
    }
    // A name that is of this machine everywhere else may be another's service here.
    let plain = Origin::start(|_, _| ok(r#"{"access_token":"t"}"#)).await;
    for (at, status) in [("127.0.0.1", 200), ("203.0.113.7", 503)] {
        let named = service("localhost", plain.port()).replace("127.0.0.1", at);
        let yaml = service("api.test", api.port())
            + &named
            + &format!(
                "apiVersion: pilotfish.dev/v1\nkind: OutboundCredential\nmetadata: {{ name: api }}\nspec:\n  hosts: [api.test]\n  \
                 oauth2: {{ tokenUrl: \"http://localhost/token\", clientId: me, clientSecretFile: {secret} }}\n"
            );
        let sidecar = sidecar().yaml("a.yaml", yaml).start();
        let answer =
            H1::connect(sidecar.outbound).await.patience(PATIENCE).get("api.test", "/", &[]).await.unwrap();
        assert_eq!(answer.status(), status, "{}", answer.text());
        assert!(status == 200 || answer.text().contains("a secret in plaintext"), "{}", answer.text());
    }
}
