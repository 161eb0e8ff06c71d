//! The audit thread: takes what the workers noted, has it kept, tells collectors of it and looks for the unusual. It is woken by the
//! first record after a pause, then lets more come: a wake-up and a hand-over for a batch and not for a call.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use pilotfish_audit::writer::keep_number;
use pilotfish_config::wire::AuditWhat;
use pilotfish_filters::trace::SpanId;

use super::anomaly::Callers;
use super::entry::{Batch, Entry, Field, Outcome};
use super::keep::Keeper;
use super::line::{action, word};
use super::{Item, Note, SHIPPED, now, turned};
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
}

/// However it ends: nothing is lost silently.
impl Drop for Thread {
    fn drop(&mut self) {
        let audit = &self.shared.audit;
        audit.close();
        let notes = self.queue.try_iter().filter(|item| matches!(item, Item::Note(_)));
        notes.for_each(|_| audit.state.lose(now()));
    }
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
        // They go round: what was emptied here is what a worker fills next.
        let mut batches: Vec<Batch> = shared.audit.batches.iter().map(|_| Batch::default()).collect();
        keeper.open(now());
        keeper.write(now());
        loop {
            let retention = shared.snapshots.newest().plan.governance().retention;
            let look = retention.map_or(LOOK, |retention| (retention / 20).clamp(SOON, LOOK));
            let rest = if keeper.is_waiting() || turned_since.is_some() { SOON } else { REST.min(look) };
            let mut notes = Vec::new();
            let mut flushed = match self.queue.recv_timeout(rest) {
                Ok(item) => {
                    let flushed = sort(item, &mut notes);
                    if flushed.is_none() {
                        #[allow(
                            clippy::disallowed_methods,
                            reason = "the audit log's own thread serves nobody else"
                        )]
                        std::thread::sleep(GATHER);
                    }
                    flushed
                }
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            while flushed.is_none()
                && let Ok(item) = self.queue.try_recv()
            {
                flushed = sort(item, &mut notes);
            }
            keeper.open(now());
            shared.audit.hand_over(&mut batches);
            self.take(&batches, notes, &mut keeper, &mut callers);
            batches.iter_mut().for_each(Batch::clear);
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
            let fields = turned::fields(String::new(), "tls", detail);
            self.note(keeper, &Note { at: now(), what: AuditWhat::Decision, fields });
        }
    }

    /// Takes what was noted, in the order of time.
    fn take(&self, batches: &[Batch], notes: Vec<Note>, keeper: &mut Keeper<'_>, callers: &mut Callers) {
        let mut notes = notes.into_iter().peekable();
        let mut workers: Vec<_> = batches.iter().map(|batch| batch.entries().peekable()).collect();
        loop {
            let next = workers.iter_mut().filter_map(|entries| Some((entries.peek()?.head.at, entries)));
            let next = next.min_by_key(|(at, _)| *at);
            match (next, notes.peek()) {
                (Some((at, entries)), note) if note.is_none_or(|note| at <= note.at) => {
                    entries.next().into_iter().for_each(|entry| self.entry(entry, keeper, callers));
                }
                (_, Some(_)) => notes.next().into_iter().for_each(|note| self.note(keeper, &note)),
                _ => return,
            }
        }
    }

    fn entry(&self, entry: Entry<'_>, keeper: &mut Keeper<'_>, callers: &mut Callers) {
        let head = entry.head;
        if head.recorded {
            let line = keeper.add(head.at, head.what, |line| line.entry(entry));
            self.tell(head.at, head.what, line, Some(entry));
        }
        if head.watched {
            self.watch(entry, keeper, callers);
        }
    }

    fn note(&self, keeper: &mut Keeper<'_>, Note { at, what, fields }: &Note) {
        let line = keeper.add(*at, *what, |line| {
            for (name, text) in fields {
                line.text(name, text);
            }
        });
        self.tell(*at, *what, line, None);
    }

    fn watch(&self, entry: Entry<'_>, keeper: &mut Keeper<'_>, callers: &mut Callers) {
        let (caller, at) = (entry.get(Field::Caller), entry.head.at);
        let refused = entry.head.outcome == Outcome::Denied;
        let Some(what) = callers.hear(caller, refused, at) else { return };
        self.shared.audit.state.anomalies.fetch_add(1, Relaxed);
        log::warn!("unusual calls", caller = caller, what = what);
        let line = keeper.add(at, AuditWhat::Anomaly, |line| {
            line.text("caller", caller);
            line.text("action", &action(entry));
            line.text("detail", &what);
        });
        self.tell(at, AuditWhat::Anomaly, line, None);
    }

    /// Sends a record to collectors of log records, if there are any.
    fn tell(&self, at: u64, what: AuditWhat, line: Option<&str>, entry: Option<Entry<'_>>) {
        let exporter = &self.shared.exporter;
        let Some(line) = line.filter(|_| exporter.takes_logs()) else { return };
        let refused = entry.is_some_and(|entry| entry.head.outcome == Outcome::Denied);
        let unusual = matches!(what, AuditWhat::Anomaly | AuditWhat::Gap);
        let epoch = self.shared.clock.epoch().0;
        let mut attributes: Vec<(Box<str>, Value)> =
            vec![("pilotfish.audit.what".into(), Value::Text(word(what).into()))];
        if let Some(entry) = entry {
            attributes.push(("pilotfish.audit.caller".into(), Value::Text(entry.get(Field::Caller).into())));
            attributes
                .push(("pilotfish.audit.outcome".into(), Value::Text(entry.head.outcome.word().into())));
        }
        exporter.log_line(LogLine {
            at: pilotfish_filters::clock::Micros(at.saturating_sub(epoch) / 1000),
            severity: if refused || unusual { 13 } else { 9 },
            event: "pilotfish.audit",
            body: line.trim_end().into(),
            attributes,
            trace: entry.map(|entry| entry.head.trace).unwrap_or_default(),
            span: SpanId::default(),
            sampled: false,
        });
    }
}

/// Puts a note to the others. The end of the process is given back.
fn sort(item: Item, notes: &mut Vec<Note>) -> Option<SyncSender<()>> {
    match item {
        Item::Note(note) => notes.push(note),
        Item::Wake => {}
        Item::End(done) => return Some(done),
    }
    None
}
