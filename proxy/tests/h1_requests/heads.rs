//! Sizes, hop-by-hop headers, Expect and what the proxy adds: RFC 9110 sections 7 and 10.

use pilotfish_testkit::h1::Answer;
use pilotfish_testkit::strict::Message;

use super::{Row, row};

fn lines(name: &'static str, lines: impl AsRef<str>) -> Row {
    row(name, format!("GET / HTTP/1.1\r\nHost: {{h}}\r\n{}\r\n\r\n", lines.as_ref()))
}

pub fn rows() -> Vec<Row> {
    let mut rows = sizes();
    rows.extend(hops());
    rows.extend(expect());
    rows.extend(old());
    rows
}

fn sizes() -> Vec<Row> {
    let big = |n: usize| format!("A: {}", "b".repeat(n));
    let many = |n: usize| (0..n).map(|i| format!("H{i}: v")).collect::<Vec<_>>().join("\r\n");
    vec![
        lines("header of 8 kB", big(8_000)),
        lines("header of 60 kB", big(60_000)).check(|seen, _| {
            let length = seen[0].header("a").map_or(0, |v| v.len());
            if length == 60_000 { Ok(()) } else { Err(format!("{length} bytes arrived")) }
        }),
        lines("header over 64 KiB", big(66_000)).refused(431),
        lines("header of 1 MB", big(1_000_000)).refused(431),
        lines("headers over 64 KiB in all", vec![big(1000); 70].join("\r\n")).refused(431),
        lines("90 headers", many(90)),
        lines("20,000 headers", many(20_000)).refused(431),
        lines("name of 1000 bytes", format!("{}: b", "a".repeat(1000))),
        lines("name of 40 kB", format!("{}: b", "a".repeat(40_000))).bad().or(431),
        row("target of 8 kB", format!("GET /{} HTTP/1.1\r\nHost: {{h}}\r\n\r\n", "a".repeat(8_000))),
        row("target over 64 KiB", format!("GET /{} HTTP/1.1\r\nHost: {{h}}\r\n\r\n", "a".repeat(70_000)))
            .refused(414)
            .or(431),
        row("method of 100 kB", format!("{} / HTTP/1.1\r\nHost: {{h}}\r\n\r\n", "A".repeat(100_000)))
            .bad()
            .or(414)
            .or(431),
        row("endless request line", "A".repeat(200_000)).bad().or(414).or(431),
    ]
}

/// None of these headers reached the origin.
fn without(seen: &[Message], names: &[&str]) -> Result<(), String> {
    names.iter().find_map(|n| seen[0].header(n)).map_or(Ok(()), |v| Err(format!("a header went on: {v}")))
}

fn hops() -> Vec<Row> {
    let close = |name, text: &str| lines(name, text).closed();
    vec![
        lines(
            "headers of the hop end here",
            "Keep-Alive: 5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: x",
        )
        .check(|seen, _| without(seen, &["keep-alive", "proxy-connection", "proxy-authorization"])),
        lines("Connection names a header", "Connection: x-one, X-Two\r\nX-One: 1\r\nX-Two: 2\r\nX-Three: 3")
            .check(|seen, _| {
                without(seen, &["x-one", "x-two"])?;
                seen[0].header("x-three").map(|_| ()).ok_or_else(|| "too much was taken".into())
            }),
        close("Connection: close", "Connection: close"),
        close("Connection: close among others", "Connection: x-a, Close"),
        close("Connection: close on a second line", "Connection: keep-alive\r\nConnection: close"),
        lines("Connection: keep-alive", "Connection: keep-alive"),
        lines("Connection names the host", "Connection: host"),
        lines("TE: trailers", "TE: trailers\r\nConnection: te"),
        lines("TE: chunked is no framing", "TE: chunked").check(|seen, _| without(seen, &["te"])),
        lines("x-request-id is made", "A: b").check(|seen, _| {
            let id = seen[0].header("x-request-id").unwrap_or_default();
            if id.len() >= 16 { Ok(()) } else { Err(format!("x-request-id {id:?}")) }
        }),
        lines("x-request-id is kept", "X-Request-Id: abc").check(|seen, _| {
            let id = seen[0].header("x-request-id");
            if id.as_deref() == Some("abc") { Ok(()) } else { Err(format!("x-request-id {id:?}")) }
        }),
        lines(
            "headers of sidecars are taken off",
            "agent-hops: 3\r\nx-pilotfish-agent: me\r\nX-Pilotfish-Any: 1",
        )
        .check(not_spoofed),
        lines("x-forwarded-proto", "A: b").check(|seen, _| {
            let proto = seen[0].header("x-forwarded-proto");
            if proto.as_deref() == Some("http") {
                Ok(())
            } else {
                Err(format!("x-forwarded-proto {proto:?}"))
            }
        }),
        lines("x-forwarded-for has the caller last", "X-Forwarded-For: 9.9.9.9").check(|seen, _| {
            let list = seen[0].header("x-forwarded-for").unwrap_or_default();
            let last = list.rsplit(',').next().unwrap_or("").trim();
            if last == "127.0.0.1" { Ok(()) } else { Err(format!("x-forwarded-for {list:?}")) }
        }),
    ]
}

fn not_spoofed(seen: &[Message], _: &[Answer]) -> Result<(), String> {
    let hops = seen[0].header("agent-hops").unwrap_or_default();
    if hops == "3" || seen[0].header("x-pilotfish-any").is_some() {
        return Err("what the agent wrote went on as if a sidecar had".into());
    }
    match seen[0].header("x-pilotfish-agent") {
        Some(v) if v.contains("me") => Err(format!("x-pilotfish-agent {v}")),
        _ => Ok(()),
    }
}

fn expect() -> Vec<Row> {
    let post = |name, expect: &str| {
        row(
            name,
            format!("POST / HTTP/1.1\r\nHost: {{h}}\r\nExpect: {expect}\r\nContent-Length: 5\r\n\r\nhello"),
        )
    };
    vec![
        post("100-continue, content sent at once", "100-continue"),
        post("100-continue in capitals", "100-CONTINUE"),
        post("an expectation that nobody knows", "200-ok").refused(417),
        post("100-continue and more", "100-continue, cake").refused(417),
        lines("100-continue without content", "Expect: 100-continue"),
        row(
            "100-continue with HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: {h}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        )
        .closed()
        .check(
            |_, answers| {
                if answers[0].interim.is_empty() { Ok(()) } else { Err("1xx to HTTP/1.0".into()) }
            },
        ),
    ]
}

fn old() -> Vec<Row> {
    vec![
        row("HTTP/1.0", "GET / HTTP/1.0\r\nHost: {h}\r\n\r\n").closed(),
        row("HTTP/1.0 with keep-alive", "GET / HTTP/1.0\r\nHost: {h}\r\nConnection: keep-alive\r\n\r\n")
            .after(super::After::Either),
        row("HTTP/1.0 with content", "POST / HTTP/1.0\r\nHost: {h}\r\nContent-Length: 5\r\n\r\nhello")
            .closed(),
        row("HTTP/1.0 without a host", "GET / HTTP/1.0\r\n\r\n").bad().or(404),
        row("HTTP/1.0 with two hosts", "GET / HTTP/1.0\r\nHost: {h}\r\nHost: {h}\r\n\r\n").bad(),
    ]
}
