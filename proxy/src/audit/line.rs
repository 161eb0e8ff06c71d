//! Entries and the log's own words as lines, open at their end: the chain closes them.

use std::borrow::Cow;

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
        self.0.push_str("{\"seq\":");
        push_number(self.0, seq);
        self.0.push_str(",\"time_ns\":");
        push_number(self.0, at);
        self.word("what", word(what));
        self.text("agent", agent);
    }

    /// One of our own words: nothing in it is to be escaped.
    fn word(&mut self, name: &str, word: &str) {
        self.name(name);
        self.0.push('"');
        self.0.push_str(word);
        self.0.push('"');
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
    pub fn entry(&mut self, entry: Entry<'_>) {
        self.word("direction", if entry.head.outbound { "outbound" } else { "inbound" });
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
        self.name("action");
        self.0.push('"');
        let at = self.0.len();
        push_action(self.0, entry);
        if is_plain(&self.0[at..]) {
            self.0.push('"');
        } else {
            let action = self.0.split_off(at);
            self.0.pop();
            push_quoted(self.0, &action);
        }
        self.text("host", &redact::value(entry.get(Field::Host)));
        self.text("permission", entry.get(Field::Permission));
        self.text("resource", &redact::path(entry.get(Field::Resource)));
        self.text("classification", entry.get(Field::Class));
        self.text("policy", entry.get(Field::Policy));
        self.word("outcome", entry.head.outcome.word());
        if let Some(reason) = entry.head.reason {
            self.word("reason", reason.word());
        }
        self.text("detail", &redact::value(entry.get(Field::Detail)));
        if entry.head.trace != TraceId::default() {
            let mut digits = [0; 32];
            HEXLOWER.encode_mut(&entry.head.trace.0, &mut digits);
            self.word("trace", std::str::from_utf8(&digits).unwrap_or_default());
        }
    }
}

/// What was asked for: `POST /v1/messages`, `mcp tools/call search`.
pub fn action(entry: Entry<'_>) -> String {
    let mut action = String::new();
    push_action(&mut action, entry);
    action
}

fn push_action(line: &mut String, entry: Entry<'_>) {
    let from = line.len();
    let (method, name) = (entry.get(Field::RpcMethod), entry.get(Field::Name));
    let told = match (method, entry.get(Field::Protocol)) {
        // By HTTP alone a path only may be a method of A2A (`GET /tasks`): what was asked for says more.
        ("", _) | (_, "http") => {
            [entry.get(Field::Method).into(), redact::path(entry.get(Field::Path)), redact::value(name)]
        }
        (_, protocol) => [protocol.into(), redact::value(method), redact::value(name)],
    };
    for (at, part) in told.iter().enumerate().filter(|(at, part)| *at < 2 || !part.is_empty()) {
        if at > 0 {
            line.push(' ');
        }
        line.push_str(part);
    }
    line.truncate(line.floor_char_boundary(from + LONGEST));
}

/// As a JSON string.
fn quoted(line: &mut String, text: &str) {
    if is_plain(text) {
        line.push('"');
        line.push_str(text);
        line.push('"');
    } else {
        push_quoted(line, text);
    }
}

/// Whether a text is in JSON what it is. Without a branch for each byte, so that many are looked at together.
fn is_plain(text: &str) -> bool {
    let odd = |byte: u8| !matches!(byte, b' '..=b'~') | (byte == b'"') | (byte == b'\\');
    !text.bytes().fold(false, |any, byte| any | odd(byte))
}

/// Its decimal digits; `fmt` takes four times as long.
fn push_number(line: &mut String, mut number: u64) {
    let (mut digits, mut at) = ([b'0'; 20], 20);
    loop {
        at -= 1;
        // A remainder of ten is a digit.
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    line.push_str(std::str::from_utf8(&digits[at..]).unwrap_or_default());
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
    use crate::audit::entry::{Batch, Outcome};

    #[test]
    fn a_line_reads_back_as_the_record_that_the_control_plane_knows() {
        let mut batch = Batch::default();
        let mut entry = batch.begin(7).unwrap();
        (entry.head.outcome, entry.head.reason) = (Outcome::Denied, Some(Reason::AccessDenied));
        entry.head.trace = TraceId([0xab; 16]);
        entry.push(Field::Caller, "mesh/ns/default/agent/a", 99);
        entry.push(Field::RequestPrincipal, "https://i/\"s\"\n", 99);
        entry.push(Field::Chain, "i/s\nmesh/ns/d/agent/b\n", 99);
        entry.push(Field::Method, "POST", 9);
        entry.push(Field::Path, "/v1/sk-proj-0123456789abcdef/x", 99);
        entry.push(Field::Policy, "default/p rule 1", 99);
        let entry = batch.entries().next().unwrap();
        let mut line = String::new();
        let mut open = Open(&mut line);
        open.begin(3, entry.head.at, AuditWhat::Decision, "default/chat");
        open.entry(entry);
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
    fn a_path_that_may_be_a_method_of_a2a_stays_a_path() {
        for (protocol, expected) in [("http", "GET /tasks"), ("a2a", "a2a ListTasks")] {
            let mut batch = Batch::default();
            let mut entry = batch.begin(7).unwrap();
            for (field, text) in [
                (Field::Method, "GET"),
                (Field::Path, "/tasks"),
                (Field::Protocol, protocol),
                (Field::RpcMethod, "ListTasks"),
            ] {
                entry.push(field, text, 99);
            }
            assert_eq!(action(batch.entries().next().unwrap()), expected);
        }
    }

    #[test]
    fn whatever_is_in_an_entry_is_json_and_nothing_of_it_moves_a_terminal() {
        let mut rng = fastrand::Rng::with_seed(11);
        let odd = [
            '"',
            '\\',
            '\n',
            '\r',
            '\t',
            '\0',
            '\x1b',
            '\x7f',
            '\u{85}',
            'ü',
            '\u{202e}',
            '\u{1f600}',
            'a',
            '/',
            ' ',
        ];
        for _ in 0..3000 {
            let mut batch = Batch::default();
            let mut draft = batch.begin(rng.u64(..)).unwrap();
            let fields =
                [Field::Caller, Field::Method, Field::Path, Field::Host, Field::Permission, Field::Policy];
            for field in fields {
                let length = [0, 3, 40, 300][rng.usize(..4)];
                let text: String =
                    (0..length).map(|_| if rng.bool() { 'b' } else { odd[rng.usize(..odd.len())] }).collect();
                draft.push(field, &text, 256);
            }
            let entry = batch.entries().next().unwrap();
            let texts = fields.map(|field| entry.get(field));
            let (mut line, seq) = (String::new(), rng.u64(..));
            let mut open = Open(&mut line);
            open.begin(seq, entry.head.at, AuditWhat::Access, "default/a");
            open.entry(entry);
            line.push('}');
            assert!(!line.chars().any(char::is_control), "{line:?}");
            let record: AuditRecord = serde_json::from_str(&line).unwrap();
            assert_eq!((record.seq, record.time_ns, record.what), (seq, entry.head.at, AuditWhat::Access));
            assert_eq!([&*record.caller, &*record.policy], [texts[0], texts[5]]);
            assert_eq!(record.action, action(entry));
        }
    }

    #[test]
    fn what_is_asked_for_is_short() {
        let mut batch = Batch::default();
        let mut draft = batch.begin(7).unwrap();
        draft.push(Field::Method, "POST", 9);
        draft.push(Field::Path, &format!("/{}", "ü".repeat(400)), 2000);
        let mut draft = batch.begin(7).unwrap();
        draft.push(Field::Protocol, "mcp", 9);
        draft.push(Field::RpcMethod, "tools/call", 99);
        draft.push(Field::Name, "search", 99);
        let actions: Vec<String> = batch.entries().map(action).collect();
        assert!(actions[0].len() <= LONGEST);
        assert_eq!(actions[1], "mcp tools/call search");
    }
}
