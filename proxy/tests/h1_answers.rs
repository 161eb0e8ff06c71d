//! Upstream answers, good and malformed: the client gets an unambiguous answer, a `502` with its reason or a cut
//! connection, and never a second answer that the upstream smuggled behind the first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_testkit::h1::{Answer, Gone};
use pilotfish_testkit::origin::{Origin, Step, ok, send};
use pilotfish_testkit::{H1, h1};

use crate::support::{ensure, run_table, service, sidecar};

/// What the client must get.
#[derive(Debug, Clone, Copy)]
enum Want {
    /// This status and this body.
    Good(u16, &'static str),
    /// `502` with one of the two reasons for it.
    Refused,
    /// The head, then less content than announced and the end of the connection; or nothing of it but a `502`.
    Cut,
}

type Check = fn(&Answer) -> Result<(), String>;

#[derive(Debug)]
struct Row {
    name: &'static str,
    /// The method of the request, and `1.0` or `1.1`.
    ask: (&'static str, &'static str),
    steps: Vec<Step>,
    want: Want,
    check: Option<Check>,
}

fn row(name: &'static str, bytes: impl AsRef<[u8]>, want: Want) -> Row {
    Row { name, ask: ("GET", "1.1"), steps: vec![send(bytes)], want, check: None }
}

impl Row {
    fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    fn close(self) -> Self {
        self.then(Step::Close)
    }

    fn ask(mut self, method: &'static str, version: &'static str) -> Self {
        self.ask = (method, version);
        self
    }

    fn check(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }
}

async fn run(sidecar: SocketAddr, host: String, row: Row) -> Result<(), String> {
    let name = row.name;
    let (method, version) = row.ask;
    let mut client = H1::connect(sidecar).await.patience(Duration::from_secs(15));
    client.send(format!("{method} / HTTP/{version}\r\nHost: {host}\r\n\r\n")).await;
    let got = client.answer(method).await;
    let whole = got.is_ok();
    match (row.want, got) {
        (Want::Good(status, body), Ok(answer)) => {
            ensure((answer.status(), answer.text().as_str()) == (status, body), || {
                format!("{name}: {} {:?} {:?}", answer.status(), answer.reason(), answer.text())
            })?;
            ensure(answer.reason().is_empty(), || format!("{name}: reason {:?}", answer.reason()))?;
            row.check
                .map_or(Ok(()), |check| check(&answer).map_err(|why| format!("{name}: {why}: {answer:?}")))?;
        }
        (Want::Refused | Want::Cut, Ok(answer)) if answer.status() == 502 => {
            let reason = answer.reason();
            ensure(["bad-upstream-answer", "upstream-reset"].contains(&reason.as_str()), || {
                format!("{name}: 502 with reason {reason:?}")
            })?;
        }
        (Want::Cut, Err(Gone::Partial(_) | Gone::Closed)) => {}
        (want, got) => return Err(format!("{name}: wanted {want:?}, got {got:?}")),
    }
    // The same client connection if it lives, then others: the next answers must be those of the next requests.
    for i in 0..3 {
        let (target, text) = (format!("/probe{i}"), format!("probe{i}"));
        let open = i == 0 && !client.closed_within(Duration::from_millis(30)).await;
        ensure(!whole || client.surplus().is_empty(), || {
            format!("{name}: surplus {:?}", String::from_utf8_lossy(client.surplus()))
        })?;
        let probe = if open {
            client.get(&host, &target, &[]).await
        } else {
            h1::get(sidecar, &host, &target, &[]).await
        };
        let probe = probe.map_err(|gone| format!("{name}: {target}: {gone}"))?;
        ensure(probe.text() == text, || format!("{name}: {target} got {:?}", probe.message))?;
    }
    Ok(())
}

fn good() -> Vec<Row> {
    let ok2 = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (good, none) = (Want::Good(200, "ok"), Want::Good(200, ""));
    vec![
        row("with a length", ok2, good),
        row("in chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", good),
        row(
            "in chunks with extensions",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0;c\r\n\r\n",
            good,
        ),
        row("until the end of the connection", "HTTP/1.1 200 OK\r\n\r\nok", good).close(),
        row(
            "in chunks, to HTTP/1.0",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            good,
        )
        .ask("GET", "1.0")
        .check(|a| match a.header("transfer-encoding") {
            None => Ok(()),
            Some(v) => Err(format!("transfer-encoding {v} to HTTP/1.0")),
        }),
        row("HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", good).close(),
        row("HTTP/1.0 until the end", "HTTP/1.0 200 OK\r\n\r\nok", good).close(),
        row("no reason phrase", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", good),
        row("empty reason phrase", "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", good),
        row("reason phrase with spaces", "HTTP/1.1 200 All is well\r\nContent-Length: 2\r\n\r\nok", good),
        row("an odd status", "HTTP/1.1 599 Odd\r\nContent-Length: 2\r\n\r\nok", Want::Good(599, "ok")),
        row("204", "HTTP/1.1 204 No Content\r\n\r\n", Want::Good(204, "")),
        row(
            "304 with a length",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n",
            Want::Good(304, ""),
        ),
        row("HEAD with a length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", none)
            .ask("HEAD", "1.1")
            .check(|a| {
                if a.header("content-length").as_deref() == Some("10") {
                    Ok(())
                } else {
                    Err("the length is gone".into())
                }
            }),
        row("HEAD in chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", none)
            .ask("HEAD", "1.1"),
        row(
            "trailers",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: y\r\n\r\n",
            good,
        ),
        row("103 before", format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{ok2}"), good).check(|a| {
            let link = a.interim.first().and_then(|m| m.header("link"));
            if link.as_deref() == Some("</a>") { Ok(()) } else { Err("the hint is gone".into()) }
        }),
        row("100 before, not asked for", format!("HTTP/1.1 100 Continue\r\n\r\n{ok2}"), good),
        row(
            "102 and 103 before",
            format!("HTTP/1.1 102 P\r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\n\r\n{ok2}"),
            good,
        ),
        row("103 before, to HTTP/1.0", format!("HTTP/1.1 103 Early Hints\r\n\r\n{ok2}"), good)
            .ask("GET", "1.0")
            .check(|a| if a.interim.is_empty() { Ok(()) } else { Err("1xx to HTTP/1.0".into()) }),
        row("Connection: close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", good)
            .close(),
        row(
            "Connection: close, but it stays open",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            good,
        ),
        row(
            "headers of the hop",
            "HTTP/1.1 200 OK\r\nConnection: x-a\r\nX-A: b\r\nKeep-Alive: 5\r\nContent-Length: 2\r\n\r\nok",
            good,
        )
        .check(|a| {
            let left = a.header("x-a").or(a.header("keep-alive"));
            left.map_or(Ok(()), |v| Err(format!("a header of the hop came through: {v}")))
        }),
        row(
            "an error of its own keeps no reason of ours",
            "HTTP/1.1 503 Busy\r\npilotfish-reason: fake\r\nContent-Length: 2\r\n\r\nno",
            Want::Good(503, "no"),
        ),
        Row { steps: vec![Step::Trickle(ok2.into())], ..row("byte by byte", "", good) },
        Row {
            steps: vec![Step::Trickle(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".into(),
            )],
            ..row("chunks byte by byte", "", good)
        },
    ]
}

fn surplus() -> Vec<Row> {
    let smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
    let idle = |name, wait| {
        row(name, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Want::Good(200, "ok"))
            .then(Step::Pause(Duration::from_millis(wait)))
            .then(send(smuggled))
    };
    vec![
        row(
            "a second answer behind a length",
            format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{smuggled}"),
            Want::Good(200, "ok"),
        ),
        row(
            "a second answer behind chunks",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{smuggled}"),
            Want::Good(200, "ok"),
        ),
        row(
            "a second answer behind 204",
            format!("HTTP/1.1 204 No Content\r\n\r\n{smuggled}"),
            Want::Good(204, ""),
        ),
        row(
            "content of 204",
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
            Want::Good(204, ""),
        ),
        row(
            "content of 304",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello",
            Want::Good(304, ""),
        ),
        row(
            "content of HEAD",
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{smuggled}", smuggled.len()),
            Want::Good(200, ""),
        )
        .ask("HEAD", "1.1"),
        row(
            "bytes behind an answer",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n",
            Want::Good(200, "ok"),
        ),
        idle("an answer that nobody asked for, soon", 1),
        idle("an answer that nobody asked for, later", 15),
    ]
}

fn framing() -> Vec<Row> {
    let chunks = "2\r\nok\r\n0\r\n\r\n";
    let with = |name, lines: &str, rest: &str| {
        row(name, format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n{rest}"), Want::Refused)
    };
    vec![
        with("length and chunked", "Content-Length: 2\r\nTransfer-Encoding: chunked", chunks),
        with("chunked and length", "Transfer-Encoding: chunked\r\nContent-Length: 12", chunks),
        with("two lengths", "Content-Length: 2\r\nContent-Length: 3", "okk"),
        with("the same length twice", "Content-Length: 2\r\nContent-Length: 2", "ok"),
        with("length list", "Content-Length: 2, 3", "okk"),
        with("length with a plus", "Content-Length: +2", "ok"),
        with("length negative", "Content-Length: -2", "ok"),
        with("length in hex", "Content-Length: 0x2", "ok"),
        with("length empty", "Content-Length:", "ok"),
        with("length over 64 bits", "Content-Length: 18446744073709551618", "ok"),
        with("xchunked", "Transfer-Encoding: xchunked", chunks),
        with("gzip, then chunked", "Transfer-Encoding: gzip, chunked", chunks),
        with("chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", chunks),
        with("chunked, then identity", "Transfer-Encoding: chunked, identity", chunks),
        with("chunked behind a vertical tab", "Transfer-Encoding: \u{b}chunked", chunks),
        with("space before the colon", "Content-Length : 2", "ok"),
        row(
            "chunked with HTTP/1.0",
            format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
            Want::Refused,
        ),
        row(
            "chunked 204",
            format!("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
            Want::Good(204, ""),
        ),
    ]
}

fn heads() -> Vec<Row> {
    let line =
        |name, line: &str| row(name, format!("{line}\r\nContent-Length: 2\r\n\r\nok"), Want::Refused).close();
    let header = |name, text: &str| {
        row(name, format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{text}\r\n\r\nok"), Want::Refused)
    };
    vec![
        line("status of two digits", "HTTP/1.1 20 OK"),
        line("status of four digits", "HTTP/1.1 2000 OK"),
        line("status of letters", "HTTP/1.1 abc OK"),
        line("status below 100", "HTTP/1.1 099 OK"),
        line("two spaces before the status", "HTTP/1.1  200 OK"),
        line("no space before the status", "HTTP/1.1200 OK"),
        line("version 2.0", "HTTP/2.0 200 OK"),
        line("another protocol", "ICY 200 OK"),
        line("bare CR in the status line", "HTTP/1.1 200 O\rK"),
        line("NUL in the status line", "HTTP/1.1 200 O\0K"),
        line("a request instead", "GET / HTTP/1.1"),
        header("no colon", "A"),
        header("empty name", ": b"),
        header("space in a name", "A B: c"),
        header("NUL in a value", "A: b\0c"),
        header("control byte in a value", "A: b\x01c"),
        header("bare CR in a value", "A: b\rc"),
        header("bare LF in a value", "A: b\nC: d"),
        header("folded header", "A: b\r\n c"),
        header("header over 64 KiB", &format!("A: {}", "b".repeat(80_000))),
        row("LF everywhere", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", Want::Refused),
        row("an endless line", "x".repeat(300_000), Want::Refused),
        row("headers without end", "A: b\r\n".repeat(50_000), Want::Refused),
        row("zeros", [0; 100], Want::Refused).close(),
        row("TLS", b"\x15\x03\x03\x00\x02\x02\x46", Want::Refused).close(),
        row(
            "101 that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            Want::Refused,
        ),
        row("103 without end", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(5_000), Want::Cut).close(),
        row(
            "content of 103",
            "HTTP/1.1 103 E\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            Want::Refused,
        ),
        row("only a 100", "HTTP/1.1 100 Continue\r\n\r\n", Want::Refused).close(),
    ]
}

fn ends() -> Vec<Row> {
    let cut = |name, text: &str| row(name, format!("HTTP/1.1 200 OK\r\n{text}"), Want::Cut);
    let chunked = |name, text: &str| cut(name, &format!("Transfer-Encoding: chunked\r\n\r\n{text}"));
    vec![
        row("closed before a byte", "", Want::Refused).close(),
        row("reset before a byte", "", Want::Refused).then(Step::Reset),
        row("closed within the status line", "HTTP/1.1 20", Want::Refused).close(),
        row("closed within the headers", "HTTP/1.1 200 OK\r\nContent-Le", Want::Refused).close(),
        row("closed before the empty line", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", Want::Refused)
            .close(),
        cut("closed before the content", "Content-Length: 5\r\n\r\n").close(),
        cut("closed within the content", "Content-Length: 5\r\n\r\nok").close(),
        cut("reset within the content", "Content-Length: 5\r\n\r\nok")
            .then(Step::Pause(Duration::from_millis(20)))
            .then(Step::Reset),
        chunked("closed before a chunk", "").close(),
        chunked("closed within a chunk", "5\r\nok").close(),
        chunked("closed before the last chunk", "2\r\nok\r\n").close(),
        chunked("closed before the end of the trailers", "2\r\nok\r\n0\r\n").close(),
        chunked("reset within a chunk", "5\r\nok")
            .then(Step::Pause(Duration::from_millis(20)))
            .then(Step::Reset),
        chunked("chunk size that is none", "x\r\nok\r\n0\r\n\r\n"),
        chunked("chunk size with a plus", "+2\r\nok\r\n0\r\n\r\n"),
        chunked("chunk size over 64 bits", "10000000000000002\r\nok\r\n0\r\n\r\n"),
        chunked("chunk longer than its size", "1\r\nok\r\n0\r\n\r\n"),
        chunked("LF after a chunk size", "2\nok\r\n0\r\n\r\n"),
        chunked("LF after the data", "2\r\nok\n0\r\n\r\n"),
        chunked("bad trailer", "2\r\nok\r\n0\r\nA b\r\n\r\n"),
    ]
}

#[tokio::test]
async fn every_answer_gets_its_verdict() {
    let rows: Vec<Row> = [good(), surplus(), framing(), heads(), ends()].into_iter().flatten().collect();
    let (mut origins, mut yaml) = (Vec::new(), String::new());
    for (i, row) in rows.iter().enumerate() {
        let steps = row.steps.clone();
        let origin = Origin::start(move |m, _| match m.target().strip_prefix("/probe") {
            Some(n) => ok(format!("probe{n}")),
            None => steps.clone(),
        });
        let origin = Arc::new(origin.await);
        yaml.push_str(&service(&format!("c{i}.test"), origin.port()));
        origins.push(origin);
    }
    let sidecar = sidecar().yaml("services.yaml", yaml).start();
    let addr = sidecar.outbound;
    run_table(rows, |i, row| run(addr, format!("c{i}.test"), row)).await;
    for origin in &origins {
        assert_eq!(origin.ambiguity(), None);
    }
    let panics: Vec<String> = sidecar.stderr().into_iter().filter(|l| l.contains("panicked")).collect();
    assert!(panics.is_empty(), "the proxy panicked: {panics:?}");
}
