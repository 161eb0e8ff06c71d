//! Preface, SETTINGS, PING, GOAWAY, WINDOW_UPDATE and flow control: sections 3.4, 5.2, 6.5, 6.7 to 6.9.

use pilotfish_testkit::H2;
use pilotfish_testkit::h2::{self, Frame, PREFACE, code::*, flag, kind};

use super::{Do, Row, Want, data, frame, get, post, preface, row};

const PROTOCOL: Want = Want::Connection(&[PROTOCOL_ERROR]);
/// The RFC wants FRAME_SIZE_ERROR; the h2 crate says PROTOCOL_ERROR for some, which ends the connection as well.
const SIZE: Want = Want::Connection(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]);
/// The RFC wants FLOW_CONTROL_ERROR for SETTINGS too; the h2 crate says PROTOCOL_ERROR.
const WINDOW: Want = Want::Connection(&[FLOW_CONTROL_ERROR, PROTOCOL_ERROR]);
const OK: Want = Want::Answer(1, &[200]);

pub fn rows(h: &str) -> Vec<Row> {
    let mut rows = opening(h);
    rows.extend(settings(h));
    rows.extend(pings(h));
    rows.extend(windows(h));
    rows
}

fn opening(h: &str) -> Vec<Row> {
    let settings = || h2::settings(&[]).bytes();
    let pieces = |mut r: Row| {
        r.script =
            [PREFACE, &settings(), &get(1, h, &[])].concat().iter().map(|b| Do::Send(vec![*b])).collect();
        r
    };
    vec![
        row("3.4 preface, SETTINGS and request at once", vec![preface(), get(1, h, &[])], OK).raw(),
        pieces(row("3.4 preface byte by byte", vec![], OK).raw()),
        row("3.4 no SETTINGS after the preface", vec![PREFACE.to_vec(), get(1, h, &[])], PROTOCOL).raw(),
        row("3.4 PING after the preface", vec![PREFACE.to_vec(), frame(kind::PING, 0, 0, [0; 8])], PROTOCOL)
            .raw(),
        row(
            "3.4 wrong end of the preface",
            vec![b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(), settings()],
            PROTOCOL,
        )
        .raw(),
        row("3.4 garbage after the preface", vec![PREFACE.to_vec(), vec![0xff; 64]], SIZE).raw(),
    ]
}

fn settings(h: &str) -> Vec<Row> {
    let set = |name, id: u16, value: u32, want| {
        row(name, vec![h2::settings(&[(id, value)]).bytes(), get(1, h, &[])], want)
    };
    let raw = |flags, stream, payload: Vec<u8>| frame(kind::SETTINGS, flags, stream, payload);
    vec![
        row("6.5 SETTINGS are acknowledged", vec![raw(0, 0, vec![])], Want::Nothing).check(|_, client| {
            let acks =
                client.seen.iter().filter(|f| f.kind == kind::SETTINGS && f.flags & flag::ACK != 0).count();
            if acks == 2 { Ok(()) } else { Err(format!("{acks} acknowledgements")) }
        }),
        row("6.5 SETTINGS with ACK and content", vec![raw(1, 0, vec![0; 6])], SIZE),
        row("6.5 SETTINGS on a stream", vec![raw(0, 1, vec![])], PROTOCOL),
        row("6.5 SETTINGS of five bytes", vec![raw(0, 0, vec![0; 5])], SIZE),
        row("6.5 SETTINGS of seven bytes", vec![raw(0, 0, vec![0; 7])], SIZE),
        row(
            "6.5 SETTINGS with ACK that nobody waits for",
            vec![raw(1, 0, vec![]), raw(1, 0, vec![]), get(1, h, &[])],
            PROTOCOL,
        ),
        set("6.5.2 ENABLE_PUSH of 2", 2, 2, PROTOCOL),
        set("6.5.2 INITIAL_WINDOW_SIZE of 2^31", 4, 1 << 31, WINDOW),
        set("6.5.2 INITIAL_WINDOW_SIZE of 2^32-1", 4, u32::MAX, WINDOW),
        set("6.5.2 MAX_FRAME_SIZE of 16383", 5, 16_383, PROTOCOL),
        set("6.5.2 MAX_FRAME_SIZE of 2^24", 5, 1 << 24, PROTOCOL),
        set("6.5.2 MAX_FRAME_SIZE of 2^24-1", 5, (1 << 24) - 1, OK),
        set("6.5.2 HEADER_TABLE_SIZE of 0", 1, 0, OK),
        set("6.5.2 HEADER_TABLE_SIZE of 2^32-1", 1, u32::MAX, OK),
        set("6.5.2 MAX_CONCURRENT_STREAMS of 0", 3, 0, OK),
        set("6.5.2 an unknown setting", 0xf0f0, 7, OK),
        row(
            "6.5.3 the last of two values counts",
            vec![h2::settings(&[(4, 100), (4, 3)]).bytes(), get(1, h, &[])],
            Want::Nothing,
        )
        .origin(1)
        .silent()
        .then(Do::Settle)
        .then(Do::Settle)
        .check(|_, client| window_kept(client, 3)),
    ]
}

fn pings(_h: &str) -> Vec<Row> {
    vec![
        row("6.7 PING is answered", vec![frame(kind::PING, 0, 0, *b"12345678")], Want::Nothing).check(
            |_, client| {
                let echo = Frame::new(kind::PING, flag::ACK, 0, *b"12345678");
                if client.seen.contains(&echo) { Ok(()) } else { Err("no answer to PING".into()) }
            },
        ),
        row("6.7 PING with ACK is not answered", vec![frame(kind::PING, 1, 0, *b"12345678")], Want::Nothing)
            .check(|_, client| {
                let echo = Frame::new(kind::PING, flag::ACK, 0, *b"12345678");
                if client.seen.contains(&echo) { Err("an answer to an answer".into()) } else { Ok(()) }
            }),
        row("6.7 PING with unknown flags", vec![frame(kind::PING, 0x16, 0, *b"12345678")], Want::Nothing),
        row("6.7 PING on a stream", vec![frame(kind::PING, 0, 1, [0; 8])], PROTOCOL),
        row("6.7 PING of seven bytes", vec![frame(kind::PING, 0, 0, [0; 7])], SIZE),
        row("6.7 PING of nine bytes", vec![frame(kind::PING, 0, 0, [0; 9])], SIZE),
        row("6.8 GOAWAY on a stream", vec![frame(kind::GOAWAY, 0, 1, [0; 8])], PROTOCOL),
        row("6.8 GOAWAY of seven bytes", vec![frame(kind::GOAWAY, 0, 0, [0; 7])], SIZE),
        row("6.6 PUSH_PROMISE by a client", vec![frame(kind::PUSH_PROMISE, 4, 1, [0, 0, 0, 2])], PROTOCOL),
    ]
}

fn window_kept(client: &H2, most: usize) -> Result<(), String> {
    let body = client.so_far(1).body.len();
    if body <= most { Ok(()) } else { Err(format!("{body} bytes came in a window of {most}")) }
}

fn windows(h: &str) -> Vec<Row> {
    let update = |stream, by: u32| frame(kind::WINDOW_UPDATE, 0, stream, by.to_be_bytes());
    let most = (1u32 << 31) - 1;
    let full =
        |stream, n: usize| (0..n).map(|_| data(stream, vec![0; 16_384], false)).collect::<Vec<_>>().concat();
    vec![
        row("6.9 a window of one byte, then more", vec![get(1, h, &[])], Want::Answer(1, &[200]))
            .settings(&[(4, 1)])
            .silent()
            .then(Do::Settle)
            .then(Do::Settle)
            .send(vec![update(1, 1000)]),
        row("6.9 a window of one byte is kept", vec![get(1, h, &[])], Want::Nothing)
            .settings(&[(4, 1)])
            .silent()
            .origin(1)
            .then(Do::Settle)
            .then(Do::Settle)
            .check(|_, client| window_kept(client, 1)),
        row("6.9.2 a larger initial window frees a stream", vec![get(1, h, &[])], Want::Answer(1, &[200]))
            .settings(&[(4, 0)])
            .silent()
            .then(Do::Settle)
            .send(vec![h2::settings(&[(4, 65_535)]).bytes()]),
        row("6.9.2 a window gone negative", vec![get(1, h, &[])], Want::Answer(1, &[200]))
            .settings(&[(4, 3)])
            .silent()
            .then(Do::Settle)
            .then(Do::Settle)
            .send(vec![h2::settings(&[(4, 2)]).bytes(), update(1, 1)])
            .then(Do::Settle)
            .send(vec![update(1, 1000)]),
        row("6.9 WINDOW_UPDATE of 0 on the connection", vec![update(0, 0)], PROTOCOL),
        row(
            "6.9 WINDOW_UPDATE of 0 on a stream",
            vec![post(1, h, &[]), update(1, 0)],
            Want::Stream(1, &[PROTOCOL_ERROR]),
        ),
        row("6.9 WINDOW_UPDATE with the reserved bit", vec![update(0, 0x8000_0001), get(1, h, &[])], OK),
        row("6.9 WINDOW_UPDATE of three bytes", vec![frame(kind::WINDOW_UPDATE, 0, 0, [0, 0, 1])], SIZE),
        row("6.9 WINDOW_UPDATE of five bytes", vec![frame(kind::WINDOW_UPDATE, 0, 0, [0, 0, 0, 0, 1])], SIZE),
        row("6.9.1 connection window over 2^31-1", vec![update(0, most), update(0, most)], {
            Want::Connection(&[FLOW_CONTROL_ERROR])
        }),
        row("6.9.1 stream window over 2^31-1", vec![post(1, h, &[]), update(1, most), update(1, most)], {
            Want::Stream(1, &[FLOW_CONTROL_ERROR])
        }),
        row(
            "6.9.2 windows of streams over 2^31-1 by SETTINGS",
            vec![post(1, h, &[]), update(1, most - 65_535), h2::settings(&[(4, 65_536)]).bytes()],
            Want::Stream(1, &[FLOW_CONTROL_ERROR]),
        ),
        row(
            "6.9.1 DATA far over the window",
            vec![post(1, h, &[("content-length", "80000000")]), full(1, 1200)],
            Want::Stream(1, &[FLOW_CONTROL_ERROR]),
        ),
    ]
}
