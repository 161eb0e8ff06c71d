//! Looking into spans for what the index does not know: attributes, and names that found no place in it.
//!
//! The newest candidates are read one by one, which is soon done when what is looked for is common. For what is rare the
//! segments are read from end to end instead: a million spans are half a gigabyte, and no place is sought for each.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use memchr::memmem::Finder;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use pilotfish_filters::trace::TraceId;
use prost::Message;

use super::names::{is as is_agent, shortened};
use super::read::{self, Chains};
use super::segment::{self, Record, Records};
use super::{Inner, Search, Summary};
use crate::traces::batch;
use crate::traces::convert;
use crate::traces::wire::{Budget, Field, Reader};

/// How long a search may read the disk.
const TIME: Duration = Duration::from_secs(10);
/// Candidates that are read one by one.
const ONE_BY_ONE: usize = 2_000;
/// What is read of a segment at once, bytes: more than the longest record.
const PIECE: usize = 2 * segment::LONGEST_RECORD;
/// Origins that are remembered during a search.
const ORIGINS: usize = 65_536;

/// Those of the candidates, which are newest first, in which a span is what is looked for.
pub(super) fn verified(inner: &Inner, search: &Search, candidates: &[TraceId]) -> io::Result<Vec<Summary>> {
    let until = Instant::now() + TIME;
    let mut look = Look::new(search);
    let (newest, others) = candidates.split_at(candidates.len().min(ONE_BY_ONE));
    let mut found = Vec::new();
    for id in newest {
        in_time(until)?;
        let Some((chains, summary)) = read::known(inner, *id) else { continue };
        if look.fits(&chains) {
            found.push(summary);
            if found.len() >= search.limit {
                return Ok(found);
            }
        }
    }
    if others.is_empty() {
        return Ok(found);
    }
    let wanted: HashSet<TraceId> = others.iter().copied().collect();
    let hits = look.everywhere(inner, &wanted, until)?;
    let older =
        others.iter().filter(|id| hits.contains(*id)).filter_map(|id| Some(read::known(inner, *id)?.1));
    let room = search.limit - found.len();
    found.extend(older.take(room));
    Ok(found)
}

fn in_time(until: Instant) -> io::Result<()> {
    if Instant::now() > until { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
}

/// What is known of an origin: whether it is the agent that is looked for, and which attributes it has itself.
type Known = Rc<(bool, Vec<bool>)>;

/// Looks into spans.
struct Look<'s> {
    search: &'s Search,
    /// For each attribute what has to be in the bytes of a span that has it: its name, and its value when that is
    /// certainly a text.
    bytes: Vec<(Finder<'s>, Option<Finder<'s>>)>,
    origins: HashMap<(usize, u32), Known>,
    records: Records,
    others: Records,
}

impl<'s> Look<'s> {
    fn new(search: &'s Search) -> Look<'s> {
        let finders = |(key, value): &'s (String, String)| {
            let is_text = value.parse::<f64>().is_err()
                && !matches!(value.as_bytes().first(), None | Some(b'[' | b'{' | b'"'))
                && value != "true"
                && value != "false";
            (Finder::new(key.as_bytes()), is_text.then(|| Finder::new(value.as_bytes())))
        };
        Look {
            search,
            bytes: search.attributes.iter().map(finders).collect(),
            origins: HashMap::new(),
            records: Records::default(),
            others: Records::default(),
        }
    }

    /// Whether a span of the trace is what is looked for. A record that cannot be read says nothing.
    fn fits(&mut self, chains: &Chains) -> bool {
        chains.iter().any(|(file, last)| {
            let mut at = *last;
            while at != 0 {
                let mut records = std::mem::take(&mut self.records);
                let read = match records.read(file, at) {
                    Ok(Record::Spans { origin, before, spans, .. }) => {
                        Some((before, self.is_in(file, origin, spans)))
                    }
                    _ => None,
                };
                self.records = records;
                match read {
                    Some((_, true)) => return true,
                    Some((before, false)) if before < at => at = before,
                    _ => return false,
                }
            }
            false
        })
    }

    /// The traces of `wanted` that fit, whatever is read for it.
    fn everywhere(
        &mut self,
        inner: &Inner,
        wanted: &HashSet<TraceId>,
        until: Instant,
    ) -> io::Result<HashSet<TraceId>> {
        let segments: Vec<(Arc<File>, u64)> =
            inner.read().segments.values().map(|segment| (segment.file.clone(), segment.length)).collect();
        let (mut hits, mut piece) = (HashSet::new(), vec![0; PIECE]);
        for (file, length) in segments {
            let mut at = segment::MAGIC.len() as u64;
            while at < length {
                in_time(until)?;
                let size = usize::try_from(length - at).unwrap_or(PIECE).min(PIECE);
                file.read_exact_at(&mut piece[..size], at)?;
                let mut used = 0;
                // The checksum is looked at for what is told, not for what is passed over.
                while let Some((record, next)) = segment::next(&piece[used..size]) {
                    if let Record::Spans { trace, origin, spans, .. } = record
                        && wanted.contains(&trace)
                        && !hits.contains(&trace)
                        && self.is_in(&file, origin, spans)
                    {
                        hits.insert(trace);
                    }
                    used += next;
                }
                if used == 0 {
                    break;
                }
                at += used as u64;
            }
        }
        Ok(hits)
    }

    /// Whether one of the spans of an origin is what is looked for.
    fn is_in(&mut self, file: &Arc<File>, origin: u32, spans: &[u8]) -> bool {
        let known = self.origin(file, origin);
        let (is_agent, has) = &*known;
        if !*is_agent {
            return false;
        }
        let lacking = self.bytes.iter().zip(has).filter(|(_, has)| !**has);
        for ((key, value), _) in lacking {
            // The rarer of the two first.
            let is_there = value.as_ref().is_none_or(|value| value.find(spans).is_some());
            if !is_there || key.find(spans).is_none() {
                return false;
            }
        }
        let mut fields = Reader::new(spans, 0..spans.len());
        while let Ok(Some((2, Field::Bytes(range)))) = fields.next() {
            if self.is_wanted(spans, range, has) {
                return true;
            }
        }
        false
    }

    fn origin(&mut self, file: &Arc<File>, at: u32) -> Known {
        let key = (Arc::as_ptr(file) as usize, at);
        if let Some(known) = self.origins.get(&key) {
            return known.clone();
        }
        let resource = match self.others.read(file, at) {
            Ok(Record::Origin(encoded)) => read::resource(encoded),
            _ => Default::default(),
        };
        let service = batch::service(&resource);
        let is_agent = self.search.agent.as_ref().is_none_or(|agent| is_agent(shortened(&service), agent));
        let has = |(key, value): &(String, String)| {
            resource.attributes.iter().any(|pair| pair.key == *key && is(pair.value.as_ref(), value))
        };
        let known = Rc::new((is_agent, self.search.attributes.iter().map(has).collect::<Vec<_>>()));
        if self.origins.len() < ORIGINS {
            self.origins.insert(key, known.clone());
        }
        known
    }

    /// Whether a span has the name, and every attribute that its origin has not.
    fn is_wanted(&self, all: &[u8], range: Range<usize>, has: &[bool]) -> bool {
        let (mut has, mut named) = (has.to_vec(), self.search.operation.is_none());
        let mut fields = Reader::new(all, range);
        while let Ok(Some((number, field))) = fields.next() {
            match (number, field) {
                (5, Field::Bytes(name)) => {
                    named = self.search.operation.as_ref().is_none_or(|wanted| {
                        std::str::from_utf8(&all[name]).is_ok_and(|name| shortened(name) == shortened(wanted))
                    });
                }
                (9, Field::Bytes(range)) => {
                    let Ok((key, value)) = Budget(u32::MAX).pair(all, range, 0) else { continue };
                    for (has, (name, wanted)) in has.iter_mut().zip(&self.search.attributes) {
                        if all.get(key.clone()) == Some(name.as_bytes()) {
                            let value = value.clone().and_then(|value| AnyValue::decode(&all[value]).ok());
                            *has = is(value.as_ref(), wanted);
                        }
                    }
                }
                _ => {}
            }
        }
        named && has.iter().all(|has| *has)
    }
}

fn is(value: Option<&AnyValue>, wanted: &str) -> bool {
    value.is_some_and(|value| convert::value(value).to_text() == wanted)
}
