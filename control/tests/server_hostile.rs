//! Peers that mean harm, before anybody knows who they are.

use std::time::Duration;

use pilotfish_control::api::types::Version;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::http::handshake;
use crate::support::{Http, Serve};

/// For what comes at once, on a machine that does much else.
const SOON: Duration = Duration::from_secs(30);

/// What a raw request over TLS is answered with, to the end of the connection.
async fn raw(serve: &Serve, bytes: &[u8]) -> String {
    let mut stream = handshake(serve.listen, None, &[b"http/1.1"]).await.unwrap();
    // The answer may come, and the connection end, before all of it is written.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(SOON, read).await.expect("no end");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_are_bounded() {
    let serve = Serve::start(&[]);
    let long = format!("GET /v1/version HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(40 << 10));
    assert!(raw(&serve, long.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many = format!("GET /v1/version HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(200));
    assert!(raw(&serve, many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    assert!(raw(&serve, b"\x00\xff\x00garbage\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let mut two = Http::tls(&serve, None).await.with("x", &"a".repeat(20 << 10));
    let refused = two.try_ask("GET", "/v1/version", "").await;
    assert!(refused.is_err() || refused.unwrap().status == 431);
}

/// A body that is announced too long is refused before it is sent, and before anybody is asked who they are.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_bounded_before_they_come() {
    let serve = Serve::start(&[]);
    let head =
        "POST /v1/join HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 99999999999\r\n\r\n{";
    assert!(raw(&serve, head.as_bytes()).await.starts_with("HTTP/1.1 413"));
    let chunk = format!("{:x}\r\n{}\r\n", 32 << 10, "a".repeat(32 << 10));
    let chunked = format!(
        "POST /v1/join HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{}",
        chunk.repeat(3)
    );
    assert!(raw(&serve, chunked.as_bytes()).await.starts_with("HTTP/1.1 413"));
    let unknown =
        "POST /v1/apply HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1000000\r\n\r\n";
    assert!(raw(&serve, unknown.as_bytes()).await.starts_with("HTTP/1.1 401"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_tls13_is_spoken() {
    let serve = Serve::start(&[]);
    let mut plain = TcpStream::connect(serve.listen).await.unwrap();
    plain.write_all(b"GET /v1/version HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.windows(4).any(|part| part == b"HTTP"));
    // A ClientHello of TLS 1.2: no supported_versions.
    let mut hello = vec![0x03, 0x03];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let mut message = vec![1, 0, 0, u8::try_from(hello.len()).unwrap()];
    message.extend(hello);
    let mut record = vec![0x16, 3, 1, 0, u8::try_from(message.len()).unwrap()];
    record.extend(message);
    let mut old = TcpStream::connect(serve.listen).await.unwrap();
    old.write_all(&record).await.unwrap();
    let mut answer = Vec::new();
    let _ = old.read_to_end(&mut answer).await;
    assert_eq!(answer.first(), Some(&0x15), "an alert: {answer:?}");
}

/// One address cannot keep others out, nor fill the memory, by opening connections.
#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_so_many_places() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let serve = Serve::start(&[]);
    let before = serve.memory();
    let mut all = Vec::new();
    for _ in 0..1200 {
        all.push(TcpStream::connect(serve.listen).await.unwrap());
    }
    let is_closed = async |stream: &mut TcpStream, time: Duration| {
        let read = tokio::time::timeout(time, stream.read(&mut [0; 1])).await;
        matches!(read, Ok(Ok(0) | Err(_)))
    };
    assert!(is_closed(all.last_mut().unwrap(), SOON).await, "the last one got a place");
    assert!(!is_closed(all.first_mut().unwrap(), Duration::from_millis(100)).await, "the first one got none");
    let held = all;
    assert!(serve.memory().saturating_sub(before) < 64 << 20);
    let _: Version = Http::socket(&serve).await.get("/v1/version").await.ok();
    drop(held);
    let token = serve.token.clone().unwrap();
    let until = tokio::time::Instant::now() + SOON;
    loop {
        if let Ok(http) = Http::try_tls(serve.listen, None).await {
            let _: Version = http.bearer(&token).get("/v1/version").await.ok();
            break;
        }
        assert!(tokio::time::Instant::now() < until, "the places did not come back");
    }
}
