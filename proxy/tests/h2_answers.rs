//! HTTP/2 upstream answers, good and malformed: an unambiguous answer, a `502` with its reason or a cut answer; and what
//! GOAWAY, refused streams and few streams do to requests that come later.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_testkit::h1::{self, Gone};
use pilotfish_testkit::h2::origin::H2Origin;
use pilotfish_testkit::h2::{self, Frame, code, flag, hpack, kind};
use pilotfish_testkit::origin::{Step, send};
use tokio::task::JoinSet;

use crate::support::{ensure, run_table, service_with, sidecar};

/// What the client must get.
#[derive(Debug, Clone, Copy)]
enum Want {
    /// This status and this body.
    Good(u16, &'static str),
    /// `502` with one of the two reasons for it.
    Refused,
    /// As `Refused`, or the head and then less content than announced and the end of the connection.
    Cut,
}

type Frames = fn(u32) -> Vec<u8>;

#[derive(Debug)]
struct Row {
    name: &'static str,
    frames: Frames,
    then: Vec<Step>,
    want: Want,
}

fn row(name: &'static str, want: Want, frames: Frames) -> Row {
    Row { name, frames, then: vec![], want }
}

impl Row {
    fn then(mut self, step: Step) -> Self {
        self.then.push(step);
        self
    }
}

fn head(stream: u32, fields: &[(&str, &str)], end: bool) -> Vec<u8> {
    h2::headers(stream, hpack::block(fields), end).bytes()
}

fn ok(stream: u32, body: &str) -> Vec<u8> {
    [head(stream, &[(":status", "200")], false), h2::data(stream, body, true).bytes()].concat()
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    Frame::new(kind::GOAWAY, 0, 0, [last.to_be_bytes(), code.to_be_bytes()].concat()).bytes()
}

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    use Want::{Cut, Good, Refused};
    let mut rows = vec![
        row("HEADERS and DATA", Good(200, "ok"), |s| ok(s, "ok")),
        row("no content", Good(204, ""), |s| head(s, &[(":status", "204")], true)),
        row("103 before", Good(200, "ok"), |s| [head(s, &[(":status", "103"), ("link", "a")], false), ok(s, "ok")].concat()),
        row("trailers", Good(200, "ok"), |s| {
            let body = h2::data(s, "ok", false).bytes();
            [head(s, &[(":status", "200")], false), body, head(s, &[("x-t", "y")], true)].concat()
        }),
        row("a length that is right", Good(200, "ok"), |s| {
            [head(s, &[(":status", "200"), ("content-length", "2")], false), h2::data(s, "ok", true).bytes()].concat()
        }),
        row("an unknown frame before", Good(200, "ok"), |s| [Frame::new(0xee, 0, s, [1; 9]).bytes(), ok(s, "ok")].concat()),
        row("an error of its own keeps no reason of ours", Good(503, ""), |s| {
            head(s, &[(":status", "503"), ("pilotfish-reason", "fake")], true)
        }),
        row("no :status", Refused, |s| head(s, &[("a", "b")], true)),
        row("a :status of letters", Refused, |s| head(s, &[(":status", "abc")], true)),
        row("a :status below 100", Refused, |s| head(s, &[(":status", "99")], true)),
        row("101", Refused, |s| head(s, &[(":status", "101")], false)),
        row("capital letters in a name", Refused, |s| head(s, &[(":status", "200"), ("Aa", "b")], true)),
        row("space in a name", Refused, |s| head(s, &[(":status", "200"), ("a b", "c")], true)),
        row("CR LF in a name", Refused, |s| head(s, &[(":status", "200"), ("a\r\nb", "c")], true)),
        row("CR LF in a value", Refused, |s| head(s, &[(":status", "200"), ("a", "b\r\nc: d")], true)),
        row("NUL in a value", Refused, |s| head(s, &[(":status", "200"), ("a", "b\0c")], true)),
        row("connection", Refused, |s| head(s, &[(":status", "200"), ("connection", "close")], true)),
        row("transfer-encoding", Refused, |s| head(s, &[(":status", "200"), ("transfer-encoding", "chunked")], true)),
        // The h2 crate drops it.
        row("a pseudo-header of requests", Good(200, ""), |s| head(s, &[(":status", "200"), (":path", "/")], true)),
        row("a pseudo-header after a field", Refused, |s| head(s, &[("a", "b"), (":status", "200")], true)),
        row("DATA before HEADERS", Refused, |s| h2::data(s, "ok", true).bytes()),
        row("broken HPACK", Refused, |s| h2::headers(s, [0x80], true).bytes()),
        row("a header of 100 kB", Refused, |s| {
            let mut block = hpack::block(&[(":status", "200")]);
            (0..100).for_each(|_| block.extend(hpack::literal("a", "b".repeat(1000))));
            let mut frames = Frame::new(kind::HEADERS, flag::END_STREAM, s, &block[..16_000]).bytes();
            for part in block[16_000..].chunks(16_000) {
                frames.extend(Frame::new(kind::CONTINUATION, 0, s, part).bytes());
            }
            frames.extend(Frame::new(kind::CONTINUATION, flag::END_HEADERS, s, []).bytes());
            frames
        }),
        row("CONTINUATION without end", Refused, |s| {
            let more = Frame::new(kind::CONTINUATION, 0, s, hpack::literal("a", "b")).bytes();
            [Frame::new(kind::HEADERS, 0, s, hpack::block(&[(":status", "200")])).bytes(), more.repeat(5000)].concat()
        }),
        row("103 without end", Cut, |s| head(s, &[(":status", "103")], false).repeat(5000)).then(Step::Close),
        row("PUSH_PROMISE", Refused, |s| {
            let promise = [vec![0, 0, 0, 2], h2::request("GET", "x", "/", &[])].concat();
            Frame::new(kind::PUSH_PROMISE, flag::END_HEADERS, s, promise).bytes()
        }),
        row("an answer to a stream that nobody opened", Refused, |s| ok(s + 100, "smuggled")),
        row("an even stream", Refused, |_| ok(2, "smuggled")),
        row("HTTP/1 instead", Refused, |_| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()),
        row("zeros", Refused, |_| vec![0; 100]).then(Step::Close),
        row("a frame over the limit", Refused, |s| Frame::new(kind::DATA, 0, s, vec![0; 70_000]).bytes_claiming(1 << 23)),
        row("RST_STREAM before an answer", Refused, |s| h2::reset(s, code::INTERNAL_ERROR).bytes()),
        row("RST_STREAM within the content", Cut, |s| {
            let begin = [head(s, &[(":status", "200"), ("content-length", "9")], false), h2::data(s, "ok", false).bytes()];
            [begin.concat(), h2::reset(s, code::INTERNAL_ERROR).bytes()].concat()
        }),
        row("content shorter than its length", Cut, |s| {
            [head(s, &[(":status", "200"), ("content-length", "9")], false), h2::data(s, "ok", true).bytes()].concat()
        }),
        row("content longer than its length", Cut, |s| {
            [head(s, &[(":status", "200"), ("content-length", "1")], false), h2::data(s, "ok", true).bytes()].concat()
        }),
        row("two lengths", Cut, |s| {
            let fields = [(":status", "200"), ("content-length", "2"), ("content-length", "3")];
            [head(s, &fields, false), h2::data(s, "ok", true).bytes()].concat()
        }),
        row("content over every window", Cut, |s| {
            [head(s, &[(":status", "200")], false), h2::data(s, vec![b'x'; 16_000], false).bytes().repeat(500)].concat()
        // A fast reader may open windows as fast as they are filled: then nothing is wrong but the end.
        }).then(Step::Close),
        row("GOAWAY with an error", Refused, |_| goaway(0, code::INTERNAL_ERROR)).then(Step::Close),
    ];
    rows.push(row("closed before an answer", Refused, |_| vec![]).then(Step::Close));
    rows.push(row("reset before an answer", Refused, |_| vec![]).then(Step::Reset));
    let begun: Frames = |s| [head(s, &[(":status", "200")], false), h2::data(s, "ok", false).bytes()].concat();
    rows.push(row("closed within the content", Cut, begun).then(Step::Pause(Duration::from_millis(20))).then(Step::Close));
    rows
}

async fn run(sidecar: SocketAddr, host: String, row: Row) -> Result<(), String> {
    let name = row.name;
    let answer = h1::get(sidecar, &host, "/", &[]).await;
    match (row.want, answer) {
        (Want::Good(status, body), Ok(answer)) => ensure(
            (answer.status(), answer.text().as_str(), answer.reason().as_str()) == (status, body, ""),
            || format!("{name}: {} {:?} {:?}", answer.status(), answer.reason(), answer.text()),
        )?,
        (Want::Refused | Want::Cut, Ok(answer)) if answer.status() == 502 => {
            let reason = answer.reason();
            let right = ["bad-upstream-answer", "upstream-reset"].contains(&reason.as_str());
            ensure(right, || format!("{name}: 502 with reason {reason:?}"))?;
        }
        (Want::Cut, Err(Gone::Partial(_) | Gone::Closed)) => {}
        (want, got) => return Err(format!("{name}: wanted {want:?}, got {got:?}")),
    }
    for i in 0..3 {
        let probe = h1::get(sidecar, &host, &format!("/probe{i}"), &[]).await;
        let probe = probe.map_err(|gone| format!("{name}: probe {i}: {gone}"))?;
        ensure(probe.text() == format!("probe{i}"), || format!("{name}: probe {i} got {:?}", probe.message))?;
    }
    Ok(())
}

fn path(fields: &[(String, String)]) -> &str {
    fields.iter().find(|f| f.0 == ":path").map_or("", |f| f.1.as_str())
}

#[tokio::test]
async fn every_answer_gets_its_verdict() {
    let rows = rows();
    let (mut origins, mut yaml) = (Vec::new(), String::new());
    for (i, row) in rows.iter().enumerate() {
        let (frames, then) = (row.frames, row.then.clone());
        let origin =
            H2Origin::start(&[], move |stream, fields, _| match path(fields).strip_prefix("/probe") {
                Some(n) => vec![send(ok(stream, &format!("probe{n}")))],
                None => [vec![send(frames(stream))], then.clone()].concat(),
            });
        let origin = Arc::new(origin.await);
        yaml.push_str(&service_with(&format!("c{i}.test"), "HTTP2", &[(origin.port(), "")]));
        origins.push(origin);
    }
    let sidecar = sidecar().yaml("services.yaml", yaml).start();
    let addr = sidecar.outbound;
    run_table(rows, |i, row| run(addr, format!("c{i}.test"), row)).await;
    let panics: Vec<String> = sidecar.stderr().into_iter().filter(|l| l.contains("panicked")).collect();
    assert!(panics.is_empty(), "the proxy panicked: {panics:?}");
}

#[tokio::test]
async fn goaway_moves_later_requests_and_loses_none() {
    // Every third request is the last of its connection: it is announced, answered, and the next ones go elsewhere.
    let origin = H2Origin::start(&[], |stream, fields, n| {
        let mut steps = vec![send(ok(stream, path(fields)))];
        if n % 3 == 2 {
            steps.insert(0, send(goaway(stream, code::NO_ERROR)));
        }
        steps
    });
    let origin = origin.await;
    let yaml = service_with("s.test", "HTTP2", &[(origin.port(), "")]);
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let mut client = pilotfish_testkit::H1::connect(sidecar.outbound).await;
    for i in 0..30 {
        let target = format!("/{i}");
        assert_eq!(client.get("s.test", &target, &[]).await.unwrap().text(), target);
    }
    assert!(origin.connections() >= 10, "{} connections", origin.connections());
}

#[tokio::test]
async fn more_requests_than_an_upstream_takes_streams() {
    let origin = H2Origin::start(&[(3, 2)], |stream, fields, _| {
        vec![Step::Pause(Duration::from_millis(20)), send(ok(stream, path(fields)))]
    });
    let origin = origin.await;
    let yaml = service_with("s.test", "HTTP2", &[(origin.port(), "")]);
    let sidecar = sidecar().yaml("a.yaml", yaml).start();
    let (addr, mut all) = (sidecar.outbound, JoinSet::new());
    for i in 0..20 {
        all.spawn(async move {
            let target = format!("/{i}");
            let answer = h1::get(addr, "s.test", &target, &[]).await.unwrap();
            assert_eq!((answer.status(), answer.text()), (200, target), "{}", answer.reason());
        });
    }
    all.join_all().await;
}
