//! Several requests on one connection, sent or smuggled.

use super::{Row, row};

const SECOND: &str = "GET /second HTTP/1.1\r\nHost: {h}\r\n\r\n";

fn first(name: &'static str, first: &str) -> Row {
    row(name, format!("{first}{SECOND}"))
}

pub fn rows() -> Vec<Row> {
    let get = "GET / HTTP/1.1\r\nHost: {h}\r\n\r\n";
    let inside = "GET /smuggled HTTP/1.1\r\nHost: {h}\r\n\r\n";
    // `{h}` may be up to 9 bytes long when it is replaced, so lengths around it are written for a fixed host.
    let fixed = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let two = |r: Row| r.answers(&[200, 200]).origin(2);
    let second_bad = |r: Row| r.answers(&[200, 400]).closed().origin(1);
    vec![
        two(first("two GETs", get)).check(|seen, answers| {
            let (last, text) = (seen[1].target() == "/second", answers[1].text());
            if last && text == "seen GET /second" { Ok(()) } else { Err("out of order".into()) }
        }),
        row("ten GETs", get.repeat(10)).answers(&[200; 10]).origin(10),
        two(first("POST, then GET", "POST / HTTP/1.1\r\nHost: {h}\r\nContent-Length: 5\r\n\r\nhello")),
        two(first(
            "POST in chunks, then GET",
            "POST / HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        )),
        two(first("HEAD, then GET", "HEAD / HTTP/1.1\r\nHost: {h}\r\n\r\n")),
        two(first("an empty line between", "GET / HTTP/1.1\r\nHost: {h}\r\n\r\n\r\n")),
        two(first(
            "Expect, then GET",
            "POST / HTTP/1.1\r\nHost: {h}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        )),
        first("close, then GET", "GET / HTTP/1.1\r\nHost: {h}\r\nConnection: close\r\n\r\n").closed(),
        first("HTTP/1.0, then GET", "GET / HTTP/1.0\r\nHost: {h}\r\n\r\n").closed(),
        first("a refusal, then GET", "GET / HTTP/1.1\r\nHost: {h}\r\nA : b\r\n\r\n").bad(),
        second_bad(row("GET, then garbage", format!("{get}\x01\x02\x03\r\n\r\n"))),
        second_bad(row("GET, then a conflict", {
            format!(
                "{get}POST / HTTP/1.1\r\nHost: {{h}}\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inside}"
            )
        })),
        second_bad(row(
            "GET, then two hosts",
            format!("{get}GET /smuggled HTTP/1.1\r\nHost: {{h}}\r\nHost: x\r\n\r\n"),
        )),
        second_bad(row("content after length zero", {
            "POST / HTTP/1.1\r\nHost: {h}\r\nContent-Length: 0\r\n\r\n0\r\n\r\n"
        })),
        second_bad(row("content longer than its length", {
            "POST / HTTP/1.1\r\nHost: {h}\r\nContent-Length: 3\r\n\r\nhello\r\n\r\n"
        })),
        second_bad(row("content without any length", "POST / HTTP/1.1\r\nHost: {h}\r\n\r\na=b\r\n\r\n")),
        row(
            "a request as content",
            format!("POST / HTTP/1.1\r\nHost: {{h}}\r\nContent-Length: {}\r\n\r\n{fixed}", fixed.len()),
        ),
        row(
            "a request as the content of a GET",
            format!("GET / HTTP/1.1\r\nHost: {{h}}\r\nContent-Length: {}\r\n\r\n{fixed}", fixed.len()),
        ),
        row(
            "a request in a header's value",
            "GET / HTTP/1.1\r\nHost: {h}\r\nA: GET /smuggled HTTP/1.1\r\n\r\n",
        ),
        row("a request in the target, encoded", {
            "GET /%0d%0a%0d%0aGET%20/x%20HTTP/1.1 HTTP/1.1\r\nHost: {h}\r\n\r\n"
        }),
        row("chunks that end early, then GET", {
            format!("POST / HTTP/1.1\r\nHost: {{h}}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SECOND}")
        })
        .answers(&[200, 200])
        .origin(2),
        row(
            "a body of 1 MB, then GET",
            format!(
                "POST / HTTP/1.1\r\nHost: {{h}}\r\nContent-Length: 1000000\r\n\r\n{}{SECOND}",
                "x".repeat(1_000_000)
            ),
        )
        .answers(&[200, 200])
        .origin(2),
    ]
}
