//! Event streams: many open at once, each event subtracted from the stamp that the upstream put into it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsRawFd;

use memchr::memchr;
use serde_json::{Value, json};

use super::Counts;
use super::request::{Keys, Path, Requests};
use crate::clock::now_ns;
use crate::poller::Poller;
use crate::samples::Samples;
use crate::upstream::{MARK, STAMP_DIGITS};

/// Streams are opened spread over this time, so that their events do not come all at once.
const RAMP_NS: u64 = 1_000_000_000;

struct Stream {
    socket: TcpStream,
    opened: u64,
    /// A stamp of which only the beginning has come.
    carry: Vec<u8>,
    seen: bool,
}

#[derive(Default)]
struct Seen {
    counts: Counts,
    events: u64,
    transit: Samples,
    first: Samples,
}

/// Opens `streams` streams of one event every `interval_ms`, and reads for `secs` seconds after the last was opened.
///
/// # Errors
/// When a connection cannot be made.
pub fn run(port: u16, streams: usize, interval_ms: f64, secs: f64) -> io::Result<Value> {
    let mut poller = Poller::new()?;
    let mut open: Vec<Option<Stream>> = Vec::new();
    let mut requests = Requests::new(Path::Fixed(format!("/events?i={interval_ms}")), Keys::PerConnection);
    let mut random = fastrand::Rng::with_seed(20_260_101);
    let start = now_ns();
    let mut starts: Vec<u64> = (0..streams).map(|_| start + random.u64(0..RAMP_NS)).collect();
    starts.sort_unstable_by(|a, b| b.cmp(a));
    let steady = start + RAMP_NS + 200_000_000;
    let end = steady + (secs * 1e9) as u64;
    let mut seen = Seen::default();
    let mut ready = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while now_ns() < end {
        while starts.last().is_some_and(|at| *at <= now_ns()) {
            starts.pop();
            let stream = connect(port, starts.len(), &mut requests)?;
            poller.add(&stream.socket)?;
            let fd = stream.socket.as_raw_fd() as usize;
            open.resize_with(open.len().max(fd + 1), || None);
            open[fd] = Some(stream);
        }
        let until = starts.last().copied().unwrap_or(end).min(end);
        ready.clear();
        poller.wait(Some(until.saturating_sub(now_ns()).min(20_000_000)), &mut ready)?;
        for event in &ready {
            let Some(stream) = open[event.fd].as_mut() else { continue };
            if !seen.read(stream, &mut buffer, steady) {
                open[event.fd] = None;
            }
        }
    }
    let mut result = seen.counts.json();
    let steady_secs = (now_ns() - steady) as f64 / 1e9;
    result["done"] = json!(seen.events);
    result["per_sec"] = json!(seen.transit.len() as f64 / steady_secs);
    result["transit_us"] = seen.transit.summary();
    result["first_us"] = seen.first.summary();
    Ok(result)
}

fn connect(port: u16, index: usize, requests: &mut Requests) -> io::Result<Stream> {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_nodelay(true)?;
    let mut request = Vec::new();
    requests.write_next(index, &mut request);
    socket.write_all(&request)?;
    socket.set_nonblocking(true)?;
    Ok(Stream { socket, opened: now_ns(), carry: Vec::new(), seen: false })
}

impl Seen {
    /// Reads once; false when the stream is over, which none should be.
    fn read(&mut self, stream: &mut Stream, buffer: &mut [u8], steady: u64) -> bool {
        let read = (&stream.socket).read(buffer);
        let now = now_ns();
        let n = match read {
            Ok(n) if n > 0 => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
            _ => {
                self.counts.errors += 1;
                return false;
            }
        };
        self.counts.bytes += n as u64;
        if stream.carry.is_empty() {
            stream.carry = self.stamps(&buffer[..n], stream, now, steady);
        } else {
            let mut joined = std::mem::take(&mut stream.carry);
            joined.extend_from_slice(&buffer[..n]);
            stream.carry = self.stamps(&joined, stream, now, steady);
        }
        true
    }

    /// Takes every whole stamp in `text`; returns a beginning of one, if `text` ends in the middle of it.
    fn stamps(&mut self, mut text: &[u8], stream: &mut Stream, now: u64, steady: u64) -> Vec<u8> {
        while let Some(at) = memchr(MARK, text) {
            let Some(digits) = text.get(at + 1..at + 1 + STAMP_DIGITS) else { return text[at..].to_vec() };
            let stamp = digits
                .iter()
                .fold(0u64, |n, d| n.wrapping_mul(10).wrapping_add(u64::from(d.wrapping_sub(b'0'))));
            self.events += 1;
            if !stream.seen {
                stream.seen = true;
                self.first.push(now.saturating_sub(stream.opened));
            }
            if stamp >= steady {
                self.transit.push(now.saturating_sub(stamp));
            }
            text = &text[at + 1 + STAMP_DIGITS..];
        }
        Vec::new()
    }
}
