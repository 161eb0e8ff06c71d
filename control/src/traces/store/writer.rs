//! The one thread that writes: appends batches to the newest segment, tells the index, seals and drops segments.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use pilotfish_filters::trace::TraceId;
use tokio::sync::oneshot;

use super::index::{Index, Said};
use super::segment::{self, Held, Record, Segment};
use super::{Inner, Limits, MOST_SPANS, Refusal, State, Taken, now, sealed};
use crate::log;
use crate::traces::batch::{self, Batch};
use crate::traces::wire::{Field, Reader};

/// Bytes that wait to be written; more is refused.
const WAITING: usize = 32 << 20;
/// Bytes that are written together.
const TOGETHER: usize = 1 << 20;
/// How often the window is looked at when nothing comes.
const LOOK: Duration = Duration::from_secs(5);
/// How long nothing is tried after the disk refused a write, milliseconds.
const REST: u64 = 1_000;
/// Spans of one record together, bytes.
const RECORD: usize = 1 << 20;
/// Origins of a segment that are remembered, and their bytes; one that is forgotten is written again.
const ORIGINS: usize = 1_024;
const ORIGIN_BYTES: usize = 1 << 20;

/// A batch, and who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) batch: Batch,
    pub(super) answer: oneshot::Sender<Result<Taken, Refusal>>,
}

/// What became of a job.
pub(super) type Answer = oneshot::Receiver<Result<Taken, Refusal>>;

/// The queue's end that takes.
#[derive(Debug)]
pub(super) struct Jobs {
    sender: Sender<Job>,
    waiting: Arc<AtomicUsize>,
}

/// The queue's end that gives.
#[derive(Debug)]
pub(super) struct Queue {
    receiver: Receiver<Job>,
    waiting: Arc<AtomicUsize>,
}

/// A queue, bounded by bytes.
pub(super) fn queue() -> (Jobs, Queue) {
    let (sender, receiver) = channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (Jobs { sender, waiting: waiting.clone() }, Queue { receiver, waiting })
}

/// What a job takes while it waits, bytes.
fn weight(batch: &Batch) -> usize {
    let origins: usize = batch.origins.iter().map(|origin| origin.encoded.len() + 64).sum();
    batch.bytes.len() + batch.heads.len() * size_of::<batch::Head>() + origins + 256
}

impl Jobs {
    /// Puts a job into the queue.
    pub(super) fn push(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<Taken, Refusal>>) -> Job,
    ) -> Result<Answer, Refusal> {
        let (sender, answer) = oneshot::channel();
        let job = job(sender);
        let weight = weight(&job.batch);
        let before = self.waiting.fetch_add(weight, Relaxed);
        // One batch alone is always taken.
        if before > 0 && before + weight > WAITING {
            self.waiting.fetch_sub(weight, Relaxed);
            return Err(Refusal::Busy);
        }
        self.sender.send(job).map_err(|_| Refusal::Busy)?;
        Ok(answer)
    }
}

/// Spans of one trace that follow each other: they become one record.
#[derive(Debug)]
struct Group {
    job: usize,
    heads: Range<usize>,
    at: u32,
}

/// The writer.
#[derive(Debug)]
pub(super) struct Writer {
    inner: Arc<Inner>,
    /// The number of the next segment.
    next: u32,
    /// Where the newest segment has which origin.
    origins: HashMap<Vec<u8>, u32>,
    origin_bytes: usize,
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn new(inner: Arc<Inner>, next: u32) -> Writer {
        Writer { inner, next, origins: HashMap::new(), origin_bytes: 0, buffer: Vec::new() }
    }

    /// Works until nobody can send any more.
    pub(super) fn run(mut self, queue: &Queue) {
        loop {
            match queue.receiver.recv_timeout(LOOK) {
                Ok(job) => {
                    let (mut jobs, mut bytes) = (Vec::new(), 0);
                    let mut next = Some(job);
                    while let Some(job) = next {
                        bytes += job.batch.bytes.len();
                        jobs.push(job);
                        next = if bytes < TOGETHER { queue.receiver.try_recv().ok() } else { None };
                    }
                    let weight = jobs.iter().map(|job| weight(&job.batch)).sum();
                    self.write(jobs);
                    queue.waiting.fetch_sub(weight, Relaxed);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look_after(now());
        }
    }

    /// Writes some jobs and answers them.
    fn write(&mut self, jobs: Vec<Job>) {
        let now = now();
        let mut refused: Vec<_> = jobs.iter().map(|job| job.batch.refused).collect();
        let written = if self.inner.is_full(now) {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            self.append(&jobs, &mut refused, now)
        };
        self.tell(&written, now);
        for (job, refused) in jobs.into_iter().zip(refused) {
            let known =
                (job.batch.heads.len() as u64 + job.batch.refused.total()).saturating_sub(refused.total());
            // Who sent it may be gone.
            let _ = job.answer.send(match written {
                Ok(()) => Ok(Taken { spans: known, refused }),
                Err(_) => Err(Refusal::Full),
            });
        }
    }

    /// Remembers that the disk takes no more, or takes again, and says it once.
    fn tell(&self, written: &io::Result<()>, now: u64) {
        let full = &self.inner.full_until;
        match written {
            Ok(()) => {
                if full.swap(0, Relaxed) > 0 {
                    log::info!("the trace store takes spans again");
                }
            }
            Err(error) => {
                if full.load(Relaxed) == 0 {
                    log::error!(
                        "the trace store takes no more spans until the disk takes them; what it has can be read",
                        folder = self.inner.folder.display(),
                        why = error
                    );
                }
                full.fetch_max(now + REST, Relaxed);
            }
        }
    }

    fn append(&mut self, jobs: &[Job], refused: &mut [batch::RefusedSpans], now: u64) -> io::Result<()> {
        let (number, file, length) = self.newest(now)?;
        self.buffer.clear();
        let groups = self.encode(jobs, refused, number, length);
        if groups.is_empty() {
            return Ok(());
        }
        if let Err(error) = file.write_all_at(&self.buffer, length) {
            // What was written of it does not count; the next write goes over it.
            let _ = file.set_len(length);
            self.forget_origins();
            return Err(error);
        }
        self.publish(jobs, &groups, number, now);
        Ok(())
    }

    /// The segment to append to.
    fn newest(&mut self, now: u64) -> io::Result<(u32, Arc<std::fs::File>, u64)> {
        let found = {
            let state = self.inner.read();
            let newest = state.segments.values().next_back().filter(|segment| segment.beside == 0);
            newest.map(|segment| (segment.number, segment.file.clone(), segment.length))
        };
        if let Some(found) = found {
            return Ok(found);
        }
        self.forget_origins();
        let segment = Segment::create(&self.inner.folder, self.next, now)?;
        self.next += 1;
        let found = (segment.number, segment.file.clone(), segment.length);
        self.inner.write().segments.insert(segment.number, segment);
        Ok(found)
    }

    fn forget_origins(&mut self) {
        self.origins.clear();
        self.origin_bytes = 0;
    }

    /// Puts the jobs' records into the buffer.
    fn encode(
        &mut self,
        jobs: &[Job],
        refused: &mut [batch::RefusedSpans],
        segment: u32,
        length: u64,
    ) -> Vec<Group> {
        let inner = self.inner.clone();
        // Only this thread changes what is looked up here, so readers need not wait meanwhile.
        let state = inner.read();
        let mut groups: Vec<Group> = Vec::new();
        // What this write adds to traces: where their newest record is, and how many spans they have then.
        let mut added: HashMap<TraceId, (u32, u32)> = HashMap::new();
        for (number, job) in jobs.iter().enumerate() {
            let heads = &job.batch.heads;
            let mut from = 0;
            while let Some(first) = heads.get(from) {
                let mut bytes = 0;
                let together = heads[from..].iter().take_while(|head| {
                    bytes += head.range.len() + 8;
                    head.trace == first.trace && head.origin == first.origin && bytes <= RECORD
                });
                let to = from + together.count().max(1);
                let (before, spans) = match added.get(&first.trace) {
                    Some(known) => *known,
                    None => known(&state, first.trace, segment),
                };
                let fit = (MOST_SPANS.saturating_sub(spans) as usize).min(to - from);
                if let Some(refused) = refused.get_mut(number) {
                    refused.trace += (to - from - fit) as u64;
                }
                if fit > 0 {
                    let origin = self.origin(&job.batch.origins[first.origin as usize].encoded, length);
                    let at = (length as usize + self.buffer.len()) as u32;
                    let spans_of =
                        heads[from..from + fit].iter().map(|head| &job.batch.bytes[head.range.clone()]);
                    segment::put_spans(&mut self.buffer, first.trace, origin, before, spans_of);
                    groups.push(Group { job: number, heads: from..from + fit, at });
                    added.insert(first.trace, (at, spans + fit as u32));
                }
                from = to;
            }
        }
        groups
    }

    /// Where the segment has an origin; it is appended when it does not.
    fn origin(&mut self, encoded: &[u8], length: u64) -> u32 {
        if let Some(at) = self.origins.get(encoded) {
            return *at;
        }
        let at = (length as usize + self.buffer.len()) as u32;
        segment::put_origin(&mut self.buffer, encoded);
        if self.origins.len() >= ORIGINS || self.origin_bytes >= ORIGIN_BYTES {
            self.forget_origins();
        }
        self.origin_bytes += encoded.len();
        self.origins.insert(encoded.to_vec(), at);
        at
    }

    /// Tells the index what is on disk now.
    fn publish(&self, jobs: &[Job], groups: &[Group], number: u32, now: u64) {
        let mut state = self.inner.write();
        let State { index, segments } = &mut *state;
        let Some(segment) = segments.get_mut(&number) else { return };
        segment.length += self.buffer.len() as u64;
        segment.last = now;
        for group in groups {
            let batch = &jobs[group.job].batch;
            add(index, segment, &batch.bytes, &batch.heads[group.heads.clone()], group.at, |head| {
                &batch.origins[head.origin as usize].service
            });
        }
        let bytes: usize = jobs.iter().map(|job| job.batch.bytes.len()).sum();
        self.inner.counters.bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Seals the newest segment when it is full or old, and drops the oldest when there are too many or they are too
    /// old.
    fn look_after(&mut self, now: u64) {
        let limits = self.inner.limits;
        let age = u64::try_from(limits.age.as_millis()).unwrap_or(u64::MAX);
        let state = self.inner.read();
        let full = state.segments.values().next_back().filter(|segment| {
            segment.beside == 0
                && !segment.held.is_empty()
                && (segment.length >= limits.segment()
                    || segment.held.len() >= limits.held()
                    || now.saturating_sub(segment.first) > age / 16)
        });
        let sealed =
            full.map(|segment| (segment.number, sealed::write(&self.inner.folder, segment, &state.index)));
        let too_many = too_many(&state, limits, now);
        drop(state);
        if let Some((number, written)) = sealed
            && let Some(segment) = self.inner.write().segments.get_mut(&number)
        {
            // Without an index beside it the next start reads the segment.
            segment.beside = written.unwrap_or(1);
        }
        if too_many {
            self.drop_oldest(now);
        }
    }

    fn drop_oldest(&self, now: u64) {
        let mut state = self.inner.write();
        while too_many(&state, self.inner.limits, now) {
            let Some((_, segment)) = state.segments.pop_first() else { break };
            if let Err(error) = segment.remove() {
                log::warn!(
                    "a segment of the trace store cannot be removed",
                    number = segment.number,
                    why = error
                );
            }
            for held in &segment.held {
                state.index.remove(held.trace, segment.number, held.spans);
            }
        }
        state.index.tidy();
    }
}

/// The newest record of a trace in a segment, and how many spans of it there are altogether.
fn known(state: &State, trace: TraceId, segment: u32) -> (u32, u32) {
    let Some(at) = state.index.find(trace) else { return (0, 0) };
    let spans = state.index.get(at).map_or(0, |entry| entry.spans);
    let held = state.index.place_in(at, segment);
    let held = held.and_then(|place| state.segments.get(&segment)?.held.get(place as usize));
    (held.map_or(0, |held| held.last), spans)
}

/// Whether the oldest segment has to go. The newest stays.
fn too_many(state: &State, limits: Limits, now: u64) -> bool {
    if state.segments.len() < 2 {
        return false;
    }
    let age = u64::try_from(limits.age.as_millis()).unwrap_or(u64::MAX);
    let disk: u64 = state.segments.values().map(Segment::bytes).sum();
    let held: usize =
        state.segments.values().map(|segment| segment.held.capacity() * size_of::<Held>()).sum();
    let old = state.segments.values().next().is_some_and(|segment| now.saturating_sub(segment.last) > age);
    // There has to be room for what comes until the next look.
    old || disk + limits.segment() / 4 > limits.disk || state.index.bytes() + held > limits.memory()
}

/// Tells the index of spans of one trace in one record.
fn add<'a>(
    index: &mut Index,
    segment: &mut Segment,
    bytes: &[u8],
    heads: &[batch::Head],
    at: u32,
    service: impl Fn(&batch::Head) -> &'a str,
) {
    let text = |range: &Range<usize>| {
        bytes.get(range.clone()).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    };
    let mut trace = None;
    for head in heads {
        let said = Said {
            service: service(head),
            name: text(&head.name),
            workflow: head.workflow.as_ref().map(text),
            start: head.start,
            end: head.end,
            root: head.root,
            error: head.error,
            partial: head.partial,
        };
        trace = Some(index.add(head.trace, said));
    }
    let Some(trace) = trace else { return };
    let spans = heads.len() as u32;
    match index.place_in(trace, segment.number) {
        Some(place) => {
            if let Some(held) = segment.held.get_mut(place as usize) {
                (held.last, held.spans) = (at, held.spans + spans);
            }
        }
        None => {
            index.set_place(trace, segment.number, segment.held.len() as u32);
            segment.held.push(Held { trace, last: at, spans });
        }
    }
}

/// The window as the folder has it, and the number of the next segment. What a crash tore off is cut off.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn restore(folder: &Path, limits: Limits) -> io::Result<(State, u32)> {
    let mut numbers: Vec<u32> = std::fs::read_dir(folder)?
        .filter_map(|file| {
            let name = file.ok()?.file_name();
            name.to_str()?.strip_suffix(".spans")?.parse().ok()
        })
        .collect();
    numbers.sort_unstable();
    let mut state = State { index: Index::new(), segments: Default::default() };
    for number in &numbers {
        let loaded = Segment::open(folder, *number).and_then(|mut segment| {
            if !sealed::load(folder, &mut segment, &mut state.index) {
                rebuild(&mut segment, &mut state.index)?;
                let full = segment.length >= limits.segment();
                // Only the newest is appended to.
                if full || Some(number) != numbers.last() {
                    segment.beside = sealed::write(folder, &segment, &state.index).unwrap_or(1);
                }
            }
            Ok(segment)
        });
        match loaded {
            Ok(segment) => drop(state.segments.insert(*number, segment)),
            Err(error) => {
                log::warn!(
                    "a segment of the trace store cannot be read and is left out",
                    number = number,
                    why = error
                );
            }
        }
    }
    Ok((state, numbers.last().map_or(1, |number| number + 1)))
}

/// Reads a whole segment into the index.
fn rebuild(segment: &mut Segment, index: &mut Index) -> io::Result<()> {
    let file = segment.file.clone();
    let mut services: HashMap<u32, String> = HashMap::new();
    let whole = segment::walk(&file, |at, record| match record {
        Record::Origin(encoded) => _ = services.insert(at, super::read::service(encoded)),
        Record::Spans { origin, spans, .. } => {
            let mut heads = Vec::new();
            let mut fields = Reader::new(spans, 0..spans.len());
            while let Ok(Some((2, Field::Bytes(range)))) = fields.next() {
                if let Ok(Ok(head)) = batch::head(spans, range, None) {
                    heads.push(head);
                }
            }
            let service = services.get(&origin).map_or("", String::as_str);
            add(index, segment, spans, &heads, at, |_| service);
        }
    })?;
    if whole < segment.length {
        let torn = segment.length - whole;
        log::warn!(
            "the end of a segment of the trace store was torn and is cut off",
            number = segment.number,
            bytes = torn
        );
        if whole == 0 {
            file.write_all_at(segment::MAGIC, 0)?;
        }
        segment.length = whole.max(segment::MAGIC.len() as u64);
        file.set_len(segment.length)?;
    }
    Ok(())
}
