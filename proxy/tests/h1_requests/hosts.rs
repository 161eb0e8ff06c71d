//! Host and the authority of the target: RFC 9112 section 3.2, RFC 9110 section 7.2.

use pilotfish_testkit::h1::Answer;
use pilotfish_testkit::strict::Message;

use super::{After, Row, row};

fn host(name: &'static str, value: impl AsRef<[u8]>) -> Row {
    row(name, [b"GET / HTTP/1.1\r\nHost:", value.as_ref(), b"\r\n\r\n"].concat())
}

fn target(name: &'static str, target: &str) -> Row {
    row(name, format!("GET {target} HTTP/1.1\r\nHost: {{h}}\r\n\r\n"))
}

/// The origin's request must be in origin form with this target.
fn is_target(seen: &[Message], want: &str) -> Result<(), String> {
    if seen[0].target() == want { Ok(()) } else { Err(format!("the target became {:?}", seen[0].target())) }
}

fn host_of_row(seen: &[Message], _: &[Answer]) -> Result<(), String> {
    let host = seen[0].header("host").unwrap_or_default();
    if host.starts_with('c') && host.ends_with(".test") { Ok(()) } else { Err(format!("Host {host:?}")) }
}

pub fn rows() -> Vec<Row> {
    let mut rows = values();
    rows.extend(absolute());
    rows
}

fn values() -> Vec<Row> {
    vec![
        host("host without a space", "{h}"),
        host("host with spaces around", " \t{h} \t"),
        host("host with the port", " {h}:80"),
        row("no host", "GET / HTTP/1.1\r\n\r\n").bad(),
        row("no host but others", "GET / HTTP/1.1\r\nX-Host: {h}\r\nForwarded: host={h}\r\n\r\n").bad(),
        row("two hosts", "GET / HTTP/1.1\r\nHost: {h}\r\nHost: other.test\r\n\r\n").bad(),
        row("the same host twice", "GET / HTTP/1.1\r\nHost: {h}\r\nHost: {h}\r\n\r\n").bad(),
        row("two hosts in two cases", "GET / HTTP/1.1\r\nHost: {h}\r\nhOST: {h}\r\n\r\n").bad(),
        row("host on a folded line", "GET / HTTP/1.1\r\nHost:\r\n {h}\r\n\r\n").bad(),
        host("host unknown", " nobody.test").answers(&[404]).origin(0).after(After::Either),
        host("host empty", "").bad().or(404).after(After::Either),
        host("two hosts in one line", " {h}, {h}").bad(),
        host("two words", " {h} other.test").bad(),
        host("user before the host", " user@{h}").bad(),
        host("path after the host", " {h}/x").bad(),
        host("fragment after the host", " {h}#x").bad(),
        host("query after the host", " {h}?x").bad(),
        host("scheme before the host", " http://{h}").bad(),
        host("port not a number", " {h}:http").bad(),
        host("port too large", " {h}:65536").bad(),
        host("port negative", " {h}:-80").bad(),
        host("two ports", " {h}:80:80").bad(),
        host("bracket open", " [::1").bad(),
        host("bracket closed too late", " [::1]x").bad(),
        host("NUL in the host", " {h}\0").bad(),
        host("a byte over 127 in the host", b" {h}\xff").bad(),
        host("control byte in the host", " {h}\x01").bad(),
        host("backslash in the host", " {h}\\x").bad(),
        host("quote in the host", " \"{h}\"").bad(),
        row("host in capitals", "GET / HTTP/1.1\r\nHOST: {h}\r\n\r\n"),
    ]
}

fn absolute() -> Vec<Row> {
    vec![
        target("absolute form", "http://{h}/x?y=1").check(|seen, _| is_target(seen, "/x?y=1")),
        target("absolute form with the port", "http://{h}:80/x").check(|seen, _| is_target(seen, "/x")),
        target("absolute form without a path", "http://{h}").check(|seen, _| is_target(seen, "/")),
        target("absolute form with a query alone", "http://{h}?q=1")
            .check(|seen, _| is_target(seen, "/?q=1")),
        target("absolute form in capitals", "HTTP://{h}/x").check(|seen, _| is_target(seen, "/x")),
        row("the target's host goes before Host", "GET http://{h}/x HTTP/1.1\r\nHost: other.test\r\n\r\n")
            .check(host_of_row),
        row("absolute form without Host", "GET http://{h}/x HTTP/1.1\r\n\r\n").bad(),
        row("absolute form with two hosts", "GET http://{h}/x HTTP/1.1\r\nHost: {h}\r\nHost: {h}\r\n\r\n")
            .bad(),
        target("absolute form with a user", "http://user:pass@{h}/x").bad(),
        target("absolute form without a host", "http:///x").bad(),
        target("absolute form with a port that is none", "http://{h}:x/").bad(),
        target("absolute form with a fragment", "http://{h}/x#y").bad(),
        target("absolute form of another scheme", "ftp://{h}/x").bad(),
        target("absolute form with one slash", "http:/{h}/x").bad(),
        target("two slashes are a path", "//other.test/x").check(|seen, _| is_target(seen, "//other.test/x")),
        target("a URL as a path", "/http://other.test/x")
            .check(|seen, _| is_target(seen, "/http://other.test/x")),
        row("OPTIONS of a whole host", "OPTIONS http://{h} HTTP/1.1\r\nHost: {h}\r\n\r\n")
            .check(|seen, _| is_target(seen, "*").or_else(|_| is_target(seen, "/"))),
        row("CONNECT with a path", "CONNECT /x HTTP/1.1\r\nHost: {h}\r\n\r\n").bad(),
        row("CONNECT without a port", "CONNECT {h} HTTP/1.1\r\nHost: {h}\r\n\r\n").bad(),
        row("CONNECT of a URL", "CONNECT http://{h}:80/ HTTP/1.1\r\nHost: {h}\r\n\r\n").bad(),
        row("CONNECT with content", "CONNECT {h}:80 HTTP/1.1\r\nHost: {h}\r\nContent-Length: 5\r\n\r\nhello")
            .bad(),
        row(
            "CONNECT in chunks",
            "CONNECT {h}:80 HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        )
        .bad(),
    ]
}
