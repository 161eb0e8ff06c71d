//! Traces as the query API of Jaeger (v1) shows them, for its page and for Grafana. OTLP's fields become tags as the
//! OpenTelemetry specification says (compatibility with Jaeger).

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{Span as OtlpSpan, TracesData};
use pilotfish_filters::trace::TraceId;
use serde::Serialize;
use serde_json::Value as Json;

use super::batch;
use super::convert;
use super::span::Value;

/// What every answer is wrapped in.
#[derive(Debug, Serialize)]
pub struct Wrapped<T> {
    /// What was asked for.
    pub data: T,
    /// How many there are.
    pub total: usize,
    /// Always 0, as Jaeger's.
    pub limit: usize,
    /// Always 0, as Jaeger's.
    pub offset: usize,
    /// What went wrong, if anything.
    pub errors: Option<Vec<Failure>>,
}

/// What went wrong.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// The HTTP status.
    pub code: u16,
    /// One sentence.
    pub msg: String,
}

/// An operation of a service.
#[derive(Debug, Serialize)]
pub struct Operation {
    /// Its name.
    pub name: String,
    /// The kind is not told: the same name may have several.
    #[serde(rename = "spanKind")]
    pub kind: &'static str,
}

/// A trace.
#[derive(Debug, Serialize)]
pub struct Trace {
    #[serde(rename = "traceID")]
    id: String,
    spans: Vec<Span>,
    processes: BTreeMap<String, Process>,
    warnings: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Span {
    #[serde(rename = "traceID")]
    trace: String,
    #[serde(rename = "spanID")]
    id: String,
    #[serde(skip_serializing_if = "is_zero")]
    flags: u32,
    operation_name: String,
    references: Vec<Reference>,
    start_time: u64,
    duration: u64,
    tags: Vec<Tag>,
    logs: Vec<Log>,
    #[serde(rename = "processID")]
    process: String,
    warnings: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    ref_type: &'static str,
    #[serde(rename = "traceID")]
    trace: String,
    #[serde(rename = "spanID")]
    span: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    service_name: String,
    tags: Vec<Tag>,
}

#[derive(Debug, Serialize)]
struct Log {
    timestamp: u64,
    fields: Vec<Tag>,
}

#[derive(Debug, Serialize)]
struct Tag {
    key: String,
    #[serde(rename = "type")]
    kind: &'static str,
    value: Json,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(flags: &u32) -> bool {
    *flags == 0
}

/// Wraps what was asked for.
pub fn wrapped<T>(data: T, total: usize) -> Wrapped<T> {
    Wrapped { data, total, limit: 0, offset: 0, errors: None }
}

/// Wraps what went wrong.
pub fn failed(code: u16, msg: impl Into<String>) -> Wrapped<Option<()>> {
    let errors = Some(vec![Failure { code, msg: msg.into() }]);
    Wrapped { data: None, total: 0, limit: 0, offset: 0, errors }
}

/// A trace from its spans.
pub fn trace(id: TraceId, data: &TracesData) -> Trace {
    let (mut spans, mut processes) = (Vec::new(), BTreeMap::new());
    for (at, group) in data.resource_spans.iter().enumerate() {
        let process = format!("p{}", at + 1);
        let resource = group.resource.clone().unwrap_or_default();
        for scope in &group.scope_spans {
            let library: Vec<Tag> = scope
                .scope
                .iter()
                .flat_map(|scope| [("otel.scope.name", &scope.name), ("otel.scope.version", &scope.version)])
                .filter(|(_, value)| !value.is_empty())
                .map(|(key, value)| text(key, value.as_str()))
                .collect();
            for made in &scope.spans {
                spans.push(span(id, made, &process, &library));
            }
        }
        processes.insert(process, process_of(&resource));
    }
    spans.sort_by(|one: &Span, other| (one.start_time, &one.id).cmp(&(other.start_time, &other.id)));
    Trace { id: id.to_string(), spans, processes, warnings: None }
}

impl Trace {
    /// How many spans it has.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

fn process_of(resource: &Resource) -> Process {
    let others = resource.attributes.iter().filter(|pair| pair.key != "service.name");
    Process { service_name: batch::service(resource), tags: others.map(tag).collect() }
}

fn span(trace: TraceId, made: &OtlpSpan, process: &str, library: &[Tag]) -> Span {
    let mut references = Vec::new();
    if made.parent_span_id.iter().any(|byte| *byte != 0) {
        let span = hex(&made.parent_span_id);
        references.push(Reference { ref_type: "CHILD_OF", trace: trace.to_string(), span });
    }
    references.extend(made.links.iter().map(|link| Reference {
        ref_type: "FOLLOWS_FROM",
        trace: hex(&link.trace_id),
        span: hex(&link.span_id),
    }));
    let mut tags: Vec<Tag> = made.attributes.iter().map(tag).collect();
    let kind = match made.kind {
        1 => "internal",
        2 => "server",
        3 => "client",
        4 => "producer",
        5 => "consumer",
        _ => "",
    };
    if !kind.is_empty() {
        tags.push(text("span.kind", kind));
    }
    let status = made.status.clone().unwrap_or_default();
    match status.code {
        1 => tags.push(text("otel.status_code", "OK")),
        2 => {
            tags.push(text("otel.status_code", "ERROR"));
            tags.push(Tag { key: "error".into(), kind: "bool", value: true.into() });
            if !status.message.is_empty() {
                tags.push(text("otel.status_description", &status.message));
            }
        }
        _ => {}
    }
    if !made.trace_state.is_empty() {
        tags.push(text("w3c.tracestate", &made.trace_state));
    }
    tags.extend(library.iter().map(|tag| Tag {
        key: tag.key.clone(),
        kind: tag.kind,
        value: tag.value.clone(),
    }));
    let logs = made.events.iter().map(|event| Log {
        timestamp: event.time_unix_nano / 1_000,
        fields: std::iter::once(text("event", &event.name)).chain(event.attributes.iter().map(tag)).collect(),
    });
    Span {
        trace: trace.to_string(),
        id: hex(&made.span_id),
        // The lowest bits are W3C's flags: sampled.
        flags: made.flags & 1,
        operation_name: made.name.clone(),
        references,
        start_time: made.start_time_unix_nano / 1_000,
        duration: made.end_time_unix_nano.saturating_sub(made.start_time_unix_nano) / 1_000,
        tags,
        logs: logs.collect(),
        process: process.to_owned(),
        warnings: None,
    }
}

fn text(key: &str, value: &str) -> Tag {
    Tag { key: key.into(), kind: "string", value: value.into() }
}

fn tag(pair: &KeyValue) -> Tag {
    let value = pair.value.as_ref().map_or(Value::Text(String::new()), convert::value);
    let (kind, value) = match value {
        Value::Text(text) => ("string", text.into()),
        Value::Bool(yes) => ("bool", yes.into()),
        Value::Number(number) => ("int64", number.into()),
        Value::Float(number) => ("float64", number.into()),
        Value::Bytes(_) => ("binary", value.to_json()),
        Value::List(_) | Value::Map(_) => ("string", value.to_text().into()),
    };
    Tag { key: pair.key.clone(), kind, value }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, any_value};
    use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Status};

    use super::*;

    fn pair(key: &str, value: any_value::Value) -> KeyValue {
        KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
    }

    /// The shape that Jaeger's page and Grafana read, field for field.
    #[test]
    fn a_trace_as_jaeger_shows_it() {
        use any_value::Value as Any;
        let words = ArrayValue { values: vec![AnyValue { value: Some(Any::StringValue("a".into())) }] };
        let first = OtlpSpan {
            trace_id: vec![0xab; 16],
            span_id: vec![1; 8],
            name: "POST /plan".into(),
            kind: 2,
            flags: 0x101,
            start_time_unix_nano: 1_700_000_000_000_002_000,
            end_time_unix_nano: 1_700_000_000_000_009_500,
            attributes: vec![
                pair("http.response.status_code", Any::IntValue(503)),
                pair("pilotfish.trace.inferred", Any::BoolValue(true)),
                pair("pilotfish.cost", Any::DoubleValue(0.5)),
                pair("pilotfish.policies", Any::ArrayValue(words)),
                pair("raw", Any::BytesValue(vec![1, 2])),
            ],
            events: vec![Event {
                time_unix_nano: 1_700_000_000_000_003_000,
                name: "try".into(),
                attributes: vec![pair("n", Any::IntValue(1))],
                dropped_attributes_count: 0,
            }],
            status: Some(Status { message: "no endpoint".into(), code: 2 }),
            ..OtlpSpan::default()
        };
        let second = OtlpSpan {
            span_id: vec![2; 8],
            parent_span_id: vec![1; 8],
            name: "GET".into(),
            kind: 3,
            trace_state: "a=b".into(),
            start_time_unix_nano: 1_700_000_000_000_001_000,
            end_time_unix_nano: 0,
            links: vec![Link { trace_id: vec![0xcd; 16], span_id: vec![3; 8], ..Link::default() }],
            ..OtlpSpan::default()
        };
        let resource = Resource {
            attributes: vec![
                pair("service.name", Any::StringValue("planner".into())),
                pair("service.namespace", Any::StringValue("prod".into())),
                pair("process.pid", Any::IntValue(7)),
            ],
            ..Resource::default()
        };
        let scope =
            InstrumentationScope { name: "pilotfish".into(), version: "0.1".into(), ..Default::default() };
        let scopes =
            vec![ScopeSpans { scope: Some(scope), spans: vec![first, second], ..ScopeSpans::default() }];
        let spans =
            ResourceSpans { resource: Some(resource), scope_spans: scopes, ..ResourceSpans::default() };
        let data = TracesData { resource_spans: vec![spans] };
        let shown = serde_json::to_value(wrapped(vec![trace(TraceId([0xab; 16]), &data)], 1)).unwrap();
        let id = "ab".repeat(16);
        let scope_tags = serde_json::json!([
            {"key": "otel.scope.name", "type": "string", "value": "pilotfish"},
            {"key": "otel.scope.version", "type": "string", "value": "0.1"},
        ]);
        let expected = serde_json::json!({
            "data": [{
                "traceID": id,
                "spans": [
                    {
                        "traceID": id,
                        "spanID": "0202020202020202",
                        "operationName": "GET",
                        "references": [
                            {"refType": "CHILD_OF", "traceID": id, "spanID": "0101010101010101"},
                            {"refType": "FOLLOWS_FROM", "traceID": "cd".repeat(16), "spanID": "0303030303030303"},
                        ],
                        "startTime": 1_700_000_000_000_001_u64,
                        "duration": 0,
                        "tags": [
                            {"key": "span.kind", "type": "string", "value": "client"},
                            {"key": "w3c.tracestate", "type": "string", "value": "a=b"},
                            scope_tags[0],
                            scope_tags[1],
                        ],
                        "logs": [],
                        "processID": "p1",
                        "warnings": null,
                    },
                    {
                        "traceID": id,
                        "spanID": "0101010101010101",
                        "flags": 1,
                        "operationName": "POST /plan",
                        "references": [],
                        "startTime": 1_700_000_000_000_002_u64,
                        "duration": 7,
                        "tags": [
                            {"key": "http.response.status_code", "type": "int64", "value": 503},
                            {"key": "pilotfish.trace.inferred", "type": "bool", "value": true},
                            {"key": "pilotfish.cost", "type": "float64", "value": 0.5},
                            {"key": "pilotfish.policies", "type": "string", "value": "[\"a\"]"},
                            {"key": "raw", "type": "binary", "value": "AQI="},
                            {"key": "span.kind", "type": "string", "value": "server"},
                            {"key": "otel.status_code", "type": "string", "value": "ERROR"},
                            {"key": "error", "type": "bool", "value": true},
                            {"key": "otel.status_description", "type": "string", "value": "no endpoint"},
                            scope_tags[0],
                            scope_tags[1],
                        ],
                        "logs": [{
                            "timestamp": 1_700_000_000_000_003_u64,
                            "fields": [
                                {"key": "event", "type": "string", "value": "try"},
                                {"key": "n", "type": "int64", "value": 1},
                            ],
                        }],
                        "processID": "p1",
                        "warnings": null,
                    },
                ],
                "processes": {
                    "p1": {
                        "serviceName": "prod/planner",
                        "tags": [
                            {"key": "service.namespace", "type": "string", "value": "prod"},
                            {"key": "process.pid", "type": "int64", "value": 7},
                        ],
                    },
                },
                "warnings": null,
            }],
            "total": 1,
            "limit": 0,
            "offset": 0,
            "errors": null,
        });
        assert_eq!(shown, expected);
        let failed = serde_json::to_value(failed(404, "trace not found")).unwrap();
        let errors = serde_json::json!([{"code": 404, "msg": "trace not found"}]);
        assert_eq!(
            failed,
            serde_json::json!({"data": null, "total": 0, "limit": 0, "offset": 0, "errors": errors})
        );
    }
}
