//! A call as a line of text or of JSON.

use std::fmt::Write as _;
use std::time::Duration;

use super::fields::{Fields, Shown};
use crate::telemetry::call::CallRecord;
use crate::telemetry::text::{push_quoted, push_time, push_value};

/// Appends `key=value` pairs, for people.
pub fn push_text(line: &mut String, at: Duration, call: &CallRecord, fields: &Fields) {
    push_time(line, at);
    for (field, shown) in fields.of(call) {
        line.push(' ');
        line.push_str(field.name());
        line.push('=');
        match shown {
            Shown::Text(text) => push_value(line, &text),
            Shown::Number(number) => push(line, number),
            Shown::Yes(yes) => push(line, yes),
            Shown::Words(words) => {
                for (at, word) in words.words().enumerate() {
                    line.push_str(if at > 0 { "," } else { "" });
                    line.push_str(word);
                }
            }
        }
    }
    line.push('\n');
}

/// Appends one JSON object.
pub fn push_json(line: &mut String, at: Duration, call: &CallRecord, fields: &Fields) {
    line.push_str("{\"time\":\"");
    push_time(line, at);
    line.push('"');
    for (field, shown) in fields.of(call) {
        line.push_str(",\"");
        line.push_str(field.name());
        line.push_str("\":");
        match shown {
            Shown::Text(text) => push_quoted(line, &text),
            Shown::Number(number) => push(line, number),
            Shown::Yes(yes) => push(line, yes),
            Shown::Words(words) => {
                line.push('[');
                for (at, word) in words.words().enumerate() {
                    line.push_str(if at > 0 { "," } else { "" });
                    push_quoted(line, word);
                }
                line.push(']');
            }
        }
    }
    line.push_str("}\n");
}

fn push(line: &mut String, value: impl std::fmt::Display) {
    let _ = write!(line, "{value}");
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use pilotfish_filters::clock::Micros;
    use pilotfish_filters::trace::{SpanId, TraceId};
    use pilotfish_filters::verdict::Reason;

    use super::*;
    use crate::listen::Direction;
    use crate::telemetry::call::Acted;

    fn call() -> CallRecord {
        let mut call = CallRecord::default();
        call.begin(Direction::Outbound, SocketAddr::from(([127, 0, 0, 1], 5)), Micros::default());
        call.method.set("POST");
        call.host.set("nlp");
        call.path.set("/a\" b\n");
        call.rule.set("nlp-routing/0");
        call.begin_try(SpanId([1; 8]), Some(SocketAddr::from(([10, 0, 0, 7], 80))), Micros::default());
        call.status = 200;
        call.stages.ended = 1234;
        (call.sent, call.received) = (3, 4);
        call
    }

    fn text(call: &CallRecord, fields: &Fields) -> String {
        let mut line = String::new();
        push_text(&mut line, Duration::ZERO, call, fields);
        line
    }

    fn json(call: &CallRecord, fields: &Fields) -> serde_json::Value {
        let mut line = String::new();
        push_json(&mut line, Duration::ZERO, call, fields);
        assert_eq!(line.matches('\n').count(), 1);
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn a_path_cannot_forge_fields_of_a_text_line() {
        assert_eq!(
            text(&call(), &Fields::default()),
            "1970-01-01T00:00:00.000Z direction=outbound peer=127.0.0.1 protocol=HTTP/1.1 method=POST authority=nlp \
             path=\"/a\\\" b\\n\" status=200 rule=nlp-routing/0 endpoint=10.0.0.7:80 duration_us=1234 request_bytes=3 \
             response_bytes=4 tries=1\n"
        );
    }

    #[test]
    fn a_json_line_parses_and_keeps_the_types() {
        let mut gone = call();
        (gone.status, gone.reason) = (0, Some(Reason::ClientGone));
        gone.trace = TraceId([0xab; 16]);
        gone.acted.add(Acted::RETRY);
        gone.acted.add(Acted::QUEUE);
        let value = json(&gone, &"all".parse().unwrap());
        assert_eq!(value["path"], "/a\" b\n");
        assert_eq!(value["status"], 499);
        assert_eq!(value["reason"], "client-gone");
        assert_eq!(value["duration_us"], 1234);
        assert_eq!(value["trace_id"], "ab".repeat(16));
        assert_eq!(value["policies"], serde_json::json!(["retry", "queue"]));
        assert_eq!(value["sampled"], false);
        assert!(text(&gone, &"policies".parse().unwrap()).ends_with(" policies=retry,queue\n"));
    }

    #[test]
    fn only_the_fields_that_are_asked_for_in_their_order() {
        assert_eq!(
            text(&call(), &"status,method,workflow".parse().unwrap()),
            "1970-01-01T00:00:00.000Z status=200 method=POST\n"
        );
    }

    #[test]
    fn credentials_never_leave() {
        let mut call = call();
        call.path.set("/v1/sk-proj-0123456789abcdef/x;token=abc");
        call.host.set("anna:pw@nlp");
        call.request_id.set("ghp_0123456789abcdefghij");
        let line = text(&call, &"all".parse().unwrap());
        for secret in ["sk-proj", "abc", "ghp_"] {
            assert!(!line.contains(secret), "{secret}: {line}");
        }
        assert!(line.contains("path=\"/v1/REDACTED/x;token=REDACTED\""), "{line}");
    }

    #[test]
    fn long_texts_are_whole_when_they_were_kept() {
        let mut call = call();
        let path = format!("/{}", "x".repeat(300));
        call.keep_whole("h", &path, "id");
        assert_eq!(json(&call, &Fields::default())["path"], path);
    }
}
