//! Spans from OTLP's messages to the model that analysis and page read, bounded.

use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_proto::tonic::trace::v1::{Span as OtlpSpan, TracesData};
use pilotfish_filters::trace::{SpanId, TraceId};

use super::span::{Event, Kind, Resource, Span, Trace, Value};

/// A text is cut after so many bytes.
const TEXT: usize = 16 << 10;
/// Attributes and events of a span that are kept.
const ATTRIBUTES: usize = 512;
const EVENTS: usize = 512;
/// How deep a value is kept.
const DEPTH: usize = 8;

/// A trace from its spans, of which each has another id.
pub fn trace(id: TraceId, data: TracesData) -> Trace {
    let mut spans = Vec::new();
    for group in data.resource_spans {
        let resource = Arc::new(resource(group.resource.unwrap_or_default()));
        let made = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(made.filter_map(|made| span(made, &resource)));
    }
    spans.sort_by_key(|span: &Span| (span.start, span.id));
    Trace { id, spans }
}

/// A span; none when its id is no id.
fn span(made: OtlpSpan, resource: &Arc<Resource>) -> Option<Span> {
    let id = |bytes: &[u8]| <[u8; 8]>::try_from(bytes).ok().map(SpanId).filter(|id| !id.is_none());
    let status = made.status.unwrap_or_default();
    Some(Span {
        id: id(&made.span_id)?,
        parent: id(&made.parent_span_id),
        name: cut(made.name),
        kind: match made.kind {
            2 => Kind::Server,
            3 => Kind::Client,
            4 => Kind::Producer,
            5 => Kind::Consumer,
            _ => Kind::Internal,
        },
        start: made.start_time_unix_nano,
        end: made.end_time_unix_nano.max(made.start_time_unix_nano),
        error: status.code == 2,
        message: cut(status.message),
        attributes: attributes(made.attributes, 0),
        events: made
            .events
            .into_iter()
            .take(EVENTS)
            .map(|event| Event {
                time: event.time_unix_nano,
                name: cut(event.name),
                attributes: attributes(event.attributes, 0),
            })
            .collect(),
        resource: resource.clone(),
    })
}

fn resource(made: OtlpResource) -> Resource {
    let attributes = attributes(made.attributes, 0);
    let text = |name: &str| {
        let found = attributes.iter().rev().find(|(key, _)| key == name);
        match found {
            Some((_, Value::Text(text))) => text.clone(),
            _ => String::new(),
        }
    };
    Resource { service: text("service.name"), namespace: text("service.namespace"), attributes }
}

fn attributes(pairs: Vec<KeyValue>, depth: usize) -> Vec<(String, Value)> {
    let kept = pairs.into_iter().take(ATTRIBUTES);
    kept.map(|pair| (cut(pair.key), pair.value.map_or(Value::Text(String::new()), |value| of(value, depth))))
        .collect()
}

/// A value.
pub fn value(value: &AnyValue) -> Value {
    of(value.clone(), 0)
}

fn of(value: AnyValue, depth: usize) -> Value {
    use any_value::Value as Any;
    if depth > DEPTH {
        return Value::Text("…".into());
    }
    match value.value {
        Some(Any::StringValue(text)) => Value::Text(cut(text)),
        Some(Any::BoolValue(yes)) => Value::Bool(yes),
        Some(Any::IntValue(number)) => Value::Number(number),
        Some(Any::DoubleValue(number)) => Value::Float(number),
        Some(Any::ArrayValue(list)) => {
            Value::List(list.values.into_iter().take(ATTRIBUTES).map(|value| of(value, depth + 1)).collect())
        }
        Some(Any::KvlistValue(list)) => Value::Map(attributes(list.values, depth + 1)),
        Some(Any::BytesValue(mut bytes)) => {
            bytes.truncate(TEXT);
            Value::Bytes(bytes)
        }
        _ => Value::Text(String::new()),
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT));
    text
}
