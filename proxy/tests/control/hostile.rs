//! What a control plane must not be able to do by what it sends: stop a sidecar, or make it forget what serves.

use super::*;

/// Bytes after the welcome, and what the log says of them.
fn rows() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let frame = |text: &[u8]| [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat();
    vec![
        ("garbage", frame(b"\x00\xff garbage"), "not a message"),
        ("no JSON object", frame(b"[1,2]"), "not a message"),
        ("an update without a version", frame(br#"{"type":"update","full":true}"#), "not a message"),
        ("too long", 0xffff_ffff_u32.to_be_bytes().to_vec(), "too long"),
        ("deep", frame("[".repeat(100_000).as_bytes()), "not a message"),
        ("empty", frame(b""), "not a message"),
        ("a second welcome", frame(br#"{"type":"welcome","versions":{"major":1,"minor":0,"build":""},"control":"","trust_domain":"","lease_ms":1,"heartbeat_ms":1}"#), "second welcome"),
    ]
}

#[tokio::test]
async fn bad_frames_close_the_stream_and_nothing_else() {
    let control = Control::start(DOMAIN).await;
    let (agent, state) = (Agent::start("a").await, tempfile::tempdir().unwrap());
    let (sidecar, mut link) = serving(&control, state.path(), "w.test", &agent).await;
    link.state(|state| state["serving"] == 1).await;
    for (what, bytes, said) in rows() {
        link.send_bytes(&bytes).await;
        assert!(link.ends(Duration::from_secs(5)).await, "the stream goes on after: {what}");
        until_said(&sidecar, said).await;
        assert_eq!(call(&sidecar, "w.test").await, 200, "{what}");
        link = control.link().await;
        assert_eq!(link.hello["resume"]["version"], 1, "{what}");
        link.welcome().await;
    }
    // Truncated: the stream ends within a frame.
    link.send_bytes(&[0, 0, 1, 0, b'{']).await;
    link.finish();
    until_said(&sidecar, "within a frame").await;
    let mut link = control.link().await;
    link.welcome().await;
    link.send(&json!({ "type": "of-a-later-version", "x": 1 })).await;
    link.update(2, json!({ "full": false, "documents": [service("x.test", 1)], "later": true })).await;
    link.state(|state| state["serving"] == 2).await;
}

#[tokio::test]
async fn an_unknown_major_version_and_a_delta_without_a_base_are_not_taken() {
    let control = Control::start(DOMAIN).await;
    let state = tempfile::tempdir().unwrap();
    let launched = member(&control, state.path()).launch();
    let mut link = control.link().await;
    link.send(&json!({
        "type": "welcome", "versions": { "major": 2, "minor": 0, "build": "9" },
        "control": "c", "trust_domain": "d", "lease_ms": 1000, "heartbeat_ms": 300,
    }))
    .await;
    assert!(link.ends(Duration::from_secs(5)).await);
    launched.said(|line| line.contains("version 2 of the protocol")).await;
    let mut link = control.link().await;
    link.welcome().await;
    link.update(5, json!({ "full": false })).await;
    assert!(link.ends(Duration::from_secs(5)).await);
    launched.said(|line| line.contains("not a full one")).await;
}

#[tokio::test]
async fn a_sidecar_that_is_refused_goes_on_serving_and_says_so() {
    let control = Control::start(DOMAIN).await;
    let (agent, state) = (Agent::start("a").await, tempfile::tempdir().unwrap());
    let (sidecar, mut link) = serving(&control, state.path(), "w.test", &agent).await;
    link.send(&json!({ "type": "refused", "reason": "who are you?", "retry": false })).await;
    assert!(link.ends(Duration::from_secs(5)).await);
    assert!(until_said(&sidecar, "who are you?").await.starts_with("error"));
    assert_eq!(call(&sidecar, "w.test").await, 200);
    // It does not come back at once.
    assert!(tokio::time::timeout(Duration::from_secs(2), control.link()).await.is_err());
}

#[tokio::test]
async fn a_refused_stream_names_its_reason() {
    let control = Control::start(DOMAIN).await;
    control.refuse_streams(true);
    let state = tempfile::tempdir().unwrap();
    let launched = member(&control, state.path()).launch();
    launched.said(|line| line.contains("this sidecar is not known")).await;
}
