//! A batch of spans as it comes, checked and looked through once, without being decoded: who made which spans, of
//! which trace, where they are in its bytes.

use std::ops::Range;

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use pilotfish_filters::trace::TraceId;
use prost::Message;

use super::wire::{Budget, Field, Malformed, Reader, put_bytes, text};

/// A span that is longer is refused, bytes.
const LONGEST_SPAN: usize = 256 << 10;
/// Attributes, events and links of a span, those within them included. OpenTelemetry's SDKs make 128 of each at most.
const ELEMENTS: u32 = 4096;
/// What says who made spans, bytes, and how many elements it has.
const LONGEST_RESOURCE: usize = 64 << 10;
const RESOURCE_ELEMENTS: u32 = 1024;
/// A name that OpenTelemetry gives to one who does not say his own.
const NAMELESS: &str = "unknown_service";

/// Who certainly sent a batch: his agent is the only one whose spans it may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speaker {
    /// The agent's namespace.
    pub namespace: String,
    /// The agent's name.
    pub agent: String,
}

/// Times that are taken, nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) oldest: u64,
    pub(super) newest: u64,
}

/// Spans of a batch that were refused, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RefusedSpans {
    /// Trace id or span id is not there, of another length, or all zero.
    pub ids: u64,
    /// It began or ended too long ago, or in the future.
    pub time: u64,
    /// It is too long, or has too many attributes, events and links.
    pub large: u64,
    /// Its trace has as many spans as a trace may have.
    pub trace: u64,
}

impl RefusedSpans {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.ids + self.time + self.large + self.trace
    }

    /// Why, for the one who sent them.
    pub fn why(&self) -> String {
        let reasons = [
            (self.ids, "without valid trace and span ids"),
            (self.time, "of a time that is not kept"),
            (self.large, "too large"),
            (self.trace, "of a trace that has too many"),
        ];
        let said: Vec<String> = reasons
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, why)| format!("{count} {why}"))
            .collect();
        said.join(", ")
    }
}

/// What the index has to know of a span.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) trace: TraceId,
    /// Of [`Batch::origins`].
    pub(super) origin: u32,
    /// The span's message in the bytes.
    pub(super) range: Range<usize>,
    pub(super) name: Range<usize>,
    pub(super) workflow: Option<Range<usize>>,
    pub(super) start: u64,
    pub(super) end: u64,
    /// It has no parent.
    pub(super) root: bool,
    pub(super) error: bool,
    pub(super) partial: bool,
}

/// Who made spans: a resource and a scope.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    /// A `ResourceSpans` without spans.
    pub(super) encoded: Vec<u8>,
    /// `namespace/name`, or a name alone.
    pub(super) service: String,
}

/// A batch that was looked through.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) bytes: Bytes,
    pub(super) origins: Vec<Origin>,
    pub(super) heads: Vec<Head>,
    pub(super) refused: RefusedSpans,
}

impl Batch {
    /// Looks through an `ExportTraceServiceRequest`.
    pub(super) fn read(bytes: Bytes, speaker: Option<&Speaker>, times: Times) -> Result<Batch, Malformed> {
        let mut batch = Batch {
            bytes: Bytes::new(),
            origins: Vec::new(),
            heads: Vec::new(),
            refused: RefusedSpans::default(),
        };
        // What one resource says is written for each of its scopes: it may not make a batch many times as long.
        let mut copied = 2 * bytes.len() + 64 * LONGEST_RESOURCE;
        let mut fields = Reader::new(&bytes, 0..bytes.len());
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(range)) => batch.resource(&bytes, range, speaker, times, &mut copied)?,
                (1, _) => return Err(Malformed),
                _ => {}
            }
        }
        batch.bytes = bytes;
        Ok(batch)
    }

    fn resource(
        &mut self,
        all: &[u8],
        range: Range<usize>,
        speaker: Option<&Speaker>,
        times: Times,
        copied: &mut usize,
    ) -> Result<(), Malformed> {
        let (mut resource, mut schema, mut scopes) = (0..0, 0..0, Vec::new());
        let mut fields = Reader::new(all, range);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(range)) => resource = range,
                (2, Field::Bytes(range)) => scopes.push(range),
                (3, Field::Bytes(range)) => schema = range,
                (1..=3, _) => return Err(Malformed),
                _ => {}
            }
        }
        if scopes.is_empty() {
            return Ok(());
        }
        let (resource, service) = said(all, resource, speaker)?;
        for scope in scopes {
            self.scope(all, scope, (&resource, &service, &schema), times, copied)?;
        }
        Ok(())
    }

    fn scope(
        &mut self,
        all: &[u8],
        range: Range<usize>,
        (resource, service, schema): (&[u8], &str, &Range<usize>),
        times: Times,
        copied: &mut usize,
    ) -> Result<(), Malformed> {
        let (mut scope, mut scope_schema) = (0..0, 0..0);
        let mut fields = Reader::new(all, range.clone());
        let mut any = false;
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(range)) => scope = range,
                (2, Field::Bytes(_)) => any = true,
                (3, Field::Bytes(range)) => scope_schema = range,
                (1..=3, _) => return Err(Malformed),
                _ => {}
            }
        }
        if !any {
            return Ok(());
        }
        check_scope(all, scope.clone())?;
        let mut inner = Vec::with_capacity(scope.len() + 8);
        put_bytes(&mut inner, 1, all.get(scope).unwrap_or_default());
        put_text(&mut inner, 3, all, &scope_schema)?;
        let mut encoded = Vec::with_capacity(resource.len() + inner.len() + 16);
        put_bytes(&mut encoded, 1, resource);
        put_bytes(&mut encoded, 2, &inner);
        put_text(&mut encoded, 3, all, schema)?;
        *copied = copied.checked_sub(encoded.len()).ok_or(Malformed)?;
        let origin = u32::try_from(self.origins.len()).map_err(|_| Malformed)?;
        self.origins.push(Origin { encoded, service: service.to_owned() });
        let mut fields = Reader::new(all, range);
        while let Some((number, field)) = fields.next()? {
            let (2, Field::Bytes(range)) = (number, field) else { continue };
            match head(all, range, Some(times))? {
                Ok(head) => self.heads.push(Head { origin, ..head }),
                Err(Unfit::Ids) => self.refused.ids += 1,
                Err(Unfit::Time) => self.refused.time += 1,
                Err(Unfit::Large) => self.refused.large += 1,
            }
        }
        Ok(())
    }
}

/// Why a span is not taken, though its bytes are well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    Ids,
    Time,
    Large,
}

/// Looks through a span.
pub(super) fn head(
    all: &[u8],
    range: Range<usize>,
    times: Option<Times>,
) -> Result<Result<Head, Unfit>, Malformed> {
    if range.len() > LONGEST_SPAN {
        return Ok(Err(Unfit::Large));
    }
    let mut head = Head {
        trace: TraceId::default(),
        origin: 0,
        range: range.clone(),
        name: 0..0,
        workflow: None,
        start: 0,
        end: 0,
        root: true,
        error: false,
        partial: false,
    };
    let (mut trace, mut span, mut parent) = (0..0, 0..0, 0..0);
    let mut budget = Budget(ELEMENTS);
    let mut fields = Reader::new(all, range);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Bytes(range)) => trace = range,
            (2, Field::Bytes(range)) => span = range,
            (3, Field::Bytes(range)) => {
                text(all, &range)?;
            }
            (4, Field::Bytes(range)) => parent = range,
            (5, Field::Bytes(range)) => {
                text(all, &range)?;
                head.name = range;
            }
            (7, Field::Fixed64(time)) => head.start = time,
            (8, Field::Fixed64(time)) => head.end = time,
            (9, Field::Bytes(range)) => {
                if budget.0 == 0 {
                    return Ok(Err(Unfit::Large));
                }
                attribute(all, range, &mut budget, &mut head)?;
            }
            (11, Field::Bytes(range)) => inner(all, range, &mut budget, true)?,
            (13, Field::Bytes(range)) => inner(all, range, &mut budget, false)?,
            (15, Field::Bytes(range)) => head.error = failed(all, range)?,
            (6 | 10 | 12 | 14, Field::Varint(_)) | (16, Field::Fixed32(_)) => {}
            (1..=16, _) => return Err(Malformed),
            _ => {}
        }
        if budget.0 == 0 {
            return Ok(Err(Unfit::Large));
        }
    }
    let id = |range: &Range<usize>| all.get(range.clone()).unwrap_or_default();
    let (Ok(trace), Ok(span)) = (<[u8; 16]>::try_from(id(&trace)), <[u8; 8]>::try_from(id(&span))) else {
        return Ok(Err(Unfit::Ids));
    };
    head.root = id(&parent).iter().all(|byte| *byte == 0);
    head.trace = TraceId(trace);
    if head.trace.is_none() || span == [0; 8] || !(head.root || parent.len() == 8) {
        return Ok(Err(Unfit::Ids));
    }
    head.end = head.end.max(head.start);
    if times.is_some_and(|times| head.start < times.oldest || head.end > times.newest) {
        return Ok(Err(Unfit::Time));
    }
    Ok(Ok(head))
}

/// An attribute of a span; two of them are for the index.
fn attribute(all: &[u8], range: Range<usize>, budget: &mut Budget, head: &mut Head) -> Result<(), Malformed> {
    let (key, value) = counted(budget, |budget| budget.pair(all, range, 0))?.unwrap_or((0..0, None));
    let Some(value) = value else { return Ok(()) };
    let wanted: &[u8] = all.get(key).unwrap_or_default();
    if !wanted.starts_with(b"pilotfish.") {
        return Ok(());
    }
    let mut fields = Reader::new(all, value);
    while let Some((number, field)) = fields.next()? {
        match (wanted, number, field) {
            (b"pilotfish.workflow.id", 1, Field::Bytes(range)) => head.workflow = Some(range),
            (b"pilotfish.trace.partial", 2, Field::Varint(yes)) => head.partial = yes != 0,
            _ => {}
        }
    }
    Ok(())
}

/// Checks; that there are too many elements is not malformed: the budget is empty then, and the result none.
fn counted<T>(
    budget: &mut Budget,
    check: impl FnOnce(&mut Budget) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    match check(budget) {
        Ok(checked) => Ok(Some(checked)),
        Err(Malformed) if budget.0 == 0 => Ok(None),
        Err(Malformed) => Err(Malformed),
    }
}

/// An event, or a link.
fn inner(all: &[u8], range: Range<usize>, budget: &mut Budget, event: bool) -> Result<(), Malformed> {
    let checked = counted(budget, |budget| {
        budget.spend()?;
        let mut fields = Reader::new(all, range);
        while let Some((number, field)) = fields.next()? {
            match (event, number, field) {
                (true, 1, Field::Fixed64(_)) | (true, 4, Field::Varint(_)) => {}
                (false, 1 | 2, Field::Bytes(_))
                | (false, 5, Field::Varint(_))
                | (false, 6, Field::Fixed32(_)) => {}
                (true, 2, Field::Bytes(range)) | (false, 3, Field::Bytes(range)) => {
                    text(all, &range)?;
                }
                (true, 3, Field::Bytes(range)) | (false, 4, Field::Bytes(range)) => {
                    budget.pair(all, range, 0)?;
                }
                (true, 1..=4, _) | (false, 1..=6, _) => return Err(Malformed),
                _ => {}
            }
        }
        Ok(())
    });
    checked.map(|_| ())
}

/// Whether a status is an error.
fn failed(all: &[u8], range: Range<usize>) -> Result<bool, Malformed> {
    let mut error = false;
    let mut fields = Reader::new(all, range);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (2, Field::Bytes(range)) => {
                text(all, &range)?;
            }
            (3, Field::Varint(code)) => error = code == 2,
            (2 | 3, _) => return Err(Malformed),
            _ => {}
        }
    }
    Ok(error)
}

fn check_scope(all: &[u8], range: Range<usize>) -> Result<(), Malformed> {
    if range.len() > LONGEST_RESOURCE {
        return Err(Malformed);
    }
    let mut budget = Budget(RESOURCE_ELEMENTS);
    let mut fields = Reader::new(all, range);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1 | 2, Field::Bytes(range)) => {
                text(all, &range)?;
            }
            (3, Field::Bytes(range)) => {
                budget.pair(all, range, 0)?;
            }
            (4, Field::Varint(_)) => {}
            (1..=4, _) => return Err(Malformed),
            _ => {}
        }
    }
    Ok(())
}

fn put_text(out: &mut Vec<u8>, number: u32, all: &[u8], range: &Range<usize>) -> Result<(), Malformed> {
    let text = text(all, range)?;
    if !text.is_empty() {
        put_bytes(out, number, text.as_bytes());
    }
    Ok(())
}

/// What a resource says, as it is to be kept, and the service in it. A proven speaker's name takes the place of the one
/// that is claimed.
fn said(all: &[u8], range: Range<usize>, speaker: Option<&Speaker>) -> Result<(Vec<u8>, String), Malformed> {
    let bytes = all.get(range.clone()).unwrap_or_default();
    if bytes.len() > LONGEST_RESOURCE {
        return Err(Malformed);
    }
    let mut budget = Budget(RESOURCE_ELEMENTS);
    let mut fields = Reader::new(all, range);
    while let Some((number, field)) = fields.next()? {
        if let (1, Field::Bytes(range)) = (number, field) {
            budget.pair(all, range, 0)?;
        }
    }
    let mut resource = Resource::decode(bytes).map_err(|_| Malformed)?;
    let Some(speaker) = speaker else { return Ok((bytes.to_vec(), service(&resource))) };
    resource.attributes.retain(|pair| pair.key != "service.name" && pair.key != "service.namespace");
    let named = |key: &str, value: &str| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.into())) }),
        ..KeyValue::default()
    };
    let own = [named("service.name", &speaker.agent), named("service.namespace", &speaker.namespace)];
    resource.attributes.splice(0..0, own);
    Ok((resource.encode_to_vec(), service(&resource)))
}

/// `namespace/name` of a resource, or the name alone.
pub(super) fn service(resource: &Resource) -> String {
    let find = |key: &str| {
        let pair = resource.attributes.iter().rev().find(|pair| pair.key == key);
        match pair.and_then(|pair| pair.value.as_ref()?.value.as_ref()) {
            Some(any_value::Value::StringValue(text)) => text.as_str(),
            _ => "",
        }
    };
    let (namespace, name) = (find("service.namespace"), find("service.name"));
    let name = if name.is_empty() { NAMELESS } else { name };
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}
