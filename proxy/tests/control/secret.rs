//! The local agent's secret on the outbound listener; no control plane is needed for it.

use super::*;
use pilotfish_testkit::Origin;

const SECRET: &str = "a-secret-of-the-local-agent";

#[tokio::test]
async fn without_the_secret_nobody_calls_and_upstream_never_sees_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let origin = Origin::plain().await;
    let sidecar = support::sidecar()
        .yaml("w.yaml", support::service("w.test", origin.port()))
        .yaml("h1.yaml", support::h1_upstreams("w.test"))
        .args(&["--local-secret-file", file.to_str().unwrap()])
        .start();
    // base64("agent:a-secret-of-the-local-agent")
    let basic = "proxy-authorization: Basic YWdlbnQ6YS1zZWNyZXQtb2YtdGhlLWxvY2FsLWFnZW50";
    let bearer = format!("proxy-authorization: Bearer {SECRET}");
    for good in [basic, bearer.as_str()] {
        let answer = h1::get(sidecar.outbound, "w.test", "/", &[good]).await.unwrap();
        assert_eq!(answer.status(), 200, "{good}: {}", answer.text());
    }
    let mut h2 = pilotfish_testkit::H2::open(sidecar.outbound, &[]).await;
    let bearer = format!("Bearer {SECRET}");
    for (stream, more, status) in
        [(1, &[("proxy-authorization", bearer.as_str())][..], "200"), (3, &[], "407")]
    {
        let outcome = h2.get(stream, "w.test", "/", more).await;
        assert!(format!("{outcome:?}").contains(status), "{outcome:?}");
    }
    let wrong = [
        "x-a: b",
        "proxy-authorization: Bearer a-secret-of-the-local-agenx",
        "authorization: Bearer a-secret-of-the-local-agent",
    ];
    for wrong in wrong {
        for target in ["/", "http://w.test/"] {
            let answer = h1::get(sidecar.outbound, "w.test", target, &[wrong]).await.unwrap();
            assert_eq!(answer.status(), 407, "{wrong}");
            assert_eq!(answer.header("pilotfish-reason").as_deref(), Some("local-secret-required"));
            assert!(answer.header("proxy-authenticate").is_some() && !answer.text().contains(SECRET));
        }
    }
    let seen = origin.connections().concat();
    let seen = String::from_utf8_lossy(&seen).to_ascii_lowercase();
    assert_eq!(seen.matches("get / http/1.1").count(), 3, "refused calls went upstream: {seen}");
    assert!(!seen.contains("proxy-authorization"), "{seen}");
}

#[tokio::test]
async fn a_secret_that_is_too_short_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, "short").unwrap();
    let flags = ["--local-secret-file", file.to_str().unwrap()];
    let (status, said) = support::sidecar().args(&flags).launch().exit().await;
    assert!(status.code() == Some(1) && said.contains("at least 16") && !said.contains("short\n"), "{said}");
}
