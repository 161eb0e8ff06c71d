//! What the first bytes of a JSON body say about a call: JSON-RPC, MCP, A2A and OpenAI-compatible fields.
//!
//! The body may be cut off anywhere. Fields that are whole before the cut count; a body that is not JSON
//! says nothing at all, and a field that appears twice says nothing either, because two parsers could
//! disagree about which one holds.

use std::fmt;

use pilotfish_filters::call::TraceMeta;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Longest string that is kept from a body, in bytes; a longer one is unknown.
const MAX_FIELD: usize = 256;
/// The same for names of tools and addresses of resources that a decision hangs on.
const MAX_NAME: usize = 4096;

/// A value seen so far under one key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Seen {
    #[default]
    Nothing,
    Once(Box<str>),
    /// Twice, too long, or of the wrong type.
    Unusable,
}

impl Seen {
    fn put(&mut self, value: Option<Box<str>>, limit: usize) {
        *self = match (&*self, value) {
            (Seen::Nothing, Some(text)) if text.len() <= limit => Seen::Once(text),
            _ => Seen::Unusable,
        };
    }

    fn is_nothing(&self) -> bool {
        *self == Seen::Nothing
    }

    fn take(&mut self) -> Option<Box<str>> {
        match std::mem::take(self) {
            Seen::Once(text) => Some(text),
            Seen::Nothing | Seen::Unusable => None,
        }
    }
}

/// By what the parameters name a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TaskBy {
    /// Not at all.
    #[default]
    Nothing,
    /// `id`, as A2A does.
    Id,
    /// `taskId`, as MCP does.
    TaskId,
    /// Both, or by a member that some parsers would take for one of them.
    Both,
}

/// The fields that routing, affinity and telemetry may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields {
    /// `jsonrpc` is present and says `2.0`.
    pub is_json_rpc: bool,
    /// JSON-RPC `method`.
    pub method: Option<Box<str>>,
    /// JSON-RPC `id` as JSON text.
    pub id: Option<Box<str>>,
    /// MCP `params.name`, or `params.uri` where that is what the method is about.
    pub name: Option<Box<str>>,
    /// A2A `metadata.skillId` or `metadata.skill`, of the parameters or of the message.
    pub skill: Option<Box<str>>,
    /// The same of a body that has no `params`: a message by A2A's HTTP binding.
    pub rest_skill: Option<Box<str>>,
    /// A2A `messageId`.
    pub message_id: Option<Box<str>>,
    /// A2A `contextId`.
    pub context_id: Option<Box<str>>,
    /// A2A `taskId`, or `params.id` of the task methods.
    pub task_id: Option<Box<str>>,
    /// By what the parameters name it.
    pub task_by: TaskBy,
    /// OpenAI `model`.
    pub model: Option<Box<str>>,
    /// OpenAI `user`.
    pub user: Option<Box<str>>,
    /// OpenAI `stream: true`.
    pub stream: bool,
    /// MCP `params._meta`, when it has a `traceparent`.
    pub meta: Option<Box<TraceMeta>>,
    /// `params` is no object, or has members that some parsers would take for those that matter to MCP.
    pub odd_params: bool,
    /// The same for `message` and `metadata`, which matter to A2A.
    pub odd_message: bool,
}

#[derive(Default)]
struct Found {
    /// Two parsers could disagree about what holds.
    doubt: bool,
    odd_params: bool,
    odd_message: bool,
    /// `params` has `id`, `taskId`, or what folds to one of them.
    has_id: bool,
    has_task_id: bool,
    odd_task: bool,
    /// The objects that were seen, a bit for each place.
    objects: u8,
    /// Longest name or address.
    max_name: usize,
    jsonrpc: Seen,
    method: Seen,
    id: Seen,
    name: Seen,
    uri: Seen,
    skill: Seen,
    rest_skill: Seen,
    params_id: Seen,
    message_id: Seen,
    context_id: Seen,
    task_id: Seen,
    model: Seen,
    user: Seen,
    stream: Seen,
    traceparent: Seen,
    tracestate: Seen,
    baggage: Seen,
}

/// Reads what a body's first bytes say; never fails.
pub fn read(bytes: &[u8]) -> Fields {
    // A number at the very end may go on after the cut, so it is not read.
    let part_of_number = |b: &u8| matches!(b, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E');
    let end = bytes.len() - bytes.iter().rev().take_while(|b| part_of_number(b)).count();
    let mut found = Found { max_name: MAX_FIELD, ..Found::default() };
    match found.read(&bytes[..end]) {
        Ok(()) => found.into_fields(),
        Err(error) if error.is_eof() => found.into_fields(),
        Err(_) => Fields::default(),
    }
}

/// Reads a whole body that decisions hang on. `None`: two parsers could read different things out of it.
///
/// Besides what the grammar of JSON forbids, that is so for a batch, for a member that matters and is given twice, and for one that
/// matters to parsers that do not care about case (Go's `encoding/json` among them).
pub fn read_whole(bytes: &[u8]) -> Option<Fields> {
    // `serde_json` does not look at the encoding of what it skips.
    std::str::from_utf8(bytes).ok()?;
    let mut found = Found { max_name: MAX_NAME, ..Found::default() };
    found.read(bytes).ok()?;
    (!found.doubt).then(|| found.into_fields())
}

impl Found {
    fn read(&mut self, bytes: &[u8]) -> Result<(), serde_json::Error> {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        Level { found: self, at: At::Top, in_params: false }.deserialize(&mut json)?;
        json.end()
    }

    fn into_fields(mut self) -> Fields {
        let method = self.method.take();
        let is_task_method =
            method.as_deref().is_some_and(|m| m.starts_with("tasks/") || m.ends_with("Task"));
        let is_about_resource = method.as_deref().is_some_and(|m| m.starts_with("resources/"));
        let (name, uri) = (self.name.take(), self.uri.take());
        Fields {
            is_json_rpc: self.jsonrpc.take().as_deref() == Some("2.0"),
            id: self.id.take(),
            name: if is_about_resource { uri } else { name },
            skill: self.skill.take(),
            rest_skill: self.rest_skill.take(),
            message_id: self.message_id.take(),
            context_id: self.context_id.take(),
            task_id: self.task_id.take().or(self.params_id.take().filter(|_| is_task_method)),
            model: self.model.take(),
            task_by: match (self.has_id, self.has_task_id) {
                _ if self.odd_task => TaskBy::Both,
                (true, true) => TaskBy::Both,
                (true, false) => TaskBy::Id,
                (false, true) => TaskBy::TaskId,
                (false, false) => TaskBy::Nothing,
            },
            user: self.user.take(),
            stream: self.stream.take().as_deref() == Some("true"),
            meta: self.traceparent.take().map(|traceparent| {
                let (tracestate, baggage) = (self.tracestate.take(), self.baggage.take());
                Box::new(TraceMeta { traceparent, tracestate, baggage })
            }),
            method,
            odd_params: self.odd_params,
            odd_message: self.odd_message,
        }
    }

    /// An object begins; each place has at most one.
    fn enter(&mut self, from: At, to: At) {
        let bit = match (from, to) {
            (At::Top, At::Params) => 1,
            (At::Top, At::Message) => 2,
            (_, At::Message) => 4,
            (At::Top, At::Metadata) => 8,
            (At::Params, At::Metadata) => 16,
            (_, At::Metadata) => 32,
            _ => 0,
        };
        self.doubt |= self.objects & bit != 0;
        self.objects |= bit;
    }

    /// A key that means nothing here, but could to a parser that does not care about case.
    fn ignore(&mut self, at: At, key: &str) {
        let near = |names: &[&str]| names.iter().any(|name| folds_to(key, name));
        match at {
            At::Top => {
                self.doubt |= near(&["jsonrpc", "method", "params", "model"]);
                self.odd_message |= near(&["message", "metadata"]);
            }
            At::Params => {
                self.odd_params |= near(&["name", "uri"]);
                self.odd_task |= near(&["id", "taskId"]);
                self.odd_message |= near(&["message", "metadata"]);
            }
            At::Message => self.odd_message |= near(&["metadata"]),
            At::Metadata => self.odd_message |= near(&["skillId", "skill"]),
            At::Meta => {}
        }
    }

    /// A skill, which may be said in several places as long as it is the same.
    fn put_skill(&mut self, in_params: bool, value: Scalar) {
        let slot = if in_params { &mut self.skill } else { &mut self.rest_skill };
        match (&*slot, value.text) {
            (Seen::Once(before), Some(again)) if *before == again => {}
            (Seen::Nothing, Some(text)) if value.string && text.len() <= MAX_FIELD => {
                *slot = Seen::Once(text);
            }
            _ => {
                *slot = Seen::Unusable;
                self.odd_message = true;
            }
        }
    }

    /// What stands where an object is expected.
    fn odd(&mut self, at: At) {
        match at {
            At::Params => self.odd_params = true,
            At::Message | At::Metadata => self.odd_message = true,
            At::Top | At::Meta => {}
        }
    }
}

/// Whether two keys are the same to a parser that folds case, as Unicode does it (`\u{17f}` is an s, `\u{212a}` a k).
fn folds_to(key: &str, name: &str) -> bool {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(name.chars().map(fold))
}

/// Which object of the body is being read.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Top,
    Params,
    Message,
    Metadata,
    Meta,
}

struct Level<'a> {
    found: &'a mut Found,
    at: At,
    in_params: bool,
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Level { found, at, in_params } = self;
        while let Some(key) = map.next_key::<Key>()? {
            let inner = match (at, key.0.as_ref()) {
                (At::Top, "params") => Some(At::Params),
                (At::Top | At::Params, "message") => Some(At::Message),
                (At::Top | At::Params | At::Message, "metadata") => Some(At::Metadata),
                (At::Params, "_meta") => Some(At::Meta),
                _ => None,
            };
            if let Some(inner) = inner {
                found.enter(at, inner);
                let in_params = in_params || inner == At::Params;
                map.next_value_seed(Level { found, at: inner, in_params })?;
                continue;
            }
            found.has_id |= at == At::Params && key.0 == "id";
            found.has_task_id |= at == At::Params && key.0 == "taskId";
            // Whether a decision may hang on it, and how long it may be.
            let max_name = found.max_name;
            let (slot, matters, limit) = match (at, key.0.as_ref()) {
                (At::Metadata, "skillId" | "skill") => {
                    let value = map.next_value::<Scalar>()?;
                    found.put_skill(in_params, value);
                    continue;
                }
                (At::Meta, "traceparent") => (&mut found.traceparent, false, MAX_FIELD),
                (At::Meta, "tracestate") => (&mut found.tracestate, false, MAX_FIELD),
                (At::Meta, "baggage") => (&mut found.baggage, false, MAX_FIELD),
                (At::Top, "jsonrpc") => (&mut found.jsonrpc, true, MAX_FIELD),
                (At::Top, "method") => (&mut found.method, true, MAX_FIELD),
                (At::Top, "id") => (&mut found.id, false, MAX_FIELD),
                (At::Top, "model") => (&mut found.model, true, MAX_FIELD),
                (At::Top, "user") => (&mut found.user, false, MAX_FIELD),
                (At::Top, "stream") => (&mut found.stream, false, MAX_FIELD),
                (At::Params, "name") => (&mut found.name, true, max_name),
                (At::Params, "uri") => (&mut found.uri, true, max_name),
                (At::Params, "id") => (&mut found.params_id, false, MAX_FIELD),
                (At::Message, "messageId") => (&mut found.message_id, false, MAX_FIELD),
                (At::Message | At::Params, "contextId") => (&mut found.context_id, false, MAX_FIELD),
                (At::Message | At::Params, "taskId") => (&mut found.task_id, false, MAX_FIELD),
                (_, other) => {
                    found.ignore(at, other);
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let again = !slot.is_nothing();
            let Scalar { text, string, long } = map.next_value()?;
            // A number or a truth value: some parsers make text of it, as this one does.
            let odd = text.as_ref().is_some_and(|text| !string || text.len() > limit);
            slot.put(text, limit);
            found.doubt |= matters && (again || long || odd);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        // A JSON-RPC batch has no one method: it stays unknown.
        self.found.doubt |= self.at == At::Top;
        self.found.odd(self.at);
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        self.found.odd(self.at);
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.found.odd(self.at);
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.found.odd(self.at);
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.found.odd(self.at);
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.found.odd(self.at);
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A key, borrowed where it has no escapes.
struct Key<'de>(std::borrow::Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(text.into()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(text.to_owned().into()))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// The text of a string, number or boolean; none for anything else.
#[derive(Default)]
struct Scalar {
    text: Option<Box<str>>,
    /// It is a string.
    string: bool,
    /// There is one that is longer than any that is kept.
    long: bool,
}

impl Scalar {
    fn of(text: impl Into<Box<str>>) -> Scalar {
        Scalar { text: Some(text.into()), ..Scalar::default() }
    }
}

impl<'de> serde::Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl<'de> Visitor<'de> for ScalarVisitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                let long = text.len() > MAX_NAME;
                Ok(Scalar { text: (!long).then(|| text.into()), string: true, long })
            }
            fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar::of(value.to_string()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar::of(value.to_string()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar::of(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar::of(value.to_string()))
            }
            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::default())
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// Entry for the fuzzers: no input panics, a cut body never says something else than the whole one, and what is certain of a body is what a
/// parser reads that lets the last of several members hold.
pub fn fuzz(data: &[u8]) {
    let whole = read(data);
    let cut = read(&data[..data.len() / 2]);
    for (whole, cut) in [(&whole.method, &cut.method), (&whole.id, &cut.id), (&whole.model, &cut.model)] {
        if let (Some(whole), Some(cut)) = (whole, cut) {
            assert_eq!(whole, cut);
        }
    }
    if let (Some(certain), Ok(read)) = (read_whole(data), serde_json::from_slice::<serde_json::Value>(data)) {
        for (certain, name) in [(&certain.method, "method"), (&certain.model, "model")] {
            assert_eq!(certain.as_deref(), read.get(name).and_then(serde_json::Value::as_str));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_bodies_for_a_while() {
        crate::http::fuzzing::for_a_while("json_body", fuzz);
    }

    #[test]
    fn reads_each_protocol() {
        let mcp = read(br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"search","arguments":{"name":"x"}}}"#);
        assert!(mcp.is_json_rpc);
        assert_eq!(mcp.method.as_deref(), Some("tools/call"));
        assert_eq!(mcp.id.as_deref(), Some("7"));
        assert_eq!(mcp.name.as_deref(), Some("search"));
        let meta = br#"{"jsonrpc":"2.0","method":"tools/call","params":{"_meta":{"traceparent":"00-1","tracestate":"a=1","x":{}}}}"#;
        let meta = read(meta).meta.unwrap();
        assert_eq!(
            (&*meta.traceparent, meta.tracestate.as_deref(), meta.baggage),
            ("00-1", Some("a=1"), None)
        );
        assert_eq!(read(br#"{"jsonrpc":"2.0","params":{"_meta":{"tracestate":"a=1"}}}"#).meta, None);
        let a2a = read(br#"{"jsonrpc":"2.0","method":"SendMessage","params":{"message":{"messageId":"m","contextId":"c","taskId":"t"}}}"#);
        assert_eq!(
            (a2a.message_id.as_deref(), a2a.context_id.as_deref(), a2a.task_id.as_deref()),
            (Some("m"), Some("c"), Some("t"))
        );
        let openai =
            read(br#"{"model":"m-1","messages":[{"role":"user","content":"hi"}],"stream":true,"user":"u"}"#);
        assert_eq!(
            (openai.model.as_deref(), openai.user.as_deref(), openai.stream),
            (Some("m-1"), Some("u"), true)
        );
        let task = read(br#"{"jsonrpc":"2.0","method":"tasks/get","params":{"id":"t9"}}"#);
        assert_eq!(task.task_id.as_deref(), Some("t9"));
    }

    #[test]
    fn a_cut_body_keeps_what_was_whole() {
        let cut = read(br#"{"model":"m-1","user":"someone","messages":[{"role":"us"#);
        assert_eq!((cut.model.as_deref(), cut.user.as_deref()), (Some("m-1"), Some("someone")));
        assert_eq!(read(br#"{"model":"m-"#).model, None);
        assert_eq!(read(br#"{"jsonrpc":"2.0","id":12"#).id, None);
        assert_eq!(read(br#"{"jsonrpc":"2.0","id":12,"#).id.as_deref(), Some("12"));
    }

    #[test]
    fn malformed_says_nothing() {
        for bad in [
            &br#"{"model":"m",}"#[..],
            b"model=m",
            b"\xff\xfe",
            b"{\"model\":\"m\"} x",
            b"{\"model\":\"m\" \"x\":1}",
        ] {
            assert_eq!(read(bad), Fields::default(), "{}", String::from_utf8_lossy(bad));
        }
        let deep = [b'['; 4096];
        assert_eq!(read(&deep), Fields::default());
    }

    #[test]
    fn a_field_given_twice_is_unknown() {
        assert_eq!(read(br#"{"model":"a","model":"b"}"#).model, None);
        assert_eq!(read(br#"{"model":{"a":1}}"#).model, None);
        let long = format!("{{\"model\":\"{}\"}}", "x".repeat(300));
        assert_eq!(read(long.as_bytes()).model, None);
    }
}
