//! Finished calls on their way out of the process: a bounded queue to a thread of its own, which makes spans of them and sends
//! them on. What does not fit is dropped and counted; a request never waits.
//!
//! A worker's price for a call is a copy of its record. The thread is woken when there is something after a pause, gathers for
//! a while, and is woken again before that only when there is a whole batch: a bell for a batch and not for a call.

mod gather;
mod routes;
mod thread;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
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
    /// `event_name`; empty: it is no event.
    pub event: &'static str,
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
    /// A call for the access log.
    Logged(Box<CallRecord>),
    /// A line of the agent.
    Line(Box<LogLine>),
    /// Everything before this is to be sent; then say so.
    Flush(oneshot::Sender<()>),
}

/// The workers' end of the queue.
#[derive(Debug, Default)]
pub struct Exporter {
    queue: OnceLock<Queue>,
    counts: [Arc<Counts>; 3],
    /// Whether Telemetry documents name providers for traces, for log records.
    named: [AtomicBool; 2],
    /// Rung when they begin to.
    naming: Notify,
}

#[derive(Debug)]
struct Queue {
    items: SyncSender<Item>,
    bell: Arc<Bell>,
    /// By the signals' numbers.
    goes: [Goes; 3],
}

/// Where a signal goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goes {
    /// Somewhere, whatever documents say.
    Always,
    /// Where documents say.
    IfNamed,
    /// Nowhere: that was asked for.
    Never,
}

/// Wakes the thread when as much waits as it wants to be woken for.
#[derive(Debug)]
struct Bell {
    waiting: AtomicUsize,
    ring_at: AtomicUsize,
    rung: Notify,
}

impl Bell {
    /// So many wait now.
    fn ring(&self, waiting: usize) {
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
    /// Begins to take calls. The thread starts with the first of them, or at once when metrics are to be sent; nothing is
    /// taken, and no room for it, before there is somewhere to send it. To be called once, in a runtime.
    pub fn start(&self, shared: &Arc<Shared>, plan: Plan) {
        let control = !shared.settings.control.addresses.is_empty();
        let goes = Signal::ALL.map(|signal| match (&plan.ways[signal as usize], signal) {
            (Way::Collector(_), _) => Goes::Always,
            (Way::Unset, Signal::Traces) if control => Goes::Always,
            (Way::Unset, Signal::Traces | Signal::Logs) => Goes::IfNamed,
            (Way::Unset, Signal::Metrics) | (Way::Off, _) => Goes::Never,
        });
        if goes.contains(&Goes::Always) {
            self.open(shared.clone(), plan, goes);
        } else if goes.contains(&Goes::IfNamed) {
            let shared = shared.clone();
            tokio::spawn(async move {
                shared.exporter.naming.notified().await;
                shared.exporter.open(shared.clone(), plan, goes);
            });
        }
    }

    fn open(&self, shared: Arc<Shared>, plan: Plan, goes: [Goes; 3]) {
        let (items, receiver) = sync_channel(plan.batching.queue);
        let bell = Arc::new(Bell {
            waiting: AtomicUsize::new(0),
            ring_at: AtomicUsize::new(1),
            rung: Notify::new(),
        });
        if self.queue.set(Queue { items, bell: bell.clone(), goes }).is_err() {
            return;
        }
        let counts = self.counts.clone();
        tokio::spawn(async move {
            if goes[Signal::Metrics as usize] != Goes::Always {
                bell.rung.notified().await;
            }
            let thread = std::thread::Builder::new().name("telemetry".into());
            if let Err(error) = thread.spawn(move || thread::run(shared, plan, receiver, bell, counts)) {
                log::error!("no thread for telemetry", error = error);
            }
        });
    }

    /// Hears what a configuration that is about to serve says of providers.
    pub fn follow(&self, plan: &pilotfish_filters::plan::Plan) {
        let policies = [plan.client_telemetry(), plan.server_telemetry()];
        let traces = policies.iter().any(|policy| !policy.tracing.providers.is_empty());
        let logs = policies.iter().any(|policy| !policy.access_log.providers.is_empty());
        for (named, now) in self.named.iter().zip([traces, logs]) {
            named.store(now, Relaxed);
        }
        if traces || logs {
            self.naming.notify_one();
        }
    }

    fn goes(&self, signal: Signal, named: &AtomicBool) -> bool {
        self.queue.get().is_some_and(|queue| match queue.goes[signal as usize] {
            Goes::Always => true,
            Goes::IfNamed => named.load(Relaxed),
            Goes::Never => false,
        })
    }

    /// Whether spans go anywhere.
    pub fn is_on(&self) -> bool {
        self.goes(Signal::Traces, &self.named[0])
    }

    /// Whether log records go anywhere.
    pub fn takes_logs(&self) -> bool {
        self.goes(Signal::Logs, &self.named[1])
    }

    /// Queues a call, or counts its spans as dropped.
    pub fn offer(&self, record: &CallRecord, why: Why) {
        if let Some(queue) = self.queue.get().filter(|_| self.is_on())
            && !queue.push(Item::Call(Box::new(record.clone()), why))
        {
            let spans = 1 + record.tried().len() as u64;
            self.of(Signal::Traces).queue_full.fetch_add(spans, Relaxed);
        }
    }

    /// Queues a call of which a log record is to be made, or counts it as dropped.
    pub fn log_call(&self, record: &CallRecord) {
        if let Some(queue) = self.queue.get().filter(|_| self.takes_logs())
            && !queue.push(Item::Logged(Box::new(record.clone())))
        {
            self.of(Signal::Logs).queue_full.fetch_add(1, Relaxed);
        }
    }

    /// Queues a log record of the agent, or counts it as dropped.
    pub fn log_line(&self, line: LogLine) {
        if let Some(queue) = self.queue.get().filter(|_| self.takes_logs())
            && !queue.push(Item::Line(Box::new(line)))
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
}

impl Queue {
    /// Whether there was room for it.
    fn push(&self, item: Item) -> bool {
        // Counted before it is there: in one order with `Bell::set`, either the thread sees that something comes, or this
        // sees at what the thread wants to be woken.
        let waiting = self.bell.waiting.fetch_add(1, SeqCst) + 1;
        let pushed = self.items.try_send(item).is_ok();
        if pushed {
            self.bell.ring(waiting);
        } else {
            self.bell.waiting.fetch_sub(1, SeqCst);
        }
        pushed
    }
}
