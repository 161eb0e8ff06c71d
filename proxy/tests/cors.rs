//! Scripts of web pages: preflights are answered by the sidecar, and answers, refusals included, may be read by whom the rule allows.

mod inbound;

use pilotfish_testkit::h1::Answer;
use pilotfish_testkit::origin::{Origin, send};
use pilotfish_testkit::{H1, Sidecar, h1};

use crate::support::{metric, service, sidecar, virtual_service};

const RULES: &str = r#"
- name: api
  match: [{uri: {prefix: /api}}]
  corsPolicy:
    allowOrigins: [{exact: "https://a.test"}, {regex: "https://[a-z]+[.]b[.]test"}, {prefix: "https://c."}]
    allowMethods: [GET, PUT]
    allowHeaders: [content-type, agent-priority]
    exposeHeaders: [pilotfish-reason, x-total]
    maxAge: 90s
    allowCredentials: true
  headers: {response: {set: {access-control-allow-origin: "https://edited.test"}}}
  route: [{destination: {host: s.test}}]
- name: strict
  match: [{uri: {prefix: /strict}}]
  corsPolicy:
    allowOrigins: [{exact: "https://a.test"}]
    unmatchedPreflights: IGNORE
  route: [{destination: {host: s.test}}]
- name: open
  match: [{uri: {prefix: /open}}]
  corsPolicy: {allowOrigin: ["*"]}
  route: [{destination: {host: s.test}}]
- name: posts-only
  match: [{uri: {prefix: /posts}, method: {exact: POST}}]
  corsPolicy: {allowOrigins: [{exact: "https://a.test"}]}
  route: [{destination: {host: s.test}}]
- name: gone
  match: [{uri: {prefix: /gone}}]
  corsPolicy: {allowOrigins: [{exact: "https://a.test"}], exposeHeaders: [pilotfish-reason]}
  route: [{destination: {host: nobody.test}}]
- name: limited
  match: [{uri: {prefix: /limited}}]
  corsPolicy: {allowOrigins: [{exact: "https://a.test"}]}
  route: [{destination: {host: s.test}}]
- name: fixed
  match: [{uri: {prefix: /fixed}}]
  corsPolicy: {allowOrigins: [{exact: "https://a.test"}]}
  directResponse: {status: 418}
- name: plain
  route: [{destination: {host: s.test}}]
"#;

const LIMIT: &str = "
apiVersion: pilotfish.dev/v1
kind: RateLimit
metadata: {name: once}
spec:
  targets: [{route: rules/limited}]
  limit: {requests: 1, per: 1h}
";

/// The agent has opinions of its own about origins.
const OWN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAccess-Control-Allow-Origin: https://own.test\r\n\
    Access-Control-Allow-Credentials: true\r\nAccess-Control-Expose-Headers: x-own\r\nVary: Accept\r\n\r\nok";

async fn start() -> (Origin, Sidecar) {
    let origin = Origin::start(|_, _| vec![send(OWN)]).await;
    let yaml =
        service("s.test", origin.port()) + &virtual_service("rules", "s.test", RULES.trim_start()) + LIMIT;
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    (origin, sidecar)
}

async fn preflight(sidecar: &Sidecar, path: &str, origin: &str) -> Answer {
    let ask = format!(
        "OPTIONS {path} HTTP/1.1\r\nHost: s.test\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n\r\n"
    );
    H1::connect(sidecar.outbound).await.ask(ask).await.unwrap()
}

async fn get(sidecar: &Sidecar, path: &str, origin: &str) -> Answer {
    h1::get(sidecar.outbound, "s.test", path, &[&format!("Origin: {origin}")]).await.unwrap()
}

fn said(answer: &Answer) -> Vec<(String, String)> {
    let headers =
        answer.message.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    let mut said: Vec<_> =
        headers.filter(|(name, _)| name.starts_with("access-control-") || name == "vary").collect();
    said.sort();
    said
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn preflights_of_allowed_origins_are_answered_by_the_sidecar() {
    let (origin, sidecar) = start().await;
    for from in ["https://a.test", "https://pr.b.test", "https://c.example"] {
        let answer = preflight(&sidecar, "/api/x", from).await;
        assert_eq!((answer.status(), answer.text().as_str(), answer.reason().as_str()), (200, "", ""));
        let want = [
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-headers", "content-type,agent-priority"),
            ("access-control-allow-methods", "GET,PUT"),
            ("access-control-allow-origin", from),
            ("access-control-max-age", "90"),
            ("vary", "Origin"),
        ];
        assert_eq!(said(&answer), pairs(&want), "{from}");
    }
    let answer = preflight(&sidecar, "/open", "https://anyone.test").await;
    assert_eq!(answer.header("access-control-allow-origin").as_deref(), Some("https://anyone.test"));
    assert_eq!(origin.requests().len(), 0, "the agent saw a preflight");
    assert_eq!(metric(&sidecar, "pilotfish_cors_preflights_total").await, 4);
}

#[tokio::test]
async fn preflights_of_other_origins_go_on_unless_the_rule_says_ignore() {
    let (origin, sidecar) = start().await;
    let forwarded = preflight(&sidecar, "/api", "https://evil.test").await;
    assert_eq!(forwarded.text(), "ok");
    assert_eq!(origin.requests().len(), 1);
    for from in ["https://evil.test", "https://a.test.evil", "null"] {
        let ignored = preflight(&sidecar, "/strict", from).await;
        assert_eq!((ignored.status(), said(&ignored)), (200, pairs(&[("vary", "Origin")])), "{from}");
    }
    assert_eq!(origin.requests().len(), 1);
    // What is no preflight is the agent's business, and so is one whose rule has no policy or asks for another method.
    let options = "OPTIONS /strict HTTP/1.1\r\nHost: s.test\r\nOrigin: https://evil.test\r\n\r\n";
    assert_eq!(H1::connect(sidecar.outbound).await.ask(options).await.unwrap().text(), "ok");
    assert_eq!(preflight(&sidecar, "/plain", "https://a.test").await.text(), "ok");
    assert_eq!(preflight(&sidecar, "/posts", "https://a.test").await.text(), "ok");
    assert_eq!(origin.requests().len(), 4);
}

#[tokio::test]
async fn answers_get_the_rules_word_in_place_of_the_agents() {
    let (_origin, sidecar) = start().await;
    let want = [
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-origin", "https://a.test"),
        ("access-control-expose-headers", "pilotfish-reason,x-total"),
        ("vary", "Accept"),
        ("vary", "Origin"),
    ];
    assert_eq!(said(&get(&sidecar, "/api", "https://a.test").await), pairs(&want));
    // The agent's word that credentials are welcome was for its own origin.
    let strict = said(&get(&sidecar, "/strict", "https://a.test").await);
    let want = [
        ("access-control-allow-origin", "https://a.test"),
        ("access-control-expose-headers", "x-own"),
        ("vary", "Accept"),
        ("vary", "Origin"),
    ];
    assert_eq!(strict, pairs(&want));
    let evil = get(&sidecar, "/strict", "https://evil.test").await;
    assert_eq!(evil.header("access-control-allow-origin").as_deref(), Some("https://own.test"));
    let plain = get(&sidecar, "/plain", "https://a.test").await;
    assert_eq!(plain.header("vary").as_deref(), Some("Accept"));
}

#[tokio::test]
async fn a_script_can_read_why_the_sidecar_refused() {
    let (_origin, sidecar) = start().await;
    let refused = get(&sidecar, "/gone", "https://a.test").await;
    assert_eq!((refused.status(), refused.reason().as_str()), (503, "no-cluster"));
    assert_eq!(refused.header("access-control-allow-origin").as_deref(), Some("https://a.test"));
    assert_eq!(refused.header("access-control-expose-headers").as_deref(), Some("pilotfish-reason"));
    let evil = get(&sidecar, "/gone", "https://evil.test").await;
    assert_eq!((evil.status(), said(&evil)), (503, pairs(&[("vary", "Origin")])));
    // Preflights count for nothing.
    assert_eq!(preflight(&sidecar, "/limited", "https://a.test").await.status(), 200);
    assert_eq!(get(&sidecar, "/limited", "https://a.test").await.status(), 200);
    let limited = get(&sidecar, "/limited", "https://a.test").await;
    assert_eq!((limited.status(), limited.reason().as_str()), (429, "rate-limited"));
    assert_eq!(limited.header("access-control-allow-origin").as_deref(), Some("https://a.test"));
    let fixed = get(&sidecar, "/fixed", "https://a.test").await;
    assert_eq!(fixed.status(), 418);
    assert_eq!(fixed.header("access-control-allow-origin").as_deref(), Some("https://a.test"));
}
