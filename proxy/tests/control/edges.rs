//! The control plane is told whom the agent calls.

use super::*;

#[tokio::test]
async fn calls_to_another_agent_are_told_once() {
    let control = Control::start(DOMAIN).await;
    let (agent, state) = (Agent::start("a").await, tempfile::tempdir().unwrap());
    let (sidecar, mut link) = serving(&control, state.path(), "w.test", &agent).await;
    for _ in 0..3 {
        assert_eq!(call(&sidecar, "w.test").await, 200);
    }
    assert_ne!(call(&sidecar, "nobody.test").await, 200);
    // One report may come between two calls.
    let (mut calls, mut in_buckets) = (0, 0);
    while calls < 3 {
        let beat =
            link.wait("heartbeat", |beat| beat["edges"].as_array().is_some_and(|e| !e.is_empty())).await;
        let edges = beat["edges"].as_array().unwrap();
        assert_eq!(edges.len(), 1, "{beat}");
        assert_eq!(
            (edges[0]["to"].as_str(), edges[0]["errors"].as_u64()),
            (Some("w.test"), Some(0)),
            "{beat}"
        );
        calls += edges[0]["calls"].as_u64().unwrap();
        in_buckets +=
            edges[0]["buckets"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>();
    }
    assert_eq!((calls, in_buckets), (3, 3));
}
