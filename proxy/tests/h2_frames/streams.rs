//! Stream states and identifiers, content and its length, trailers: sections 5.1, 8.1, 8.1.1.

use pilotfish_testkit::h2::{self, code::*, kind};

use super::{Do, Row, Want, data, frame, get, post, row, slow};

const PROTOCOL: Want = Want::Connection(&[PROTOCOL_ERROR]);
const OK: Want = Want::Answer(1, &[200]);

pub fn rows(h: &str) -> Vec<Row> {
    let mut rows = states(h);
    rows.extend(identifiers(h));
    rows.extend(content(h));
    rows
}

fn states(h: &str) -> Vec<Row> {
    let reset = |stream| frame(kind::RST_STREAM, 0, stream, [0, 0, 0, 8]);
    let update = |stream| frame(kind::WINDOW_UPDATE, 0, stream, [0, 0, 0, 9]);
    let more = frame(kind::CONTINUATION, 4, 1, h2::hpack::literal("a", "b"));
    // The RFC wants STREAM_CLOSED; the h2 crate ends the connection with PROTOCOL_ERROR.
    let closed = |stream| Want::Stream(stream, &[STREAM_CLOSED, PROTOCOL_ERROR]);
    vec![
        row("5.1 idle: DATA", vec![data(1, *b"x", true)], PROTOCOL),
        row("5.1 idle: WINDOW_UPDATE", vec![update(1)], PROTOCOL),
        row("5.1 idle: CONTINUATION", vec![more.clone()], PROTOCOL),
        row("5.1 half closed: DATA", vec![slow(1, h), data(1, *b"x", true)], closed(1)),
        row("5.1 half closed: HEADERS", vec![slow(1, h), get(1, h, &[])], closed(1)),
        row("5.1 half closed: CONTINUATION", vec![slow(1, h), more.clone()], PROTOCOL),
        row("5.1 half closed: WINDOW_UPDATE", vec![slow(1, h), update(1)], OK),
        row("5.1 half closed: PRIORITY", vec![slow(1, h), frame(kind::PRIORITY, 0, 1, [0, 0, 0, 0, 5])], OK),
        row("5.1 reset: DATA", vec![post(1, h, &[]), reset(1), data(1, *b"x", true)], Want::Nothing),
        row(
            "5.1 reset: HEADERS",
            vec![slow(1, h), reset(1), get(1, h, &[])],
            Want::Connection(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        row("5.1 reset: RST_STREAM", vec![slow(1, h), reset(1), reset(1)], Want::Nothing).any_origin(),
        row("5.1 reset: WINDOW_UPDATE", vec![slow(1, h), reset(1), update(1)], Want::Nothing).any_origin(),
        row("5.1 closed: DATA", vec![get(1, h, &[])], closed(1))
            .origin(1)
            .then(Do::Await(1))
            .send(vec![data(1, *b"x", true)]),
        row("5.1 closed: HEADERS", vec![get(1, h, &[])], Want::Connection(&[STREAM_CLOSED, PROTOCOL_ERROR]))
            .origin(1)
            .then(Do::Await(1))
            .send(vec![get(1, h, &[])]),
        row("5.1 closed: WINDOW_UPDATE", vec![get(1, h, &[])], Want::Nothing)
            .origin(1)
            .then(Do::Await(1))
            .send(vec![update(1)]),
        row("5.1 closed: PRIORITY", vec![get(1, h, &[])], Want::Nothing)
            .origin(1)
            .then(Do::Await(1))
            .send(vec![frame(kind::PRIORITY, 0, 1, [0, 0, 0, 0, 5])]),
    ]
}

fn identifiers(h: &str) -> Vec<Row> {
    vec![
        row("5.1.1 an even stream", vec![get(2, h, &[])], PROTOCOL),
        row("5.1.1 a lower stream", vec![get(5, h, &[])], Want::Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]))
            .origin(1)
            .then(Do::Await(5))
            .send(vec![get(3, h, &[])]),
        row("5.1.1 streams left out", vec![get(1, h, &[]), get(101, h, &[])], Want::Answer(101, &[200]))
            .origin(2),
        row("5.1.1 two streams at once", vec![get(1, h, &[]), get(3, h, &[])], Want::Answer(1, &[200]))
            .origin(2),
        row(
            "5.1.2 more streams than announced",
            (0..1200).map(|i| slow(i * 2 + 1, h)).collect(),
            Want::Stream(2399, &[REFUSED_STREAM, PROTOCOL_ERROR, ENHANCE_YOUR_CALM]),
        )
        .any_origin(),
    ]
}

fn content(h: &str) -> Vec<Row> {
    let length = |n| move |more: Vec<Vec<u8>>| [vec![post(1, h, &[("content-length", n)])], more].concat();
    let trailers = |fields: &[(&str, &str)], end| h2::headers(1, h2::hpack::block(fields), end).bytes();
    let bad = |name, frames| row(name, frames, Want::Malformed(1));
    vec![
        row(
            "8.1 content in three frames",
            vec![post(1, h, &[]), data(1, *b"a", false), data(1, *b"b", false), data(1, *b"c", true)],
            OK,
        )
        .check(|seen, _| if seen[0].body == b"abc" { Ok(()) } else { Err("another body".into()) }),
        row("8.1 empty DATA at the end", vec![post(1, h, &[]), data(1, *b"a", false), data(1, [], true)], OK),
        row("8.1.1 content as long as announced", length("5")(vec![data(1, *b"hello", true)]), OK),
        bad("8.1.1 content shorter than announced", length("6")(vec![data(1, *b"hello", true)])),
        bad("8.1.1 content longer than announced", length("4")(vec![data(1, *b"hello", true)])),
        bad(
            "8.1.1 content longer in two frames",
            length("5")(vec![data(1, *b"hello", false), data(1, *b"!", true)]),
        ),
        bad(
            "8.1.1 content announced, none sent",
            vec![h2::headers(1, h2::request("POST", h, "/", &[("content-length", "5")]), true).bytes()],
        ),
        bad("8.1.1 a request behind its length", {
            let inside = "helloGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
            length("5")(vec![data(1, inside, true)])
        }),
        bad("8.1.1 length that is no number", length("five")(vec![data(1, *b"hello", true)])),
        bad("8.1.1 length with a plus", length("+5")(vec![data(1, *b"hello", true)])),
        bad(
            "8.1.1 two lengths",
            vec![post(1, h, &[("content-length", "5"), ("content-length", "6")]), data(1, *b"hello", true)],
        ),
        bad("8.1.1 a list of lengths", length("5, 6")(vec![data(1, *b"hello", true)])),
        row(
            "8.1 trailers",
            vec![post(1, h, &[]), data(1, *b"a", false), trailers(&[("x-t", "y")], true)],
            OK,
        )
        .check(|seen, _| if seen[0].body == b"a" { Ok(()) } else { Err("another body".into()) }),
        bad(
            "8.1 trailers without END_STREAM",
            vec![post(1, h, &[]), data(1, *b"a", false), trailers(&[("x-t", "y")], false)],
        ),
        // The h2 crate drops them instead of refusing the request.
        row(
            "8.1 trailers with a pseudo-header",
            vec![post(1, h, &[]), data(1, *b"a", false), trailers(&[(":path", "/smuggled")], true)],
            OK,
        )
        .check(
            |seen, _| {
                if seen[0].trailers.is_empty() { Ok(()) } else { Err("they went on".into()) }
            },
        ),
        row(
            "8.1 trailers with a length",
            vec![post(1, h, &[]), data(1, *b"a", false), trailers(&[("content-length", "9")], true)],
            OK,
        )
        .check(|seen, _| if seen[0].trailers.is_empty() { Ok(()) } else { Err("the length went on".into()) }),
    ]
}
