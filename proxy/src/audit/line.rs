//! Entries and the log's own words as lines, open at their end: the chain closes them.

use std::borrow::Cow;
use std::fmt::Write as _;

use data_encoding::HEXLOWER;
use pilotfish_config::wire::AuditWhat;
use pilotfish_filters::redact;
use pilotfish_filters::trace::TraceId;

use super::entry::{Entry, Field};
use crate::telemetry::text::push_quoted;

/// The longest text that is told of what was asked for.
const LONGEST: usize = 256;

/// A line of a record, begun.
#[derive(Debug)]
pub struct Open<'a>(pub &'a mut String);

impl Open<'_> {
    /// Its place, its time, what it is about, and whose it is (`namespace/name`).
    pub fn begin(&mut self, seq: u64, at: u64, what: AuditWhat, agent: &str) {
        let _ = write!(self.0, "{{\"seq\":{seq},\"time_ns\":{at},\"what\":\"{}\"", word(what));
        self.text("agent", agent);
    }

    /// A text, unless it is empty.
    pub fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.name(name);
            quoted(self.0, text);
        }
    }

    fn name(&mut self, name: &str) {
        self.0.push_str(",\"");
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    /// What an entry says.
    pub fn entry(&mut self, entry: &Entry) {
        self.text("direction", if entry.outbound { "outbound" } else { "inbound" });
        self.text("caller", entry.get(Field::Caller));
        self.text("request_principal", entry.get(Field::RequestPrincipal));
        let chain = entry.get(Field::Chain);
        if !chain.is_empty() {
            self.name("chain");
            for (at, one) in chain.lines().enumerate() {
                self.0.push(if at == 0 { '[' } else { ',' });
                quoted(self.0, one);
            }
            self.0.push(']');
        }
        self.text("action", &action(entry));
        self.text("host", &redact::value(entry.get(Field::Host)));
        self.text("permission", entry.get(Field::Permission));
        self.text("resource", &redact::path(entry.get(Field::Resource)));
        self.text("classification", entry.get(Field::Class));
        self.text("policy", entry.get(Field::Policy));
        self.text("outcome", entry.outcome.word());
        self.text("reason", entry.reason.map_or("", |reason| reason.word()));
        self.text("detail", &redact::value(entry.get(Field::Detail)));
        if entry.trace != TraceId::default() {
            let mut digits = [0; 32];
            HEXLOWER.encode_mut(&entry.trace.0, &mut digits);
            self.text("trace", std::str::from_utf8(&digits).unwrap_or_default());
        }
    }
}

/// What was asked for: `POST /v1/messages`, `mcp tools/call search`.
pub fn action(entry: &Entry) -> String {
    let (method, name) = (entry.get(Field::RpcMethod), entry.get(Field::Name));
    let mut action = String::with_capacity(64);
    if method.is_empty() {
        let path = redact::path(entry.get(Field::Path));
        let _ = write!(action, "{} {path}", entry.get(Field::Method));
    } else {
        let _ = write!(action, "{} {}", entry.get(Field::Protocol), redact::value(method));
        if !name.is_empty() {
            let _ = write!(action, " {}", redact::value(name));
        }
    }
    action.truncate(action.floor_char_boundary(LONGEST));
    action
}

/// As a JSON string.
fn quoted(line: &mut String, text: &str) {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if text.bytes().all(plain) {
        line.push('"');
        line.push_str(text);
        line.push('"');
    } else {
        push_quoted(line, text);
    }
}

/// The word of a kind of record.
pub const fn word(what: AuditWhat) -> &'static str {
    match what {
        AuditWhat::Decision => "decision",
        AuditWhat::Answer => "answer",
        AuditWhat::Access => "access",
        AuditWhat::Anomaly => "anomaly",
        AuditWhat::Action => "action",
        AuditWhat::Start => "start",
        AuditWhat::Gap => "gap",
        AuditWhat::Erased => "erased",
        AuditWhat::End => "end",
    }
}

/// An amount with its noun: `1 record`, `2 records`.
pub fn count(number: u64, noun: &str) -> Cow<'static, str> {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" }).into()
}

#[cfg(test)]
mod tests {
    use pilotfish_config::wire::AuditRecord;
    use pilotfish_filters::verdict::Reason;

    use super::*;
    use crate::audit::entry::Outcome;

    #[test]
    fn a_line_reads_back_as_the_record_that_the_control_plane_knows() {
        let mut entry = Entry::default();
        entry.begin(7);
        (entry.outcome, entry.reason) = (Outcome::Denied, Some(Reason::AccessDenied));
        entry.trace = TraceId([0xab; 16]);
        entry.push(Field::Caller, "mesh/ns/default/agent/a", 99);
        entry.push(Field::RequestPrincipal, "https://i/\"s\"\n", 99);
        entry.push(Field::Chain, "i/s\nmesh/ns/d/agent/b\n", 99);
        entry.push(Field::Method, "POST", 9);
        entry.push(Field::Path, "/v1/sk-proj-0123456789abcdef/x", 99);
        entry.push(Field::Policy, "default/p rule 1", 99);
        let mut line = String::new();
        let mut open = Open(&mut line);
        open.begin(3, entry.at, AuditWhat::Decision, "default/chat");
        open.entry(&entry);
        line.push('}');
        let record: AuditRecord = serde_json::from_str(&line).unwrap();
        let expected = AuditRecord {
            seq: 3,
            time_ns: 7,
            agent: "default/chat".into(),
            direction: "inbound".into(),
            caller: "mesh/ns/default/agent/a".into(),
            request_principal: "https://i/\"s\"\n".into(),
            chain: vec!["i/s".into(), "mesh/ns/d/agent/b".into()],
            action: "POST /v1/REDACTED/x".into(),
            policy: "default/p rule 1".into(),
            outcome: "denied".into(),
            reason: "access-denied".into(),
            trace: "ab".repeat(16),
            ..AuditRecord::default()
        };
        assert_eq!(record, expected);
        for what in ["decision", "answer", "access", "anomaly", "action", "start", "gap", "erased", "end"] {
            let what: AuditWhat = serde_json::from_value(what.into()).unwrap();
            assert_eq!(serde_json::to_value(what).unwrap(), word(what));
        }
    }

    #[test]
    fn what_is_asked_for_is_short() {
        let mut entry = Entry::default();
        entry.begin(7);
        entry.push(Field::Method, "POST", 9);
        entry.push(Field::Path, &format!("/{}", "ü".repeat(400)), 2000);
        assert!(action(&entry).len() <= LONGEST);
        entry.begin(7);
        entry.push(Field::Protocol, "mcp", 9);
        entry.push(Field::RpcMethod, "tools/call", 99);
        entry.push(Field::Name, "search", 99);
        assert_eq!(action(&entry), "mcp tools/call search");
    }
}
