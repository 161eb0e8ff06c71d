//! Items become messages: spans and log records of one target, gathered until they are a batch.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::LogLine;
use crate::clock::Epoch;
use crate::telemetry::call::Value;
use crate::telemetry::otlp::pb;
use crate::telemetry::otlp::resource::{attribute, scope};

/// A message is sent before it is longer than this: what gRPC servers take is 4 MiB.
const LARGEST: usize = 2 << 20;

/// Spans that are not sent yet.
#[derive(Debug, Default)]
pub struct SpanBatch {
    /// Fields 2 of a `ScopeSpans`.
    pub spans: Vec<u8>,
    /// How many they are.
    pub count: usize,
}

impl SpanBatch {
    /// Whether it is time to send them.
    pub fn is_full(&self, most: usize) -> bool {
        self.count >= most || self.spans.len() >= LARGEST
    }

    /// The message, and how many spans are in it.
    pub fn take(&mut self, ends: &Ends) -> (Bytes, u64) {
        let scope_spans = ends.scope.len() + self.spans.len();
        let inner = ends.resource.len() + 1 + pb::varint_len(scope_spans as u64) + scope_spans;
        let mut message = Vec::with_capacity(inner + 8);
        pb::length(&mut message, 1, inner);
        message.extend_from_slice(&ends.resource);
        pb::length(&mut message, 2, scope_spans);
        message.extend_from_slice(&ends.scope);
        message.extend_from_slice(&self.spans);
        let count = std::mem::take(&mut self.count);
        if count < 64 {
            // Little goes on: the room is not kept.
            self.spans = Vec::new();
        }
        self.spans.clear();
        (message.into(), count as u64)
    }
}

/// What every message has besides its items.
#[derive(Debug)]
pub struct Ends {
    /// For messages that are put together field by field.
    pub whole: Resource,
    /// Field 1 of a `ResourceSpans`.
    resource: Vec<u8>,
    /// Field 1 of a `ScopeSpans`.
    scope: Vec<u8>,
}

impl Ends {
    /// For one sidecar.
    pub fn new(whole: Resource) -> Ends {
        let (mut resource, mut own) = (Vec::new(), Vec::new());
        pb::bytes(&mut resource, 1, &whole.encode_to_vec());
        pb::bytes(&mut own, 1, &scope().encode_to_vec());
        Ends { whole, resource, scope: own }
    }

    /// A message of metrics.
    pub fn metrics(&self, metrics: Vec<Metric>) -> Bytes {
        let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() }];
        let resource = Some(self.whole.clone());
        let all = vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }];
        ExportMetricsServiceRequest { resource_metrics: all }.encode_to_vec().into()
    }

    /// A message of log records.
    pub fn logs(&self, log_records: Vec<LogRecord>) -> Bytes {
        let scope_logs = vec![ScopeLogs { scope: Some(scope()), log_records, ..ScopeLogs::default() }];
        let resource = Some(self.whole.clone());
        let all = vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }];
        ExportLogsServiceRequest { resource_logs: all }.encode_to_vec().into()
    }
}

/// A line as OTLP has it.
pub fn log_record(line: LogLine, epoch: Epoch) -> LogRecord {
    let at = epoch.nanos(line.at);
    let text = match line.severity {
        0 => "",
        1..=4 => "TRACE",
        5..=8 => "DEBUG",
        9..=12 => "INFO",
        13..=16 => "WARN",
        17..=20 => "ERROR",
        _ => "FATAL",
    };
    let id = |bytes: &[u8]| if bytes.iter().all(|byte| *byte == 0) { Vec::new() } else { bytes.to_vec() };
    LogRecord {
        time_unix_nano: at,
        observed_time_unix_nano: at,
        severity_number: line.severity.into(),
        severity_text: text.into(),
        event_name: line.event.into(),
        body: Some(AnyValue { value: Some(Any::StringValue(line.body.into())) }),
        attributes: line.attributes.into_iter().map(|(key, value)| attribute(&key, any(value))).collect(),
        flags: line.sampled.into(),
        trace_id: id(&line.trace.0),
        span_id: id(&line.span.0),
        ..LogRecord::default()
    }
}

fn any(value: Value) -> Any {
    match value {
        Value::Text(text) => Any::StringValue(text.into()),
        Value::Number(number) => Any::IntValue(number),
        Value::Float(number) => Any::DoubleValue(number),
        Value::List(list) => {
            let values = list.into_iter().map(|text| AnyValue { value: Some(Any::StringValue(text.into())) });
            Any::ArrayValue(ArrayValue { values: values.collect() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::call::CallRecord;
    use crate::telemetry::export::Why;
    use crate::telemetry::otlp::resource::resource;
    use crate::telemetry::otlp::spans::Spans;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use pilotfish_filters::clock::Micros;
    use pilotfish_filters::trace::{SpanId, TraceId};

    #[test]
    fn a_batch_is_a_request_with_resource_and_scope() {
        let ends = Ends::new(resource("a", "default", &[]));
        let (mut batch, mut spans) = (SpanBatch::default(), Spans::default());
        for _ in 0..300 {
            batch.count += spans.append(&mut batch.spans, &CallRecord::default(), Why::Sampled, Epoch(1));
        }
        assert!(batch.is_full(300) && !batch.is_full(301));
        let (message, count) = batch.take(&ends);
        let read = ExportTraceServiceRequest::decode(message).unwrap();
        let [all] = &read.resource_spans[..] else { panic!("{read:?}") };
        assert_eq!(all.resource.as_ref(), Some(&ends.whole));
        assert_eq!(all.scope_spans[0].scope, Some(scope()));
        assert_eq!((all.scope_spans[0].spans.len() as u64, count), (300, 300));
        assert_eq!((batch.count, batch.spans.len()), (0, 0));
    }

    #[test]
    fn a_line_is_a_record_of_its_span() {
        let line = LogLine {
            event: "",
            at: Micros(5),
            severity: 13,
            body: "b".into(),
            attributes: vec![("k".into(), Value::List(vec!["x".into()]))],
            trace: TraceId([1; 16]),
            span: SpanId([2; 8]),
            sampled: true,
        };
        let record = log_record(line, Epoch(7));
        assert_eq!((record.time_unix_nano, record.severity_number, record.flags), (5007, 13, 1));
        assert_eq!((&*record.severity_text, record.trace_id.len(), record.span_id.len()), ("WARN", 16, 8));
        let ends = Ends::new(Resource::default());
        let read = ExportLogsServiceRequest::decode(ends.logs(vec![record.clone()])).unwrap();
        assert_eq!(read.resource_logs[0].scope_logs[0].log_records, [record]);
        assert!(log_record(LogLine::default(), Epoch(0)).trace_id.is_empty());
    }
}
