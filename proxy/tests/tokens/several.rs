//! Several issuers: rules that want a token of their own (`presence: REQUIRED`), and tokens at the places of others.

use pilotfish_testkit::origin::Origin;
use pilotfish_testkit::tokens::{Signer, key_set};
use pilotfish_testkit::{Sidecar, h1};
use serde_json::json;

use super::{claims, policy, refused};
use crate::support::{metric, sidecar};

/// A rule for tokens of `issuer` in a header, in a policy of its own.
fn rule(name: &str, issuer: &str, signer: &Signer, header: &str, more: &str) -> String {
    let keys = key_set([signer]);
    policy(&format!(
        "issuer: https://{issuer}.test\njwks: '{keys}'\nfromHeaders: [{{name: {header}}}]\n{more}"
    ))
    .replace("name: users", &format!("name: {name}"))
}

fn token(signer: &Signer, issuer: &str, subject: &str) -> String {
    signer.token(&claims(json!({"iss": format!("https://{issuer}.test"), "sub": subject})))
}

async fn get(sidecar: &Sidecar, headers: &[(&str, &str)]) -> h1::Answer {
    let lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    h1::get(sidecar.inbound, "tester", "/", &lines).await.unwrap()
}

#[tokio::test]
async fn each_rule_that_wants_a_token_gets_its_own() {
    let agent = Origin::plain().await;
    let (who, scope, third) =
        (Signer::new("EdDSA", "w"), Signer::new("ES256", "s"), Signer::new("ES256", "t"));
    let required = |claim: &str| {
        format!(
            "presence: REQUIRED\noutputClaimToHeaders: [{{header: x-{claim}, claim: sub}}, {{header: x-sub, claim: sub}}]"
        )
    };
    // By the name of its policy the one that says who calls comes first; the optional one before it changes nothing.
    let yaml = rule("a-third", "third", &third, "x-third", "")
        + &rule("b-who", "who", &who, "x-who-token", &required("who"))
        + &rule("c-scope", "scope", &scope, "x-scope-token", &required("scope"))
        + "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {rules: [{from: [{source: \
           {requestPrincipals: ['https://who.test/*']}}]}]}\n";
    let sidecar = sidecar().yaml("a.yaml", yaml).app(agent.addr()).start();
    let (who, scope, third) =
        (token(&who, "who", "alice"), token(&scope, "scope", "read"), token(&third, "third", "x"));
    let bad = format!("{}x", &third[..third.len() - 1]);
    let (who, scope) = (("x-who-token", who.as_str()), ("x-scope-token", scope.as_str()));
    for (headers, status) in [
        (vec![], 401),
        (vec![who], 401),
        (vec![scope], 401),
        (vec![("x-third", third.as_str())], 401),
        (vec![("x-third", third.as_str()), who], 401),
        (vec![("x-scope-token", who.1), ("x-who-token", scope.1)], 401),
        (vec![who, scope, ("x-third", bad.as_str())], 401),
        (vec![who, scope], 200),
        (vec![scope, who], 200),
        (vec![who, scope, ("x-third", third.as_str())], 200),
    ] {
        let answer = get(&sidecar, &headers).await;
        assert_eq!(answer.status(), status, "{headers:?}: {}", answer.text());
        if status == 401 {
            refused(&answer);
        }
    }
    assert_eq!(agent.requests().len(), 3);
    for seen in agent.requests() {
        for (name, value) in [("x-who", "alice"), ("x-scope", "read"), ("x-sub", "alice")] {
            assert_eq!(seen.header(name).as_deref(), Some(value), "what two rules write is the first one's");
        }
        for name in ["x-who-token", "x-scope-token", "x-third"] {
            assert_eq!(seen.header(name), None, "{name}");
        }
    }
    let checks = metric(&sidecar, "pilotfish_token_checks_total").await;
    assert!(checks <= 6, "a token that is known is not checked again: {checks}");
}

#[tokio::test]
async fn one_token_may_be_what_two_rules_want() {
    let (agent, signer) = (Origin::plain().await, Signer::new("EdDSA", "k"));
    let yaml = rule("mesh", "one", &signer, "x-token", "presence: REQUIRED")
        .replace("name: mesh", "name: mesh, namespace: pilotfish-system")
        + &rule("own", "one", &signer, "x-token", "presence: REQUIRED\nforwardOriginalToken: true");
    let sidecar = sidecar().yaml("a.yaml", yaml).app(agent.addr()).start();
    let good = token(&signer, "one", "alice");
    for _ in 0..2 {
        assert_eq!(get(&sidecar, &[("x-token", &good)]).await.status(), 200);
    }
    refused(&get(&sidecar, &[("authorization", &format!("Bearer {good}"))]).await);
}

#[tokio::test]
async fn a_token_that_is_known_is_known_where_its_rule_looks() {
    let (agent, ours, theirs) = (Origin::plain().await, Signer::new("EdDSA", "k"), Signer::new("EdDSA", "k"));
    let yaml = rule("a", "ours", &ours, "x-ours", "") + &rule("b", "theirs", &theirs, "x-theirs", "");
    let sidecar = sidecar().yaml("a.yaml", yaml).app(agent.addr()).start();
    let (first, second) = (token(&ours, "ours", "alice"), token(&ours, "ours", "bob"));
    for (header, token, status) in [
        ("x-ours", &first, 200),
        ("x-theirs", &first, 401),
        ("x-ours", &first, 200),
        ("x-theirs", &second, 401),
        ("x-ours", &second, 200),
    ] {
        assert_eq!(get(&sidecar, &[(header, token)]).await.status(), status, "{header}");
    }
}
