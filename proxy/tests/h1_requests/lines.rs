//! Request lines, header lines and what ends them: RFC 9112 sections 2 to 5.

use super::{After, Row, row};

/// A GET with these header lines after Host.
fn lines(name: &'static str, lines: impl AsRef<[u8]>) -> Row {
    let mut bytes = b"GET / HTTP/1.1\r\nHost: {h}\r\n".to_vec();
    bytes.extend_from_slice(lines.as_ref());
    bytes.extend_from_slice(b"\r\n\r\n");
    row(name, bytes)
}

/// A request with this request line.
fn line(name: &'static str, line: impl AsRef<[u8]>) -> Row {
    row(name, [line.as_ref(), b"\r\nHost: {h}\r\n\r\n"].concat())
}

pub fn rows() -> Vec<Row> {
    let mut rows = ends();
    rows.extend(names());
    rows.extend(values());
    rows.extend(request_lines());
    rows.extend(not_http());
    rows
}

fn ends() -> Vec<Row> {
    vec![
        row("plain", "GET / HTTP/1.1\r\nHost: {h}\r\n\r\n"),
        row("an empty line first", "\r\nGET / HTTP/1.1\r\nHost: {h}\r\n\r\n"),
        row("LF everywhere", "GET / HTTP/1.1\nHost: {h}\n\n").bad(),
        row("LF after the request line", "GET / HTTP/1.1\nHost: {h}\r\n\r\n").bad(),
        row("LF after a header", "GET / HTTP/1.1\r\nHost: {h}\nA: b\r\n\r\n").bad(),
        row("LF for the empty line", "GET / HTTP/1.1\r\nHost: {h}\r\n\n").bad(),
        row("LF LF", "GET / HTTP/1.1\r\nHost: {h}\n\n").bad(),
        row("CR everywhere", "GET / HTTP/1.1\rHost: {h}\r\r").fin().bad(),
        row("CR CR LF after a header", "GET / HTTP/1.1\r\nHost: {h}\r\r\n\r\n").bad(),
        row("CR in the request line", "GET /\r HTTP/1.1\r\nHost: {h}\r\n\r\n").bad(),
        row("LF in the request line", "GET /\n HTTP/1.1\r\nHost: {h}\r\n\r\n").bad(),
        row("a space first", " GET / HTTP/1.1\r\nHost: {h}\r\n\r\n").bad(),
        row("a tab first", "\tGET / HTTP/1.1\r\nHost: {h}\r\n\r\n").bad(),
        row("a head cut short", "GET / HTTP/1.1\r\nHost: {h}\r\nA: ").fin().bad().or(408),
    ]
}

fn names() -> Vec<Row> {
    vec![
        lines("every character that a name may have", "!#$%&'*+-.^`|~09azAZ: b").check(|seen, _| {
            seen[0].header("!#$%&'*+-.^`|~09azAZ").map(|_| ()).ok_or_else(|| "the header was lost".into())
        }),
        lines("name with an underscore", "a_b: c")
            .check(|seen, _| seen[0].header("a_b").map(|_| ()).ok_or_else(|| "the header was lost".into())),
        lines("no colon", "A").bad(),
        lines("empty name", ": b").bad(),
        lines("space in a name", "A B: c").bad(),
        lines("tab in a name", "A\tB: c").bad(),
        lines("space before the colon", "A : b").bad(),
        lines("tab before the colon", "A\t: b").bad(),
        lines("NUL in a name", "A\0: b").bad(),
        lines("DEL in a name", "A\x7f: b").bad(),
        lines("a byte over 127 in a name", b"A\xff: b").bad(),
        lines("parenthesis in a name", "A(: b").bad(),
        lines("at sign in a name", "A@: b").bad(),
        lines("bracket in a name", "A[: b").bad(),
        lines("quote in a name", "A\": b").bad(),
        lines("slash in a name", "A/: b").bad(),
        lines("comma in a name", "A,: b").bad(),
        lines("brace in a name", "A{: b").bad(),
        lines("CR in a name", "A\rB: c").bad(),
        row("a space before the first header", "GET / HTTP/1.1\r\n A: b\r\nHost: {h}\r\n\r\n").bad(),
        row("a tab before the first header", "GET / HTTP/1.1\r\n\tA: b\r\nHost: {h}\r\n\r\n").bad(),
        row("a line of spaces before the first header", "GET / HTTP/1.1\r\n \r\nHost: {h}\r\n\r\n").bad(),
    ]
}

fn values() -> Vec<Row> {
    vec![
        lines("empty value", "A:"),
        lines("value of spaces", "A:   "),
        lines("tab in a value", "A: b\tc"),
        lines("colons in a value", "A: b: c"),
        lines("bytes over 127 in a value", b"A: \xc3\xa4\xff"),
        lines("NUL in a value", "A: b\0c").bad(),
        lines("control byte in a value", "A: b\x01c").bad(),
        lines("escape in a value", "A: \x1b[31m").bad(),
        lines("DEL in a value", "A: b\x7fc").bad(),
        lines("bare CR in a value", "A: b\rc").bad(),
        lines("bare CR at the end of a value", "A: b\r").bad(),
        lines("bare LF in a value", "A: b\nc: d").bad(),
        lines("fold with a space", "A: b\r\n c").bad(),
        lines("fold with a tab", "A: b\r\n\tc").bad(),
        lines("a fold of nothing", "A: b\r\n ").bad(),
    ]
}

fn request_lines() -> Vec<Row> {
    vec![
        line("two spaces after the method", "GET  / HTTP/1.1").bad(),
        line("two spaces after the target", "GET /  HTTP/1.1").bad(),
        line("tabs for spaces", "GET\t/\tHTTP/1.1").bad(),
        line("a space at the end", "GET / HTTP/1.1 ").bad(),
        line("a fourth word", "GET / HTTP/1.1 x").bad(),
        line("space in the target", "GET /a b HTTP/1.1").bad(),
        line("no version", "GET /").bad().or(505),
        line("no target", "GET HTTP/1.1").bad(),
        line("only a method", "GET").bad(),
        line("version 0.9", "GET / HTTP/0.9").bad().or(505),
        line("version 2.0", "GET / HTTP/2.0").refused(505).or(400),
        line("version 3.0", "GET / HTTP/3.0").refused(505).or(400),
        line("version 1.2", "GET / HTTP/1.2").refused(505).or(400),
        line("version 1.10", "GET / HTTP/1.10").bad().or(505),
        line("version 1", "GET / HTTP/1").bad().or(505),
        line("version 11", "GET / HTTP/11").bad().or(505),
        line("version with a comma", "GET / HTTP/1,1").bad().or(505),
        line("version in small letters", "GET / http/1.1").bad().or(505),
        line("another protocol", "GET / ICY/1.1").bad().or(505),
        line("space in the version", "GET / HTTP/ 1.1").bad().or(505),
        line("NUL after the version", "GET / HTTP/1.1\0").bad().or(505),
        line("NUL in the target", "GET /\0 HTTP/1.1").bad(),
        line("control byte in the target", "GET /\x01 HTTP/1.1").bad(),
        line("DEL in the target", "GET /\x7f HTTP/1.1").bad(),
        line("a byte over 127 in the target", b"GET /\xff HTTP/1.1").bad(),
        line("fragment in the target", "GET /a#b HTTP/1.1").bad(),
        line("no slash", "GET a HTTP/1.1").bad(),
        line("GET of the asterisk", "GET * HTTP/1.1").bad(),
        line("OPTIONS of the asterisk", "OPTIONS * HTTP/1.1")
            .check(|seen, _| if seen[0].target() == "*" { Ok(()) } else { Err("another target".into()) }),
        line("any method", "BREW /pot HTTP/1.1"),
        line("method with a dash", "M-SEARCH /x HTTP/1.1"),
        line("method in small letters stays so", "get / HTTP/1.1").check(|seen, _| {
            if seen[0].method() == "get" { Ok(()) } else { Err("the method changed".into()) }
        }),
        line("method with a colon", "GE:T / HTTP/1.1").bad(),
        line("method with a parenthesis", "GE(T / HTTP/1.1").bad(),
        line("method with a NUL", "GE\0T / HTTP/1.1").bad(),
        line("method with a byte over 127", b"G\xcbT / HTTP/1.1").bad(),
        line("no method", " / HTTP/1.1").bad(),
        line(
            "dots are resolved, slashes stay as they are, the query too",
            "GET /a/../b//c/%2e%2e/%2Fd;p=1?q=/../ HTTP/1.1",
        )
        .check(|seen, _| {
            let normal = seen[0].target() == "/b//%2Fd;p=1?q=/../";
            if normal { Ok(()) } else { Err("another target".into()) }
        }),
    ]
}

fn not_http() -> Vec<Row> {
    vec![
        row("a TLS hello", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n").bad(),
        row("an SSH banner", "SSH-2.0-OpenSSH_9.2\r\n\r\n").bad().or(505),
        row("zeros", [0; 64]).bad(),
        row("only empty lines", "\r\n".repeat(50)).fin().bad(),
        row("the HTTP/2 preface, gone wrong", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").bad().or(505),
        row("a PROXY protocol line", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: {h}\r\n\r\n")
            .bad()
            .or(505),
        row("a response instead", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").bad().or(505),
        row("nothing", "").fin().answers(&[]).closed().origin(0),
        row("half a method", "GE").fin().bad().or(408).after(After::Closed),
    ]
}
