//! One line for each finished request, when it is asked for. Lines are made on the worker and written by a thread of
//! their own: a slow disk or a full pipe drops lines (counted), it never slows a request.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pilotfish_filters::verdict::Reason;

use super::text::{push_quoted, push_time, push_value};
use crate::bootstrap::{AccessLogFormat, Settings};
use crate::listen::Direction;

/// Lines that may wait for the writer.
const QUEUE: usize = 4096;

/// A finished request, as the log tells it. No headers, no query, no body: they hold secrets.
#[derive(Debug, Clone, Copy)]
pub struct Finished<'a> {
    /// Which way the request went.
    pub direction: Direction,
    /// Who sent it.
    pub peer: IpAddr,
    /// `HTTP/1.1` or `HTTP/2`, downstream.
    pub protocol: &'static str,
    /// The method as sent.
    pub method: &'a str,
    /// The host that was asked for.
    pub authority: &'a str,
    /// The path without the query.
    pub path: &'a str,
    /// What the caller got; `None` when the caller was gone before.
    pub status: Option<u16>,
    /// Why the proxy itself refused, if it did.
    pub reason: Option<Reason>,
    /// The rule that matched.
    pub rule: &'a str,
    /// The cluster that it led to.
    pub cluster: &'a str,
    /// The endpoint that answered.
    pub endpoint: Option<SocketAddr>,
    /// `x-request-id`.
    pub request_id: &'a str,
    /// From the request's head to the end of its answer.
    pub duration: Duration,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
}

/// What the writer is sent.
#[derive(Debug)]
enum Entry {
    Line(String),
    /// Everything before this is to be written; then say so.
    Flush(SyncSender<()>),
}

/// The way from the workers to the log's writer.
#[derive(Debug)]
pub struct AccessLog {
    json: bool,
    lines: SyncSender<Entry>,
    dropped: AtomicU64,
}

impl AccessLog {
    /// The access log that the settings ask for, `None` when it is off. Starts the writer's thread.
    ///
    /// # Errors
    /// The log's file cannot be opened, or the thread not be started.
    pub fn open(settings: &Settings) -> io::Result<Option<Self>> {
        if settings.access_log == AccessLogFormat::Off {
            return Ok(None);
        }
        let sink: Box<dyn Write + Send> = match &settings.access_log_file {
            None => Box::new(io::stderr()),
            Some(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
                    io::Error::new(
                        error.kind(),
                        format!("cannot open the access log {}: {error}", path.display()),
                    )
                })?;
                Box::new(file)
            }
        };
        let (lines, queue) = sync_channel(QUEUE);
        std::thread::Builder::new().name("access-log".into()).spawn(move || write_lines(&queue, sink))?;
        Ok(Some(AccessLog {
            json: settings.access_log == AccessLogFormat::Json,
            lines,
            dropped: AtomicU64::new(0),
        }))
    }

    /// Queues one line, or counts it as dropped when the writer cannot keep up.
    pub fn record(&self, request: &Finished<'_>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = if self.json { json(now, request) } else { text(now, request) };
        if self.lines.try_send(Entry::Line(line)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Waits until everything that was recorded is written, at most `limit`. For the end of the process.
    pub fn flush(&self, limit: Duration) {
        let (done, wait) = sync_channel(1);
        if self.lines.try_send(Entry::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(limit);
        }
    }

    /// Lines that were dropped because the writer could not keep up.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// Writes what is queued, several lines at a time when several wait.
fn write_lines(queue: &Receiver<Entry>, mut sink: Box<dyn Write + Send>) {
    let mut batch = String::new();
    let mut flushed = Vec::new();
    while let Ok(first) = queue.recv() {
        for entry in std::iter::once(first).chain(queue.try_iter().take(255)) {
            match entry {
                Entry::Line(line) => batch.push_str(&line),
                Entry::Flush(done) => flushed.push(done),
            }
        }
        let _ = sink.write_all(batch.as_bytes());
        batch.clear();
        for done in flushed.drain(..) {
            let _ = done.send(());
        }
    }
}

fn text(now: Duration, request: &Finished<'_>) -> String {
    let mut line = String::with_capacity(256);
    push_time(&mut line, now);
    let mut field = |key: &str, value: &str| {
        line.push(' ');
        line.push_str(key);
        line.push('=');
        push_value(&mut line, value);
    };
    each_field(request, &mut field);
    line.push('\n');
    line
}

fn json(now: Duration, request: &Finished<'_>) -> String {
    let mut line = String::with_capacity(384);
    line.push_str("{\"time\":\"");
    push_time(&mut line, now);
    line.push('"');
    let mut field = |key: &str, value: &str| {
        line.push_str(",\"");
        line.push_str(key);
        line.push_str("\":");
        if NUMBERS.contains(&key) {
            line.push_str(value);
        } else {
            push_quoted(&mut line, value);
        }
    };
    each_field(request, &mut field);
    line.push_str("}\n");
    line
}

const NUMBERS: [&str; 4] = ["status", "duration_us", "request_bytes", "response_bytes"];

/// The fields of a line in their order; empty ones are left out.
fn each_field(request: &Finished<'_>, field: &mut dyn FnMut(&str, &str)) {
    let mut number = String::with_capacity(48);
    let mut show = |field: &mut dyn FnMut(&str, &str), key: &str, value: &dyn std::fmt::Display| {
        number.clear();
        let _ = write!(number, "{value}");
        field(key, &number);
    };
    field("direction", request.direction.word());
    show(field, "peer", &request.peer);
    field("protocol", request.protocol);
    field("method", request.method);
    field("authority", request.authority);
    field("path", request.path);
    show(field, "status", &request.status.unwrap_or(Reason::ClientGone.status()));
    if let Some(reason) = request.reason {
        field("reason", reason.word());
    }
    for (key, value) in [("rule", request.rule), ("cluster", request.cluster)] {
        if !value.is_empty() {
            field(key, value);
        }
    }
    if let Some(endpoint) = request.endpoint {
        show(field, "endpoint", &endpoint);
    }
    if !request.request_id.is_empty() {
        field("request_id", request.request_id);
    }
    show(field, "duration_us", &request.duration.as_micros());
    show(field, "request_bytes", &request.request_bytes);
    show(field, "response_bytes", &request.response_bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Finished<'static> {
        Finished {
            direction: Direction::Outbound,
            peer: IpAddr::from([127, 0, 0, 1]),
            protocol: "HTTP/1.1",
            method: "POST",
            authority: "nlp",
            path: "/a\" b\n",
            status: Some(200),
            reason: None,
            rule: "nlp-routing/0",
            cluster: "",
            endpoint: Some(SocketAddr::from(([10, 0, 0, 7], 80))),
            request_id: "",
            duration: Duration::from_micros(1234),
            request_bytes: 3,
            response_bytes: 4,
        }
    }

    #[test]
    fn a_path_cannot_forge_fields_of_a_text_line() {
        assert_eq!(
            text(Duration::ZERO, &request()),
            "1970-01-01T00:00:00.000Z direction=outbound peer=127.0.0.1 protocol=HTTP/1.1 method=POST authority=nlp \
             path=\"/a\\\" b\\n\" status=200 rule=nlp-routing/0 endpoint=10.0.0.7:80 duration_us=1234 request_bytes=3 \
             response_bytes=4\n"
        );
    }

    #[test]
    fn a_json_line_parses_and_keeps_the_types() {
        let gone = Finished { status: None, reason: Some(Reason::ClientGone), ..request() };
        let line = json(Duration::ZERO, &gone);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["path"], "/a\" b\n");
        assert_eq!(value["status"], 499);
        assert_eq!(value["reason"], "client-gone");
        assert_eq!(value["duration_us"], 1234);
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn a_flush_waits_for_what_was_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let file = path.to_str().unwrap();
        let flags =
            ["p", "--config", "/c", "--agent", "a", "--access-log", "json", "--access-log-file", file];
        let settings = <Settings as clap::Parser>::try_parse_from(flags).unwrap();
        let log = AccessLog::open(&settings).unwrap().unwrap();
        for _ in 0..600 {
            log.record(&request());
        }
        log.flush(Duration::from_secs(10));
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 600);
    }

    #[test]
    fn a_stuck_writer_drops_lines_and_counts_them() {
        let (lines, _queue) = sync_channel(1);
        let log = AccessLog { json: false, lines, dropped: AtomicU64::new(0) };
        for _ in 0..3 {
            log.record(&request());
        }
        assert_eq!(log.dropped(), 2);
    }
}
