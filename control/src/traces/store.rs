//! The window of traces on disk: taken in batches, searched by what their roots and spans say, dropped when they are old
//! or too many.
//!
//! Spans are appended to segments as they came (`store/segment.rs`) by one thread (`store/writer.rs`); an index in
//! memory (`store/index.rs`) knows of each trace what a list tells and where its spans are. What was taken is in the
//! kernel's hands: a process that is killed loses none of it, a machine that loses power may lose the last seconds.

mod index;
mod names;
mod read;
mod scan;
mod sealed;
mod segment;
mod writer;

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use pilotfish_filters::trace::TraceId;

use super::batch::{Batch, RefusedSpans, Speaker, Times};
use super::span::Trace;
use index::Index;
use segment::Segment;
use writer::{Job, Jobs};

/// A trace has at most so many spans; those that come after are refused.
pub const MOST_SPANS: u32 = 20_000;
/// Times of spans may be so far ahead: clocks differ, but not by more.
const AHEAD: Duration = Duration::from_secs(24 * 3600);

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes on disk.
    pub disk: u64,
    /// How long spans are kept.
    pub age: Duration,
}

impl Default for Limits {
    /// 1 GiB: some 2.5 million spans. A week.
    fn default() -> Limits {
        Limits { disk: 1 << 30, age: Duration::from_secs(7 * 24 * 3600) }
    }
}

impl Limits {
    /// How long a segment may become, bytes: the oldest is dropped whole.
    fn segment(self) -> u64 {
        (self.disk / 16).clamp(64 << 10, 32 << 20)
    }

    /// How many traces a segment may hold.
    fn held(self) -> usize {
        usize::try_from(self.segment() / 256).unwrap_or(usize::MAX)
    }

    /// How much memory the index may take, bytes.
    fn memory(self) -> usize {
        usize::try_from(self.disk / 4).unwrap_or(usize::MAX).max(32 << 20)
    }
}

/// Why a batch is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is no OTLP.
    Malformed,
    /// More comes than can be written; it may be sent again.
    Busy,
    /// The disk takes no more; it may be sent again.
    Full,
}

impl Refusal {
    /// What to tell the sender.
    pub const fn why(self) -> &'static str {
        match self {
            Refusal::Malformed => "this is no OTLP ExportTraceServiceRequest",
            Refusal::Busy => "more spans come than can be written; send them again later",
            Refusal::Full => "the control plane's disk takes no more spans; send them again later",
        }
    }
}

/// What became of a batch that was taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Spans that are kept.
    pub spans: u64,
    /// Spans that are not.
    pub refused: RefusedSpans,
}

/// What a search is for; everything that is given has to hold.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// An agent (`name` or `namespace/name`) that has a span in the trace.
    pub agent: Option<String>,
    /// The name of a span of that agent.
    pub operation: Option<String>,
    /// Attributes that one span has, compared as text.
    pub attributes: Vec<(String, String)>,
    /// The workflow (`pilotfish.workflow.id`) that it belongs to.
    pub workflow: Option<String>,
    /// Only those with an error, or only those without.
    pub error: Option<bool>,
    /// At least so long, nanoseconds.
    pub min_duration: Option<u64>,
    /// At most so long, nanoseconds.
    pub max_duration: Option<u64>,
    /// Began at this time or later, nanoseconds since 1970.
    pub since: Option<u64>,
    /// Began before this time, nanoseconds since 1970.
    pub until: Option<u64>,
    /// At most so many, the newest.
    pub limit: usize,
}

/// What a list tells of a trace.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// 32 hexadecimal digits.
    pub trace: String,
    /// The agent of its first span, `namespace/name`.
    pub agent: String,
    /// The name of its first span.
    pub name: String,
    /// When it began, nanoseconds since 1970.
    pub start_ns: u64,
    /// From its first start to its last end, nanoseconds.
    pub duration_ns: u64,
    /// Its spans.
    pub spans: u32,
    /// Agents in it.
    pub agents: u32,
    /// One of its spans is an error.
    pub error: bool,
    /// It was not sampled; what is known of it was gathered because a call failed or was slow.
    pub partial: bool,
    /// The workflow.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub workflow: String,
}

/// Counts since the start.
#[derive(Debug, Default)]
struct Counters {
    spans: AtomicU64,
    bytes: AtomicU64,
    ids: AtomicU64,
    time: AtomicU64,
    large: AtomicU64,
    trace: AtomicU64,
    malformed: AtomicU64,
    busy: AtomicU64,
    full: AtomicU64,
}

/// What the store can tell of itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    /// Spans taken since the start.
    pub spans: u64,
    /// Bytes of them as they came.
    pub bytes: u64,
    /// Spans refused since the start.
    pub refused: RefusedSpans,
    /// Batches refused since the start: no OTLP, too many, the disk full.
    pub batches_refused: [u64; 3],
    /// Segments in the window.
    pub segments: usize,
    /// Bytes of the window on disk.
    pub disk: u64,
    /// Traces in the window.
    pub traces: usize,
    /// About how many bytes of memory the index takes.
    pub index: usize,
    /// How long ago the oldest segment was begun.
    pub age: Duration,
    /// The disk takes no more just now.
    pub full: bool,
}

/// What is in the window.
#[derive(Debug)]
struct State {
    index: Index,
    segments: BTreeMap<u32, Segment>,
}

/// What writer and readers share.
#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    limits: Limits,
    state: RwLock<State>,
    counters: Counters,
    /// Until when nothing is written because the disk is full, milliseconds since 1970; 0 when it is not.
    full_until: AtomicU64,
}

/// The window. Dropping it waits until what was taken is written.
#[derive(Debug)]
pub struct TraceStore {
    inner: Arc<Inner>,
    jobs: Option<Jobs>,
    writer: Option<JoinHandle<()>>,
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Inner {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self, now: u64) -> bool {
        now < self.full_until.load(Relaxed)
    }
}

impl TraceStore {
    /// The window in a folder, which is made when it is not there, with the usual limits.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn open(folder: &Path) -> io::Result<TraceStore> {
        TraceStore::open_with(folder, Limits::default())
    }

    /// The window in a folder.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn open_with(folder: &Path, limits: Limits) -> io::Result<TraceStore> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let (state, next) = writer::restore(folder, limits)?;
        let inner = Arc::new(Inner {
            folder: folder.to_owned(),
            limits,
            state: RwLock::new(state),
            counters: Counters::default(),
            full_until: AtomicU64::new(0),
        });
        let (jobs, queue) = writer::queue();
        let shared = inner.clone();
        let writer = std::thread::Builder::new()
            .name("traces".into())
            .spawn(move || writer::Writer::new(shared, next).run(&queue))?;
        Ok(TraceStore { inner, jobs: Some(jobs), writer: Some(writer) })
    }

    /// Takes a batch: the bytes of an OTLP `ExportTraceServiceRequest`. With a speaker, who proved who he is, all of it
    /// is taken for his. It is kept when this says so.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn take(&self, bytes: Bytes, speaker: Option<&Speaker>) -> Result<Taken, Refusal> {
        self.settled(match self.hand_over(bytes, speaker) {
            Ok(Some(answer)) => answer.await.unwrap_or(Err(Refusal::Busy)),
            Ok(None) => Ok(Taken::default()),
            Err(refusal) => Err(refusal),
        })
    }

    /// [`TraceStore::take`] for a thread that may wait.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn take_now(&self, bytes: Bytes, speaker: Option<&Speaker>) -> Result<Taken, Refusal> {
        self.settled(match self.hand_over(bytes, speaker) {
            Ok(Some(answer)) => answer.blocking_recv().unwrap_or(Err(Refusal::Busy)),
            Ok(None) => Ok(Taken::default()),
            Err(refusal) => Err(refusal),
        })
    }

    /// Hands a batch to the writer; none when there is nothing in it.
    fn hand_over(&self, bytes: Bytes, speaker: Option<&Speaker>) -> Result<Option<writer::Answer>, Refusal> {
        let now = now();
        if self.inner.is_full(now) {
            return Err(Refusal::Full);
        }
        let age = u64::try_from(self.inner.limits.age.as_millis()).unwrap_or(u64::MAX);
        let ahead = AHEAD.as_millis() as u64;
        let times = Times {
            oldest: now.saturating_sub(age.saturating_add(ahead)).saturating_mul(1_000_000),
            newest: now.saturating_add(ahead).saturating_mul(1_000_000),
        };
        let batch = Batch::read(bytes, speaker, times).map_err(|_| Refusal::Malformed)?;
        if batch.heads.is_empty() && batch.refused == RefusedSpans::default() {
            return Ok(None);
        }
        let jobs = self.jobs.as_ref().ok_or(Refusal::Busy)?;
        jobs.push(|answer| Job { batch, answer }).map(Some)
    }

    /// Counts what became of a batch.
    fn settled(&self, became: Result<Taken, Refusal>) -> Result<Taken, Refusal> {
        let counters = &self.inner.counters;
        match &became {
            Ok(taken) => {
                counters.spans.fetch_add(taken.spans, Relaxed);
                let refused = &taken.refused;
                for (counter, count) in [
                    (&counters.ids, refused.ids),
                    (&counters.time, refused.time),
                    (&counters.large, refused.large),
                    (&counters.trace, refused.trace),
                ] {
                    counter.fetch_add(count, Relaxed);
                }
            }
            Err(Refusal::Malformed) => _ = counters.malformed.fetch_add(1, Relaxed),
            Err(Refusal::Busy) => _ = counters.busy.fetch_add(1, Relaxed),
            Err(Refusal::Full) => _ = counters.full.fetch_add(1, Relaxed),
        }
        became
    }

    /// Traces for which everything holds, newest first.
    ///
    /// # Errors
    /// The disk's; it took too long (`TimedOut`), which only a search for attributes can.
    pub fn search(&self, search: &Search) -> io::Result<Vec<Summary>> {
        read::search(&self.inner, search)
    }

    /// All that is known of a trace.
    ///
    /// # Errors
    /// The disk's.
    pub fn trace(&self, id: TraceId) -> io::Result<Option<Trace>> {
        Ok(self.otlp(id)?.map(|data| super::convert::trace(id, data)))
    }

    /// All that is known of a trace, as it came, each span once.
    ///
    /// # Errors
    /// The disk's.
    pub fn otlp(&self, id: TraceId) -> io::Result<Option<opentelemetry_proto::tonic::trace::v1::TracesData>> {
        read::trace(&self.inner, id)
    }

    /// Traces whose ids begin with these hexadecimal digits, at most two: enough to know whether there is one.
    pub fn beginning_with(&self, digits: &str) -> Vec<TraceId> {
        let state = self.inner.read();
        let ids = state.index.entries().map(|(_, entry)| entry.id);
        ids.filter(|id| id.to_string().starts_with(digits)).take(2).collect()
    }

    /// Agents that have spans, `namespace/name`, by name.
    pub fn services(&self) -> Vec<String> {
        self.inner.read().index.names.services()
    }

    /// What spans of an agent are called, by name.
    pub fn operations(&self, service: &str) -> Vec<String> {
        self.inner.read().index.names.operations(service)
    }

    /// What it can tell of itself.
    pub fn stats(&self) -> Stats {
        let (counters, now) = (&self.inner.counters, now());
        let state = self.inner.read();
        let oldest = state.segments.values().next().map_or(now, |segment| segment.first);
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        Stats {
            spans: read(&counters.spans),
            bytes: read(&counters.bytes),
            refused: RefusedSpans {
                ids: read(&counters.ids),
                time: read(&counters.time),
                large: read(&counters.large),
                trace: read(&counters.trace),
            },
            batches_refused: [read(&counters.malformed), read(&counters.busy), read(&counters.full)],
            segments: state.segments.len(),
            disk: state.segments.values().map(Segment::bytes).sum(),
            traces: state.index.len(),
            index: state.index.bytes()
                + state.segments.values().map(|segment| segment.held.capacity() * 12).sum::<usize>(),
            age: Duration::from_millis(now.saturating_sub(oldest)),
            full: self.inner.full_until.load(Relaxed) > 0,
        }
    }
}

impl Drop for TraceStore {
    fn drop(&mut self) {
        // Without a sender the writer ends when its queue is empty.
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

#[cfg(test)]
mod tests;
