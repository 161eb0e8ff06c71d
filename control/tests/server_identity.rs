//! Identities from outside: joining, renewing, revoking, and every way to be refused.

use pilotfish_config::wire::{Failure, Join, Joined, ToSidecar};
use pilotfish_control::api::types::{AgentName, Done, NewToken, Token, TrustStatus, Version};
use pilotfish_identity::JoinToken;
use pilotfish_testkit::ca::{Ca, Issued, Leaf};

use crate::support::sidecar::{hello, join, joined, renew, request, token};
use crate::support::{Http, Serve, Stream};

fn named(namespace: &str, agent: &str) -> AgentName {
    AgentName { agent: agent.into(), namespace: namespace.into(), node: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_gives_one_identity() {
    let serve = Serve::start(&[]);
    let token = token(&serve, "production", "planner").await;
    let (reply, issued) = join(&serve, &token, "production", "planner").await;
    let first: Joined = reply.ok();
    assert_eq!(first.id, "spiffe://cluster.local/ns/production/agent/planner");
    assert!(first.bundles["cluster.local"].contains("BEGIN CERTIFICATE"));
    let mut sidecar = Http::tls(&serve, issued.as_ref()).await;
    let second: Joined = renew(&mut sidecar, "production", "planner").await.ok();
    assert_eq!(second.id, first.id);
    assert_ne!(second.chain, first.chain);
    // Whatever the request says, the name is the current certificate's.
    let other: Joined = renew(&mut sidecar, "other", "somebody").await.ok();
    assert_eq!(other.id, first.id);
    sidecar.get("/v1/status").await.refused(401);
    let said = serve.said(|line| line.contains("join token for")).await;
    assert!(!said.contains(&token), "{said}");
    assert!(!serve.stderr().join("\n").contains(&token));
}

/// Spent, another agent's, another namespace's, wrong, malformed, none: the same answer, so that nothing is learned.
#[tokio::test(flavor = "multi_thread")]
async fn every_bad_token_gets_the_same_answer() {
    let serve = Serve::start(&[]);
    let good = token(&serve, "default", "planner").await;
    let mut other = JoinToken::parse(&good).unwrap();
    other.secret[0] ^= 1;
    let altered = other.to_text().to_string();
    let (reply, _) = join(&serve, &altered, "default", "planner").await;
    let body = reply.body.clone();
    let sentence = reply.refused(403);
    assert!(sentence.contains("pilotfish token create"), "{sentence}");
    for (token, namespace, agent) in [
        (good.as_str(), "default", "thief"),
        (&good, "other", "planner"),
        ("", "default", "planner"),
        ("x.y", "a/b", ""),
    ] {
        let (reply, _) = join(&serve, token, namespace, agent).await;
        assert_eq!((reply.status.as_u16(), &reply.body), (403, &body), "{token} {namespace}/{agent}");
    }
    assert!(join(&serve, &good, "default", "planner").await.1.is_some(), "none of that spent it");
    let (again, _) = join(&serve, &good, "default", "planner").await;
    assert_eq!((again.status.as_u16(), &again.body), (403, &body), "replayed");
}

/// A node's token makes a node, an agent's an agent, and neither the other; a node that is revoked is none any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_has_an_identity_of_its_own() {
    let serve = Serve::start(&[]);
    let wanted =
        NewToken { agent: "gpu-7".into(), namespace: String::new(), ttl_seconds: 60, uses: 1, node: true };
    let token: Token = Http::socket(&serve).await.post("/v1/tokens", &wanted).await.ok();
    let as_agent = join(&serve, &token.token, "", "gpu-7").await.0;
    assert_eq!(as_agent.status, 403, "{}", as_agent.text());
    let own = request("of", "the-key");
    let asked = |token: &str| Join {
        token: token.into(),
        agent: "gpu-7".into(),
        namespace: String::new(),
        csr: own.csr_pem.clone(),
        node: true,
    };
    let of_agent = self::token(&serve, "default", "gpu-7").await;
    Http::tls(&serve, None).await.post("/v1/join", &asked(&of_agent)).await.refused(403);
    let joined: Joined = Http::tls(&serve, None).await.post("/v1/join", &asked(&token.token)).await.ok();
    assert_eq!(joined.id, "spiffe://cluster.local/ns/pilotfish-system/node/gpu-7");
    let issued = Issued { chain: joined.chain, key: own.key_pem.to_string() };
    let mut node = Http::tls(&serve, Some(&issued)).await;
    let again: Joined = renew(&mut node, "default", "gpu-7").await.ok();
    assert_eq!(again.id, joined.id);
    let name = AgentName { agent: "gpu-7".into(), namespace: String::new(), node: true };
    let done: Done = Http::socket(&serve).await.post("/v1/revoke", &name).await.ok();
    assert!(done.message.contains("/node/gpu-7"), "{}", done.message);
    Http::socket(&serve)
        .await
        .post("/v1/tokens", &NewToken { agent: "a/b".into(), ..wanted })
        .await
        .refused(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_costs_no_token() {
    let serve = Serve::start(&[]);
    let token = token(&serve, "default", "planner").await;
    for csr in ["", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"] {
        let asked = Join {
            token: token.clone(),
            agent: "planner".into(),
            namespace: "default".into(),
            csr: csr.into(),
            node: false,
        };
        Http::tls(&serve, None).await.post("/v1/join", &asked).await.refused(400);
    }
    assert!(join(&serve, &token, "default", "planner").await.1.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_join_tokens_is_slow() {
    let serve = Serve::start(&[]);
    let mut http = Http::tls(&serve, None).await;
    let csr = request("default", "planner").csr_pem;
    let asked = Join {
        token: "guess".into(),
        agent: "planner".into(),
        namespace: "default".into(),
        csr,
        node: false,
    };
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) && statuses.len() < 40 {
        let reply = http.post("/v1/join", &asked).await;
        if reply.status == 429 {
            assert!(reply.headers.contains_key("retry-after"));
            assert!(!reply.json::<Failure>().error.is_empty());
        }
        statuses.push(reply.status.as_u16());
    }
    assert_eq!(statuses.last(), Some(&429));
    assert!(statuses[..10].iter().all(|status| *status == 403), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_revoked_are_closed_and_stay_out() {
    let serve = Serve::start(&[]);
    let planner = joined(&serve, "default", "planner").await;
    let other = joined(&serve, "default", "other").await;
    let mut stream = Stream::welcomed(&serve, &planner, hello("default", "planner")).await;
    let mut kept = Http::tls(&serve, Some(&planner)).await;
    let _: Joined = renew(&mut kept, "default", "planner").await.ok();
    let mut admin = Http::socket(&serve).await;
    let _: Done = admin.post("/v1/revoke", &named("default", "planner")).await.ok();
    let mut last = None;
    while let Some(message) = stream.next().await {
        last = Some(message);
    }
    assert!(matches!(&last, Some(ToSidecar::Refused(why)) if why.reason.contains("revoked")), "{last:?}");
    let csr = pilotfish_config::wire::Renew { csr: request("default", "planner").csr_pem };
    match kept.try_ask("POST", "/v1/renew", serde_json::to_vec(&csr).unwrap()).await {
        Ok(reply) => drop(reply.refused(403)),
        Err(_closed) => {}
    }
    assert!(Http::try_tls(serve.listen, Some(&planner)).await.is_err(), "no new connection either");
    let _: Joined = renew(&mut Http::tls(&serve, Some(&other)).await, "default", "other").await.ok();
    let trust: TrustStatus = admin.get("/v1/trust").await.ok();
    assert_eq!(trust.revoked, ["spiffe://cluster.local/ns/default/agent/planner"]);
    let fresh = token(&serve, "default", "planner").await;
    let (reply, _) = join(&serve, &fresh, "default", "planner").await;
    assert!(reply.refused(403).contains("readmit"));
    let _: Done = admin.post("/v1/readmit", &named("default", "planner")).await.ok();
    let again = joined(&serve, "default", "planner").await;
    Stream::welcomed(&serve, &again, hello("default", "planner")).await;
}

/// Certificates that are wrong in any way end in the handshake.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_certificates_are_refused() {
    let serve = Serve::start(&[]);
    let another = Ca::new("cluster.local");
    let foreign = Ca::new("other.example");
    for issued in [
        another.issue(&Leaf::agent("cluster.local", "default", "planner")),
        foreign.issue(&Leaf::agent("other.example", "default", "planner")),
    ] {
        assert!(Http::try_tls(serve.listen, Some(&issued)).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_certificates_is_a_flag() {
    let serve = Serve::start(&["--leaf-ttl", "10s"]);
    let planner = joined(&serve, "default", "planner").await;
    let mut http = Http::tls(&serve, Some(&planner)).await;
    let renewed: Joined = renew(&mut http, "default", "planner").await.ok();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((now + 5..=now + 11).contains(&renewed.expires));
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_are_added_and_removed() {
    let serve = Serve::start(&[]);
    let mut admin = Http::socket(&serve).await;
    let before: TrustStatus = admin.get("/v1/trust").await.ok();
    assert_eq!(before.roots.len(), 1);
    let other = Ca::new("cluster.local");
    let pem = serde_json::json!({ "pem": other.root_pem() });
    let both: TrustStatus = admin.post("/v1/trust/roots", &pem).await.ok();
    assert_eq!(both.roots.len(), 2);
    let added = both.roots.iter().find(|root| root.fingerprint != before.roots[0].fingerprint).unwrap();
    let planner = other.issue(&Leaf::agent("cluster.local", "default", "planner"));
    let mut http = Http::tls(&serve, Some(&planner)).await;
    let _: Joined = renew(&mut http, "default", "planner").await.ok();
    let one: TrustStatus =
        admin.ask("DELETE", &format!("/v1/trust/roots/{}", added.fingerprint), "").await.ok();
    assert_eq!(one.roots.len(), 1);
    assert!(Http::try_tls(serve.listen, Some(&planner)).await.is_err(), "its root is not trusted any more");
    let own = &before.roots[0].fingerprint;
    admin.ask("DELETE", &format!("/v1/trust/roots/{own}"), "").await.refused(409);
    admin.ask("DELETE", "/v1/trust/roots/00112233", "").await.refused(404);
    admin.post("/v1/trust/roots", &serde_json::json!({ "pem": "x" })).await.refused(400);
}

/// An administrator's certificate is as good as a token; an agent's is not, whatever its name.
#[tokio::test(flavor = "multi_thread")]
async fn an_administrators_certificate_needs_no_token() {
    let serve = Serve::start(&[]);
    let ca = Ca::new("cluster.local");
    let mut admin = Http::socket(&serve).await;
    let _: TrustStatus =
        admin.post("/v1/trust/roots", &serde_json::json!({ "pem": ca.root_pem() })).await.ok();
    let issue = |path: &str| ca.issue(&Leaf::of(&format!("spiffe://cluster.local/{path}")));
    let alice = issue("ns/pilotfish-system/admin/alice");
    let _: Version = Http::tls(&serve, Some(&alice)).await.get("/v1/version").await.ok();
    for path in ["ns/pilotfish-system/agent/alice", "ns/default/admin/alice", "ns/pilotfish-system/admin/a/b"]
    {
        Http::tls(&serve, Some(&issue(path))).await.get("/v1/version").await.refused(401);
    }
    let mut stream = Http::tls(&serve, Some(&alice)).await;
    stream.ask("POST", "/v1/stream", "").await.refused(403);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_makes_an_administrators_certificate() {
    let serve = Serve::start(&[]);
    let out = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pilotfish"));
        command.args(args).env_clear();
        command.output().unwrap()
    };
    let (data, folder) = (serve.data(), out.path().to_str().unwrap());
    let create = ["admin", "create", "alice", "--out", folder, "--data", data.to_str().unwrap()];
    let made = run(&create);
    assert!(made.status.success(), "{made:?}");
    let (certificate, key) = (format!("{folder}/alice.pem"), format!("{folder}/alice.key"));
    let control = format!("https://{}", serve.listen);
    let root = data.join("ca/root.pem");
    let used = run(&[
        "history",
        "--control",
        &control,
        "--ca-file",
        root.to_str().unwrap(),
        "--client-cert",
        &certificate,
        "--client-key",
        &key,
    ]);
    assert!(used.status.success(), "{used:?}");
    let again = run(&create);
    assert!(
        !again.status.success() && String::from_utf8_lossy(&again.stderr).contains("alice.key"),
        "{again:?}"
    );
}
