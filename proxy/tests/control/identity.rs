//! Joining, being refused, and keeping an identity.

use super::*;
use pilotfish_testkit::Nobody;
use pilotfish_testkit::control::{control_id, sha256};
use std::os::unix::fs::PermissionsExt;

#[tokio::test]
async fn a_token_gives_an_identity_and_the_hello_says_who_it_is() {
    let control = Control::start(DOMAIN).await;
    let (agent, state) = (Agent::start("a").await, tempfile::tempdir().unwrap());
    let flags = ["--capability", "nlu@1.2", "--label", "tier=gold", "--locality", "eu/west"];
    let app = Agent::start("app").await;
    let launched = member(&control, state.path()).app(app.addr()).args(&flags).launch();
    let mut link = control.link().await;
    let join = &control.joins()[0];
    assert_eq!((&join["agent"], &join["namespace"]), (&json!("caller"), &json!("default")));
    assert!(
        join["csr"].as_str().unwrap().contains("CERTIFICATE REQUEST")
            && !join.to_string().contains("PRIVATE")
    );
    let hello = link.hello.clone();
    assert_eq!((&hello["agent"], &hello["type"]), (&json!("caller"), &json!("hello")));
    assert_eq!(hello["capabilities"], json!(["nlu@1.2"]));
    assert_eq!((&hello["labels"]["tier"], &hello["locality"]), (&json!("gold"), &json!("eu/west")));
    assert_eq!(hello["instance"].as_str().unwrap().len(), 32);
    assert!(hello["certificate_expires"].as_u64().unwrap() > 1_700_000_000);
    assert!(hello["resume"].is_null());
    first(&mut link, "w.test", agent.addr().port()).await;
    let sidecar = launched.ready().await;
    assert_eq!(hello["address"], json!(sidecar.inbound.to_string()));
    assert_eq!(call(&sidecar, "w.test").await, 200);
    let mode = |name: &str| std::fs::metadata(state.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("identity.json")), (0o700, 0o600));
    let beat = link.wait("heartbeat", |beat| beat["status"] == "ready").await;
    assert_eq!(beat["in_flight"], 0);
}

#[tokio::test]
async fn a_refused_join_ends_the_process_with_3_and_one_line() {
    let control = Control::start(DOMAIN).await;
    let state = tempfile::tempdir().unwrap();
    let token = control.token();
    let with = |state: &Path| offline(&control, state).args(&["--token", &token]);
    let first = with(state.path()).launch();
    control.link().await;
    drop(first);
    // The token is spent now; another folder has no identity.
    let other = tempfile::tempdir().unwrap();
    let (status, said) = with(other.path()).launch().exit().await;
    assert_eq!(status.code(), Some(3), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("refuses the join") && said.contains("not valid"), "{said}");
    assert!(!said.contains(&token), "a token is never shown");
}

#[tokio::test]
async fn a_control_plane_with_another_root_gets_no_token() {
    let control = Control::start(DOMAIN).await;
    let state = tempfile::tempdir().unwrap();
    let token = control.token_with_root(&sha256(b"another root"));
    let (status, said) = offline(&control, state.path()).args(&["--token", &token]).launch().exit().await;
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains("the token was not sent"), "{said}");
    assert!(control.joins().is_empty(), "the token was sent");
    // The flag wins over the token.
    let root = sha256(&control.ca.root_der());
    let flags = ["--token", &token, "--ca-fingerprint", &root];
    let _launched = offline(&control, state.path()).args(&flags).launch();
    control.link().await;
}

#[tokio::test]
async fn an_agent_of_the_mesh_is_no_control_plane() {
    let real = Control::start(DOMAIN).await;
    let agent = format!("spiffe://{DOMAIN}/ns/default/agent/evil");
    let evil = Control::at(Nobody::new(), DOMAIN, real.ca.clone(), &agent).await;
    let state = tempfile::tempdir().unwrap();
    let (status, said) = member(&evil, state.path()).launch().exit().await;
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains("is no control plane") && evil.joins().is_empty(), "{said}");
}

#[tokio::test]
async fn a_join_waits_for_a_control_plane_that_is_away() {
    let control = Control::start(DOMAIN).await;
    let state = tempfile::tempdir().unwrap();
    let (token, root) = (control.token(), control.ca.root_der());
    assert!(token.ends_with(&sha256(&root)));
    let builder = offline(&control, state.path()).args(&["--token", &token]);
    let (place, ca) = control.kill().await;
    let launched = builder.launch();
    launched.said(|line| line.contains("the control plane is away")).await;
    let control = Control::at(place, DOMAIN, ca, &control_id(DOMAIN)).await;
    // It does not know the token, which shows that it was asked.
    let (status, _) = launched.exit().await;
    assert_eq!(status.code(), Some(3));
    assert_eq!(control.joins().len(), 1);
}

#[tokio::test]
async fn the_state_of_another_agent_is_not_used() {
    let control = Control::start(DOMAIN).await;
    let state = tempfile::tempdir().unwrap();
    let launched = member(&control, state.path()).launch();
    control.link().await;
    drop(launched);
    let (status, said) = offline(&control, state.path()).agent("other").launch().exit().await;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains("agent/caller") && said.contains("default/other") && said.contains("--state-dir"),
        "{said}"
    );
    let empty = tempfile::tempdir().unwrap();
    let (status, said) = offline(&control, empty.path()).launch().exit().await;
    assert!(status.code() == Some(1) && said.contains("pilotfish token create"), "{said}");
}

#[tokio::test]
async fn a_certificate_is_renewed_while_the_stream_goes_on() {
    let control = Control::start(DOMAIN).await;
    let (agent, state) = (Agent::start("a").await, tempfile::tempdir().unwrap());
    control.sign_for(6);
    let (sidecar, mut link) = serving(&control, state.path(), "w.test", &agent).await;
    let before = link.hello["certificate_expires"].as_u64().unwrap();
    control.sign_for(3600);
    let beat =
        link.wait("heartbeat", |beat| beat["certificate_expires"].as_u64() > Some(before + 1000)).await;
    assert_eq!(beat["status"], "ready");
    assert_ne!(control.renewals()[0]["csr"], control.joins()[0]["csr"], "a new key each time");
    assert_eq!(call(&sidecar, "w.test").await, 200);
    assert_eq!(control.joins().len(), 1);
}

#[tokio::test]
async fn revoked_peers_and_bundles_are_taken_from_updates() {
    let control = Control::start(DOMAIN).await;
    let (agent, state) = (Agent::start("a").await, tempfile::tempdir().unwrap());
    let (_sidecar, mut link) = serving(&control, state.path(), "w.test", &agent).await;
    let revoked = format!("spiffe://{DOMAIN}/ns/default/agent/evil");
    let bundles = json!({ DOMAIN: control.ca.root_pem() });
    let trust = json!({ "bundles": bundles, "revoked": [revoked] });
    link.update(2, json!({ "full": false, "trust": trust })).await;
    link.state(|state| state["accepted"] == 2).await;
    let broken = json!({ "bundles": { DOMAIN: "no certificate" }, "revoked": [] });
    link.update(3, json!({ "full": false, "trust": broken })).await;
    let state = link.state(|state| !state["refused"].is_null()).await;
    assert_eq!((&state["accepted"], &state["refused"]["version"]), (&json!(2), &json!(3)));
    assert!(state["refused"]["reasons"][0].as_str().unwrap().contains("trust"), "{state}");
}
