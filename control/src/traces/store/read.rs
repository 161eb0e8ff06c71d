//! Reading: searches by the index, and all spans of a trace.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::Arc;

use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span, TracesData};
use pilotfish_filters::trace::TraceId;
use prost::Message;

use super::index::Entry;
use super::segment::{Record, Records};
use super::{Inner, Search, State, Summary, scan};
use crate::traces::batch;
use crate::traces::wire::{Budget, Field, Reader};

/// What is read of one trace: bytes, and elements of all its spans together.
const TRACE_BYTES: usize = 32 << 20;
const TRACE_ELEMENTS: u32 = 1_000_000;

/// Where the records of a trace are: files with the newest record of each, oldest file first.
pub(super) type Chains = Vec<(Arc<File>, u32)>;

fn chains(state: &State, entry: &Entry) -> Chains {
    let held = entry.places().filter_map(|(number, place)| {
        let segment = state.segments.get(&number)?;
        Some((segment.file.clone(), segment.held.get(place as usize)?.last))
    });
    held.collect()
}

/// Traces for which everything holds, newest first.
pub(super) fn search(inner: &Inner, search: &Search) -> io::Result<Vec<Summary>> {
    if search.limit == 0 {
        return Ok(Vec::new());
    }
    let named = search.agent.is_some() || search.operation.is_some();
    let state = inner.read();
    let fitting = state.index.names.fitting(search.agent.as_deref(), search.operation.as_deref());
    let found = state.index.entries().filter(|(_, entry)| {
        search.since.is_none_or(|since| entry.start >= since)
            && search.until.is_none_or(|until| entry.start < until)
            && search.min_duration.is_none_or(|least| entry.duration() >= least)
            && search.max_duration.is_none_or(|most| entry.duration() <= most)
            && search.error.is_none_or(|error| entry.is_error() == error)
            && search.workflow.as_ref().is_none_or(|workflow| entry.is_of(workflow))
            && (!named || entry.has(&fitting) || entry.has_more())
    });
    if search.attributes.is_empty() {
        let in_doubt = |entry: &Entry| named && !entry.has(&fitting);
        // The newest so many, and those that have to be read to know whether they belong to them.
        let mut newest: BinaryHeap<Reverse<(u64, u32)>> = BinaryHeap::new();
        let mut doubtful = Vec::new();
        for (at, entry) in found {
            if in_doubt(entry) {
                doubtful.push((entry.start, at));
                continue;
            }
            newest.push(Reverse((entry.start, at)));
            if newest.len() > search.limit {
                newest.pop();
            }
        }
        let mut newest: Vec<(u64, u32)> = newest.into_iter().map(|Reverse(found)| found).collect();
        if doubtful.is_empty() {
            newest.sort_unstable_by_key(|found| Reverse(*found));
            let entries = newest.into_iter().filter_map(|(_, at)| state.index.get(at));
            return Ok(entries.map(|entry| state.index.summary(entry)).collect());
        }
        newest.append(&mut doubtful);
        let candidates = ordered(&state, newest);
        drop(state);
        return scan::verified(inner, search, &candidates);
    }
    let all = found.map(|(at, entry)| (entry.start, at)).collect();
    let candidates = ordered(&state, all);
    drop(state);
    scan::verified(inner, search, &candidates)
}

/// Candidates as ids, newest first: places may be another trace's once the lock is gone.
fn ordered(state: &State, mut found: Vec<(u64, u32)>) -> Vec<TraceId> {
    found.sort_unstable_by_key(|found| Reverse(*found));
    found.into_iter().filter_map(|(_, at)| Some(state.index.get(at)?.id)).collect()
}

/// Where the records of a trace are, and what a list tells of it.
pub(super) fn known(inner: &Inner, id: TraceId) -> Option<(Chains, Summary)> {
    let state = inner.read();
    let entry = state.index.find(id).and_then(|at| state.index.get(at))?;
    Some((chains(&state, entry), state.index.summary(entry)))
}

/// The resource of an origin.
pub(super) fn resource(origin: &[u8]) -> Resource {
    ResourceSpans::decode(origin).ok().and_then(|spans| spans.resource).unwrap_or_default()
}

/// The service of an origin.
pub(super) fn service(origin: &[u8]) -> String {
    batch::service(&resource(origin))
}

/// All spans of a trace, each once, in the order in which they came.
pub(super) fn trace(inner: &Inner, id: TraceId) -> io::Result<Option<TracesData>> {
    let chains = {
        let state = inner.read();
        let Some(entry) = state.index.find(id).and_then(|at| state.index.get(at)) else { return Ok(None) };
        chains(&state, entry)
    };
    let mut gathered = Gathered::default();
    for (file, last) in &chains {
        let mut places = Vec::new();
        let (mut records, mut at) = (Records::default(), *last);
        let mut bytes = 0;
        while at != 0 && bytes < TRACE_BYTES {
            let Ok(Record::Spans { before, spans, trace, .. }) = records.read(file, at) else { break };
            if trace != id {
                break;
            }
            bytes += spans.len();
            places.push(at);
            if before >= at {
                break;
            }
            at = before;
        }
        for at in places.into_iter().rev() {
            gathered.record(file, at)?;
        }
    }
    Ok(Some(TracesData { resource_spans: gathered.all }))
}

/// Spans as they are read.
#[derive(Debug)]
struct Gathered {
    all: Vec<ResourceSpans>,
    by_origin: HashMap<(usize, u32), usize>,
    seen: HashSet<Vec<u8>>,
    bytes: usize,
    budget: Budget,
    records: Records,
}

impl Default for Gathered {
    fn default() -> Gathered {
        Gathered {
            all: Vec::new(),
            by_origin: HashMap::new(),
            seen: HashSet::new(),
            bytes: 0,
            budget: Budget(TRACE_ELEMENTS),
            records: Records::default(),
        }
    }
}

impl Gathered {
    fn record(&mut self, file: &Arc<File>, at: u32) -> io::Result<()> {
        let Record::Spans { origin, spans, .. } = self.records.read(file, at)? else { return Ok(()) };
        let spans = spans.to_vec();
        let place = self.origin(file, origin);
        let mut fields = Reader::new(&spans, 0..spans.len());
        while let Ok(Some((2, Field::Bytes(range)))) = fields.next() {
            self.bytes += range.len();
            if self.bytes > TRACE_BYTES || !self.counts(&spans, range.clone()) {
                return Ok(());
            }
            let Ok(span) = Span::decode(&spans[range]) else { continue };
            if !self.seen.insert(span.span_id.clone()) {
                continue;
            }
            if let Some(scope) = self.all.get_mut(place).and_then(|spans| spans.scope_spans.first_mut()) {
                scope.spans.push(span);
            }
        }
        Ok(())
    }

    /// Counts what a span has; false when there is no room for it.
    fn counts(&mut self, all: &[u8], range: std::ops::Range<usize>) -> bool {
        let mut fields = Reader::new(all, range);
        let mut fits = self.budget.spend().is_ok();
        while let Ok(Some((number, field))) = fields.next() {
            let Field::Bytes(range) = field else { continue };
            fits &= match number {
                9 => self.budget.pair(all, range, 0).is_ok(),
                11 | 13 => self.budget.spend().is_ok() && self.counts_inner(all, range),
                _ => true,
            };
        }
        fits
    }

    fn counts_inner(&mut self, all: &[u8], range: std::ops::Range<usize>) -> bool {
        let mut fields = Reader::new(all, range);
        let mut fits = true;
        while let Ok(Some((number, field))) = fields.next() {
            if let (3 | 4, Field::Bytes(range)) = (number, field) {
                // A link's state is no pair; that is no reason to leave the span out.
                let _ = self.budget.pair(all, range, 0);
                fits &= self.budget.0 > 0;
            }
        }
        fits
    }

    fn origin(&mut self, file: &Arc<File>, at: u32) -> usize {
        let key = (Arc::as_ptr(file) as usize, at);
        if let Some(place) = self.by_origin.get(&key) {
            return *place;
        }
        let mut spans = match self.records.read(file, at) {
            Ok(Record::Origin(encoded)) => ResourceSpans::decode(encoded).unwrap_or_default(),
            _ => ResourceSpans::default(),
        };
        spans.scope_spans.truncate(1);
        if spans.scope_spans.is_empty() {
            spans.scope_spans.push(Default::default());
        }
        self.all.push(spans);
        self.by_origin.insert(key, self.all.len() - 1);
        self.all.len() - 1
    }
}
