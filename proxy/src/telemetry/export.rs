//! Finished calls on their way out of the process: a bounded queue to a thread of its own, which makes spans of them and sends
//! them on. What does not fit is dropped and counted; a request never waits.
//!
//! A worker's price for a call is a copy of its record. The thread is woken when there is something after a pause, gathers for
//! a while, and is woken again before that only when there is a whole batch: a bell for a batch and not for a call.

mod gather;
mod thread;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::call::{CallRecord, Value};
use super::log;
use super::otlp::lane::Counts;
use super::otlp::target::Signal;
use crate::bootstrap::otlp::{Plan, Way};
use crate::server::Shared;
use pilotfish_filters::clock::Micros;
use pilotfish_filters::trace::{SpanId, TraceId};

/// Why a call's spans are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its trace is sampled.
    Sampled,
    /// It failed or was slow, so that it is told of from the ring (`pilotfish.trace.partial`).
    Partial,
}

/// A record of OTLP logs.
#[derive(Debug, Clone, Default)]
pub struct LogLine {
    /// When it happened.
    pub at: Micros,
    /// `SeverityNumber`: 9 is info, 13 warn, 17 error; 0: not said.
    pub severity: u8,
    /// The text.
    pub body: Box<str>,
    /// What else is known.
    pub attributes: Vec<(Box<str>, Value)>,
    /// The call that it belongs to, if it belongs to one.
    pub trace: TraceId,
    /// Its SERVER span.
    pub span: SpanId,
    /// The trace is kept.
    pub sampled: bool,
}

/// What the workers send.
#[derive(Debug)]
enum Item {
    Call(Box<CallRecord>, Why),
    Log(Box<LogLine>),
    /// A call for the access log.
    Logged(Box<CallRecord>),
    /// Everything before this is to be sent; then say so.
    Flush(oneshot::Sender<()>),
}

/// The workers' end of the queue.
#[derive(Debug, Default)]
pub struct Exporter {
    queue: OnceLock<Queue>,
    counts: [Arc<Counts>; 3],
}

#[derive(Debug)]
struct Queue {
    items: SyncSender<Item>,
    bell: Arc<Bell>,
    traces: bool,
    logs: bool,
}

/// Wakes the thread when as much waits as it wants to be woken for.
#[derive(Debug)]
struct Bell {
    waiting: AtomicUsize,
    ring_at: AtomicUsize,
    rung: Notify,
}

impl Bell {
    /// One item more waits.
    fn add(&self) {
        // In one order with `set`: either the thread sees the item, or this sees at what it wants to be woken.
        let waiting = self.waiting.fetch_add(1, SeqCst) + 1;
        if waiting >= self.ring_at.load(SeqCst) && self.ring_at.swap(usize::MAX, SeqCst) != usize::MAX {
            self.rung.notify_one();
        }
    }

    /// The thread wants to be woken when so much waits; it says what waits already.
    fn set(&self, ring_at: usize) -> usize {
        self.ring_at.store(ring_at, SeqCst);
        self.waiting.load(SeqCst)
    }
}

impl Exporter {
    /// Begins to take calls. The thread starts with the first of them, or at once when metrics are to be sent. To be called
    /// once, in a runtime.
    pub fn start(&self, shared: &Arc<Shared>, plan: Plan) {
        let control = !shared.settings.control.addresses.is_empty();
        let goes = |signal: Signal| match plan.ways[signal as usize] {
            Way::Collector(_) => true,
            Way::Unset => control && signal == Signal::Traces,
            Way::Off => false,
        };
        let [traces, metrics, logs] = Signal::ALL.map(goes);
        if !traces && !metrics && !logs {
            return;
        }
        let (items, receiver) = sync_channel(plan.batching.queue);
        let bell = Arc::new(Bell {
            waiting: AtomicUsize::new(0),
            ring_at: AtomicUsize::new(1),
            rung: Notify::new(),
        });
        if self.queue.set(Queue { items, bell: bell.clone(), traces, logs }).is_err() {
            return;
        }
        let (shared, counts) = (shared.clone(), self.counts.clone());
        tokio::spawn(async move {
            if !metrics {
                bell.rung.notified().await;
            }
            let thread = std::thread::Builder::new().name("telemetry".into());
            if let Err(error) = thread.spawn(move || thread::run(shared, plan, receiver, bell, counts)) {
                log::error!("no thread for telemetry", error = error);
            }
        });
    }

    /// Whether spans go anywhere.
    pub fn is_on(&self) -> bool {
        self.queue.get().is_some_and(|queue| queue.traces)
    }

    /// Whether log records go anywhere.
    pub fn takes_logs(&self) -> bool {
        self.queue.get().is_some_and(|queue| queue.logs)
    }

    /// Queues a call, or counts its spans as dropped.
    pub fn offer(&self, record: &CallRecord, why: Why) {
        if let Some(queue) = self.queue.get().filter(|queue| queue.traces)
            && !queue.push(Item::Call(Box::new(record.clone()), why))
        {
            let spans = 1 + record.tried().len() as u64;
            self.of(Signal::Traces).queue_full.fetch_add(spans, Relaxed);
        }
    }

    /// Queues a log record, or counts it as dropped.
    pub fn log(&self, line: LogLine) {
        if let Some(queue) = self.queue.get().filter(|queue| queue.logs)
            && !queue.push(Item::Log(Box::new(line)))
        {
            self.of(Signal::Logs).queue_full.fetch_add(1, Relaxed);
        }
    }

    /// Queues a call of which a log record is to be made, or counts it as dropped.
    pub fn log_call(&self, record: &CallRecord) {
        if let Some(queue) = self.queue.get().filter(|queue| queue.logs)
            && !queue.push(Item::Logged(Box::new(record.clone())))
        {
            self.of(Signal::Logs).queue_full.fetch_add(1, Relaxed);
        }
    }

    /// Waits until everything that was offered is sent or given up, at most `limit`. For the end of the process.
    pub async fn flush(&self, limit: Duration) {
        let Some(queue) = self.queue.get() else { return };
        let (done, wait) = oneshot::channel();
        if queue.push(Item::Flush(done)) {
            queue.bell.rung.notify_one();
            let _ = tokio::time::timeout(limit, wait).await;
        }
    }

    /// What became of the items of a signal.
    pub fn of(&self, signal: Signal) -> &Counts {
        &self.counts[signal as usize]
    }

    /// Calls and log records that wait for the thread.
    pub fn waiting(&self) -> usize {
        self.queue.get().map_or(0, |queue| queue.bell.waiting.load(Relaxed))
    }

    /// Spans that were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.of(Signal::Traces).queue_full.load(Relaxed)
    }
}

impl Queue {
    /// Whether there was room for it.
    fn push(&self, item: Item) -> bool {
        let pushed = self.items.try_send(item).is_ok();
        if pushed {
            self.bell.add();
        }
        pushed
    }
}
