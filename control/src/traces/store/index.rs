//! What is known of every trace in the window, in memory: enough to search without reading the disk.

use std::collections::{BTreeSet, HashMap};

use pilotfish_filters::trace::TraceId;

use super::Summary;
use super::names::{Names, OTHER};

/// Pairs of service and name that a trace is found by; in one with more the others are found by reading.
const PAIRS: usize = 256;
/// So much of a workflow's id is kept, bytes.
const LONGEST_WORKFLOW: usize = 128;

const ERROR: u8 = 1;
const PARTIAL: u8 = 2;
const ROOTED: u8 = 4;
/// It has pairs that are not listed.
const MORE: u8 = 8;

/// A trace.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) id: TraceId,
    pub(super) start: u64,
    pub(super) end: u64,
    root_start: u64,
    root: u32,
    /// How many spans of it were taken; one that came twice counts twice.
    pub(super) spans: u32,
    flags: u8,
    pairs: Vec<u32>,
    workflow: Option<Box<str>>,
    /// Segments that hold spans of it, the newest last: the segment's number, and the place in its list. None when the
    /// entry is free.
    places: Places,
}

/// Nearly always one.
#[derive(Debug, Clone, Default)]
struct Places {
    newest: Option<(u32, u32)>,
    #[allow(clippy::box_collection, reason = "nearly always none, and it is in every entry")]
    older: Option<Box<Vec<(u32, u32)>>>,
}

/// What one span says of its trace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said<'a> {
    pub(super) service: &'a str,
    pub(super) name: &'a str,
    pub(super) workflow: Option<&'a str>,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) root: bool,
    pub(super) error: bool,
    pub(super) partial: bool,
}

/// What is kept of a trace beside its segment: all that the index knew of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Portrait {
    pub(super) id: TraceId,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) root_start: u64,
    pub(super) flags: u8,
    /// Pairs, the root's first.
    pub(super) pairs: Vec<u32>,
    pub(super) workflow: Option<Box<str>>,
}

/// All traces.
#[derive(Debug)]
pub(super) struct Index {
    entries: Vec<Entry>,
    free: Vec<u32>,
    by_id: HashMap<TraceId, u32>,
    pub(super) names: Names,
    /// Bytes of what entries have elsewhere.
    elsewhere: usize,
}

impl Index {
    pub(super) fn new() -> Index {
        Index {
            entries: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            names: Names::new(),
            elsewhere: 0,
        }
    }

    /// The place of a trace.
    pub(super) fn find(&self, id: TraceId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn get(&self, at: u32) -> Option<&Entry> {
        self.entries.get(at as usize).filter(|entry| entry.places.newest.is_some())
    }

    /// How many traces there are.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// About how many bytes all of it takes.
    pub(super) fn bytes(&self) -> usize {
        // A bucket of the map: id, place, a byte of control; at most 7 of 8 are used, and it doubles.
        self.entries.len() * (size_of::<Entry>() + 40) + self.elsewhere + self.names.bytes()
    }

    /// The place of a trace, made when it is not there.
    fn place(&mut self, id: TraceId) -> u32 {
        if let Some(at) = self.by_id.get(&id) {
            return *at;
        }
        let entry = Entry {
            id,
            start: u64::MAX,
            end: 0,
            root_start: u64::MAX,
            root: OTHER,
            spans: 0,
            flags: 0,
            pairs: Vec::new(),
            workflow: None,
            places: Places::default(),
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.by_id.insert(id, at);
        at
    }

    /// Adds what a span says; the caller then says where it is, by [`Index::set_place`].
    pub(super) fn add(&mut self, id: TraceId, said: Said<'_>) -> u32 {
        let at = self.place(id);
        let pair = self.names.pair(said.service, said.name);
        let entry = &mut self.entries[at as usize];
        entry.start = entry.start.min(said.start);
        entry.end = entry.end.max(said.end);
        entry.spans = entry.spans.saturating_add(1);
        entry.flags |= if said.error { ERROR } else { 0 } | if said.partial { PARTIAL } else { 0 };
        entry.root_of(pair, said.start, said.root);
        let mut elsewhere = entry.with_pair(pair);
        if let Some(workflow) = said.workflow.filter(|id| !id.is_empty() && entry.workflow.is_none()) {
            let kept = &workflow[..workflow.floor_char_boundary(LONGEST_WORKFLOW)];
            entry.workflow = Some(kept.into());
            elsewhere += kept.len();
        }
        self.elsewhere += elsewhere;
        at
    }

    /// Adds what was kept beside a segment: `spans` of the trace are in it.
    pub(super) fn merge(&mut self, portrait: Portrait, spans: u32) -> u32 {
        let at = self.place(portrait.id);
        let entry = &mut self.entries[at as usize];
        entry.start = entry.start.min(portrait.start);
        entry.end = entry.end.max(portrait.end);
        entry.spans = entry.spans.saturating_add(spans);
        entry.flags |= portrait.flags & (ERROR | PARTIAL | MORE);
        if let Some(root) = portrait.pairs.first() {
            entry.root_of(*root, portrait.root_start, portrait.flags & ROOTED != 0);
        }
        let mut elsewhere: usize = portrait.pairs.iter().map(|pair| entry.with_pair(*pair)).sum();
        if let (None, Some(workflow)) = (&entry.workflow, portrait.workflow) {
            elsewhere += workflow.len();
            entry.workflow = Some(workflow);
        }
        self.elsewhere += elsewhere;
        at
    }

    /// What is to be kept of a trace.
    pub(super) fn portrait(&self, at: u32) -> Option<Portrait> {
        let entry = self.get(at)?;
        let others = entry.pairs.iter().copied().filter(|pair| *pair != entry.root);
        Some(Portrait {
            id: entry.id,
            start: entry.start,
            end: entry.end,
            root_start: entry.root_start,
            flags: entry.flags,
            pairs: std::iter::once(entry.root).chain(others).collect(),
            workflow: entry.workflow.clone(),
        })
    }

    /// Where a segment's list has the trace.
    pub(super) fn place_in(&self, at: u32, segment: u32) -> Option<u32> {
        let (newest, place) = self.get(at)?.places.newest?;
        (newest == segment).then_some(place)
    }

    /// Says where the newest segment's list has the trace.
    pub(super) fn set_place(&mut self, at: u32, segment: u32, place: u32) {
        let Some(entry) = self.entries.get_mut(at as usize) else { return };
        if let Some(before) = entry.places.newest.replace((segment, place)) {
            entry.places.older.get_or_insert_default().push(before);
            self.elsewhere += 32;
        }
    }

    /// A segment is gone, which held so many spans of a trace.
    pub(super) fn remove(&mut self, at: u32, segment: u32, spans: u32) {
        let Some(entry) = self.entries.get_mut(at as usize) else { return };
        entry.spans = entry.spans.saturating_sub(spans);
        if let Some(older) = &mut entry.places.older {
            older.retain(|(number, _)| *number != segment);
            if older.is_empty() {
                entry.places.older = None;
            }
        }
        if entry.places.newest.is_some_and(|(number, _)| number == segment) {
            entry.places.newest = entry.places.older.as_mut().and_then(|older| older.pop());
        }
        if entry.places.newest.is_none() {
            let workflow = entry.workflow.take().map_or(0, |workflow| workflow.len());
            let pairs = std::mem::take(&mut entry.pairs).capacity() * 4;
            self.elsewhere = self.elsewhere.saturating_sub(workflow + pairs);
            self.by_id.remove(&entry.id);
            self.free.push(at);
        }
    }

    /// Forgets names that no trace has any more, when there are many.
    pub(super) fn tidy(&mut self) {
        if !self.names.is_crowded() {
            return;
        }
        let mut used = vec![false; self.names.len()];
        for pair in self.entries.iter().flat_map(|entry| entry.pairs.iter().chain([&entry.root])) {
            if let Some(used) = used.get_mut(*pair as usize) {
                *used = true;
            }
        }
        self.names.keep(&used);
    }

    /// The traces.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u32, &Entry)> {
        let numbered = self.entries.iter().enumerate().map(|(at, entry)| (at as u32, entry));
        numbered.filter(|(_, entry)| entry.places.newest.is_some())
    }

    /// What a list tells of a trace.
    pub(super) fn summary(&self, entry: &Entry) -> Summary {
        let (agent, name) = self.names.get(entry.root);
        let agents: BTreeSet<u32> = entry.pairs.iter().map(|pair| self.names.service(*pair)).collect();
        Summary {
            trace: entry.id.to_string(),
            agent: agent.to_owned(),
            name: name.to_owned(),
            start_ns: entry.start,
            duration_ns: entry.duration(),
            spans: entry.spans,
            agents: u32::try_from(agents.len().max(1)).unwrap_or(u32::MAX),
            error: entry.is_error(),
            partial: entry.flags & PARTIAL != 0,
            workflow: entry.workflow.as_deref().unwrap_or_default().to_owned(),
        }
    }
}

impl Entry {
    pub(super) fn duration(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    pub(super) fn is_error(&self) -> bool {
        self.flags & ERROR != 0
    }

    /// Whether it has pairs that the index does not know.
    pub(super) fn has_more(&self) -> bool {
        self.flags & MORE != 0
    }

    pub(super) fn is_of(&self, workflow: &str) -> bool {
        let wanted = &workflow[..workflow.floor_char_boundary(LONGEST_WORKFLOW)];
        self.workflow.as_deref() == Some(wanted)
    }

    /// Whether it has one of the pairs.
    pub(super) fn has(&self, fitting: &[bool]) -> bool {
        self.pairs.iter().any(|pair| fitting.get(*pair as usize).is_some_and(|fits| *fits))
    }

    /// Segments that hold spans of it, oldest first, with the place in their lists.
    pub(super) fn places(&self) -> impl Iterator<Item = (u32, u32)> {
        let older = self.places.older.as_deref().map(Vec::as_slice).unwrap_or_default();
        older.iter().copied().chain(self.places.newest)
    }

    /// A span may be the first: one without a parent before one with, an earlier one before a later one.
    fn root_of(&mut self, pair: u32, start: u64, rooted: bool) {
        let is = self.flags & ROOTED != 0;
        if (rooted && !is) || (rooted == is && start < self.root_start) {
            self.root = pair;
            self.root_start = start;
            self.flags |= if rooted { ROOTED } else { 0 };
        }
    }

    /// Adds a pair; how many bytes more it takes.
    fn with_pair(&mut self, pair: u32) -> usize {
        if pair == OTHER || (self.pairs.len() >= PAIRS && !self.pairs.contains(&pair)) {
            self.flags |= MORE;
            return 0;
        }
        if self.pairs.contains(&pair) {
            return 0;
        }
        let before = self.pairs.capacity();
        self.pairs.push(pair);
        (self.pairs.capacity() - before) * 4
    }
}
