//! Pages that call an agent past every other sidecar: its own routes' corsPolicy answers their preflights before anybody asks for a token.

use pilotfish_testkit::h1::Answer;
use pilotfish_testkit::origin::{Origin, send};
use pilotfish_testkit::tokens::Signer;
use pilotfish_testkit::{H1, Sidecar, h1};
use serde_json::json;

use crate::support::{sidecar, virtual_service};
use crate::tokens::{claims, inline};

const RULES: &str = r#"
- match: [{uri: {prefix: /closed}}]
  route: [{destination: {host: tester}}]
- match: [{uri: {prefix: /strict}}]
  corsPolicy: {allowOrigins: [{exact: "https://a.test"}], unmatchedPreflights: IGNORE}
  route: [{destination: {host: tester}}]
- corsPolicy:
    allowOrigins: [{exact: "https://a.test"}]
    allowMethods: [POST]
    allowHeaders: [authorization]
    allowCredentials: true
  route: [{destination: {host: tester}}]
"#;

/// Nobody may do anything but with a token of somebody.
const ALLOW: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec:\n  rules:\n  \
                     - from: [{source: {requestPrincipals: ['*']}}]\n---\n";

async fn start(policies: &str) -> (Origin, Sidecar) {
    let agent = Origin::start(|_, _| vec![send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")]).await;
    let yaml = virtual_service("rules", "tester", RULES.trim_start()) + policies;
    let sidecar = sidecar().yaml("a.yaml", yaml).app(agent.addr()).start();
    (agent, sidecar)
}

async fn preflight(sidecar: &Sidecar, path: &str, origin: &str) -> Answer {
    let ask = format!(
        "OPTIONS {path} HTTP/1.1\r\nHost: tester:8080\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\r\n"
    );
    H1::connect(sidecar.inbound).await.ask(ask).await.unwrap()
}

#[tokio::test]
async fn a_preflight_needs_no_token_and_never_reaches_the_agent() {
    let signer = Signer::new("ES256", "k1");
    for policies in [inline([&signer], "presence: REQUIRED"), inline([&signer], "") + ALLOW] {
        let (agent, sidecar) = start(&policies).await;
        let told = preflight(&sidecar, "/api", "https://a.test").await;
        assert_eq!((told.status(), told.text().as_str()), (200, ""));
        let header = |name: &str| told.header(name);
        assert_eq!(header("access-control-allow-origin").as_deref(), Some("https://a.test"));
        assert_eq!(header("access-control-allow-methods").as_deref(), Some("POST"));
        assert_eq!(header("access-control-allow-headers").as_deref(), Some("authorization"));
        assert_eq!(header("access-control-allow-credentials").as_deref(), Some("true"));
        // Another page is told nothing; where the rule says so the preflight goes on (Istio's default), as a call like any other.
        let told = preflight(&sidecar, "/strict", "https://b.test").await;
        assert_eq!((told.status(), told.header("access-control-allow-origin")), (200, None));
        for (path, origin) in [("/closed", "https://a.test"), ("/api", "https://b.test")] {
            let told = preflight(&sidecar, path, origin).await;
            assert!(matches!(told.status(), 401 | 403), "{path}: {}", told.status());
            assert_eq!(told.header("access-control-allow-origin"), None, "{path}");
        }
        // What is no preflight needs what it needs.
        let lines = ["Origin: https://a.test", "Access-Control-Request-Method: POST"];
        assert!(matches!(
            h1::get(sidecar.inbound, "tester", "/api", &lines).await.unwrap().status(),
            401 | 403
        ));
        assert_eq!(agent.requests().len(), 0);
    }
}

#[tokio::test]
async fn answers_and_refusals_can_be_read_by_the_page_that_may() {
    let signer = Signer::new("ES256", "k1");
    let (agent, sidecar) = start(&inline([&signer], "presence: REQUIRED")).await;
    let bearer = format!("authorization: Bearer {}", signer.token(&claims(json!({}))));
    for (lines, status, origin) in [
        (vec!["Origin: https://a.test", &bearer], 200, Some("https://a.test")),
        (vec!["Origin: https://a.test"], 401, Some("https://a.test")),
        (vec!["Origin: https://b.test", &bearer], 200, None),
        (vec![&*bearer], 200, None),
    ] {
        let told = h1::get(sidecar.inbound, "tester", "/api", &lines).await.unwrap();
        let allowed = told.header("access-control-allow-origin");
        assert_eq!((told.status(), allowed.as_deref()), (status, origin), "{lines:?}");
        assert_eq!(told.header("vary").as_deref(), Some("Origin"), "{lines:?}");
    }
    assert_eq!(agent.requests().len(), 3);
}
