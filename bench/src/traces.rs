//! The trace store under load: `pilotfish serve` as a process on core 0, and OTLP over HTTP from core 1.
//!
//! First a million spans (250,000 traces of four spans by two agents) at 50,000 a second, then searches, then as much
//! again for the rest of a minute, to see what memory does once the window is full.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::process::{Place, Process};
use crate::work::Values;

/// Spans a second.
const RATE: u64 = 50_000;
/// Spans of a batch: two of each trace.
const BATCH: u64 = 500;
/// Connections that send.
const SENDERS: u64 = 4;
/// How long a million takes, and how long is sent afterwards, seconds.
const FIRST: u64 = 20;
const AFTER: u64 = 40;
/// Agents.
const AGENTS: u64 = 20;

/// Runs all of it once.
///
/// # Errors
/// The control plane does not start or does not answer.
pub fn run(
    binary: &Path,
    dir: &Path,
    port: u16,
    place: Place,
    (core, quick): (usize, bool),
) -> io::Result<Values> {
    let dir = dir.join("traces");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port)).to_string();
    let (program, data) = (binary.display().to_string(), dir.join("data").display().to_string());
    let (listen, otlp) = (address(port), address(port + 1));
    let args = [
        program.as_str(),
        "serve",
        "--data",
        &data,
        "--listen",
        &listen,
        "--local",
        "off",
        "--otlp-grpc",
        "off",
        "--otlp-http",
        &otlp,
        "--jaeger",
        "off",
    ];
    let mut control = Process::start(place, &args.map(str::to_owned), &dir.join("log"))?;
    control.wait_for_port(port + 1)?;
    let mut values = Values::new();
    let at_start = control.rss_kib();
    let (first, after) = if quick { (FIRST / 5, 0) } else { (FIRST, AFTER) };
    let cpu = control.cpu_ns();
    let begun = Instant::now();
    let (sent, refused) = send(&otlp, core, 0, first, &control)?;
    let secs = begun.elapsed().as_secs_f64();
    values.insert("spans_per_s".into(), sent.spans as f64 / secs);
    let missed = 100.0 - 100.0 * sent.spans as f64 / secs / RATE as f64;
    values.insert("rate_missed_pct".into(), missed.max(0.0));
    values.insert("cores".into(), (control.cpu_ns() - cpu) as f64 / 1e9 / secs);
    values.insert("cpu_us".into(), (control.cpu_ns() - cpu) as f64 / 1e3 / sent.spans.max(1) as f64);
    values.insert("rss_million_mib".into(), (control.rss_kib() - at_start) as f64 / 1024.0);
    let mut errors = refused;

    let socket = dir.join("data/pilotfish.sock");
    let by_index = [
        "?limit=1000",
        "?agent=agent-3&operation=POST%20/work/3&min-duration=50ms",
        "?error=true&since=1h&limit=100",
        "?workflow=w-77",
        "?agent=nobody",
    ];
    let mut slowest = 0.0f64;
    for query in by_index {
        slowest = slowest.max(ask(&socket, query)?);
    }
    values.insert("search_ms".into(), slowest);
    // The oldest has it, and every trace has to be read for it.
    values.insert("attribute_ms".into(), ask(&socket, "?attribute=pilotfish.request_id:request-0-0")?);
    values.insert("common_ms".into(), ask(&socket, "?attribute=http.response.status_code:200")?);

    let mut most = sent.rss_kib;
    if after > 0 {
        let (sent, refused) = send(&otlp, core, first * RATE, after, &control)?;
        errors += refused;
        most = most.max(sent.rss_kib);
    }
    values.insert("rss_mib".into(), most as f64 / 1024.0);
    values.insert("errors".into(), errors as f64);
    Ok(values)
}

/// What was sent, and the most memory meanwhile.
struct Sent {
    spans: u64,
    rss_kib: u64,
}

/// Sends for so long, from the span with this number on; and how many batches were refused.
fn send(address: &str, core: usize, from: u64, secs: u64, control: &Process) -> io::Result<(Sent, u64)> {
    let (sent, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let begun = Instant::now();
    let batches = secs * RATE / BATCH;
    let mut most = 0;
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (sent, refused) = (&sent, &refused);
                scope.spawn(move || -> io::Result<()> {
                    let mut cores = CpuSet::new();
                    cores.set(core);
                    sched_setaffinity(None, &cores)?;
                    let mut stream = TcpStream::connect(address)?;
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
                    for number in (sender..batches).step_by(SENDERS as usize) {
                        let due = Duration::from_secs_f64(number as f64 * BATCH as f64 / RATE as f64);
                        std::thread::sleep(due.saturating_sub(begun.elapsed()));
                        let body = batch(from / BATCH + number);
                        let head = format!(
                            "POST /v1/traces HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-protobuf\r\n\
                             content-length: {}\r\n\r\n",
                            body.len()
                        );
                        stream.write_all(&[head.as_bytes(), &body].concat())?;
                        if answered(&mut stream)? {
                            sent.fetch_add(BATCH, Relaxed);
                        } else {
                            refused.fetch_add(1, Relaxed);
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        while senders.iter().any(|sender| !sender.is_finished()) {
            most = most.max(control.rss_kib());
            std::thread::sleep(Duration::from_millis(200));
        }
        senders.into_iter().try_for_each(|sender| {
            sender.join().unwrap_or_else(|_| Err(io::Error::other("a sender's thread ended early")))
        })
    })?;
    Ok((Sent { spans: sent.load(Relaxed), rss_kib: most }, refused.load(Relaxed)))
}

/// Reads one answer, whose body is empty when all is well.
fn answered(stream: &mut TcpStream) -> io::Result<bool> {
    let (mut head, mut byte) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut byte)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => head.extend_from_slice(&byte[..read]),
        }
    }
    Ok(head.starts_with(b"HTTP/1.1 200"))
}

/// Milliseconds of a search; the better of two, as the first may wait for the disk.
fn ask(socket: &Path, query: &str) -> io::Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..2 {
        let begun = Instant::now();
        let mut stream = UnixStream::connect(socket)?;
        let request = format!("GET /v1/traces{query} HTTP/1.1\r\nhost: control\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        if !answer.starts_with(b"HTTP/1.1 200") {
            let said = String::from_utf8_lossy(&answer).into_owned();
            return Err(io::Error::other(format!("{query}: {said}")));
        }
        best = best.min(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(best)
}

/// A batch: one agent's part of 250 traces, a SERVER and a CLIENT span each. Two batches that follow each other are of
/// the same traces.
fn batch(number: u64) -> Vec<u8> {
    let agent = number % AGENTS;
    let (traces, second) = (number / 2, number % 2);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let mut scope = Vec::new();
    for n in 0..BATCH / 2 {
        let trace = traces * (BATCH / 2) + n;
        let length = (trace % 100) * 1_000_000 + 50_000;
        for kind in [2u64, 3] {
            let id = 1 + second * 2 + (kind - 2);
            field(&mut scope, 2, &span(trace, id, agent, kind, now - length, now));
        }
    }
    let mut resource = Vec::new();
    for (key, value) in [
        ("service.name", format!("agent-{agent}")),
        ("service.namespace", "bench".to_owned()),
        ("service.instance.id", format!("{agent:032x}")),
        ("host.name", "machine".to_owned()),
    ] {
        field(&mut resource, 1, &text(key, &value));
    }
    let mut spans = Vec::new();
    field(&mut spans, 1, &resource);
    field(&mut spans, 2, &scope);
    let mut request = Vec::with_capacity(spans.len() + 8);
    field(&mut request, 1, &spans);
    request
}

fn span(trace: u64, id: u64, agent: u64, kind: u64, start: u64, end: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    // As random ids are: no two of one neighbourhood.
    let spread = trace.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    field(&mut out, 1, &[spread.to_be_bytes(), trace.to_be_bytes()].concat());
    field(&mut out, 2, &(spread ^ id).to_be_bytes());
    if id > 1 {
        field(&mut out, 4, &(spread ^ (id - 1)).to_be_bytes());
    }
    field(&mut out, 5, format!("POST /work/{agent}").as_bytes());
    varint(&mut out, 6 << 3);
    varint(&mut out, kind);
    for (number, time) in [(7u64, start), (8, end)] {
        varint(&mut out, number << 3 | 1);
        out.extend_from_slice(&time.to_le_bytes());
    }
    let failed = trace.is_multiple_of(50);
    let pairs = [
        ("http.request.method", "POST".to_owned()),
        ("url.path", format!("/work/{agent}")),
        ("url.scheme", "http".to_owned()),
        ("server.address", format!("agent-{agent}.bench.svc.cluster.local")),
        ("network.protocol.version", "1.1".to_owned()),
        ("pilotfish.direction", if kind == 2 { "inbound" } else { "outbound" }.to_owned()),
        ("pilotfish.rule", "bench/work/0".to_owned()),
        ("pilotfish.endpoint", format!("10.0.0.{agent}:15006")),
        ("pilotfish.agent", format!("bench/agent-{agent}")),
        ("pilotfish.request_id", format!("request-{trace}-{}", id - 1)),
        ("pilotfish.workflow.id", format!("w-{}", trace / 10)),
    ];
    for (key, value) in pairs {
        field(&mut out, 9, &text(key, &value));
    }
    let (mut value, mut pair) = (Vec::new(), Vec::new());
    varint(&mut value, 3 << 3);
    varint(&mut value, if failed { 503 } else { 200 });
    field(&mut pair, 1, b"http.response.status_code");
    field(&mut pair, 2, &value);
    field(&mut out, 9, &pair);
    if failed {
        field(&mut out, 15, &[3 << 3, 2]);
    }
    out
}

/// An attribute.
fn text(key: &str, value: &str) -> Vec<u8> {
    let (mut inner, mut pair) = (Vec::new(), Vec::new());
    field(&mut inner, 1, value.as_bytes());
    field(&mut pair, 1, key.as_bytes());
    field(&mut pair, 2, &inner);
    pair
}

fn field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
