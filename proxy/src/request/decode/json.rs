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
    fn put(&mut self, value: Option<Box<str>>) {
        *self = match (&*self, value) {
            (Seen::Nothing, Some(text)) if text.len() <= MAX_FIELD => Seen::Once(text),
            _ => Seen::Unusable,
        };
    }

    fn take(&mut self) -> Option<Box<str>> {
        match std::mem::take(self) {
            Seen::Once(text) => Some(text),
            Seen::Nothing | Seen::Unusable => None,
        }
    }
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
    /// MCP `params.name` or `params.uri`.
    pub name: Option<Box<str>>,
    /// A2A `messageId`.
    pub message_id: Option<Box<str>>,
    /// A2A `contextId`.
    pub context_id: Option<Box<str>>,
    /// A2A `taskId`, or `params.id` of the task methods.
    pub task_id: Option<Box<str>>,
    /// OpenAI `model`.
    pub model: Option<Box<str>>,
    /// OpenAI `user`.
    pub user: Option<Box<str>>,
    /// OpenAI `stream: true`.
    pub stream: bool,
    /// MCP `params._meta`, when it has a `traceparent`.
    pub meta: Option<Box<TraceMeta>>,
}

#[derive(Default)]
struct Found {
    jsonrpc: Seen,
    method: Seen,
    id: Seen,
    name: Seen,
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
    let bytes = &bytes[..end];
    let mut found = Found::default();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let outcome = Level { found: &mut found, at: At::Top }.deserialize(&mut json);
    match outcome {
        Ok(()) if json.end().is_ok() => {}
        Err(error) if error.is_eof() => {}
        _ => return Fields::default(),
    }
    let method = found.method.take();
    let is_task_method = method.as_deref().is_some_and(|m| m.starts_with("tasks/") || m.ends_with("Task"));
    Fields {
        is_json_rpc: found.jsonrpc.take().as_deref() == Some("2.0"),
        id: found.id.take(),
        name: found.name.take(),
        message_id: found.message_id.take(),
        context_id: found.context_id.take(),
        task_id: found.task_id.take().or(found.params_id.take().filter(|_| is_task_method)),
        model: found.model.take(),
        user: found.user.take(),
        stream: found.stream.take().as_deref() == Some("true"),
        meta: found.traceparent.take().map(|traceparent| {
            let (tracestate, baggage) = (found.tracestate.take(), found.baggage.take());
            Box::new(TraceMeta { traceparent, tracestate, baggage })
        }),
        method,
    }
}

/// Which object of the body is being read.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Top,
    Params,
    Message,
    Meta,
}

struct Level<'a> {
    found: &'a mut Found,
    at: At,
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
        let Level { found, at } = self;
        while let Some(key) = map.next_key::<Key>()? {
            let slot = match (at, key.0.as_ref()) {
                (At::Top, "params") => {
                    map.next_value_seed(Level { found, at: At::Params })?;
                    continue;
                }
                (At::Top | At::Params, "message") => {
                    map.next_value_seed(Level { found, at: At::Message })?;
                    continue;
                }
                (At::Params, "_meta") => {
                    map.next_value_seed(Level { found, at: At::Meta })?;
                    continue;
                }
                (At::Meta, "traceparent") => &mut found.traceparent,
                (At::Meta, "tracestate") => &mut found.tracestate,
                (At::Meta, "baggage") => &mut found.baggage,
                (At::Top, "jsonrpc") => &mut found.jsonrpc,
                (At::Top, "method") => &mut found.method,
                (At::Top, "id") => &mut found.id,
                (At::Top, "model") => &mut found.model,
                (At::Top, "user") => &mut found.user,
                (At::Top, "stream") => &mut found.stream,
                (At::Params, "name" | "uri") => &mut found.name,
                (At::Params, "id") => &mut found.params_id,
                (At::Message, "messageId") => &mut found.message_id,
                (At::Message | At::Params, "contextId") => &mut found.context_id,
                (At::Message | At::Params, "taskId") => &mut found.task_id,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let value = map.next_value::<Scalar>()?;
            slot.put(value.0);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        // A JSON-RPC batch has no one method: it stays unknown.
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
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

/// The text of a string, number or boolean; `None` for anything else.
struct Scalar(Option<Box<str>>);

impl<'de> serde::Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl<'de> Visitor<'de> for ScalarVisitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar((text.len() <= MAX_FIELD).then(|| text.into())))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(Some(value.to_string().into())))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(Some(value.to_string().into())))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(Some(value.to_string().into())))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar(Some(value.to_string().into())))
            }
            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar(None))
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// Entry for the fuzzers: no input panics, and a cut body never says something else than the whole one.
pub fn fuzz(data: &[u8]) {
    let whole = read(data);
    let cut = read(&data[..data.len() / 2]);
    for (whole, cut) in [(&whole.method, &cut.method), (&whole.id, &cut.id), (&whole.model, &cut.model)] {
        if let (Some(whole), Some(cut)) = (whole, cut) {
            assert_eq!(whole, cut);
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
