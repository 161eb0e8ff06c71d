//! A sidecar that starts its agent: what the agent is told, when it is ready, what becomes of it when either ends.

mod adoption;
mod agent;
mod ends;
mod mesh;
mod output;

use std::time::Duration;

use pilotfish_testkit::{H1, h1};

use agent::{Place, until};

#[tokio::test]
async fn an_agent_is_told_where_it_is_and_no_secret_of_its_sidecar() {
    let place = Place::new();
    let key = place.file("key");
    let builder = place
        .sidecar("serve")
        .env("PILOTFISH_TOKEN", "top-secret")
        .env("PILOTFISH_IDENTITY_KEY_HINT", &key)
        .env("TEST_OWN", "kept");
    let sidecar = builder.start();
    let pid = place.ready(&sidecar).await;
    let environment = place.environment(pid);
    let of = |name: &str| place.variable(pid, name);
    assert_eq!((of("HOST").as_str(), of("TEST_OWN").as_str()), ("127.0.0.1", "kept"));
    assert_eq!((of("PILOTFISH_AGENT").as_str(), of("PILOTFISH_NAMESPACE").as_str()), ("tester", "default"));
    assert_eq!(of("OTEL_SERVICE_NAME"), "tester");
    assert!(of("NO_PROXY").contains("127.0.0.1") && of("no_proxy") == of("NO_PROXY"));
    assert!(!environment.contains("top-secret") && !environment.contains(&key), "{environment}");
    let proxy = of("HTTP_PROXY");
    for name in ["HTTPS_PROXY", "http_proxy", "https_proxy"] {
        assert_eq!(of(name), proxy);
    }
    let (secret, address) =
        proxy.strip_prefix("http://agent:").and_then(|rest| rest.split_once('@')).expect("a secret");
    assert_eq!(address, sidecar.outbound.to_string());
    assert!(secret.len() >= 32 && !sidecar.stderr().join("\n").contains(secret));
    // The agent shows it; whoever does not is somebody else on this machine.
    let refused = h1::get(sidecar.outbound, "nowhere.test", "/", &[]).await.unwrap();
    assert_eq!(
        refused.header("pilotfish-reason").as_deref(),
        Some("local-secret-required"),
        "{}",
        refused.text()
    );
    let shown = format!("Proxy-Authorization: Bearer {secret}");
    let answer = h1::get(sidecar.outbound, "nowhere.test", "/", &[&shown]).await.unwrap();
    assert_ne!(answer.header("pilotfish-reason").as_deref(), Some("local-secret-required"));
}

#[tokio::test]
async fn nobody_is_sent_to_an_agent_before_its_probe_is_good() {
    let place = Place::new();
    let sidecar = place.sidecar("held,serve").start();
    place.state_is(|state| state["phase"] == "starting" && state["pid"].is_u64()).await;
    let ready = || h1::get(sidecar.admin, "x", "/ready", &[]);
    assert_eq!(ready().await.unwrap().status(), 503);
    place.release();
    place.ready(&sidecar).await;
    assert_eq!(ready().await.unwrap().status(), 200);
    let served = h1::get(sidecar.inbound, "tester", "/", &[]).await.unwrap();
    assert_eq!(served.json()["agent"], "agent", "{}", served.text());
    let page = h1::get(sidecar.admin, "x", "/metrics", &[]).await.unwrap().text();
    assert!(page.contains("pilotfish_agent_up 1"), "{page}");
}

#[tokio::test]
async fn what_it_uses_is_measured() {
    let place = Place::new();
    let sidecar = place.sidecar("serve").start();
    place.ready(&sidecar).await;
    let state =
        place.state_is(|state| state["usage"]["memory"].as_u64().is_some_and(|memory| memory > 0)).await;
    assert!(state["usage"]["memory"].as_u64().unwrap() > 1 << 20, "{state}");
    let page = h1::get(sidecar.admin, "x", "/metrics", &[]).await.unwrap().text();
    assert!(
        page.contains("pilotfish_agent_memory_bytes") && page.contains("pilotfish_agent_cpu_seconds_total")
    );
}

#[tokio::test]
async fn a_stop_lets_calls_finish_before_the_agent_hears_of_it() {
    let place = Place::new();
    let mut sidecar = place.sidecar("serve").start();
    place.ready(&sidecar).await;
    let mut client = H1::connect(sidecar.inbound).await;
    client.send("GET /delay/1200 HTTP/1.1\r\nHost: tester\r\n\r\n").await;
    until("the call is in flight", async || place.says("open 1")).await;
    sidecar.terminate();
    let answer = client.answer("GET").await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(sidecar.exit(Duration::from_secs(20)).await.is_some_and(|status| status.success()));
    // The agent says itself what it was doing when it heard: the answer may be here a moment before or after that.
    assert!(place.says("term with 0 open"), "{:?}", place.notes());
    assert_eq!(place.copies(), [0_u32; 0]);
    assert_eq!(place.state()["phase"], "gone");
}

#[tokio::test]
async fn signals_that_are_the_agents_go_to_it() {
    let place = Place::new();
    let sidecar = place.sidecar("serve").start();
    place.ready(&sidecar).await;
    for (signal, heard) in [("HUP", "hup"), ("USR1", "usr1"), ("USR2", "usr2")] {
        agent::signal(sidecar.pid(), signal);
        until(heard, async || place.says(heard)).await;
    }
    assert_eq!(place.copies().len(), 1);
}
