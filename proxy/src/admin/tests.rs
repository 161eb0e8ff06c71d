//! What is answered on which surface, and to what kind of bytes.

use super::*;
use crate::server::Shared;
use clap::Parser;

fn shared() -> Arc<Shared> {
    let settings =
        Settings::try_parse_from(["pilotfish-proxy", "--config", "/none", "--agent", "nlp"]).unwrap();
    Shared::new(settings).unwrap().0
}

async fn ask(shared: &Arc<Shared>, surface: Surface, method: &str, path: &str) -> Answer {
    let asked = Asked { method: method.into(), path: path.into(), accept: String::new() };
    answer(shared.clone(), surface, asked).await
}

#[tokio::test]
async fn tcp_shows_nothing_that_is_not_for_everyone() {
    let shared = shared();
    for path in ["/config", "/why?host=nlp", "/drain", "/config?x", "/", "//config", "/metrics/../config"] {
        for method in ["GET", "POST"] {
            let answer = ask(&shared, Surface::Anyone, method, path).await;
            assert_eq!(answer.status, 404, "{method} {path}");
            assert!(!answer.body.contains("nlp"), "{method} {path} tells the agent's name");
        }
    }
    assert_eq!(shared.drain.phase(), Phase::Serving);
}

#[tokio::test]
async fn ready_fails_from_the_first_moment_of_a_drain_and_live_does_not() {
    let shared = shared();
    assert_eq!(ask(&shared, Surface::Anyone, "GET", "/ready").await.status, 200);
    shared.drain.advance(Phase::Unready);
    assert_eq!(ask(&shared, Surface::Anyone, "GET", "/ready").await.status, 503);
    assert_eq!(ask(&shared, Surface::Anyone, "GET", "/live").await.status, 200);
}

#[tokio::test]
async fn only_a_post_on_the_owners_surface_drains() {
    let shared = shared();
    assert_eq!(ask(&shared, Surface::Owner, "GET", "/drain").await.status, 405);
    assert_eq!(ask(&shared, Surface::Owner, "POST", "/drain").await.status, 202);
    shared.drain.requested().await;
}

#[tokio::test]
async fn config_is_json_that_names_agent_and_version() {
    let body = ask(&shared(), Surface::Owner, "GET", "/config").await.body;
    let value: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(value["agent"], "nlp");
    assert_eq!(value["snapshot"]["version"], 0);
    assert_eq!(value["last_reload"]["rejected_total"], 0);
}

#[tokio::test]
async fn why_answers_with_the_refusal_that_a_request_would_get() {
    let answer = ask(&shared(), Surface::Owner, "GET", "/why?host=nobody").await;
    let value: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(
        (answer.status, value["refused"].as_str(), value["status"].as_u64()),
        (200, Some("no-route"), Some(404))
    );
}

#[tokio::test]
async fn head_gets_the_length_and_no_body() {
    let text =
        responder::exchange_bytes(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n", |_| Answer::text(200, "abc")).await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("content-length: 3\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn bytes_that_are_no_request_get_400_and_large_heads_end() {
    let ok = |_: Asked| Answer::text(200, "");
    assert!(responder::exchange_bytes(b"\x16\x03\x01\x02\r\n\r\n", ok).await.starts_with("HTTP/1.1 400 "));
    let large = format!("GET / HTTP/1.1\r\nx: {}", "a".repeat(9000));
    assert!(responder::exchange_bytes(large.as_bytes(), ok).await.starts_with("HTTP/1.1 400 "));
}

#[test]
fn the_socket_is_private_replaces_a_stale_one_and_nothing_else() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let first = bind_private(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        bind_private(&path).unwrap_err().kind(),
        io::ErrorKind::AddrInUse,
        "a living socket was taken over"
    );
    drop(first);
    let second = bind_private(&path).unwrap();
    drop(second);
    let file = dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(bind_private(&file).is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}
