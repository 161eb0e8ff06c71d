//! `pilotfish serve` from outside: start, end, and who may ask what.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::serve::{folder, start_to_fail};
use crate::support::{Http, Serve};
use pilotfish_control::api::types::Version;

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_makes_a_token_and_the_next_ones_keep_it() {
    let serve = Serve::start(&[]);
    let token = serve.token.clone().expect("the first start prints a token");
    let version: Version = Http::tls(&serve, None).await.bearer(&token).get("/v1/version").await.ok();
    assert_eq!((version.trust_domain.as_str(), version.documents), ("cluster.local", 0));
    let found = std::fs::read(serve.data().join("store.redb")).unwrap_or_default();
    assert!(!found.windows(token.len()).any(|part| part == token.as_bytes()), "kept as a hash only");
    let again = Serve::start_in(serve.kill(), &[]);
    assert_eq!(again.token, None);
    let same: Version = Http::tls(&again, None).await.bearer(&token).get("/v1/version").await.ok();
    assert_eq!(same.control, version.control, "its name is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_its_owners_and_used_by_one_process() {
    let serve = Serve::start(&[]);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&serve.data()), 0o700);
    assert_eq!(mode(&serve.socket), 0o600);
    let (status, text) = start_to_fail(&serve.data(), &[]);
    assert_eq!(status.code(), Some(1));
    assert!(
        text.contains("in use by another `pilotfish serve`") && text.contains(&serve.pid().to_string()),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn what_keeps_it_from_starting_is_one_sentence() {
    let folder = folder();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = folder.path().join("data");
    let (status, text) = start_to_fail(&data, &["--listen", &address]);
    assert_eq!((status.code(), text.lines().count()), (Some(1), 1), "{text}");
    assert!(text.contains(&address) && text.contains("--listen"), "{text}");
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (status, text) = start_to_fail(&file.join("data"), &[]);
    assert_eq!((status.code(), text.lines().count()), (Some(1), 1), "{text}");
    assert!(text.contains("cannot use the data folder"), "{text}");
    let (status, text) = start_to_fail(&data, &["--local", "0.0.0.0:0"]);
    assert_eq!(status.code(), Some(2), "{text}");
    assert!(text.contains("loopback"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_it_in_order() {
    let mut serve = Serve::start(&[]);
    let mut http = Http::socket(&serve).await;
    let _: Version = http.get("/v1/version").await.ok();
    serve.signal(Signal::TERM);
    assert_eq!(serve.ended().await.code(), Some(0));
    assert!(!serve.socket.exists(), "the socket's file is gone");
    assert!(http.try_ask("GET", "/v1/version", "").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_known_gets_nothing() {
    let serve = Serve::start(&[]);
    let token = serve.token.clone().unwrap();
    let wrong = format!("{}x", &token[..token.len() - 1]);
    for path in ["/v1/version", "/v1/status", "/v1/resources", "/v1/trust", "/v1/history"] {
        let plain = Http::tls(&serve, None).await.get(path).await;
        assert!(plain.refused(401).contains("administrator"), "{path}");
        assert_eq!(plain.headers["www-authenticate"], "Bearer");
        let other = Http::tls(&serve, None).await.bearer(&wrong).get(path).await;
        assert_eq!(other.body, plain.body, "{path}");
    }
    let mut twice = Http::tls(&serve, None).await.bearer(&token);
    twice.headers.append("authorization", "Bearer x".parse().unwrap());
    twice.get("/v1/version").await.refused(401);
    Http::tls(&serve, None).await.post("/v1/renew", &serde_json::json!({})).await.refused(403);
    Http::tls(&serve, None).await.ask("POST", "/v1/stream", "").await.refused(403);
    Http::socket(&serve).await.ask("POST", "/v1/stream", "").await.refused(403);
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_administrators_tokens_is_slow() {
    let serve = Serve::start(&[]);
    let mut guessing = Http::tls(&serve, None).await.bearer("pfadmin_guess");
    let mut limited = None;
    for _ in 0..30 {
        let reply = guessing.get("/v1/version").await;
        if reply.status == 429 {
            limited = Some(reply);
            break;
        }
        reply.refused(401);
    }
    let limited = limited.expect("a limit");
    assert!(limited.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    let _: Version = Http::socket(&serve).await.get("/v1/version").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_methods_and_bodies_are_bounded() {
    let serve = Serve::start(&[]);
    let mut http = Http::socket(&serve).await;
    http.get("/v2/version").await.refused(404);
    let wrong = http.ask("PUT", "/v1/version", "").await;
    wrong.refused(405);
    assert_eq!(wrong.headers["allow"], "GET");
    assert!(http.get("/v1/version?x=1").await.refused(400).contains("`x`"));
    assert!(http.ask("POST", "/v1/tokens", "{").await.refused(400).contains("not as expected"));
    Http::socket(&serve).await.ask("POST", "/v1/tokens", vec![b'a'; 65 << 10]).await.refused(413);
}

/// Connections that say nothing end by themselves, whatever they are silent about.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_ends() {
    use tokio::io::AsyncReadExt;
    let serve = Serve::start(&[]);
    let mut silent = tokio::net::TcpStream::connect(serve.listen).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), silent.read(&mut [0; 64])).await;
    assert_eq!(ended.expect("still open after a minute").unwrap_or(0), 0);
}
