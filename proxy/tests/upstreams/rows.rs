//! The ways to fail: what each upstream does, what its caller has to see, and how often the call may arrive.

use std::time::Duration;

use pilotfish_testkit::h2::{self, Frame, code, hpack, kind};
use pilotfish_testkit::origin::{Step, ok, send};

/// What the caller has to see.
#[derive(Debug, Clone, Copy)]
pub enum Want {
    /// 200 with this body.
    Good(&'static str),
    /// The upstream's own answer, without a reason of ours.
    Own(u16),
    /// A refusal of the sidecar's with one of these reasons.
    Refused(u16, &'static [&'static str]),
    /// An answer that breaks off.
    Cut,
}

/// What the upstream does.
#[derive(Clone, Copy)]
pub enum Script {
    /// Nobody listens.
    Refuse,
    /// Takes the connection and ends it: at once, or with a reset when something comes.
    Deaf { reset: bool },
    /// HTTP/1.1: to each request.
    H1(fn() -> Vec<Step>),
    /// HTTP/2: to each stream.
    H2(fn(u32) -> Vec<Step>),
}

/// One way to fail.
#[derive(Clone, Copy)]
pub struct Row {
    pub name: &'static str,
    pub script: Script,
    pub want: Want,
    /// How often a call arrives by default: one that may be done twice (GET, PUT), and one that may not.
    pub default: (usize, usize),
    /// The same with `attempts: 3`.
    pub retrying: (usize, usize),
}

impl Row {
    pub fn h2(&self) -> bool {
        matches!(self.script, Script::H2(_))
    }
}

/// Whether the call arrives again. By default Istio's two more tries, for what the upstream certainly did not begin.
#[derive(Clone, Copy)]
enum Again {
    /// Nothing arrives, however often it is tried.
    Nothing,
    /// The answer had begun, or time is over: never.
    Never,
    /// The upstream may have begun on it: only what may be done twice, where the rule asks for it.
    Safe,
    /// The upstream says that it never began on it: everything.
    Always,
}

fn row(name: &'static str, script: Script, want: Want, again: Again) -> Row {
    let (default, retrying) = match again {
        Again::Nothing => ((0, 0), (0, 0)),
        Again::Never => ((1, 1), (1, 1)),
        Again::Safe => ((1, 1), (4, 1)),
        Again::Always => ((3, 3), (4, 4)),
    };
    Row { name, script, want, default, retrying }
}

fn h1(name: &'static str, steps: fn() -> Vec<Step>, want: Want, again: Again) -> Row {
    row(name, Script::H1(steps), want, again)
}

fn h2(name: &'static str, steps: fn(u32) -> Vec<Step>, want: Want, again: Again) -> Row {
    row(name, Script::H2(steps), want, again)
}

const RESET: Want = Want::Refused(502, &["upstream-reset"]);
const BAD: Want = Want::Refused(502, &["bad-upstream-answer"]);
/// Where what is wrong shows first depends on which end is read first.
const BAD_OR_RESET: Want = Want::Refused(502, &["bad-upstream-answer", "upstream-reset"]);
const LATE: Want = Want::Refused(504, &["timeout"]);

pub fn rows() -> Vec<Row> {
    let mut rows = connections();
    rows.extend(heads());
    rows.extend(bodies());
    rows.extend(streams());
    rows
}

fn connections() -> Vec<Row> {
    use Again::*;
    vec![
        row("nobody listens", Script::Refuse, Want::Refused(503, &["connect-failed"]), Nothing),
        row("accepts and closes", Script::Deaf { reset: false }, RESET, Safe),
        row("resets what it has not read", Script::Deaf { reset: true }, RESET, Safe),
        h1("closes instead of an answer", || vec![Step::Close], RESET, Safe),
        h1("resets instead of an answer", || vec![Step::Reset], RESET, Safe),
        h1("is silent", || vec![Step::Hang], LATE, Never),
    ]
}

fn heads() -> Vec<Row> {
    use Again::*;
    vec![
        h1("resets within the head", || vec![send("HTTP/1.1 200 O"), pause(), Step::Reset], RESET, Safe),
        h1(
            "closes within the head",
            || vec![send("HTTP/1.1 200 OK\r\nContent-"), Step::Close],
            BAD_OR_RESET,
            Safe,
        ),
        h1("trickles a whole answer", trickle, Want::Good("ok"), Never),
        h1("drips a head that never ends", drip, LATE, Never),
        h1(
            "100 Continue, then silence",
            || vec![send("HTTP/1.1 100 Continue\r\n\r\n"), Step::Hang],
            LATE,
            Never,
        ),
        h1(
            "100 Continue, then the end",
            || vec![send("HTTP/1.1 100 Continue\r\n\r\n"), Step::Close],
            RESET,
            Safe,
        ),
        h1(
            "1xx without end",
            || vec![send(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n".repeat(1000)), Step::Hang],
            BAD,
            Safe,
        ),
        h1("garbage", || vec![send(b"\0\x01\x02 what is this?\r\n\r\n"), Step::Close], BAD, Safe),
        h1("HTTP/2 instead", || vec![send(h2::settings(&[]).bytes()), send([0; 64]), Step::Close], BAD, Safe),
        h1("a head over the limit", huge_head, BAD, Safe),
        h1(
            "a head without end",
            || vec![send("HTTP/1.1 200 OK\r\n"), send(b"a: b\r\n".repeat(30_000)), Step::Hang],
            BAD,
            Safe,
        ),
        h1(
            "two framings",
            || {
                vec![
                    send(
                        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                    ),
                    Step::Close,
                ]
            },
            BAD,
            Safe,
        ),
        h1(
            "503 of its own",
            || vec![send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")],
            Want::Own(503),
            Safe,
        ),
        h1(
            "500 of its own",
            || vec![send("HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops")],
            Want::Own(500),
            Safe,
        ),
        h1(
            "404 of its own",
            || vec![send("HTTP/1.1 404 None\r\nContent-Length: 0\r\n\r\n")],
            Want::Own(404),
            Never,
        ),
    ]
}

fn bodies() -> Vec<Row> {
    use Again::*;
    let cut = Want::Cut;
    vec![
        h1(
            "resets within the body",
            || vec![send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), pause(), Step::Reset],
            cut,
            Never,
        ),
        h1(
            "less than its length",
            || vec![send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), Step::Close],
            cut,
            Never,
        ),
        h1(
            "more than its length",
            || vec![send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more"), Step::Close],
            Want::Good("ok"),
            Never,
        ),
        h1(
            "chunks that are cut",
            || vec![send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"), Step::Close],
            cut,
            Never,
        ),
        h1(
            "a chunk that is cut",
            || vec![send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc"), Step::Close],
            cut,
            Never,
        ),
        h1(
            "chunks that are none",
            || {
                vec![
                    send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n"),
                    Step::Hang,
                ]
            },
            cut,
            Never,
        ),
        h1("resets within a stream of events", events, cut, Never),
        h1(
            "is silent within the body",
            || vec![send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), Step::Hang],
            cut,
            Never,
        ),
        h1(
            "503 that is cut",
            || vec![send("HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\nabc"), Step::Close],
            cut,
            Safe,
        ),
        h1("answers and closes", || [ok("ok"), vec![Step::Close]].concat(), Want::Good("ok"), Never),
    ]
}

fn streams() -> Vec<Row> {
    use Again::*;
    vec![
        h2("REFUSED_STREAM", |s| vec![send(h2::reset(s, code::REFUSED_STREAM).bytes())], RESET, Always),
        h2("CANCEL", |s| vec![send(h2::reset(s, code::CANCEL).bytes())], RESET, Safe),
        h2("INTERNAL_ERROR", |s| vec![send(h2::reset(s, code::INTERNAL_ERROR).bytes())], RESET, Safe),
        h2(
            "NO_ERROR before an answer",
            |s| vec![send(h2::reset(s, code::NO_ERROR).bytes())],
            BAD_OR_RESET,
            Safe,
        ),
        h2("CANCEL within the answer", |s| begun_then(s, h2::reset(s, code::CANCEL)), Want::Cut, Never),
        h2(
            "INTERNAL_ERROR within the answer",
            |s| begun_then(s, h2::reset(s, code::INTERNAL_ERROR)),
            Want::Cut,
            Never,
        ),
        h2(
            "REFUSED_STREAM within the answer",
            |s| begun_then(s, h2::reset(s, code::REFUSED_STREAM)),
            Want::Cut,
            Never,
        ),
        h2("GOAWAY below the stream", |_| vec![send(goaway(0)), Step::Close], RESET, Always),
        h2("GOAWAY with the stream, then the end", |s| vec![send(goaway(s)), Step::Close], RESET, Safe),
        h2(
            "GOAWAY with the stream, then a whole answer",
            |s| vec![send(goaway(s)), send(whole(s)), Step::Close],
            Want::Good("ok"),
            Never,
        ),
        h2(
            "a whole answer, then GOAWAY",
            |s| vec![send(whole(s)), send(goaway(s)), Step::Close],
            Want::Good("ok"),
            Never,
        ),
        h2("closes instead of an answer", |_| vec![Step::Close], RESET, Safe),
        h2("resets instead of an answer", |_| vec![Step::Reset], RESET, Safe),
        h2("closes within the answer", |s| vec![send(begun(s)), pause(), Step::Close], Want::Cut, Never),
        h2("is silent", |_| vec![Step::Hang], LATE, Never),
        h2(
            "HTTP/1.1 instead",
            |_| vec![send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), Step::Close],
            BAD_OR_RESET,
            Safe,
        ),
        h2(
            "less than its length",
            |s| vec![send([head(s, "9"), h2::data(s, "abc", true).bytes()].concat())],
            Want::Cut,
            Never,
        ),
        h2("UNAVAILABLE of its own", unavailable, Want::Own(200), Never),
    ]
}

fn pause() -> Step {
    Step::Pause(Duration::from_millis(20))
}

fn trickle() -> Vec<Step> {
    vec![Step::Trickle("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into())]
}

fn drip() -> Vec<Step> {
    let mut steps = vec![send("HTTP/1.1 200 OK\r\nA: ")];
    for _ in 0..600 {
        steps.extend([send("b"), Step::Pause(Duration::from_millis(50))]);
    }
    steps
}

fn huge_head() -> Vec<Step> {
    let head = format!("HTTP/1.1 200 OK\r\nA: {}\r\nContent-Length: 0\r\n\r\n", "b".repeat(100_000));
    vec![send(head), Step::Hang]
}

fn events() -> Vec<Step> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let event = "9\r\ndata: 1\n\n\r\n";
    vec![send(head), send(event), pause(), send(event), pause(), Step::Reset]
}

fn head(stream: u32, length: &str) -> Vec<u8> {
    let block = hpack::block(&[(":status", "200"), ("content-length", length)]);
    h2::headers(stream, block, false).bytes()
}

fn whole(stream: u32) -> Vec<u8> {
    [head(stream, "2"), h2::data(stream, "ok", true).bytes()].concat()
}

fn begun(stream: u32) -> Vec<u8> {
    [head(stream, "9"), h2::data(stream, "abc", false).bytes()].concat()
}

fn begun_then(stream: u32, end: Frame) -> Vec<Step> {
    vec![send(begun(stream)), pause(), send(end.bytes())]
}

fn goaway(last: u32) -> Vec<u8> {
    Frame::new(kind::GOAWAY, 0, 0, [last.to_be_bytes(), code::NO_ERROR.to_be_bytes()].concat()).bytes()
}

/// A status of gRPC that Istio's default would try again; every gRPC call is a POST, which may have been done.
fn unavailable(stream: u32) -> Vec<Step> {
    let fields = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "14")];
    vec![send(h2::headers(stream, hpack::block(&fields), true).bytes())]
}
