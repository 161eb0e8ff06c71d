//! The last calls of one worker, in a ring of a fixed size that is allocated once; other threads ask the worker for them.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use pilotfish_filters::clock::Micros;
use pilotfish_filters::trace::TraceId;
use tokio::sync::{mpsc, oneshot};

use super::call::CallRecord;
use super::export::{Exporter, Why};
use super::recall::Wanted;
use crate::server::Shared;

/// Calls that ended longer ago are not told of any more when their trace is asked for.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Calls of one worker that are kept explained: each may take 16 KiB.
const EXPLAINED: usize = 64;

/// A worker's calls: those under way take their record from here and give it back.
#[expect(clippy::vec_box, reason = "a call that is under way keeps its record where it is")]
#[derive(Debug)]
pub struct Calls {
    free: RefCell<Vec<Box<CallRecord>>>,
    ring: RefCell<Ring>,
    /// Traces that are to be whole: calls of them that end from now on are told of.
    pub wanted: Wanted,
}

#[expect(clippy::vec_box, reason = "one block of memory for each call that comes, not all at once")]
#[derive(Debug)]
struct Ring {
    records: Vec<Box<CallRecord>>,
    /// The trace of each, side by side: they are looked through more often than the records.
    traces: Vec<TraceId>,
    most: usize,
    next: usize,
}

impl Calls {
    /// Room for the last `most` calls.
    pub fn new(most: usize) -> Calls {
        let ring = Ring { records: Vec::new(), traces: Vec::new(), most, next: 0 };
        Calls { free: RefCell::default(), ring: RefCell::new(ring), wanted: Wanted::default() }
    }

    /// A record for a call that begins; what is in it is another's.
    pub fn take(&self) -> Recording<'_> {
        let record = self.free.borrow_mut().pop().unwrap_or_default();
        Recording { record: Some(record), calls: self }
    }

    /// Copies it into the ring: the record that the oldest call had is in no near cache, so the next call is better off with this one.
    fn remember(&self, record: &mut CallRecord) {
        let ring = &mut *self.ring.borrow_mut();
        if record.is_explained() {
            ring.forget_explained();
        }
        if ring.records.len() < ring.most {
            ring.traces.push(record.trace);
            let mut kept = Box::<CallRecord>::default();
            kept.take_over(record);
            ring.records.push(kept);
            return;
        }
        if let (Some(place), Some(trace)) = (ring.records.get_mut(ring.next), ring.traces.get_mut(ring.next))
        {
            *trace = record.trace;
            place.take_over(record);
            ring.next = (ring.next + 1) % ring.most;
        }
    }

    /// Tells of the calls of these traces (sorted) that were not told of yet; those that are under way are told of when they end.
    fn recall(&self, traces: &[TraceId], now: Micros, exporter: &Exporter) {
        self.wanted.add(traces);
        let Ring { records, traces: theirs, .. } = &mut *self.ring.borrow_mut();
        for (record, trace) in records.iter_mut().zip(theirs) {
            if traces.binary_search(trace).is_err() {
                continue;
            }
            let ended = Micros(record.started.0.saturating_add(record.stages.ended));
            if !record.sampled && !record.silent && !record.told && now.since(ended) <= REMEMBERED {
                record.told = true;
                exporter.offer(record, Why::Partial);
            }
        }
    }

    /// Those that are meant, oldest first.
    fn find(&self, question: &Question) -> Vec<CallRecord> {
        let ring = &*self.ring.borrow();
        let (newer, older) = ring.records.split_at(ring.next.min(ring.records.len()));
        let meant = |record: &CallRecord| match question {
            Question::Trace(trace) => record.trace == *trace,
            Question::Request(id) => record.request_id.as_str() == &**id,
            Question::Last(_) => true,
            Question::Recall(_) => false,
        };
        let mut found: Vec<CallRecord> = older
            .iter()
            .chain(newer)
            .map(|record| &**record)
            .filter(|record| meant(record))
            .cloned()
            .collect();
        if let Question::Last(most) = question {
            found.drain(..found.len().saturating_sub(*most));
        }
        found
    }
}

/// The record of a call under way. One that is not remembered is for another call.
#[derive(Debug)]
pub struct Recording<'a> {
    /// There until it is remembered.
    record: Option<Box<CallRecord>>,
    calls: &'a Calls,
}

impl Recording<'_> {
    /// The call has ended. What is asked of its record afterwards is asked of an empty one.
    pub fn remember(&mut self) {
        if let Some(mut record) = self.record.take() {
            self.calls.remember(&mut record);
            self.calls.free.borrow_mut().push(record);
        }
    }
}

impl Deref for Recording<'_> {
    type Target = CallRecord;

    fn deref(&self) -> &CallRecord {
        static NONE: LazyLock<CallRecord> = LazyLock::new(CallRecord::default);
        self.record.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for Recording<'_> {
    fn deref_mut(&mut self) -> &mut CallRecord {
        self.record.get_or_insert_default()
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            self.calls.free.borrow_mut().push(record);
        }
    }
}

impl Ring {
    /// Makes room for one more call that is explained: the accounts of the oldest ones go, the rest of their records stays.
    #[cold]
    fn forget_explained(&mut self) {
        let oldest = self.next.min(self.records.len());
        let (newer, older) = self.records.split_at_mut(oldest);
        let all = older.iter_mut().chain(newer);
        let mut explained: Vec<_> = all.filter(|record| record.is_explained()).collect();
        let most = explained.len().saturating_sub(EXPLAINED - 1);
        for extra in explained.iter_mut().take(most).filter_map(|record| record.extra.as_mut()) {
            extra.explained = None;
        }
    }
}

/// Which calls are asked for.
#[derive(Debug, Clone)]
pub enum Question {
    /// Those of a trace.
    Trace(TraceId),
    /// Those with this `x-request-id`.
    Request(Box<str>),
    /// The newest, so many of each worker.
    Last(usize),
    /// Nothing is answered: those of these traces (sorted) are told of.
    Recall(Arc<[TraceId]>),
}

type Asked = (Question, oneshot::Sender<Vec<CallRecord>>);

/// The way from other threads to a worker's calls.
#[derive(Debug)]
pub struct Asking(mpsc::UnboundedSender<Asked>);

/// The worker's end of it.
#[derive(Debug)]
pub struct Answering(mpsc::UnboundedReceiver<Asked>);

/// A way.
pub fn channel() -> (Asking, Answering) {
    let (asking, answering) = mpsc::unbounded_channel();
    (Asking(asking), Answering(answering))
}

impl Asking {
    /// What the worker remembers; nothing when it has ended.
    pub async fn ask(&self, question: Question) -> Vec<CallRecord> {
        let (answer, answered) = oneshot::channel();
        if self.0.send((question, answer)).is_err() {
            return Vec::new();
        }
        answered.await.unwrap_or_default()
    }
}

impl Answering {
    /// Answers, for the life of the worker.
    pub async fn run(mut self, calls: &Calls, shared: &Shared) {
        while let Some((question, answer)) = self.0.recv().await {
            if let Question::Recall(traces) = &question {
                calls.recall(traces, shared.clock.now(), &shared.exporter);
            }
            let _ = answer.send(calls.find(&question));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_accounts_are_kept() {
        let calls = Calls::new(100);
        for n in 0..250_u64 {
            let mut record = calls.take();
            record.extra = None;
            record.sent = n;
            record.extra().explained = Some("{}".into());
            record.remember();
        }
        let kept = calls.find(&Question::Last(1000));
        let explained: Vec<u64> = kept.iter().filter(|one| one.is_explained()).map(|one| one.sent).collect();
        assert_eq!(kept.len(), 100);
        assert_eq!(explained, (250 - EXPLAINED as u64..250).collect::<Vec<_>>());
    }
}
