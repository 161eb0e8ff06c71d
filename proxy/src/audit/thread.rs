//! The audit thread: takes what the workers noted, has it kept, tells collectors of it and looks for the unusual. It is woken by the
//! first record after a pause, then gathers for a while: a wake-up for a batch and not for a call.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use pilotfish_audit::writer::keep_number;
use pilotfish_config::wire::AuditWhat;
use pilotfish_filters::trace::SpanId;

use super::anomaly::Callers;
use super::entry::{Entry, Field, Outcome};
use super::keep::Keeper;
use super::line::{action, word};
use super::{Item, SHIPPED, now, turned};
use crate::server::Shared;
use crate::telemetry::call::Value;
use crate::telemetry::export::LogLine;
use crate::telemetry::log;

/// How long records are gathered.
const GATHER: Duration = Duration::from_millis(20);
/// How long it rests when nothing comes, while something waits for the disk ...
const SOON: Duration = Duration::from_millis(200);
/// ... and while nothing does.
const REST: Duration = Duration::from_secs(60);
/// How long connections that were turned away are counted before a record tells of them.
const MORE: Duration = Duration::from_secs(1);
/// How often it is looked for old records at least.
const LOOK: Duration = Duration::from_secs(60);

pub struct Thread {
    pub shared: Arc<Shared>,
    pub queue: Receiver<Item>,
    pub place: Option<PathBuf>,
    /// Where each worker gets its entries back.
    pub back: Vec<SyncSender<Box<Entry>>>,
}

impl Thread {
    pub fn run(self) {
        let shared = self.shared.clone();
        let state = &shared.audit.state;
        let settings = &shared.settings;
        let agent = format!("{}/{}", settings.namespace, settings.agent);
        let chain = format!("{:032x}", fastrand::u128(1..));
        let disk = shared.audit.settings.disk.0;
        let mut keeper = Keeper::new(state, self.place.clone(), disk, agent, chain);
        let (mut callers, mut looked, mut shipped) = (Callers::default(), None::<Instant>, 0);
        let mut turned_since = None;
        keeper.open(now());
        keeper.write(now());
        loop {
            let retention = shared.snapshots.newest().plan.governance().retention;
            let look = retention.map_or(LOOK, |retention| (retention / 20).clamp(SOON, LOOK));
            let rest = if keeper.is_waiting() || turned_since.is_some() { SOON } else { REST.min(look) };
            let mut flushed = match self.queue.recv_timeout(rest) {
                Ok(item) => {
                    keeper.open(now());
                    let first = self.take(item, &mut keeper, &mut callers);
                    if first.is_none() {
                        #[allow(
                            clippy::disallowed_methods,
                            reason = "the audit log's own thread serves nobody else"
                        )]
                        std::thread::sleep(GATHER);
                    }
                    first
                }
                Err(RecvTimeoutError::Timeout) => {
                    keeper.open(now());
                    None
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            while flushed.is_none()
                && let Ok(item) = self.queue.try_recv()
            {
                flushed = self.take(item, &mut keeper, &mut callers);
            }
            if state.turned.load(Relaxed) > 0 {
                let since = *turned_since.get_or_insert_with(Instant::now);
                if flushed.is_some() || since.elapsed() >= MORE {
                    turned_since = None;
                    self.tell_of_more(&mut keeper);
                }
            }
            keeper.make_room(now());
            keeper.write(now());
            if looked.is_none_or(|looked| looked.elapsed() >= look) {
                keeper.erase(now(), retention);
                looked = Some(Instant::now());
            }
            let acked = state.acked.load(Relaxed);
            if let Some(place) = self.place.as_deref().filter(|_| acked != shipped)
                && keep_number(place, SHIPPED, acked).is_ok()
            {
                shipped = acked;
            }
            if let Some(flushed) = flushed {
                keeper.end(now());
                let _ = flushed.send(());
                return;
            }
        }
    }

    /// Tells how many connections were turned away of which no record told.
    fn tell_of_more(&self, keeper: &mut Keeper<'_>) {
        let more = self.shared.audit.state.turned.swap(0, Relaxed);
        if more > 0 {
            let detail = format!("{more} more were turned away, too many to tell of each");
            self.note(keeper, now(), AuditWhat::Decision, &turned::fields(String::new(), "tls", detail));
        }
    }

    /// Takes one item; the end of the process is given back.
    fn take(&self, item: Item, keeper: &mut Keeper<'_>, callers: &mut Callers) -> Option<SyncSender<()>> {
        let entry = match item {
            Item::Entry(entry) => entry,
            Item::Note(at, what, fields) => {
                self.note(keeper, at, what, &fields);
                return None;
            }
            Item::Turned => return None,
            Item::End(done) => return Some(done),
        };
        if entry.recorded {
            let line = keeper.add(entry.at, entry.what, |line| line.entry(&entry));
            self.tell(entry.at, entry.what, line, Some(&entry));
        }
        if entry.watched {
            self.watch(&entry, keeper, callers);
        }
        let at = entry.worker;
        // A pool that is full has enough of them.
        let _ = self.back.get(at).map(|back| back.try_send(entry));
        None
    }

    fn note(&self, keeper: &mut Keeper<'_>, at: u64, what: AuditWhat, fields: &[(&'static str, String)]) {
        let line = keeper.add(at, what, |line| {
            for (name, text) in fields {
                line.text(name, text);
            }
        });
        self.tell(at, what, line, None);
    }

    fn watch(&self, entry: &Entry, keeper: &mut Keeper<'_>, callers: &mut Callers) {
        let (caller, refused) = (entry.get(Field::Caller), entry.outcome == Outcome::Denied);
        let Some(what) = callers.hear(caller, refused, entry.at) else { return };
        self.shared.audit.state.anomalies.fetch_add(1, Relaxed);
        log::warn!("unusual calls", caller = caller, what = what);
        let line = keeper.add(entry.at, AuditWhat::Anomaly, |line| {
            line.text("caller", caller);
            line.text("action", &action(entry));
            line.text("detail", &what);
        });
        self.tell(entry.at, AuditWhat::Anomaly, line, None);
    }

    /// Sends a record to collectors of log records, if there are any.
    fn tell(&self, at: u64, what: AuditWhat, line: Option<&str>, entry: Option<&Entry>) {
        let exporter = &self.shared.exporter;
        let Some(line) = line.filter(|_| exporter.takes_logs()) else { return };
        let refused = entry.is_some_and(|entry| entry.outcome == Outcome::Denied);
        let unusual = matches!(what, AuditWhat::Anomaly | AuditWhat::Gap);
        let epoch = self.shared.clock.epoch().0;
        let mut attributes: Vec<(Box<str>, Value)> =
            vec![("pilotfish.audit.what".into(), Value::Text(word(what).into()))];
        if let Some(entry) = entry {
            attributes.push(("pilotfish.audit.caller".into(), Value::Text(entry.get(Field::Caller).into())));
            attributes.push(("pilotfish.audit.outcome".into(), Value::Text(entry.outcome.word().into())));
        }
        exporter.log_line(LogLine {
            at: pilotfish_filters::clock::Micros(at.saturating_sub(epoch) / 1000),
            severity: if refused || unusual { 13 } else { 9 },
            event: "pilotfish.audit",
            body: line.trim_end().into(),
            attributes,
            trace: entry.map(|entry| entry.trace).unwrap_or_default(),
            span: SpanId::default(),
            sampled: false,
        });
    }
}
