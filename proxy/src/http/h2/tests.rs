//! The engine over real sockets, HTTP/2 on either side: the `h2` crate plays the client and the upstream.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::net::TcpStream;

use crate::http::limits::Limits;
use crate::http::testing::{Engine, Peer, engine, engine_to_h2, on_worker};

type Upstream = h2::server::Connection<TcpStream, Bytes>;

/// A client's connection to the engine, driven in the background.
async fn client(engine: &Engine) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(engine.address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(connection);
    send.ready().await.unwrap()
}

/// The engine's next connection, as an HTTP/2 server.
async fn upstream(engine: &Engine) -> Upstream {
    let (stream, _) = engine.upstream.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    h2::server::handshake(TcpStream::from_std(stream).unwrap()).await.unwrap()
}

async fn next(upstream: &mut Upstream) -> (Request<RecvStream>, SendResponse<Bytes>) {
    upstream.accept().await.unwrap().unwrap()
}

/// Drives the upstream while something else goes on.
async fn while_driving<T>(upstream: &mut Upstream, other: impl Future<Output = T>) -> T {
    let mut other = pin!(other);
    poll_fn(|cx| {
        let _ = upstream.poll_closed(cx);
        other.as_mut().poll(cx)
    })
    .await
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://a.test{path}")).body(()).unwrap()
}

async fn body(mut stream: RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut all = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    (all, stream.trailers().await.unwrap())
}

#[test]
fn a_request_becomes_http_1_and_its_answer_http_2() {
    let engine = engine(Limits::default());
    let (seen, peer) = on_worker(async {
        let mut send = client(&engine).await;
        let request = Request::post("http://a.test/x?y")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (response, mut stream) = send.send_request(request, false).unwrap();
        stream.send_data(Bytes::from_static(b"abc"), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        trailers.insert("content-length", "9".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let peer = tokio::task::spawn_blocking({
            let upstream = engine.upstream.try_clone().unwrap();
            move || {
                let mut peer = Peer::new(upstream.accept().unwrap().0);
                peer.expect(
                    "POST /x?y HTTP/1.1\r\nhost: a.test\r\ncookie: a=1; b=2\r\nte: trailers\r\n\
                     transfer-encoding: chunked\r\nconnection: te\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n",
                );
                peer.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
                peer.send("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n");
                peer.send("2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n");
                peer
            }
        });
        let response = response.await.unwrap();
        let (parts, stream) = response.into_parts();
        (((parts.status, parts.headers), body(stream).await), peer.await.unwrap())
    });
    let ((status, headers), (data, trailers)) = seen;
    assert_eq!((status, data.as_slice()), (StatusCode::OK, &b"ok"[..]));
    assert_eq!(headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x-a"]);
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
    assert_eq!(engine.end(), "Ok(false)");
    drop(peer);
}

#[test]
fn websocket_by_extended_connect_becomes_an_upgrade() {
    let engine = engine(Limits::default());
    let upstream = engine.upstream.try_clone().unwrap();
    on_worker(async {
        let mut send = client(&engine).await;
        // The settings that allow extended CONNECT must have come.
        while !send.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
        let mut request =
            Request::connect("http://a.test/chat").header("sec-websocket-version", "13").body(()).unwrap();
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        let (response, mut stream) = send.send_request(request.clone(), false).unwrap();
        stream.send_data(Bytes::from_static(b"early"), false).unwrap();
        let peer = tokio::task::spawn_blocking(move || {
            let mut peer = Peer::new(upstream.accept().unwrap().0);
            peer.expect("GET /chat HTTP/1.1\r\nhost: a.test\r\nsec-websocket-version: 13\r\nupgrade: websocket\r\nsec-websocket-key: ");
            let key = peer.take(24);
            assert!(key.ends_with("=="), "{key}");
            peer.expect("\r\nconnection: upgrade\r\n\r\n");
            peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello");
            peer.expect("early");
            peer.expect_end();
            peer.send("last");
            let mut second = Peer::new(upstream.accept().unwrap().0);
            second.expect("GET /chat HTTP/1.1\r\n").send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno");
            (peer, second)
        });
        let (parts, answer) = response.await.unwrap().into_parts();
        assert_eq!((parts.status, parts.headers.len()), (StatusCode::OK, 0), "{:?}", parts.headers);
        stream.send_data(Bytes::new(), true).unwrap();
        // A server that answers 200 instead of 101 grants nothing, and 200 would say so here.
        let (refused, _stream) = send.ready().await.unwrap().send_request(request, false).unwrap();
        assert_eq!(refused.await.unwrap().status(), StatusCode::BAD_GATEWAY);
        let (first, _) = peer.await.unwrap();
        drop(first);
        assert_eq!(body(answer).await.0, b"hellolast");
    });
}

#[test]
fn what_http_2_allows_and_http_1_would_read_otherwise_is_refused() {
    let engine = engine(Limits::default());
    on_worker(async {
        let mut send = client(&engine).await;
        let bad = |name: &'static str, value: &'static str| {
            Request::get("http://a.test/").header(name, value).body(()).unwrap()
        };
        let requests = [
            bad("host", "b.test"),
            bad("x", " a"),
            bad("x", "a\t"),
            bad("expect", "a-miracle"),
            Request::get("http://u@a.test/").body(()).unwrap(),
        ];
        for request in requests {
            let text = format!("{request:?}");
            send = send.ready().await.unwrap();
            let (response, _) = send.send_request(request, true).unwrap();
            let status = response.await.unwrap().status();
            assert!(matches!(status.as_u16(), 400 | 417), "{text}: {status}");
        }
    });
}

#[test]
fn a_stream_that_is_reset_at_once_goes_nowhere() {
    let engine = engine(Limits::default());
    on_worker(async {
        let mut send = client(&engine).await;
        for _ in 0..5 {
            let (_, mut stream) = send.send_request(get("/reset"), false).unwrap();
            stream.send_reset(Reason::CANCEL);
        }
        let (response, _) = send.ready().await.unwrap().send_request(get("/asked"), true).unwrap();
        let upstream = engine.upstream.try_clone().unwrap();
        let peer = tokio::task::spawn_blocking(move || {
            let mut peer = Peer::new(upstream.accept().unwrap().0);
            peer.expect("GET /asked HTTP/1.1\r\n").send("HTTP/1.1 204 No Content\r\n\r\n");
            peer
        });
        assert_eq!(response.await.unwrap().status(), StatusCode::NO_CONTENT);
        drop(peer.await.unwrap());
    });
}

#[test]
fn a_client_that_resets_cancels_the_upstream() {
    let engine = engine(Limits::default());
    on_worker(async {
        let mut send = client(&engine).await;
        let (_, mut stream) = send.send_request(get("/"), false).unwrap();
        let upstream = engine.upstream.try_clone().unwrap();
        let peer = tokio::task::spawn_blocking(move || {
            let mut peer = Peer::new(upstream.accept().unwrap().0);
            peer.expect("GET / HTTP/1.1\r\n");
            peer
        });
        let mut peer = peer.await.unwrap();
        stream.send_reset(Reason::CANCEL);
        tokio::task::spawn_blocking(move || {
            peer.expect("host: a.test\r\ntransfer-encoding: chunked\r\n\r\n").expect_end();
        })
        .await
        .unwrap();
    });
    assert_eq!(engine.end(), "Err(ClientGone)");
}

/// Asks by HTTP/1 over an engine that speaks HTTP/2 to its upstream, and lets `play` answer.
fn asked<F: Future<Output = Upstream>>(play: impl FnOnce(Upstream) -> F) -> (String, String) {
    let engine = engine_to_h2(Limits::default());
    let mut client = engine.client();
    client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc");
    on_worker(async {
        let mut upstream = play(upstream(&engine).await).await;
        let end = tokio::task::spawn_blocking(move || (engine.end(), client.rest()));
        while_driving(&mut upstream, end).await.unwrap()
    })
}

#[test]
fn an_http_2_upstream_answers() {
    let (end, answer) = asked(async |mut upstream| {
        let (request, mut respond) = next(&mut upstream).await;
        assert_eq!(
            (request.method().as_str(), request.uri().to_string().as_str()),
            ("POST", "http://a.test/x")
        );
        assert_eq!(request.headers()["content-length"], "3");
        let (data, _) = while_driving(&mut upstream, body(request.into_body())).await;
        assert_eq!(data, b"abc");
        let interim = Response::builder().status(103).header("link", "</x>").body(()).unwrap();
        respond.send_informational(interim).unwrap();
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
        upstream
    });
    assert_eq!(end, "Ok(false)");
    assert_eq!(
        answer,
        "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\
         connection: close\r\n\r\n5\r\nhello\r\n0\r\ngrpc-status: 0\r\n\r\n"
    );
}

#[test]
fn a_refused_stream_was_never_processed() {
    let (end, answer) = asked(async |mut upstream| {
        next(&mut upstream).await.1.send_reset(Reason::REFUSED_STREAM);
        upstream
    });
    assert_eq!(end, "Err(NotProcessed)");
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[test]
fn a_stream_that_was_reset_otherwise_may_have_been_processed() {
    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL] {
        let (end, _) = asked(async |mut upstream| {
            next(&mut upstream).await.1.send_reset(reason);
            upstream
        });
        assert_eq!(end, "Err(UpstreamReset)");
    }
}

#[test]
fn goaway_tells_which_streams_were_processed() {
    // abrupt_shutdown names the last stream that was accepted: this one, so it may have been processed.
    let (end, _) = asked(async |mut upstream| {
        let (_request, _respond) = next(&mut upstream).await;
        upstream.abrupt_shutdown(Reason::INTERNAL_ERROR);
        upstream
    });
    assert!(matches!(end.as_str(), "Err(UpstreamReset)" | "Err(UpstreamClosed)"), "{end}");
    // A frame by hand says that nothing was.
    let engine = engine_to_h2(Limits::default());
    let mut client = engine.client();
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let mut peer = engine.accept();
    peer.expect("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    peer.send("\0\0\0\u{4}\0\0\0\0\0").send("\0\0\u{8}\u{7}\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(engine.end(), "Err(NotProcessed)");
}

#[test]
fn an_upstream_that_speaks_http_1_is_told_apart() {
    let engine = engine_to_h2(Limits::default());
    let mut client = engine.client();
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    engine.accept().send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    client.expect("HTTP/1.1 502 Bad Gateway\r\n");
}
