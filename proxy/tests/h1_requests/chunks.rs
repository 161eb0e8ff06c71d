//! Chunked content: RFC 9112 section 7.1.

use super::{After, Row, row};

fn chunked(name: &'static str, content: impl AsRef<str>) -> Row {
    let head = "POST / HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: chunked\r\n\r\n";
    row(name, format!("{head}{}", content.as_ref()))
}

/// Good chunks: the origin must see exactly `hello`.
fn hello(name: &'static str, content: impl AsRef<str>) -> Row {
    chunked(name, content).check(|seen, _| {
        if seen[0].body == b"hello" { Ok(()) } else { Err(format!("the body became {:?}", seen[0].body)) }
    })
}

pub fn rows() -> Vec<Row> {
    let mut rows = sizes();
    rows.extend(extensions());
    rows.extend(trailers());
    rows
}

fn sizes() -> Vec<Row> {
    let dribble: String = "hello".chars().map(|c| format!("1\r\n{c}\r\n")).collect();
    vec![
        hello("one chunk", "5\r\nhello\r\n0\r\n\r\n"),
        hello("five chunks of a byte", format!("{dribble}0\r\n\r\n")),
        hello("zeros before the size", "0005\r\nhello\r\n0\r\n\r\n"),
        hello("many zeros at the end", "5\r\nhello\r\n000\r\n\r\n"),
        chunked("size in capital hex", format!("A\r\n{}\r\n0\r\n\r\n", "x".repeat(10))),
        chunked("size in small hex", format!("1f\r\n{}\r\n0\r\n\r\n", "x".repeat(31))),
        chunked("no content", "0\r\n\r\n"),
        chunked("100 kB in one chunk", format!("186a0\r\n{}\r\n0\r\n\r\n", "x".repeat(100_000))).check(
            |seen, _| {
                if seen[0].body.len() == 100_000 { Ok(()) } else { Err("bytes were lost".into()) }
            },
        ),
        chunked("a request inside a chunk", {
            let inside = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
            format!("{:x}\r\n{inside}\r\n0\r\n\r\n", inside.len())
        }),
        chunked("size empty", "\r\nhello\r\n0\r\n\r\n").bad(),
        chunked("size not hex", "g\r\nhello\r\n0\r\n\r\n").bad(),
        chunked("size with 0x", "0x5\r\nhello\r\n0\r\n\r\n").bad(),
        chunked("size with a plus", "+5\r\nhello\r\n0\r\n\r\n").bad(),
        chunked("size negative", "-5\r\nhello\r\n0\r\n\r\n").bad(),
        chunked("size with an underscore", "0_5\r\nhello\r\n0\r\n\r\n").bad(),
        chunked("space before the size", " 5\r\nhello\r\n0\r\n\r\n").bad(),
        chunked("tab before the size", "\t5\r\nhello\r\n0\r\n\r\n").bad(),
        chunked("space in the size", "0 5\r\nhello\r\n0\r\n\r\n").bad(),
        chunked("vertical tab after the size", "5\u{b}\r\nhello\r\n0\r\n\r\n").bad(),
        chunked("NUL after the size", "5\0\r\nhello\r\n0\r\n\r\n").bad(),
        chunked("size over 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n").bad(),
        chunked("size over 32 bits, wrapping to 5", "ffffffff00000005f\r\nhello\r\n0\r\n\r\n").bad(),
        chunked("size of all ones", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n").bad(),
        chunked("size with 100 zeros", format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(100))).bad(),
        chunked("LF after the size", "5\nhello\r\n0\r\n\r\n").bad(),
        chunked("CR after the size", "5\rhello\r\n0\r\n\r\n").bad(),
        chunked("CR CR LF after the size", "5\r\r\nhello\r\n0\r\n\r\n").bad(),
        chunked("LF after the data", "5\r\nhello\n0\r\n\r\n").bad(),
        chunked("nothing after the data", "5\r\nhello0\r\n\r\n").bad(),
        chunked("data longer than the size", "4\r\nhello\r\n0\r\n\r\n").bad(),
        chunked("data shorter than the size", "6\r\nhello\r\n0\r\n\r\n").bad(),
        chunked("LF after the last size", "5\r\nhello\r\n0\n\r\n").bad(),
        chunked("LF at the very end", "5\r\nhello\r\n0\r\n\n").bad(),
        chunked("cut within the data", "5\r\nhel").fin().answers(&[]).closed().origin(0),
        chunked("cut before the last chunk", "5\r\nhello\r\n").fin().answers(&[]).closed().origin(0),
    ]
}

fn extensions() -> Vec<Row> {
    vec![
        hello("extension", "5;a=b\r\nhello\r\n0\r\n\r\n"),
        hello("extension without a value", "5;a\r\nhello\r\n0;z\r\n\r\n"),
        hello("extension in quotes", "5;a=\"b c\"\r\nhello\r\n0\r\n\r\n"),
        chunked("bare LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n").bad(),
        chunked("bare LF ends an extension", "5;a\nhello\r\n0\r\n\r\n").bad(),
        chunked("bare CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n").bad(),
        chunked("NUL in an extension", "5;a\0b\r\nhello\r\n0\r\n\r\n").bad(),
        chunked("extension of 100 kB", format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(100_000)))
            .bad()
            .or(431),
    ]
}

fn trailers() -> Vec<Row> {
    vec![
        hello("trailer", "5\r\nhello\r\n0\r\nX-T: y\r\n\r\n"),
        hello("two trailers", "5\r\nhello\r\n0\r\nX-T: y\r\nX-U: z\r\n\r\n"),
        chunked("trailer with a length", "5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n")
            .check(no_framing_trailer)
            .after(After::Either),
        chunked("trailer with a coding", "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n")
            .check(no_framing_trailer)
            .after(After::Either),
        chunked("trailer with a host", "5\r\nhello\r\n0\r\nHost: other\r\n\r\n")
            .check(no_framing_trailer)
            .after(After::Either),
        chunked("trailer without a colon", "5\r\nhello\r\n0\r\nX-T\r\n\r\n").bad(),
        chunked("trailer with a space in its name", "5\r\nhello\r\n0\r\nX T: y\r\n\r\n").bad(),
        chunked("trailer with a space before the colon", "5\r\nhello\r\n0\r\nX-T : y\r\n\r\n").bad(),
        chunked("folded trailer", "5\r\nhello\r\n0\r\nX-T: y\r\n z\r\n\r\n").bad(),
        chunked("bare LF after a trailer", "5\r\nhello\r\n0\r\nX-T: y\n\r\n").bad(),
        chunked("bare CR in a trailer", "5\r\nhello\r\n0\r\nX-T: y\rz\r\n\r\n").bad(),
        chunked("NUL in a trailer", "5\r\nhello\r\n0\r\nX-T: y\0\r\n\r\n").bad(),
        chunked("trailers of 100 kB", {
            let line = format!("X-T: {}\r\n", "y".repeat(990));
            format!("5\r\nhello\r\n0\r\n{}\r\n", line.repeat(100))
        })
        .bad()
        .or(431),
    ]
}

fn no_framing_trailer(
    seen: &[pilotfish_testkit::strict::Message],
    _: &[pilotfish_testkit::h1::Answer],
) -> Result<(), String> {
    if seen[0].trailers.is_empty() { Ok(()) } else { Err(format!("trailers {:?}", seen[0].trailers)) }
}
