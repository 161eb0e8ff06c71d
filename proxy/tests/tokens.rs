//! Tokens of callers (RequestAuthentication), from outside: what passes, what is refused, what the agent and the logs get of it.

mod attacks;
mod remote;
mod several;

use pilotfish_testkit::origin::Origin;
use pilotfish_testkit::tokens::{Signer, key_set, now};
use pilotfish_testkit::{Sidecar, h1};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{sidecar, wait_metric};

/// A RequestAuthentication with one rule: its lines as YAML, indented by nothing.
pub fn policy(rule: &str) -> String {
    let lines: String = rule.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: users}}\nspec:\n  jwtRules:\n  - # One.\n{lines}---\n"
    )
}

/// Claims that are good for an hour, with these members besides or instead.
pub fn claims(members: Value) -> Value {
    let mut claims = json!({"iss": "https://issuer.test", "sub": "alice", "aud": "us", "exp": now() + 3600});
    for (name, value) in members.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

/// The usual rule, with the keys of `signers` in it.
pub fn inline<'s>(signers: impl IntoIterator<Item = &'s Signer>, more: &str) -> String {
    policy(&format!("issuer: https://issuer.test\naudiences: [us]\njwks: '{}'\n{more}", key_set(signers)))
}

/// A GET from the mesh's side with this token.
pub async fn call(sidecar: &Sidecar, token: &str) -> h1::Answer {
    h1::get(sidecar.inbound, "tester", "/", &[&format!("authorization: Bearer {token}")]).await.unwrap()
}

/// Fails unless the answer is a refusal for its token, as RFC 6750 says; gives its detail.
pub fn refused(answer: &h1::Answer) -> String {
    assert_eq!((answer.status(), answer.reason().as_str()), (401, "unauthenticated"), "{}", answer.text());
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(challenge.starts_with("Bearer realm=\"tester\""), "{challenge}");
    answer.json()["detail"].as_str().unwrap().to_owned()
}

/// `/config` on the Unix socket.
pub async fn config(sidecar: &Sidecar) -> Value {
    serde_json::from_str(&admin(sidecar, "/config").await).unwrap()
}

/// An answer on the Unix socket.
async fn admin(sidecar: &Sidecar, target: &str) -> String {
    let mut stream = tokio::net::UnixStream::connect(&sidecar.admin_socket).await.unwrap();
    let head = format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test]
async fn a_good_token_says_who_calls_and_goes_no_further() {
    let (agent, signer) = (Origin::plain().await, Signer::new("ES256", "k1"));
    let more = "fromHeaders: [{name: Authorization, prefix: 'Bearer '}, {name: X-Jwt}]\nfromParams: [access_token]\n\
                fromCookies: [session]\noutputPayloadToHeader: X-Payload\n\
                outputClaimToHeaders: [{header: X-User, claim: sub}, {header: X-Team, claim: org.team}]";
    let sidecar = sidecar().yaml("a.yaml", inline([&signer], more)).app(agent.addr()).start();
    let token = signer.token(&claims(json!({"org": {"team": "blue"}})));
    let payload = token.split('.').nth(1).unwrap().to_owned();
    let bearer = format!("authorization: Bearer {token}");
    let cookie = format!("cookie: a=1; session={token}; b=2");
    let own = format!("x-jwt: {token}");
    let both = format!("/p?x=1&access_token={token}&y=2");
    let only = format!("/p?access_token={token}");
    for (target, headers, wanted) in [
        ("/p?x=1", vec![bearer.as_str(), "x-user: root"], "/p?x=1"),
        ("/p", vec![own.as_str()], "/p"),
        (&both, vec![], "/p?x=1&y=2"),
        (&only, vec![], "/p"),
        (&only, vec![bearer.as_str()], "/p"),
        ("/p", vec![cookie.as_str()], "/p"),
        ("/p", vec!["cookie: a=1", &cookie[..cookie.len() - "; b=2".len()], "cookie: b=2"], "/p"),
    ] {
        let answer = h1::get(sidecar.inbound, "tester", target, &headers).await.unwrap();
        assert_eq!(answer.status(), 200, "{target} {headers:?} {}", answer.text());
        let seen = agent.requests().pop().unwrap();
        assert_eq!(seen.target(), wanted);
        assert_eq!(seen.header("x-user").as_deref(), Some("alice"));
        assert_eq!(seen.header("x-team").as_deref(), Some("blue"));
        assert_eq!(seen.header("x-payload").as_ref(), Some(&payload));
        let cookies = seen.header("cookie").unwrap_or_default();
        assert!(
            cookies.is_empty() || cookies.replace(",", ";").contains("a=1") && cookies.contains("b=2"),
            "{cookies}"
        );
        // Not even elsewhere: nothing that the agent got has the token in it.
        let all = agent.connections().concat();
        assert!(!String::from_utf8_lossy(&all).contains(&token), "{target} {headers:?}");
        agent.forget();
    }
    wait_metric(&sidecar, "pilotfish_tokens_total{result=\"good\"}", 7).await;
    assert_eq!(
        crate::support::metric(&sidecar, "pilotfish_token_checks_total").await,
        1,
        "it was known from then on"
    );
}

#[tokio::test]
async fn the_token_goes_on_when_the_rule_says_so() {
    let (agent, signer) = (Origin::plain().await, Signer::new("EdDSA", "k1"));
    let sidecar =
        sidecar().yaml("a.yaml", inline([&signer], "forwardOriginalToken: true")).app(agent.addr()).start();
    let token = signer.token(&claims(json!({})));
    assert_eq!(call(&sidecar, &token).await.status(), 200);
    assert_eq!(agent.requests()[0].header("authorization"), Some(format!("Bearer {token}")));
}

#[tokio::test]
async fn without_a_token_a_call_goes_on_and_cannot_say_what_a_token_would() {
    let (agent, signer) = (Origin::plain().await, Signer::new("ES384", "k1"));
    let more = "outputPayloadToHeader: x-payload\noutputClaimToHeaders: [{header: x-user, claim: sub}, {header: x-mail, claim: mail}]";
    let sidecar = sidecar().yaml("a.yaml", inline([&signer], more)).app(agent.addr()).start();
    let forged = [
        "X-User: root",
        "x-mail: root@x",
        "X-PAYLOAD: e30",
        "x-user: root",
        "X_User: root",
        "authorization: Basic cm9vdA==",
    ];
    let answer = h1::get(sidecar.inbound, "tester", "/", &forged).await.unwrap();
    assert_eq!(answer.status(), 200);
    let seen = agent.requests().pop().unwrap();
    for name in ["x-user", "x_user", "x-mail", "x-payload"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("authorization").as_deref(), Some("Basic cm9vdA=="), "not a token of a rule");
    // A claim that the token does not have is not the caller's to give either.
    let bearer = format!("authorization: Bearer {}", signer.token(&claims(json!({}))));
    h1::get(sidecar.inbound, "tester", "/", &[&bearer, forged[0], forged[1]]).await.unwrap();
    let seen = agent.requests().pop().unwrap();
    assert_eq!((seen.header("x-user").as_deref(), seen.header("x-mail")), (Some("alice"), None));
}

#[tokio::test]
async fn a_rule_may_want_a_token() {
    let (agent, signer) = (Origin::plain().await, Signer::new("ES256", "k1"));
    let sidecar = sidecar().yaml("a.yaml", inline([&signer], "presence: REQUIRED")).app(agent.addr()).start();
    let answer = h1::get(sidecar.inbound, "tester", "/", &[]).await.unwrap();
    assert!(refused(&answer).contains("required"));
    assert_eq!(answer.header("www-authenticate").as_deref(), Some("Bearer realm=\"tester\""));
    assert_eq!(call(&sidecar, &signer.token(&claims(json!({})))).await.status(), 200);
    // A caller that speaks gRPC is told in its way.
    let answer = h1::get(sidecar.inbound, "tester", "/", &["content-type: application/grpc"]).await.unwrap();
    assert_eq!((answer.status(), answer.header("grpc-status").as_deref()), (200, Some("16")));
    assert_eq!(agent.requests().len(), 1);
}

#[tokio::test]
async fn a_policy_is_for_the_workloads_that_it_names() {
    let (agent, signer) = (Origin::plain().await, Signer::new("ES256", "k1"));
    let yaml = inline([&signer], "presence: REQUIRED");
    let with = |more: &str| yaml.replace("spec:\n", &format!("spec:\n  {more}\n"));
    let elsewhere = yaml.replace("{name: users}", "{name: users, namespace: other}");
    let root = yaml.replace("{name: users}", "{name: users, namespace: pilotfish-system}");
    let service = "targetRefs: [{kind: Service, group: '', name: tester}]";
    for (yaml, status) in [
        (with("selector: {matchLabels: {app: tester}}"), 401),
        (with("selector: {matchLabels: {app: others}}"), 200),
        (with(service), 401),
        (with(&service.replace("tester", "others")), 200),
        (elsewhere, 200),
        (root, 401),
    ] {
        let sidecar = sidecar().yaml("a.yaml", &yaml).app(agent.addr()).start();
        let answer = h1::get(sidecar.inbound, "tester", "/", &[]).await.unwrap();
        assert_eq!(answer.status(), status, "{yaml}");
    }
}

#[tokio::test]
async fn a_token_is_never_told() {
    let (agent, signer) = (Origin::plain().await, Signer::new("ES256", "k1"));
    let yaml = inline(
        [&signer],
        "fromHeaders: [{name: x-pass}, {name: authorization, prefix: 'Bearer '}]\nfromParams: [pass]",
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let args =
        ["--access-log", "text", "--access-log-fields", "all", "--access-log-file", file.to_str().unwrap()];
    let sidecar = sidecar().yaml("a.yaml", yaml).app(agent.addr()).args(&args).start();
    let good = signer.token(&claims(json!({})));
    let bad = signer.token(&claims(json!({"aud": "them"})));
    for token in [&good, &bad] {
        let headers = [
            format!("x-pass: {token}"),
            format!("authorization: Bearer {token}"),
            "x-request-id: seen".into(),
        ];
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let answer = h1::get(sidecar.inbound, "tester", &format!("/?pass={token}"), &headers).await.unwrap();
        assert!(!answer.text().contains(&token[..20]));
        assert!(!answer.header("www-authenticate").unwrap_or_default().contains(&token[..20]));
    }
    wait_metric(&sidecar, "pilotfish_tokens_total{result=\"audience\"}", 1).await;
    let mut told = config(&sidecar).await.to_string();
    let before = told.len();
    for turn in 0.. {
        assert!(turn < 500, "{}", &told[before..]);
        told.truncate(before);
        told += &admin(&sidecar, "/why?request=seen").await;
        if told[before..].contains("unauthenticated") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for _ in 0..500 {
        if std::fs::read_to_string(&file).unwrap_or_default().lines().count() >= 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let log = std::fs::read_to_string(&file).unwrap();
    assert_eq!(log.lines().count(), 2, "{log}");
    told += &log;
    told += &sidecar.stderr().join("\n");
    for part in good.split('.').chain(bad.split('.')) {
        assert!(!told.contains(part), "{told}");
    }
}

#[tokio::test]
async fn policies_decide_by_what_a_token_says() {
    let (agent, signer) = (Origin::plain().await, Signer::new("ES256", "k1"));
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: readers}\nspec:\n  rules:\n  - from: \
                  [{source: {requestPrincipals: ['https://issuer.test/*']}}]\n    when:\n    - {key: 'request.auth.claims[scope]', \
                  values: [read]}\n    - {key: 'request.auth.claims[org][team]', values: [blue]}\n    - {key: request.auth.presenter, \
                  values: [app]}\n    - {key: request.auth.audiences, values: [us]}\n---\n";
    let sidecar = sidecar().yaml("a.yaml", inline([&signer], "") + policy).app(agent.addr()).start();
    let good = json!({"scope": "write read", "org": {"team": "blue"}, "azp": "app", "aud": ["us", "them"]});
    assert_eq!(call(&sidecar, &signer.token(&claims(good.clone()))).await.status(), 200);
    for (name, value) in
        [("scope", json!("reading")), ("org", json!({"team": "red"})), ("azp", json!("other"))]
    {
        let mut other = good.clone();
        other[name] = value;
        let answer = call(&sidecar, &signer.token(&claims(other))).await;
        assert_eq!((answer.status(), answer.reason().as_str()), (403, "access-denied"), "{name}");
    }
    // Who has no subject has no principal; who has no token has nothing.
    let mut nobody = claims(good);
    nobody.as_object_mut().unwrap().remove("sub");
    assert_eq!(call(&sidecar, &signer.token(&nobody)).await.status(), 403);
    assert_eq!(h1::get(sidecar.inbound, "tester", "/", &[]).await.unwrap().status(), 403);
}
