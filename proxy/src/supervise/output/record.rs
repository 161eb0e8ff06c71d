//! A line of the agent as a log record of OpenTelemetry: which trace it is of, and how much it matters, as far as it says so.

use data_encoding::HEXLOWER_PERMISSIVE;
use memchr::memmem;
use pilotfish_filters::clock::Micros;
use pilotfish_filters::trace::{SpanId, TraceId};

use super::Stream;
use crate::telemetry::call::Value;
use crate::telemetry::export::LogLine;

/// A severity's word is looked for in so many bytes at the beginning.
const HEAD: usize = 160;
/// The words, and OpenTelemetry's numbers for them.
const SEVERITIES: [(&[u8], u8); 9] = [
    (b"TRACE", 1),
    (b"DEBUG", 5),
    (b"INFO", 9),
    (b"WARN", 13),
    (b"WARNING", 13),
    (b"ERROR", 17),
    (b"CRITICAL", 21),
    (b"FATAL", 21),
    (b"PANIC", 21),
];

/// The trace and the span of a line: a `traceparent`, or `trace_id` and `span_id`, however they are written: `trace_id=...`,
/// `"trace_id": "..."`, `traceId=...`.
pub fn trace(line: &[u8]) -> Option<(TraceId, SpanId)> {
    memmem::find_iter(line, b"race").find_map(|at| {
        let rest = &line[at + 4..];
        let (rest, parent) = word(rest, &[b"parent", b"_parent"]).map(|rest| (rest, true)).or_else(|| {
            word(rest, &[b"_id", b"-id", b".id", b"Id", b"ID", b"id"]).map(|rest| (rest, false))
        })?;
        let rest = value(rest);
        let rest = if parent { rest.strip_prefix(b"00-")? } else { rest };
        let trace = TraceId(hex(rest)?);
        if trace.0 == [0; 16] {
            return None;
        }
        let span = if parent {
            rest.get(32..).and_then(|rest| rest.strip_prefix(b"-")).and_then(hex)
        } else {
            span(line)
        };
        Some((trace, SpanId(span.unwrap_or_default())))
    })
}

fn span(line: &[u8]) -> Option<[u8; 8]> {
    memmem::find_iter(line, b"pan")
        .find_map(|at| hex(value(word(&line[at + 3..], &[b"_id", b"-id", b".id", b"Id", b"ID", b"id"])?)))
}

fn word<'a>(text: &'a [u8], words: &[&[u8]]) -> Option<&'a [u8]> {
    words.iter().find_map(|word| text.strip_prefix(*word))
}

/// What comes after quotes, a colon or an equals sign.
fn value(text: &[u8]) -> &[u8] {
    let start = text.iter().take(6).take_while(|byte| b"\"'\\:= ".contains(byte)).count();
    &text[start..]
}

/// Exactly so many bytes in hexadecimal.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digits = text.get(..2 * N)?;
    if text.get(2 * N).is_some_and(u8::is_ascii_hexdigit) {
        return None;
    }
    HEXLOWER_PERMISSIVE.decode(digits).ok()?.try_into().ok()
}

/// How much the line matters; 0: it does not say.
fn severity(line: &[u8]) -> u8 {
    let words = line[..line.len().min(HEAD)].split(|byte| !byte.is_ascii_alphabetic());
    let number = |word: &[u8]| SEVERITIES.iter().find(|(known, _)| word.eq_ignore_ascii_case(known));
    words.filter_map(number).map(|(_, number)| *number).next().unwrap_or(0)
}

/// The record.
pub fn record(line: &[u8], stream: Stream, trace: Option<(TraceId, SpanId)>, at: Micros) -> LogLine {
    let (trace, span) = trace.unwrap_or_default();
    let stream = match stream {
        Stream::Out => "stdout",
        Stream::Err => "stderr",
    };
    LogLine {
        event: "",
        at,
        severity: severity(line),
        body: String::from_utf8_lossy(line).into(),
        // OpenTelemetry's convention.
        attributes: vec![("log.iostream".into(), Value::Text(stream.into()))],
        trace,
        span,
        // That a program tells of a trace does not say that the trace is kept.
        sampled: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_trace_is_found_however_it_is_written() {
        let both = [
            format!("x traceparent: 00-{TRACE}-{SPAN}-01"),
            format!(r#"{{"msg":"m","trace_id":"{TRACE}","span_id": "{SPAN}"}}"#),
            format!("INFO [trace_id={TRACE} span_id={SPAN} resource=x] m"),
            format!("traceId={TRACE}, spanId={SPAN}"),
            format!("a stack trace is here, trace.id={} span.id={SPAN}", TRACE.to_uppercase()),
        ];
        for line in both {
            let (trace, span) = trace(line.as_bytes()).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(data_encoding::HEXLOWER.encode(&trace.0), TRACE, "{line}");
            assert_eq!(data_encoding::HEXLOWER.encode(&span.0), SPAN, "{line}");
        }
        let (_, span) = trace(format!("trace_id={TRACE}").as_bytes()).unwrap();
        assert_eq!(span, SpanId::default());
    }

    #[test]
    fn what_is_no_trace_is_none() {
        let none = [
            format!("trace_id={TRACE}0"),
            format!("trace_id={}", &TRACE[1..]),
            format!("trace_id={}", "0".repeat(32)),
            format!("id={TRACE}"),
            format!("traceparent=01-{TRACE}-{SPAN}-01"),
            "trace".to_owned(),
            "trace_id=".to_owned(),
        ];
        for line in none {
            assert_eq!(trace(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_severity_is_a_word_of_its_own() {
        for (line, number) in [
            ("ERROR: x", 17),
            (r#"{"level":"warning"}"#, 13),
            ("2026-01-01 [info] no error", 9),
            ("Traceback (most recent call last)", 0),
            ("informed", 0),
            ("", 0),
        ] {
            assert_eq!(severity(line.as_bytes()), number, "{line}");
        }
    }
}
