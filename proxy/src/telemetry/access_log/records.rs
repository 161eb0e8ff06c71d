//! A call as a log record of OpenTelemetry.

use pilotfish_filters::clock::Micros;

use super::fields::{Fields, Shown};
use crate::telemetry::call::{CallRecord, Value};
use crate::telemetry::export::LogLine;

/// OpenTelemetry's severities: info, warn, error.
const INFO: u8 = 9;
const WARN: u8 = 13;
const ERROR: u8 = 17;

/// The record: what lines have by default, with the names of semantic conventions; trace and span are fields of its own.
pub fn record(call: &CallRecord, fields: &Fields) -> LogLine {
    let status = call.status_or_gone();
    let severity = match status {
        500.. => ERROR,
        _ if call.reason.is_some() => WARN,
        _ => INFO,
    };
    let attributes = fields.of(call).map(|(field, shown)| (field.attribute().into(), value(shown))).collect();
    let (method, path) = (call.method.as_str(), pilotfish_filters::redact::path(call.whole_path()));
    LogLine {
        event: "",
        at: Micros(call.started.0.saturating_add(call.stages.ended)),
        severity,
        body: format!("{method} {path} {status}").trim_start().into(),
        attributes,
        trace: call.trace,
        span: call.span,
        sampled: call.sampled,
    }
}

fn value(shown: Shown<'_>) -> Value {
    match shown {
        Shown::Text(text) => Value::Text(text.into()),
        Shown::Number(number) => Value::Number(i64::try_from(number).unwrap_or(i64::MAX)),
        Shown::Yes(yes) => Value::Text(if yes { "true" } else { "false" }.into()),
        Shown::Words(words) => Value::List(words.words().map(Into::into).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_conventions_names() {
        let mut call = CallRecord::default();
        call.method.set("GET");
        call.path.set("/x;token=abc");
        (call.status, call.started, call.stages.ended) = (503, Micros(5), 7);
        let record = record(&call, &Fields::default());
        assert_eq!(
            (record.severity, &*record.body, record.at),
            (ERROR, "GET /x;token=REDACTED 503", Micros(12))
        );
        let status = record.attributes.iter().find(|(name, _)| &**name == "http.response.status_code");
        assert_eq!(status.map(|(_, value)| value), Some(&Value::Number(503)));
    }
}
