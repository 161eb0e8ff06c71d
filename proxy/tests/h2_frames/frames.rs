//! Frame format, sizes, padding, and frames where they do not belong: sections 4.1, 4.2, 6.1 to 6.4, 6.10.

use pilotfish_testkit::h2::{self, Frame, code::*, flag, kind};

use super::{Row, Want, data, frame, get, post, row};

const PROTOCOL: Want = Want::Connection(&[PROTOCOL_ERROR]);
const SIZE: Want = Want::Connection(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]);
const OK: Want = Want::Answer(1, &[200]);

pub fn rows(h: &str) -> Vec<Row> {
    let mut rows = format(h);
    rows.extend(padding(h));
    rows.extend(misplaced(h));
    rows.extend(continuations(h));
    rows
}

fn format(h: &str) -> Vec<Row> {
    let block = || h2::request("GET", h, "/", &[]);
    let priority = |more: Vec<u8>| [vec![0, 0, 0, 0, 15], more].concat();
    vec![
        row("4.1 an unknown frame on the connection", vec![frame(0xee, 0, 0, [0; 9]), get(1, h, &[])], OK),
        row(
            "4.1 an unknown frame on a stream",
            vec![post(1, h, &[]), frame(0xee, 0xff, 1, [0; 9]), data(1, [], true)],
            OK,
        ),
        row("4.1 unknown flags on HEADERS", vec![frame(kind::HEADERS, 0xd7, 1, block())], OK),
        row("4.1 unknown flags on DATA", vec![post(1, h, &[]), frame(kind::DATA, 0xf7, 1, *b"hello")], OK),
        row("4.1 the reserved bit of a stream id", vec![frame(kind::HEADERS, 5, 1 | 1 << 31, block())], OK),
        row("4.2 DATA of 16384 bytes", vec![post(1, h, &[]), data(1, vec![b'x'; 16_384], true)], OK).check(
            |seen, _| {
                if seen[0].body.len() == 16_384 { Ok(()) } else { Err("bytes were lost".into()) }
            },
        ),
        row(
            "4.2 DATA of 2^24-1 bytes announced",
            {
                vec![
                    post(1, h, &[]),
                    Frame::new(kind::DATA, 0, 1, vec![0; 20_000]).bytes_claiming((1 << 24) - 1),
                ]
            },
            Want::Stream(1, &[FRAME_SIZE_ERROR]),
        ),
        row(
            "4.2 HEADERS of 2^24-1 bytes announced",
            vec![Frame::new(kind::HEADERS, 5, 1, vec![0; 20_000]).bytes_claiming((1 << 24) - 1)],
            SIZE,
        ),
        row("6.2 HEADERS with a priority", vec![frame(kind::HEADERS, 0x25, 1, priority(block()))], OK),
        row("6.2 HEADERS too short for its priority", vec![frame(kind::HEADERS, 0x25, 1, [0, 0, 0])], SIZE),
        row("6.2 HEADERS on the connection", vec![frame(kind::HEADERS, 5, 0, block())], PROTOCOL),
        row(
            "6.3 PRIORITY before its stream",
            vec![frame(kind::PRIORITY, 0, 1, [0, 0, 0, 0, 5]), get(1, h, &[])],
            OK,
        ),
        row("6.3 PRIORITY on the connection", vec![frame(kind::PRIORITY, 0, 0, [0, 0, 0, 1, 5])], PROTOCOL),
        row("6.3 PRIORITY of four bytes", vec![post(1, h, &[]), frame(kind::PRIORITY, 0, 1, [0; 4])], {
            Want::Stream(1, &[FRAME_SIZE_ERROR, PROTOCOL_ERROR])
        }),
        row("5.3 PRIORITY on itself", vec![post(1, h, &[]), frame(kind::PRIORITY, 0, 1, [0, 0, 0, 1, 5])], {
            Want::Stream(1, &[PROTOCOL_ERROR])
        }),
        row(
            "5.3 HEADERS that depend on themselves",
            vec![frame(kind::HEADERS, 0x25, 1, [vec![0, 0, 0, 1, 15], block()].concat())],
            Want::Malformed(1),
        ),
        row("6.4 RST_STREAM on the connection", vec![frame(kind::RST_STREAM, 0, 0, [0, 0, 0, 8])], PROTOCOL),
        row(
            "6.4 RST_STREAM of three bytes",
            vec![post(1, h, &[]), frame(kind::RST_STREAM, 0, 1, [0, 0, 8])],
            SIZE,
        ),
        row(
            "6.4 RST_STREAM of five bytes",
            vec![post(1, h, &[]), frame(kind::RST_STREAM, 0, 1, [0; 5])],
            SIZE,
        ),
        row("6.4 RST_STREAM of an idle stream", vec![frame(kind::RST_STREAM, 0, 1, [0, 0, 0, 8])], PROTOCOL),
    ]
}

fn padding(h: &str) -> Vec<Row> {
    let padded = |flags, pad: u8, content: &[u8], zeros: usize| {
        let payload = [&[pad][..], content, &vec![0; zeros]].concat();
        move |kind, stream| frame(kind, flags | flag::PADDED, stream, payload.clone())
    };
    let block = h2::request("GET", h, "/", &[]);
    vec![
        row("6.1 DATA with padding", vec![post(1, h, &[]), padded(1, 5, b"hello", 5)(kind::DATA, 1)], OK)
            .check(|seen, _| {
                if seen[0].body == b"hello" {
                    Ok(())
                } else {
                    Err(format!("the body became {:?}", seen[0].body))
                }
            }),
        row("6.1 DATA of padding alone", vec![post(1, h, &[]), padded(1, 9, b"", 9)(kind::DATA, 1)], OK),
        row(
            "6.1 padding as long as the payload",
            vec![post(1, h, &[]), padded(1, 6, b"hello", 0)(kind::DATA, 1)],
            PROTOCOL,
        ),
        row(
            "6.1 padding longer than the payload",
            vec![post(1, h, &[]), padded(1, 255, b"hello", 0)(kind::DATA, 1)],
            PROTOCOL,
        ),
        row("6.1 DATA without its pad length", vec![post(1, h, &[]), frame(kind::DATA, 9, 1, [])], SIZE),
        row("6.2 HEADERS with padding", vec![padded(5, 7, &block, 7)(kind::HEADERS, 1)], OK),
        row(
            "6.2 HEADERS with padding longer than the payload",
            vec![padded(5, 255, &block, 0)(kind::HEADERS, 1)],
            PROTOCOL,
        ),
        row("6.2 HEADERS without its pad length", vec![frame(kind::HEADERS, 0xd, 1, [])], SIZE),
    ]
}

fn misplaced(h: &str) -> Vec<Row> {
    let open = || frame(kind::HEADERS, flag::NONE, 1, h2::request("GET", h, "/", &[]));
    let first = |name, next: Vec<u8>| row(name, vec![open(), next], PROTOCOL);
    vec![
        row("6.1 DATA on the connection", vec![data(0, *b"x", false)], PROTOCOL),
        first("4.3 DATA within a header block", data(1, *b"x", false)),
        first("4.3 HEADERS of another stream within a header block", get(3, h, &[])),
        first("4.3 HEADERS of the same stream within a header block", get(1, h, &[])),
        first("4.3 PRIORITY within a header block", frame(kind::PRIORITY, 0, 1, [0, 0, 0, 0, 5])),
        first("4.3 PING within a header block", frame(kind::PING, 0, 0, [0; 8])),
        first("4.3 SETTINGS within a header block", h2::settings(&[]).bytes()),
        first("4.3 an unknown frame within a header block", frame(0xee, 0, 1, [0; 3])),
        first("4.3 RST_STREAM within a header block", frame(kind::RST_STREAM, 0, 1, [0, 0, 0, 8])),
    ]
}

fn continuations(h: &str) -> Vec<Row> {
    let block = h2::request("GET", h, "/", &[("a", "b")]);
    let (a, b) = block.split_at(20);
    let head = |bytes: &[u8], flags| frame(kind::HEADERS, flags, 1, bytes);
    let more = |stream, bytes: &[u8], flags| frame(kind::CONTINUATION, flags, stream, bytes);
    let mut bytes = vec![head(&[], flag::END_STREAM)];
    bytes.extend(block.chunks(30).map(|b| more(1, b, 0)));
    bytes.push(more(1, &[], flag::END_HEADERS));
    vec![
        row("6.10 one CONTINUATION", vec![head(a, flag::END_STREAM), more(1, b, flag::END_HEADERS)], OK),
        row(
            "6.10 empty CONTINUATION",
            vec![head(a, flag::END_STREAM), more(1, &[], 0), more(1, b, flag::END_HEADERS)],
            OK,
        ),
        row("6.10 many CONTINUATION", bytes, Want::Answer(1, &[200])),
        row("6.10 CONTINUATION of another stream", vec![head(a, 0), more(3, b, flag::END_HEADERS)], PROTOCOL),
        row("6.10 CONTINUATION on the connection", vec![head(a, 0), more(0, b, flag::END_HEADERS)], PROTOCOL),
        row("6.10 CONTINUATION of nothing", vec![more(1, b, flag::END_HEADERS)], PROTOCOL),
        row(
            "6.10 CONTINUATION after END_HEADERS",
            vec![post(1, h, &[]), more(1, b, flag::END_HEADERS)],
            PROTOCOL,
        ),
        row(
            "6.10 CONTINUATION after DATA",
            vec![post(1, h, &[]), data(1, *b"x", false), more(1, b, flag::END_HEADERS)],
            PROTOCOL,
        ),
    ]
}
