//! The engine over real sockets, HTTP/1: a handler that forwards everything to a scripted upstream.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use http::StatusCode;

use super::*;
use crate::http::body::{Framing, Sink};
use crate::http::testing::{Forward, Peer, engine, on_worker};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn requests_follow_each_other_on_both_sides() {
    let engine = engine(Limits::default());
    let mut client = engine.client();
    client.send(GET);
    let mut upstream = engine.accept();
    for _ in 0..3 {
        upstream.expect(GET).send(OK);
        client.expect(OK).send(GET);
    }
    upstream.expect(GET).send(OK);
    client.expect(OK);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let engine = engine(Limits::default());
    let mut client = engine.client();
    client.send(&format!("\r\n{GET}{}", GET.replace('/', "/2").replacen("HTTP/2", "HTTP/", 1)));
    let mut upstream = engine.accept();
    upstream.expect(GET).send(OK);
    upstream
        .expect("GET /2 HTTP/1.1\r\n")
        .expect("Host: a\r\n\r\n")
        .send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    client.expect(OK).expect("HTTP/1.1 404 Not Found\r\n");
}

#[test]
fn a_chunked_body_is_passed_on_as_it_comes() {
    let engine = engine(Limits::default());
    let mut client = engine.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    let mut upstream = engine.accept();
    upstream.expect("POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    client.expect("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n");
    client.send("2;ext\r\nde\r\n0\r\n\r\n");
    upstream.expect("2\r\nde\r\n0\r\n\r\n").send("0\r\ngrpc-status: 0\r\n\r\n");
    client.expect("0\r\ngrpc-status: 0\r\n\r\n");
    assert_eq!(engine.end(), "Ok(false)");
    client.send(GET);
    upstream.expect(GET);
}

#[test]
fn bytes_behind_an_upgrade_that_is_refused_are_no_request() {
    let engine = engine(Limits::default());
    let mut client = engine.client();
    client.send(&format!(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n{GET}"
    ));
    let mut upstream = engine.accept();
    upstream
        .expect("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nconnection: upgrade\r\n\r\n")
        .send(OK);
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: close\r\n\r\nok").expect_end();
    upstream.expect_end();
}

#[test]
fn bytes_behind_an_upgrade_that_is_granted_go_through() {
    let engine = engine(Limits::default());
    let mut client = engine.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly");
    let mut upstream = engine.accept();
    upstream.expect("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nconnection: upgrade\r\n\r\n");
    upstream.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nfirst");
    client.expect("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nconnection: upgrade\r\n\r\nfirst");
    upstream.expect("early").send("second");
    client.expect("second");
    client.0.shutdown(std::net::Shutdown::Write).unwrap();
    upstream.expect_end();
    upstream.send("after the half-close");
    client.expect("after the half-close");
    drop(upstream);
    client.expect_end();
}

#[test]
fn continue_is_the_upstreams_to_give() {
    let engine = engine(Limits { continue_wait: Duration::from_secs(600), ..Limits::default() });
    let mut client = engine.client();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n";
    client.send(&format!("{head}Expect: 100-continue\r\n\r\n"));
    let mut upstream = engine.accept();
    upstream.expect(&format!("{head}expect: 100-continue\r\n\r\n"));
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
    client.expect("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").send("abc");
    upstream.expect("abc").send(OK);
    client.expect(OK).send(&format!("{head}Expect: 100-continue\r\n\r\n"));
    upstream.expect(&format!("{head}expect: 100-continue\r\n\r\n"));
    // Refused: the client may or may not send its body now, so nothing can follow on either connection.
    upstream.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    client
        .expect("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nconnection: close\r\n\r\n")
        .send("abc")
        .expect_end();
    upstream.expect_end();
}

#[test]
fn a_silent_upstream_does_not_hold_the_body_for_ever() {
    let engine = engine(Limits { continue_wait: Duration::from_millis(20), ..Limits::default() });
    let mut client = engine.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    client.expect("HTTP/1.1 100 Continue\r\n\r\n").send("abc");
    let mut upstream = engine.accept();
    upstream.expect("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nexpect: 100-continue\r\n\r\nabc");
    // A late 100 must not reach the client a second time.
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n").send(OK);
    client.expect(OK);
}

#[test]
fn an_early_answer_leaves_no_body_behind() {
    let engine = engine(Limits::default());
    let mut client = engine.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n");
    let mut upstream = engine.accept();
    upstream.expect("POST / HTTP/1.1\r\n").send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
    client.expect("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
    // What follows is the body, which is read and dropped, and only then the next request; on a new upstream connection.
    client.send("GET /smuggled HTTP/1.1\r\nHost: a\r\nX: 12\r\n").send(GET);
    engine.accept().expect(GET).send(OK);
    client.expect(OK);
}

#[test]
fn a_long_rest_of_a_body_closes_the_connection() {
    let engine = engine(Limits { max_drain: 1000, ..Limits::default() });
    let mut client = engine.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    let mut upstream = engine.accept();
    upstream.expect("POST / HTTP/1.1\r\n").send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
    client.expect("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
    client.send(&"x".repeat(2000)).expect_end();
}

#[test]
fn a_client_that_leaves_cancels_its_request() {
    let engine = engine(Limits::default());
    let mut client = engine.client();
    client.send(GET);
    let mut upstream = engine.accept();
    upstream.expect(GET);
    drop(client);
    assert_eq!(engine.end(), "Err(ClientGone)");
    upstream.expect_end();
}

#[test]
fn broken_answers() {
    let cases = [
        ("", "Err(UpstreamClosed)"),
        ("HTTP/1.1 2", "Err(UpstreamReset)"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "Err(UpstreamReset)"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "Err(UpstreamReset)"),
        ("HTTP/1.1 200 OK\r\n\r\nabc", "Ok(false)"),
    ];
    for (answer, end) in cases {
        let engine = engine(Limits::default());
        let mut client = engine.client();
        client.send(GET);
        engine.accept().expect(GET).send(answer);
        assert_eq!(engine.end(), end, "{answer:?}");
        let seen =
            client.0.set_read_timeout(Some(Duration::from_millis(200))).map(|()| client.rest()).unwrap();
        match end {
            "Err(UpstreamClosed)" => assert!(seen.starts_with("HTTP/1.1 502 "), "{seen}"),
            _ if answer == "HTTP/1.1 2" => assert!(seen.starts_with("HTTP/1.1 502 "), "{seen}"),
            "Ok(false)" => assert!(seen.ends_with("3\r\nabc\r\n0\r\n\r\n"), "{seen}"),
            _ => assert!(
                !seen.ends_with("0\r\n\r\n") && !seen.ends_with("abcde"),
                "{answer:?} looked whole: {seen}"
            ),
        }
    }
    let engine = engine(Limits::default());
    let mut client = engine.client();
    client.send(GET);
    engine.accept().expect(GET).send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n");
    client.expect("HTTP/1.1 502 Bad Gateway\r\n");
    assert!(engine.end().starts_with("Err(BadAnswer"));
}

#[test]
fn an_idle_upstream_connection_that_spoke_is_not_used() {
    let engine = engine(Limits::default());
    let mut client = engine.client();
    client.send(GET);
    let mut upstream = engine.accept();
    upstream.expect(GET).send(&format!("{OK}HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned"));
    client.expect(OK).send(GET);
    engine.accept().expect(GET).send(OK);
    client.expect(OK);
}

#[test]
fn refusals_close_and_arrive() {
    let engine = engine(Limits::default());
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("\u{16}\u{3}\u{1}\u{2}\0", 400),
        ("PRI * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", 505),
    ] {
        let mut client = engine.client();
        client.send(request).send(GET);
        let answer = client.rest();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
        assert!(
            answer.contains("connection: close\r\n") && answer.matches("HTTP/1.1").count() == 1,
            "{answer}"
        );
    }
}

#[test]
fn http_1_0_clients() {
    let engine = engine(Limits::default());
    let mut client = engine.client();
    client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    let mut upstream = engine.accept();
    upstream.expect(GET).send("HTTP/1.1 103 Early Hints\r\n\r\n").send(OK);
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: keep-alive\r\n\r\nok");
    client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    upstream.expect(GET).send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    client.expect("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok").expect_end();
}

#[test]
fn closing_ends_idle_connections_and_lets_busy_ones_finish() {
    let mut engine = engine(Limits::default());
    let (mut idle, mut fresh, mut busy) = (engine.client(), engine.client(), engine.client());
    idle.send(GET);
    let mut upstream = engine.accept();
    upstream.expect(GET).send(OK);
    idle.expect(OK);
    busy.send(GET);
    upstream.expect(GET);
    engine.close.take().unwrap().send(()).unwrap();
    idle.expect_end();
    fresh.expect_end();
    upstream.send(OK);
    busy.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: close\r\n\r\nok").expect_end();
}

#[test]
fn slow_heads_and_bodies_are_cut() {
    // Long enough for a test that stands still meanwhile.
    let short = Duration::from_millis(700);
    let engine = engine(Limits { head_timeout: short, body_timeout: short, ..Limits::default() });
    engine.client().expect_end();
    let mut client = engine.client();
    client.send("GET / HTTP/1.1\r\nHost:").expect("HTTP/1.1 408 Request Timeout\r\n");
    let mut client = engine.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na");
    client.expect("HTTP/1.1 408 Request Timeout\r\n");
    assert_eq!(engine.end(), "Err(BodyTimeout)");
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    let engine = engine(Limits { write_timeout: Duration::from_millis(50), ..Limits::default() });
    let mut client = engine.client();
    client.send(GET);
    let mut upstream = engine.accept();
    upstream.expect(GET);
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
    let chunk = vec![b'x'; 1 << 20];
    while upstream.0.write_all(&chunk).is_ok() {}
    assert_eq!(engine.end(), "Err(ClientGone)");
}

#[test]
fn large_bodies_pass_whole_in_both_directions() {
    let engine = engine(Limits::default());
    let body: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut client = engine.client();
    let sent = body.clone();
    let mut writer = client.0.try_clone().unwrap();
    let sender = thread::spawn(move || {
        writer
            .write_all(
                format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", sent.len()).as_bytes(),
            )
            .unwrap();
        writer.write_all(&sent).unwrap();
    });
    let mut upstream = engine.accept();
    upstream.expect("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n");
    let mut got = vec![0; body.len()];
    upstream.0.read_exact(&mut got).unwrap();
    assert!(got == body);
    sender.join().unwrap();
    let answer = thread::spawn(move || {
        upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for chunk in got.chunks(77_777) {
            upstream.send(&format!("{:x}\r\n", chunk.len()));
            upstream.0.write_all(chunk).unwrap();
            upstream.send("\r\n");
        }
        upstream.send("0\r\n\r\n");
        upstream
    });
    client.expect("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut seen = Vec::new();
    while seen.len() < body.len() {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            client.0.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        let start = seen.len();
        seen.resize(start + size, 0);
        client.0.read_exact(&mut seen[start..]).unwrap();
        client.expect("\r\n");
    }
    assert!(seen == body);
    client.expect("0\r\n\r\n");
    answer.join().unwrap();
}

#[test]
fn a_long_answer_with_a_length_passes_whole_and_the_connections_go_on() {
    let engine = engine(Limits::default());
    let body: Vec<u8> = (0..5_000_000u32).map(|i| (i % 253) as u8).collect();
    let mut client = engine.client();
    client.send(GET);
    let mut upstream = engine.accept();
    let answer = body.clone();
    let origin = thread::spawn(move || {
        for pause in [0, 1] {
            upstream.expect(GET).send("HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n");
            for chunk in answer.chunks(700_000) {
                upstream.0.write_all(chunk).unwrap();
                thread::sleep(Duration::from_millis(pause));
            }
        }
        upstream.expect(GET).send("HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n");
        upstream.0.write_all(&answer[..1_000_000]).unwrap();
    });
    for _ in 0..2 {
        client.expect("HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n");
        let mut got = vec![0; body.len()];
        client.0.read_exact(&mut got).unwrap();
        assert!(got == body);
        assert_eq!(engine.end(), "Ok(false)");
        client.send(GET);
    }
    // The third breaks off after a fifth: that is all that arrives, and the connection ends.
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n");
    let mut got = Vec::new();
    let _ = client.0.read_to_end(&mut got);
    assert!(got == body[..1_000_000], "{} bytes", got.len());
    assert_eq!(engine.end(), "Err(UpstreamReset)");
    origin.join().unwrap();
}

#[test]
fn an_answer_may_be_written_by_hand() {
    // What a stage does for a local answer: head and body in one write, then the connection goes on.
    struct Hello;
    impl Handler for Hello {
        async fn handle<'a>(&'a self, _: &'a ConnContext, head: RequestHead, mut down: Downstream<'a>) {
            let answer = ResponseHead::new(StatusCode::OK).with("x-path", head.path());
            down.respond(&answer, Framing::Length(5));
            down.push(Bytes::from_static(b"hello"));
            down.finish(None);
            let _ = poll_fn(|cx| down.poll_flush(cx)).await;
        }
        fn refuse(&self, _: &ConnContext, _: Bad) -> (ResponseHead, Bytes) {
            (ResponseHead::new(StatusCode::BAD_REQUEST), Bytes::new())
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        on_worker(async move {
            let (stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            let io = Io::tcp(tokio::net::TcpStream::from_std(stream).unwrap());
            serve(io, Rc::new(Limits::default()), Rc::new(Hello), Closing::new()).await;
        });
    });
    let mut client = Peer::new(TcpStream::connect(address).unwrap());
    client
        .send(&GET.replace("/ ", "/x "))
        .expect("HTTP/1.1 200 OK\r\nx-path: /x\r\ncontent-length: 5\r\n\r\nhello");
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").expect("HTTP/1.1 200 OK\r\nx-path: /\r\n");
}

#[test]
fn the_first_bytes_tell_the_protocol() {
    assert_eq!(opening(b""), None);
    assert_eq!(opening(b"P"), None);
    assert_eq!(opening(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"), None);
    assert_eq!(opening(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0"), Some(Opening::H2));
    assert_eq!(opening(b"G"), Some(Opening::H1));
    assert_eq!(opening(b"PUT "), Some(Opening::H1));
    assert_eq!(opening(b"PRI * HTTP/1.1\r\n"), Some(Opening::H1));
}

#[test]
fn an_idle_connection_is_small() {
    let limits = Rc::new(Limits::default());
    let (ends, _) = mpsc::channel();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let handler = Rc::new(Forward { to, limits: limits.clone(), idle: RefCell::default(), h2: None, ends });
    let future = serve(Io::Gone, limits.clone(), handler, Closing::new());
    let size = std::mem::size_of_val(&future);
    assert!(size < 1536, "{size} bytes");
}
