//! Content-Length and Transfer-Encoding: RFC 9112 section 6, and the ways in which parsers were made to disagree.

use super::{Row, row};

/// A POST with these header lines and this rest after the head.
fn post(name: &'static str, lines: &str, rest: &str) -> Row {
    row(name, format!("POST / HTTP/1.1\r\nHost: {{h}}\r\n{lines}\r\n\r\n{rest}"))
}

const SMUGGLED: &str = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: {h}\r\n\r\n";
const FIVE: &str = "5\r\nhello\r\n0\r\n\r\n";

pub fn rows() -> Vec<Row> {
    let mut rows = lengths();
    rows.extend(codings());
    rows.extend(both());
    rows
}

fn lengths() -> Vec<Row> {
    vec![
        post("length", "Content-Length: 5", "hello")
            .check(|seen, _| if seen[0].body == b"hello" { Ok(()) } else { Err("another body".into()) }),
        post("length zero", "Content-Length: 0", ""),
        post("length with leading zeros", "Content-Length: 0005", "hello"),
        post("length with spaces around", "Content-Length:  \t 5 \t ", "hello"),
        post("length without a space", "Content-Length:5", "hello"),
        post("length name in capitals", "CONTENT-LENGTH: 5", "hello"),
        post("no length, no content", "A: b", ""),
        row("GET with content", "GET / HTTP/1.1\r\nHost: {h}\r\nContent-Length: 5\r\n\r\nhello"),
        row("HEAD with content", "HEAD / HTTP/1.1\r\nHost: {h}\r\nContent-Length: 5\r\n\r\nhello"),
        row("DELETE with content", "DELETE / HTTP/1.1\r\nHost: {h}\r\nContent-Length: 5\r\n\r\nhello"),
        post("length twice, same", "Content-Length: 5\r\nContent-Length: 5", "hello").bad(),
        post("length twice, different", "Content-Length: 5\r\nContent-Length: 6", "hello!").bad(),
        post("length twice, zero first", "Content-Length: 0\r\nContent-Length: 44", SMUGGLED).bad(),
        post("length list, same", "Content-Length: 5, 5", "hello").bad(),
        post("length list, different", "Content-Length: 5, 6", "hello!").bad(),
        post("length with a trailing comma", "Content-Length: 5,", "hello").bad(),
        post("length with a plus", "Content-Length: +5", "hello").bad(),
        post("length negative", "Content-Length: -5", "hello").bad(),
        post("length minus zero", "Content-Length: -0", "").bad(),
        post("length in hex", "Content-Length: 0x5", "hello").bad(),
        post("length with a fraction", "Content-Length: 5.0", "hello").bad(),
        post("length with an exponent", "Content-Length: 5e0", "hello").bad(),
        post("length with an underscore", "Content-Length: 1_0", "hello12345").bad(),
        post("length with a space inside", "Content-Length: 1 0", "hello12345").bad(),
        post("length empty", "Content-Length:", "hello").bad(),
        post("length of spaces", "Content-Length:   ", "hello").bad(),
        post("length in quotes", "Content-Length: \"5\"", "hello").bad(),
        post("length with a word", "Content-Length: five", "hello").bad(),
        post("length with a semicolon", "Content-Length: 5;", "hello").bad(),
        post("length over 64 bits", "Content-Length: 18446744073709551621", "hello").bad(),
        post("length with 30 digits", "Content-Length: 999999999999999999999999999999", "hello").bad(),
        post("length over 63 bits", "Content-Length: 9223372036854775813", "hello").bad(),
        post("length in wide digits", "Content-Length: \u{ff15}", "hello").bad(),
        post("length after a vertical tab", "Content-Length: \u{b}5", "hello").bad(),
        post("length before a form feed", "Content-Length: 5\u{c}", "hello").bad(),
        post("length before a NUL", "Content-Length: 5\0", "hello").bad(),
        post("space before the colon of the length", "Content-Length : 5", "hello").bad(),
        post("tab before the colon of the length", "Content-Length\t: 5", "hello").bad(),
        post("folded length", "Content-Length:\r\n 5", "hello").bad(),
        post("length continued by a fold", "Content-Length: 1\r\n 0", "hello12345").bad(),
        post("an underscore makes another header", "Content_Length: 5", "").origin(1),
        post("length, but cut short", "Content-Length: 10", "hello").fin().answers(&[]).closed().origin(0),
    ]
}

fn codings() -> Vec<Row> {
    vec![
        post("chunked", "Transfer-Encoding: chunked", FIVE)
            .check(|seen, _| if seen[0].body == b"hello" { Ok(()) } else { Err("another body".into()) }),
        post("chunked, without a space", "Transfer-Encoding:chunked", FIVE),
        post("chunked, with spaces around", "Transfer-Encoding: \t chunked \t", FIVE),
        post("chunked in capitals", "TRANSFER-ENCODING: CHUNKED", FIVE),
        post("chunked in mixed case", "Transfer-Encoding: cHuNkEd", FIVE),
        row(
            "GET in chunks",
            format!("GET / HTTP/1.1\r\nHost: {{h}}\r\nTransfer-Encoding: chunked\r\n\r\n{FIVE}"),
        ),
        post("chunked twice in a list", "Transfer-Encoding: chunked, chunked", FIVE).bad(),
        post("chunked on two lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", FIVE).bad(),
        post("identity", "Transfer-Encoding: identity", "").bad().or(501),
        post("identity, then chunked", "Transfer-Encoding: identity, chunked", FIVE).bad().or(501),
        post("chunked, then identity", "Transfer-Encoding: chunked, identity", FIVE).bad().or(501),
        post(
            "chunked, then identity on two lines",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            FIVE,
        )
        .bad()
        .or(501),
        post(
            "identity, then chunked on two lines",
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
            FIVE,
        )
        .bad()
        .or(501),
        post("gzip alone", "Transfer-Encoding: gzip", "").bad().or(501),
        post("gzip, then chunked", "Transfer-Encoding: gzip, chunked", FIVE).bad().or(501),
        post("chunked, then gzip", "Transfer-Encoding: chunked, gzip", FIVE).bad().or(501),
        post("unknown coding", "Transfer-Encoding: cow", FIVE).bad().or(501),
        post("xchunked", "Transfer-Encoding: xchunked", FIVE).bad().or(501),
        post("chunkedx", "Transfer-Encoding: chunkedx", FIVE).bad().or(501),
        post("x=chunked", "Transfer-Encoding: x=chunked", FIVE).bad().or(501),
        post("chunked with a parameter", "Transfer-Encoding: chunked;q=1", FIVE).bad().or(501),
        post("chunked in quotes", "Transfer-Encoding: \"chunked\"", FIVE).bad().or(501),
        post("chunked in apostrophes", "Transfer-Encoding: 'chunked'", FIVE).bad().or(501),
        post("chunked in brackets", "Transfer-Encoding: [chunked]", FIVE).bad().or(501),
        post("chunked with a trailing comma", "Transfer-Encoding: chunked,", FIVE).bad().or(501),
        post("chunked with a leading comma", "Transfer-Encoding: ,chunked", FIVE).bad().or(501),
        post("empty coding", "Transfer-Encoding:", FIVE).bad().or(501),
        post("chunked after a vertical tab", "Transfer-Encoding: \u{b}chunked", FIVE).bad().or(501),
        post("chunked before a form feed", "Transfer-Encoding: chunked\u{c}", FIVE).bad().or(501),
        post("chunked before a NUL", "Transfer-Encoding: chunked\0", FIVE).bad(),
        post("chunked before a no-break space", "Transfer-Encoding: chunked\u{a0}", FIVE).bad().or(501),
        post("chunked with a Kelvin sign", "Transfer-Encoding: chun\u{212a}ed", FIVE).bad().or(501),
        post("chunked after a bare LF", "Transfer-Encoding: \nchunked", FIVE).bad(),
        post("chunked after a fold", "Transfer-Encoding:\r\n chunked", FIVE).bad(),
        post("space before the colon of the coding", "Transfer-Encoding : chunked", FIVE).bad(),
        post("tab before the colon of the coding", "Transfer-Encoding\t: chunked", FIVE).bad(),
        post("coding behind a fold of another header", "X: y\r\n Transfer-Encoding: chunked", FIVE).bad(),
        post("coding behind a bare LF", "X: y\nTransfer-Encoding: chunked", FIVE).bad(),
        post("coding behind a bare CR", "X: y\rTransfer-Encoding: chunked", FIVE).bad(),
        post("NUL in the name of the coding", "Transfer\0-Encoding: chunked", FIVE).bad(),
        post("control byte in the name of the coding", "Transfer-\u{8}Encoding: chunked", FIVE).bad(),
        post("an underscore makes another header", "Transfer_Encoding: chunked", "").origin(1),
        row(
            "chunked with HTTP/1.0",
            format!("POST / HTTP/1.0\r\nHost: {{h}}\r\nTransfer-Encoding: chunked\r\n\r\n{FIVE}"),
        )
        .bad(),
    ]
}

fn both() -> Vec<Row> {
    let both = |name, lines: &str| post(name, lines, SMUGGLED).bad();
    vec![
        both("length and chunked", "Content-Length: 44\r\nTransfer-Encoding: chunked"),
        both("chunked and length", "Transfer-Encoding: chunked\r\nContent-Length: 44"),
        both("chunked and length zero", "Transfer-Encoding: chunked\r\nContent-Length: 0"),
        both("length and chunked in capitals", "content-length: 44\r\ntransfer-encoding: CHUNKED"),
        both("length and an unknown coding", "Content-Length: 44\r\nTransfer-Encoding: xchunked").or(501),
        both("length and identity", "Content-Length: 44\r\nTransfer-Encoding: identity").or(501),
        both("length and an empty coding", "Content-Length: 44\r\nTransfer-Encoding:").or(501),
        both(
            "length and two codings",
            "Content-Length: 44\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: cow",
        )
        .or(501),
        both(
            "length and chunked with a vertical tab",
            "Content-Length: 44\r\nTransfer-Encoding: \u{b}chunked",
        )
        .or(501),
        both(
            "length and a coding with a space before its colon",
            "Content-Length: 44\r\nTransfer-Encoding : chunked",
        ),
        both("length and a folded coding", "Content-Length: 44\r\nTransfer-Encoding:\r\n chunked"),
        both(
            "length, hidden by Connection",
            "Connection: content-length\r\nContent-Length: 44\r\nTransfer-Encoding: chunked",
        ),
        post("Connection names the length", "Connection: content-length\r\nContent-Length: 5", "hello")
            .check(
                |seen, _| if seen[0].body == b"hello" { Ok(()) } else { Err("the length was lost".into()) },
            ),
        post(
            "Connection names the coding",
            "Connection: transfer-encoding\r\nTransfer-Encoding: chunked",
            FIVE,
        )
        .check(|seen, _| if seen[0].body == b"hello" { Ok(()) } else { Err("the coding was lost".into()) }),
    ]
}
