//! CONNECT: into the mesh a tunnel ends at the agent's own sidecar, so whatever is said through it meets every rule; nobody opens one to
//! an agent.

use pilotfish_testkit::h2::{self, Outcome};
use pilotfish_testkit::{H1, H2, Origin, Sidecar};

use super::setup::{Mesh, ask, mesh_service};
use crate::support::{sidecar, virtual_service};

const RULES: &str = "
- match: [{uri: {prefix: /fixed}}]
  directResponse: {status: 418}
- route: [{destination: {host: s.test}}]
";

const DENY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec:\n  action: DENY\n  rules:\n  \
                    - to: [{operation: {paths: [/admin]}}]\n    from: [{source: {principals: ['*/caller']}}]\n";

/// A caller and a callee that has this policy.
async fn pair(mesh: &Mesh, origin: &Origin, args: &[&str]) -> (Sidecar, Sidecar) {
    let callee = mesh.sidecar("callee").app(origin.addr()).yaml("p.yaml", DENY).start();
    let yaml = mesh_service("s.test", "callee", callee.inbound)
        + &virtual_service("rules", "s.test", RULES.trim_start());
    (mesh.sidecar("caller").yaml("a.yaml", yaml).args(args).start(), callee)
}

async fn tunnel(caller: &Sidecar, lines: &str) -> H1 {
    let mut client = H1::connect(caller.outbound).await;
    client.send(format!("CONNECT s.test:80 HTTP/1.1\r\nhost: s.test:80\r\n{lines}\r\n")).await;
    assert_eq!(client.head().await.unwrap().status(), 200);
    client
}

#[tokio::test]
async fn what_is_said_through_a_tunnel_into_the_mesh_meets_every_rule() {
    let (mesh, origin) = (Mesh::new(), Origin::plain().await);
    let (caller, _callee) = pair(&mesh, &origin, &[]).await;
    let mut client = tunnel(&caller, "").await;
    // The receiving side decides by what is asked for, and the agent's own side by its routes.
    assert_eq!(client.get("s.test", "/open", &[]).await.unwrap().status(), 200);
    let refused = client.get("s.test", "/admin", &[]).await.unwrap();
    assert_eq!((refused.status(), &*refused.reason()), (403, "access-denied"));
    assert_eq!(client.get("s.test", "/fixed/1", &[]).await.unwrap().status(), 418);
    // What only sidecars write is not the agent's to write: as a pipe it came with its sidecar's certificate.
    let forged = ["x-pilotfish-delegation: forged", "agent-hops: 99", "x-pilotfish-path: default/other"];
    let answer = client.get("s.test", "/forged", &forged).await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let got = origin.requests().pop().unwrap();
    assert!(got.header("x-forwarded-client-cert").unwrap().ends_with("agent/caller"));
    // One is enough.
    client.send("CONNECT s.test:80 HTTP/1.1\r\nhost: s.test:80\r\n\r\n").await;
    let nested = client.answer("CONNECT").await.unwrap();
    assert_eq!((nested.status(), &*nested.reason()), (404, "no-route"));
    assert_eq!(origin.requests().len(), 2);
}

#[tokio::test]
async fn a_tunnel_by_http2_is_no_other() {
    let (mesh, origin) = (Mesh::new(), Origin::plain().await);
    let (caller, _callee) = pair(&mesh, &origin, &[]).await;
    let mut client = H2::open(caller.outbound, &[]).await;
    let fields = [(":method", "CONNECT"), (":authority", "s.test:80")];
    client.send(&h2::headers(1, h2::hpack::block(&fields), false)).await;
    client
        .send(&h2::data(1, *b"GET /admin HTTP/1.1\r\nHost: s.test\r\nConnection: close\r\n\r\n", false))
        .await;
    let end = client.outcome(1, std::time::Duration::from_secs(20)).await;
    let Outcome::Answer(answer) = &end else { panic!("{end:?}") };
    let text = String::from_utf8_lossy(&answer.body);
    assert!(
        answer.status == 200 && text.contains("pilotfish-reason: access-denied"),
        "{} {text}",
        answer.status
    );
    assert_eq!(origin.requests().len(), 0);
}

#[tokio::test]
async fn who_opened_a_tunnel_has_shown_the_secret() {
    let (mesh, origin) = (Mesh::new(), Origin::plain().await);
    let file = mesh.folder.path().join("secret");
    std::fs::write(&file, "0123456789abcdef").unwrap();
    let (caller, _callee) = pair(&mesh, &origin, &["--local-secret-file", file.to_str().unwrap()]).await;
    let mut client = H1::connect(caller.outbound).await;
    client.send("CONNECT s.test:80 HTTP/1.1\r\nhost: s.test:80\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status(), 407);
    let mut client = tunnel(&caller, "proxy-authorization: Bearer 0123456789abcdef\r\n").await;
    assert_eq!(client.get("s.test", "/open", &[]).await.unwrap().status(), 200);
}

#[tokio::test]
async fn nobody_opens_a_tunnel_to_an_agent() {
    const ALLOW: &str = "{ rules: [{}] }";
    const BY_PATH: &str = "{ rules: [{ to: [{ operation: { paths: ['/*'] } }] }] }";
    const BY_BODY: &str = "{ action: DENY, rules: [{ when: [{ key: pilotfish.mcp.tool, values: [pay] }] }] }";
    const BY_METHOD: &str = "{ action: DENY, rules: [{ to: [{ operation: { methods: [CONNECT] } }] }] }";
    let mesh = Mesh::new();
    for (spec, status, reason) in [
        (ALLOW, 404, "no-route"),
        (BY_PATH, 403, "access-denied"),
        (BY_BODY, 403, "not-decidable"),
        (BY_METHOD, 403, "access-denied"),
    ] {
        let origin = Origin::plain().await;
        let policy = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p}}\nspec: {spec}\n"
        );
        let plain = sidecar().app(origin.addr()).yaml("p.yaml", &policy).start();
        let mut client = H1::connect(plain.inbound).await;
        client
            .send("CONNECT s.test:80 HTTP/1.1\r\nhost: s.test:80\r\n\r\nGET /x HTTP/1.1\r\nhost: x\r\n\r\n")
            .await;
        let answer = client.answer("CONNECT").await.unwrap();
        assert_eq!((answer.status(), &*answer.reason()), (status, reason), "{spec}");
        // The same from a caller with a certificate.
        let callee = mesh.sidecar("callee").app(origin.addr()).yaml("p.yaml", &policy).start();
        let config = mesh.client(Some(&mesh.issue("caller")));
        let request = "CONNECT s.test:80 HTTP/1.1\r\nhost: s.test:80\r\nconnection: close\r\n\r\n";
        let told = ask(callee.inbound, config, request).await.unwrap();
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")) && told.contains(reason), "{spec}: {told}");
        assert_eq!(origin.requests().len(), 0, "{spec}");
    }
}
