//! One line for each finished call, when it is asked for: by `--access-log`, or by a Telemetry document. A worker's price is a
//! copy of the call's record; lines are made and written by a thread of their own, and log records of OpenTelemetry by the
//! telemetry thread. A slow disk or a full pipe drops lines (counted), it never slows a call. No headers, no query, no body:
//! they hold secrets; what looks like one elsewhere is hidden (`filters/src/redact.rs`).

pub mod fields;
mod lines;
pub mod records;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pilotfish_filters::expression::Expression;
use pilotfish_filters::telemetry::{AccessLogPolicy, LogPolicy};

use super::call::CallRecord;
use super::export::Exporter;
use super::log;
use crate::bootstrap::{AccessLogFormat, AccessLogSettings};
use crate::http::RequestHead;
use crate::tls::MeshPeer;
use fields::Fields;

/// Calls that may wait for the writer: about 6 MiB.
const QUEUE: usize = 4096;

/// What the writer is sent.
#[derive(Debug)]
enum Entry {
    /// A call, and when it ended, after 1970.
    Call(Box<(Duration, CallRecord)>),
    /// Everything before this is to be written; then say so.
    Flush(SyncSender<()>),
}

/// The way from the workers to the log's writer.
#[derive(Debug)]
pub struct AccessLog {
    settings: AccessLogSettings,
    /// There once something was logged; `None`: there is no writer, and the process's log says why.
    writer: OnceLock<Option<SyncSender<Entry>>>,
    dropped: AtomicU64,
}

impl AccessLog {
    /// The access log that the settings ask for. Its writer's thread starts now when it is on, else when a document switches
    /// it on.
    ///
    /// # Errors
    /// The log's file cannot be opened, or the thread not be started.
    pub fn open(settings: &AccessLogSettings) -> io::Result<Self> {
        let log =
            AccessLog { settings: settings.clone(), writer: OnceLock::new(), dropped: AtomicU64::new(0) };
        if settings.form != AccessLogFormat::Off {
            let _ = log.writer.set(Some(start(settings)?));
        }
        Ok(log)
    }

    /// Whether calls to which `policy` applies are told of at all.
    pub fn wants(&self, policy: &AccessLogPolicy) -> bool {
        self.lines_on(policy) || self.records_on(policy)
    }

    fn lines_on(&self, policy: &AccessLogPolicy) -> bool {
        policy.lines.on.unwrap_or(self.settings.form != AccessLogFormat::Off)
    }

    fn records_on(&self, policy: &AccessLogPolicy) -> bool {
        policy.records.on.unwrap_or(self.settings.otlp)
    }

    /// The document's condition, else the flag's.
    fn filter<'a>(&'a self, policy: &'a LogPolicy) -> Option<&'a Expression> {
        policy.filter.as_deref().or(self.settings.filter.as_ref())
    }

    /// A call has begun: what a line needs of it, or a condition, and the record has no place for is kept.
    pub fn begin(
        &self,
        policy: &AccessLogPolicy,
        call: &mut CallRecord,
        head: &RequestHead,
        mesh: Option<&MeshPeer>,
    ) {
        let request_id = head.headers.get("x-request-id").unwrap_or_default();
        call.keep_whole(head.authority(), head.path(), &String::from_utf8_lossy(request_id));
        for kind in [&policy.lines, &policy.records] {
            if let Some(filter) = self.filter(kind) {
                call.keep_for(filter, head, mesh);
            }
        }
    }

    /// A call has ended: it is told of, or counted as dropped when the writer cannot keep up.
    pub fn end(&self, policy: &AccessLogPolicy, call: &CallRecord, exporter: &Exporter) {
        let meant = |kind: &LogPolicy| self.filter(kind).is_none_or(|filter| filter.matches(call));
        if self.lines_on(policy) && meant(&policy.lines) {
            self.write(call);
        }
        if self.records_on(policy) && meant(&policy.records) {
            exporter.log_call(call);
        }
    }

    fn write(&self, call: &CallRecord) {
        let writer = self.writer.get_or_init(|| {
            let started = start(&self.settings);
            started.inspect_err(|error| log::error!("no access log", error = error)).ok()
        });
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let entry = || Entry::Call(Box::new((now, call.clone())));
        if writer.as_ref().is_none_or(|writer| writer.try_send(entry()).is_err()) {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Waits until everything that was recorded is written, at most `limit`. For the end of the process.
    pub fn flush(&self, limit: Duration) {
        let (done, wait) = sync_channel(1);
        if let Some(Some(writer)) = self.writer.get()
            && writer.try_send(Entry::Flush(done)).is_ok()
        {
            let _ = wait.recv_timeout(limit);
        }
    }

    /// Lines that were dropped because the writer could not keep up; `None`: there was never anything to write.
    pub fn dropped(&self) -> Option<u64> {
        self.writer.get().map(|_| self.dropped.load(Relaxed))
    }

    /// The fields of lines and of log records.
    pub fn fields(&self) -> &Fields {
        &self.settings.fields
    }
}

/// Opens where lines go, and starts the thread that writes them there.
fn start(settings: &AccessLogSettings) -> io::Result<SyncSender<Entry>> {
    let sink: Box<dyn Write + Send> = match &settings.file {
        None => Box::new(io::stderr()),
        Some(path) => Box::new(open(path)?),
    };
    let (writer, queue) = sync_channel(QUEUE);
    let (json, fields) = (settings.form == AccessLogFormat::Json, settings.fields.clone());
    let thread = std::thread::Builder::new().name("access-log".into());
    thread.spawn(move || write_lines(&queue, sink, json, &fields))?;
    Ok(writer)
}

fn open(path: &PathBuf) -> io::Result<std::fs::File> {
    OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot open the access log {}: {error}", path.display()))
    })
}

/// Writes what is queued, several lines at a time when several wait.
fn write_lines(queue: &Receiver<Entry>, mut sink: Box<dyn Write + Send>, json: bool, fields: &Fields) {
    let mut batch = String::new();
    let mut flushed = Vec::new();
    while let Ok(first) = queue.recv() {
        for entry in std::iter::once(first).chain(queue.try_iter().take(255)) {
            match entry {
                Entry::Call(call) if json => lines::push_json(&mut batch, call.0, &call.1, fields),
                Entry::Call(call) => lines::push_text(&mut batch, call.0, &call.1, fields),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::Settings;

    fn settings(flags: &[&str]) -> AccessLogSettings {
        let flags = [&["p", "--config", "/c", "--agent", "a"], flags].concat();
        <Settings as clap::Parser>::try_parse_from(flags).unwrap().access_log
    }

    fn say(log: &AccessLog, policy: &AccessLogPolicy, status: u16) {
        let call = CallRecord { status, ..CallRecord::default() };
        log.end(policy, &call, &Exporter::default());
    }

    fn on(on: bool, filter: Option<&str>) -> AccessLogPolicy {
        let filter = filter.map(|filter| Box::new(Expression::compile(filter).unwrap()));
        AccessLogPolicy { lines: LogPolicy { on: Some(on), filter }, ..AccessLogPolicy::default() }
    }

    #[test]
    fn a_flush_waits_for_what_was_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let flags = ["--access-log", "json", "--access-log-file", path.to_str().unwrap()];
        let log = AccessLog::open(&settings(&flags)).unwrap();
        for _ in 0..600 {
            say(&log, &AccessLogPolicy::default(), 200);
        }
        log.flush(Duration::from_secs(10));
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 600);
    }

    #[test]
    fn documents_come_before_flags() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let flags =
            ["--access-log-file", path.to_str().unwrap(), "--access-log-filter", "response.code == 201"];
        let log = AccessLog::open(&settings(&flags)).unwrap();
        assert!(!log.wants(&AccessLogPolicy::default()) && log.dropped().is_none() && !path.exists());
        say(&log, &AccessLogPolicy::default(), 201);
        say(&log, &on(false, None), 201);
        assert!(!path.exists(), "off");
        say(&log, &on(true, None), 200);
        say(&log, &on(true, None), 201);
        say(&log, &on(true, Some("response.code == 202")), 201);
        say(&log, &on(true, Some("response.code == 202")), 202);
        log.flush(Duration::from_secs(10));
        let lines = std::fs::read_to_string(path).unwrap();
        let status: Vec<&str> = lines
            .lines()
            .filter_map(|line| line.split(' ').find(|pair| pair.starts_with("status=")))
            .collect();
        assert_eq!(status, ["status=201", "status=202"]);
    }

    #[test]
    fn a_stuck_writer_drops_lines_and_counts_them() {
        let log = AccessLog::open(&settings(&[])).unwrap();
        let (writer, _queue) = sync_channel(1);
        log.writer.set(Some(writer)).unwrap();
        for _ in 0..3 {
            say(&log, &on(true, None), 200);
        }
        assert_eq!(log.dropped(), Some(2));
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_an_error_at_the_start_and_never_later() {
        let flags = ["--access-log-file", "/nowhere/access.log"];
        let json = [&flags[..], &["--access-log", "json"]].concat();
        let error = AccessLog::open(&settings(&json)).unwrap_err().to_string();
        assert!(error.contains("/nowhere/access.log"), "{error}");
        let log = AccessLog::open(&settings(&flags)).unwrap();
        say(&log, &on(true, None), 200);
        assert_eq!(log.dropped(), Some(1));
    }
}
