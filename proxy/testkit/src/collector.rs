//! A collector that keeps every span that it was sent by OTLP over HTTP (protobuf), and answers that it took them.

use std::net::SocketAddr;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;

use crate::origin::{Origin, ok};

/// A running collector.
#[derive(Debug)]
pub struct Collector(Origin);

/// A span as it arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// `service.name`: the agent.
    pub service: String,
    /// The span's own name.
    pub name: String,
    /// The trace, 32 hexadecimal digits.
    pub trace: String,
    /// Its id, 16 hexadecimal digits.
    pub id: String,
    /// Its parent's; empty: none.
    pub parent: String,
    /// It is a SERVER span; otherwise a CLIENT span.
    pub server: bool,
    /// Its `tracestate`.
    pub state: String,
    /// Its attributes, values as text.
    pub attributes: Vec<(String, String)>,
}

impl Span {
    /// An attribute's value; empty when there is none.
    pub fn attribute(&self, key: &str) -> &str {
        self.attributes.iter().find(|(own, _)| own == key).map_or("", |(_, value)| value)
    }
}

impl Collector {
    /// Starts one on a free port.
    pub async fn start() -> Collector {
        Collector(Origin::start(|_, _| ok("")).await)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.0.addr()
    }

    /// The flag's value for a sidecar.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.addr())
    }

    /// Every span so far.
    pub fn spans(&self) -> Vec<Span> {
        let requests = self.0.requests();
        let sent = requests.iter().filter(|request| request.target().ends_with("/v1/traces"));
        sent.flat_map(|request| {
            let message = ExportTraceServiceRequest::decode(&*request.body).expect("a message of OTLP");
            message.resource_spans
        })
        .flat_map(|of| {
            let resource = of.resource.unwrap_or_default().attributes;
            let service = texts(&resource).into_iter().find(|(key, _)| key == "service.name");
            let service = service.map(|(_, name)| name).unwrap_or_default();
            let spans: Vec<Span> = of
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans)
                .map(|span| Span {
                    service: service.clone(),
                    name: span.name,
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    server: span.kind == SpanKind::Server as i32,
                    state: span.trace_state,
                    attributes: texts(&span.attributes),
                })
                .collect();
            spans
        })
        .collect()
    }

    /// Waits until so many spans of a trace are there; fails with those that are after a while.
    pub async fn of_trace(&self, trace: &str, count: usize) -> Vec<Span> {
        let until = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let mut spans = self.spans();
            spans.retain(|span| span.trace == trace);
            if spans.len() >= count {
                return spans;
            }
            assert!(tokio::time::Instant::now() < until, "only {} of {count}: {spans:#?}", spans.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn texts(attributes: &[KeyValue]) -> Vec<(String, String)> {
    attributes.iter().map(|one| (one.key.clone(), one.value.as_ref().map(text).unwrap_or_default())).collect()
}

fn text(value: &AnyValue) -> String {
    match &value.value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::ArrayValue(list)) => list.values.iter().map(text).collect::<Vec<_>>().join(","),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
