//! Field names and values, pseudo-headers, and what becomes of them in HTTP/1: sections 8.2 and 8.3, 10.3.

use pilotfish_testkit::h2::{self, hpack};

use super::{Row, Want, get, row};

const OK: Want = Want::Answer(1, &[200]);

pub fn rows(h: &str) -> Vec<Row> {
    let mut rows = names(h);
    rows.extend(values(h));
    rows.extend(pseudo(h));
    rows.extend(authority(h));
    rows
}

/// A request with these fields alone.
fn only(name: &'static str, fields: &[(&str, &str)]) -> Row {
    row(name, vec![h2::headers(1, hpack::block(fields), true).bytes()], Want::Malformed(1))
}

fn names(h: &str) -> Vec<Row> {
    let with =
        |name, field: &str, value: &str| row(name, vec![get(1, h, &[(field, value)])], Want::Malformed(1));
    vec![
        with("8.2.1 capital letter in a name", "X-a", "b"),
        with("8.2.1 space in a name", "x a", "b"),
        with("8.2.1 colon in a name", "x:a", "b"),
        with("8.2.1 colon at the end of a name", "x-a:", "b"),
        with("8.2.1 CR LF in a name", "x\r\na", "b"),
        with("8.2.1 a header in a name", "x: y\r\ntransfer-encoding", "chunked"),
        with("8.2.1 a request in a name", "x: y\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n", "b"),
        with("8.2.1 NUL in a name", "x\0a", "b"),
        with("8.2.1 DEL in a name", "x\x7fa", "b"),
        with("8.2.1 a character over 127 in a name", "x\u{e4}", "b"),
        with("8.2.1 empty name", "", "b"),
        with("8.2.2 connection", "connection", "close"),
        with("8.2.2 connection: keep-alive", "connection", "keep-alive"),
        with("8.2.2 keep-alive", "keep-alive", "timeout=5"),
        with("8.2.2 proxy-connection", "proxy-connection", "keep-alive"),
        with("8.2.2 transfer-encoding", "transfer-encoding", "chunked"),
        with("8.2.2 transfer-encoding: identity", "transfer-encoding", "identity"),
        with("8.2.2 upgrade", "upgrade", "websocket"),
        with("8.2.2 te: gzip", "te", "gzip"),
        with("8.2.2 te: trailers, gzip", "te", "trailers, gzip"),
        row("8.2.2 te: trailers", vec![get(1, h, &[("te", "trailers")])], OK),
        row("8.2.3 cookies are joined", vec![get(1, h, &[("cookie", "a=b"), ("cookie", "c=d")])], OK).check(
            |seen, _| {
                let cookie = seen[0].header("cookie");
                if cookie.as_deref() == Some("a=b; c=d") { Ok(()) } else { Err(format!("cookie {cookie:?}")) }
            },
        ),
    ]
}

fn values(h: &str) -> Vec<Row> {
    let with = |name, value: &str| row(name, vec![get(1, h, &[("x-a", value)])], Want::Malformed(1));
    vec![
        with("8.2.1 CR LF in a value", "b\r\nx: y"),
        with("8.2.1 a request in a value", "b\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"),
        with("8.2.1 CR in a value", "b\rc"),
        with("8.2.1 LF in a value", "b\nc"),
        with("8.2.1 NUL in a value", "b\0c"),
        row("8.2.1 tab and spaces inside a value", vec![get(1, h, &[("x-a", "b \t c")])], OK),
        row("8.2.1 empty value", vec![get(1, h, &[("x-a", "")])], OK),
        row("8.2.1 characters over 127 in a value", vec![get(1, h, &[("x-a", "\u{e4}")])], OK),
        row(
            "10.5 a field of 30 kB",
            vec![split(1, h2::request("GET", h, "/", &[("x-a", &"b".repeat(30_000))]))],
            OK,
        ),
        row(
            "10.5.1 a field of 100 kB",
            vec![split(1, h2::request("GET", h, "/", &[("x-a", &"b".repeat(100_000))]))],
            Want::Answer(1, &[431]),
        ),
    ]
}

/// HEADERS and as many CONTINUATION frames as a block needs.
fn split(stream: u32, block: Vec<u8>) -> Vec<u8> {
    use pilotfish_testkit::h2::{flag, kind};
    let parts: Vec<&[u8]> = block.chunks(16_384).collect();
    let last = parts.len() - 1;
    let frame = |(i, part): (usize, &&[u8])| {
        let (kind, end) = if i == 0 { (kind::HEADERS, flag::END_STREAM) } else { (kind::CONTINUATION, 0) };
        let flags = if i == last { end | flag::END_HEADERS } else { end };
        super::frame(kind, flags, stream, *part)
    };
    parts.iter().enumerate().flat_map(frame).collect()
}

fn pseudo(h: &str) -> Vec<Row> {
    let (m, s, a, p) = ((":method", "GET"), (":scheme", "http"), (":authority", h), (":path", "/"));
    let path = |name, path: &str| only(name, &[m, s, a, (":path", path)]);
    let method = |name, method: &str| only(name, &[(":method", method), s, a, p]);
    vec![
        only("8.3.1 no :method", &[s, a, p]),
        only("8.3.1 no :scheme", &[m, a, p]),
        only("8.3.1 no :path", &[m, s, a]),
        only("8.3.1 two :method", &[m, m, s, a, p]),
        only("8.3.1 two :scheme", &[m, s, s, a, p]),
        only("8.3.1 two :path", &[m, s, a, p, (":path", "/smuggled")]),
        only("8.3.1 two :authority", &[m, s, a, a, p]),
        only("8.3 an unknown pseudo-header", &[m, s, a, p, (":x", "y")]),
        only("8.3 :status in a request", &[m, s, a, p, (":status", "200")]),
        only("8.3 a pseudo-header after a field", &[m, s, a, ("x", "y"), p]),
        only("8.5 :protocol without CONNECT", &[m, s, a, p, (":protocol", "websocket")]),
        only("8.5 an unknown :protocol", &[(":method", "CONNECT"), s, a, p, (":protocol", "fish")]),
        only("8.5 CONNECT with a path", &[(":method", "CONNECT"), s, a, p]),
        only("8.5 CONNECT without :authority", &[(":method", "CONNECT")]),
        path("8.3.1 empty :path", ""),
        path("8.3.1 :path without a slash", "smuggled"),
        path("8.3.1 :path of an asterisk with GET", "*"),
        path("8.3.1 space in :path", "/ HTTP/1.1\u{20}x"),
        path("8.3.1 CR LF in :path", "/ HTTP/1.1\r\nhost: x\r\n\r\nGET /smuggled"),
        path("8.3.1 tab in :path", "/a\tb"),
        path("8.3.1 NUL in :path", "/a\0b"),
        // The h2 crate cuts a fragment off instead of refusing it.
        row(
            "8.3.1 fragment in :path",
            vec![h2::headers(1, h2::request("GET", h, "/a#b", &[]), true).bytes()],
            OK,
        )
        .check(|seen, _| if seen[0].target() == "/a" { Ok(()) } else { Err("the fragment went on".into()) }),
        path("8.3.1 an absolute :path", "http://other.test/smuggled"),
        method("8.3.1 space in :method", "GET /smuggled"),
        method("8.3.1 CR LF in :method", "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\nGET"),
        method("8.3.1 empty :method", ""),
        only("8.3.1 CR LF in :scheme", &[m, (":scheme", "http\r\nx: y"), a, p]),
        only("8.3.1 a URL in :scheme", &[m, (":scheme", "http://x/smuggled?"), a, p]),
        row(
            "8.3.1 OPTIONS of the asterisk",
            {
                vec![
                    h2::headers(1, hpack::block(&[(":method", "OPTIONS"), s, a, (":path", "*")]), true)
                        .bytes(),
                ]
            },
            OK,
        )
        .check(|seen, _| if seen[0].target() == "*" { Ok(()) } else { Err("another target".into()) }),
    ]
}

fn authority(h: &str) -> Vec<Row> {
    let (m, s, p) = ((":method", "GET"), (":scheme", "http"), (":path", "/"));
    let with = |name, authority: &str| only(name, &[m, s, (":authority", authority), p]);
    let good = |name, fields: &[(&str, &str)]| {
        row(name, vec![h2::headers(1, hpack::block(fields), true).bytes()], OK)
    };
    vec![
        good("8.3.1 host instead of :authority", &[m, s, p, ("host", h)]),
        good("8.3.1 host and :authority alike", &[m, s, (":authority", h), p, ("host", h)]).check(
            |seen, _| {
                let hosts = seen[0].headers.iter().filter(|f| f.0.eq_ignore_ascii_case("host")).count();
                if hosts == 1 { Ok(()) } else { Err(format!("{hosts} hosts")) }
            },
        ),
        only("8.3.1 host and :authority differ", &[m, s, (":authority", h), p, ("host", "other.test")]),
        only("8.3.1 two hosts", &[m, s, p, ("host", h), ("host", "other.test")]),
        only("8.3.1 neither host nor :authority", &[m, s, p]),
        with("8.3.1 user in :authority", &format!("user@{h}")),
        with("8.3.1 path in :authority", &format!("{h}/smuggled")),
        with("8.3.1 CR LF in :authority", &format!("{h}\r\nx: y")),
        with("8.3.1 space in :authority", &format!("{h} x")),
        with("8.3.1 port of :authority not a number", &format!("{h}:x")),
        with("8.3.1 empty :authority", ""),
    ]
}
