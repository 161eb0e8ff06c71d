//! Heads that are accepted and what they become; heads that are not, and with which class.

use super::*;
use crate::http::head::Form;

fn parse(text: &str) -> Result<Option<Request>, Bad> {
    request(text.as_bytes(), &Limits::default())
}

fn good(text: &str) -> Request {
    parse(text)
        .unwrap_or_else(|bad| panic!("{text:?}: {bad}"))
        .unwrap_or_else(|| panic!("{text:?} is incomplete"))
}

fn class(text: &str) -> BadClass {
    match parse(text) {
        Err(bad) => bad.class,
        Ok(parsed) => panic!("{text:?} was accepted: {parsed:?}"),
    }
}

fn written(parsed: &Request) -> String {
    let mut out = bytes::BytesMut::new();
    crate::http::h1::serialize::request(&mut out, &parsed.head, parsed.framing);
    String::from_utf8(out.to_vec()).unwrap()
}

#[test]
fn a_plain_request() {
    let text = "GET /a/b?c=d HTTP/1.1\r\nHost: agent.local:80\r\nAccept: */*\r\n\r\nrest";
    let parsed = good(text);
    assert_eq!(parsed.len, text.len() - 4);
    assert_eq!((parsed.framing, parsed.keep_alive), (Framing::None, true));
    assert_eq!((parsed.head.path(), parsed.head.query()), ("/a/b", Some("c=d")));
    assert_eq!((parsed.head.authority(), parsed.head.form()), ("agent.local:80", Form::Origin));
    assert_eq!(written(&parsed), "GET /a/b?c=d HTTP/1.1\r\nHost: agent.local:80\r\nAccept: */*\r\n\r\n");
}

#[test]
fn a_head_is_incomplete_at_every_cut() {
    let text = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
    for cut in 0..text.len() {
        assert!(matches!(parse(&text[..cut]), Ok(None)), "cut at {cut}");
    }
    assert_eq!(good(text).framing, Framing::Length(3));
}

#[test]
fn edits_of_target_and_authority() {
    let mut parsed = good("GET http://a/x?y HTTP/1.1\r\nHost: b\r\n\r\n");
    assert_eq!((parsed.head.authority(), parsed.head.headers.get("host")), ("a", Some(&b"a"[..])));
    assert!(
        parsed.head.set_authority("c:1") && parsed.head.set_path_and_query("/z?q#".trim_end_matches('#'))
    );
    assert!(!parsed.head.set_authority("c d") && !parsed.head.set_path_and_query("/a b"));
    assert!(!parsed.head.set_path_and_query("x") && !parsed.head.set_authority("a\r\nb"));
    assert_eq!((parsed.head.path(), parsed.head.query()), ("/z", Some("q")));
    assert_eq!(written(&parsed), "GET /z?q HTTP/1.1\r\nhost: c:1\r\n\r\n");
}

#[test]
fn no_edit_of_fields_changes_framing_or_connection() {
    let mut parsed = good("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n");
    parsed.head.headers.append("transfer-encoding", b"chunked");
    parsed.head.headers.append("content-length", b"5");
    parsed.head.headers.append("connection", b"close");
    assert_eq!(
        written(&parsed).matches("content-length").count()
            + written(&parsed).matches("Content-Length").count(),
        1
    );
    assert!(
        written(&parsed).contains("ontent-length: 3\r\n")
            || written(&parsed).contains("Content-Length: 3\r\n")
    );
    assert!(!written(&parsed).contains("chunked") && !written(&parsed).contains("close"));
    parsed.head.headers.remove("content-length");
    assert!(written(&parsed).ends_with("content-length: 3\r\n\r\n"));
}

#[test]
fn syntax_that_is_refused() {
    let heads = [
        // Line ends.
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\n\n",
        "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        "GET / HTTP/1.1\r\rHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\rX: b\r\n\r\n",
        // The request line.
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        "GET HTTP/1.1\r\nHost: a\r\n\r\n",
        "GE\u{7f}T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1,1\r\nHost: a\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
        "GET / HTTP/\r\nHost: a\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        // Names.
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost\t: a\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\u{e9}: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\"X\": b\r\n\r\n",
        // Values.
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\u{b}c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\u{7f}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n",
        // Host.
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
        // Content-Length.
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3 3\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\ncontent-length: 4\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 3\r\n\r\n",
        // Transfer-Encoding.
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    ];
    for head in heads {
        assert_eq!(class(head), BadClass::Syntax, "{head:?}");
    }
}

#[test]
fn other_classes() {
    for version in ["2.0", "0.9", "1.2", "3.0"] {
        assert_eq!(class(&format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n")), BadClass::Version);
    }
    for coding in ["gzip", "identity", "xchunked", "gzip, chunked"] {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n");
        assert_eq!(class(&head), BadClass::Coding, "{coding}");
    }
    assert_eq!(class("GET / HTTP/1.1\r\nHost: a\r\nExpect: a-miracle\r\n\r\n"), BadClass::Expectation);
    let limits = Limits::default();
    let long = "a".repeat(limits.max_request_line);
    assert_eq!(class(&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")), BadClass::TargetTooLong);
    assert_eq!(class(&format!("GET /{long}")), BadClass::TargetTooLong);
    let large = "a".repeat(limits.max_head);
    assert_eq!(class(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {large}\r\n\r\n")), BadClass::HeadTooLarge);
    assert_eq!(class(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {large}")), BadClass::HeadTooLarge);
    let many = "X: a\r\n".repeat(limits.max_fields);
    assert_eq!(class(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")), BadClass::HeadTooLarge);
}

#[test]
fn hop_by_hop_fields_stop_here() {
    let parsed = good(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Mine, Host, Authorization, X-Forwarded-For\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: close\r\nX-Mine: 1\r\nAuthorization: t\r\nX-Forwarded-For: 1\r\n\
         TE: gzip\r\nUpgrade: websocket\r\nHTTP2-Settings: x\r\n\r\n",
    );
    assert_eq!(
        written(&parsed),
        "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: t\r\nX-Forwarded-For: 1\r\n\r\n"
    );
}

#[test]
fn te_trailers_stays() {
    let parsed = good("GET / HTTP/1.1\r\nHost: a\r\nTE: gzip, trailers\r\nConnection: TE\r\n\r\n");
    assert_eq!(written(&parsed), "GET / HTTP/1.1\r\nHost: a\r\nte: trailers\r\nconnection: te\r\n\r\n");
}

#[test]
fn connection_persistence() {
    let keep = |head: &str| good(head).keep_alive;
    assert!(!keep("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: Close\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.0\r\nHost: a\r\n\r\n"));
    assert!(keep("GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n"));
}

#[test]
fn upgrades_that_may_be_forwarded() {
    let head = |upgrade: &str, rest: &str| {
        good(&format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Upgrade\r\nUpgrade: {upgrade}\r\n{rest}\r\n"
        ))
        .head
    };
    assert_eq!(head("websocket", "").upgrade(), Some(&b"websocket"[..]));
    for (upgrade, rest) in [
        ("h2c", ""),
        ("websocket, h2c", ""),
        ("TLS/1.2", ""),
        ("HTTP/2.0", ""),
        ("websocket", "Upgrade: other\r\n"),
        ("websocket", "Content-Length: 3\r\n"),
        ("websocket", "Transfer-Encoding: chunked\r\n"),
    ] {
        let head = head(upgrade, rest);
        assert_eq!((head.upgrade(), head.headers.contains("upgrade")), (None, false), "{upgrade} {rest}");
    }
    assert_eq!(good("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n").head.upgrade(), None);
}

#[test]
fn a_length_with_leading_zeros_is_rewritten() {
    let parsed = good("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 010\r\n\r\n");
    assert_eq!(parsed.framing, Framing::Length(10));
    assert!(written(&parsed).contains("content-length: 10\r\n"));
}

#[test]
fn a_post_without_a_body_says_so() {
    assert!(written(&good("POST / HTTP/1.1\r\nHost: a\r\n\r\n")).ends_with("content-length: 0\r\n\r\n"));
    assert!(!written(&good("GET / HTTP/1.1\r\nHost: a\r\n\r\n")).contains("content-length"));
}

fn answer(text: &str, method: &Method) -> Result<Option<Response>, Bad> {
    response(text.as_bytes(), &Limits::default(), method, false)
}

#[test]
fn answers() {
    let framing = |text: &str, method: &Method| answer(text, method).unwrap().unwrap().framing;
    let get = &Method::GET;
    assert_eq!(framing("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", get), Framing::Length(3));
    assert_eq!(framing("HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n", get), Framing::Streaming);
    assert_eq!(framing("HTTP/1.0 200 \r\n\r\n", get), Framing::UntilClose);
    assert_eq!(framing("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", get), Framing::None);
    assert_eq!(framing("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", get), Framing::None);
    assert_eq!(framing("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", &Method::HEAD), Framing::None);
    assert_eq!(framing("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", &Method::CONNECT), Framing::None);
    let odd = answer("HTTP/1.1 299 Rather Fine\r\nContent-Length: 0\r\n\r\n", get).unwrap().unwrap();
    assert_eq!((odd.head.phrase(), odd.keep_alive), (&b"Rather Fine"[..], true));
    let close =
        answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close, x-a\r\nX-A: 1\r\n\r\n", get);
    let close = close.unwrap().unwrap();
    assert!(!close.keep_alive && !close.head.headers.contains("x-a"));
    assert!(!answer("HTTP/1.1 200 OK\r\n\r\n", get).unwrap().unwrap().keep_alive);
}

#[test]
fn answers_that_are_refused() {
    for text in [
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 No\r\n\r\n",
        "HTTP/1.1 600 No\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 100 Continue\r\n\r\n",
        "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "SSH-2.0-x\r\n",
    ] {
        assert!(answer(text, &Method::GET).is_err(), "{text:?}");
    }
    let switching = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    assert!(
        response(switching, &Limits::default(), &Method::GET, true).is_err(),
        "101 without Connection: upgrade"
    );
}

#[test]
fn fuzz_requests_for_a_while() {
    crate::http::fuzzing::for_a_while("request_head", fuzz_request);
}

#[test]
fn fuzz_responses_for_a_while() {
    crate::http::fuzzing::for_a_while("response_head", fuzz_response);
}
