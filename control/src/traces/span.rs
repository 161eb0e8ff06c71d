//! Spans as the store gives them and the analysis reads them.

use std::sync::Arc;

use pilotfish_filters::trace::{SpanId, TraceId};

/// All spans of a trace that are known, by start.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// Its id.
    pub id: TraceId,
    /// Its spans, sorted by start, then by id.
    pub spans: Vec<Span>,
}

/// One span.
#[derive(Debug, Clone)]
pub struct Span {
    /// Its id.
    pub id: SpanId,
    /// The span that it hangs on; it need not be known.
    pub parent: Option<SpanId>,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Nanoseconds since 1970, by its machine's clock.
    pub start: u64,
    /// Nanoseconds since 1970; never before the start.
    pub end: u64,
    /// Its status is an error.
    pub error: bool,
    /// What the status says, if anything.
    pub message: String,
    /// Attributes in their order.
    pub attributes: Vec<(String, Value)>,
    /// Events.
    pub events: Vec<Event>,
    /// Who made it.
    pub resource: Arc<Resource>,
}

/// Who made spans.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resource {
    /// `service.name`: the agent.
    pub service: String,
    /// `service.namespace`.
    pub namespace: String,
    /// All attributes, those two included.
    pub attributes: Vec<(String, Value)>,
}

/// Something that happened within a span.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When, nanoseconds since 1970.
    pub time: u64,
    /// What.
    pub name: String,
    /// Attributes.
    pub attributes: Vec<(String, Value)>,
}

/// What a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// Work within a process.
    #[default]
    Internal,
    /// A call as its callee sees it.
    Server,
    /// A call as its caller sees it.
    Client,
    /// A message that is sent.
    Producer,
    /// A message that is taken.
    Consumer,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Number(i64),
    /// A number.
    Float(f64),
    /// Several.
    List(Vec<Value>),
    /// Pairs.
    Map(Vec<(String, Value)>),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl Value {
    /// As a search compares it and people read it: texts as they are, lists and maps as JSON.
    pub fn to_text(&self) -> String {
        match self {
            Value::Text(text) => text.clone(),
            Value::Bool(yes) => yes.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::List(_) | Value::Map(_) | Value::Bytes(_) => self.to_json().to_string(),
        }
    }

    /// As JSON; bytes as base64.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Text(text) => text.as_str().into(),
            Value::Bool(yes) => (*yes).into(),
            Value::Number(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::List(list) => list.iter().map(Value::to_json).collect(),
            Value::Map(map) => map.iter().map(|(key, value)| (key.clone(), value.to_json())).collect(),
            Value::Bytes(bytes) => data_encoding::BASE64.encode(bytes).into(),
        }
    }
}

impl Resource {
    /// The agent: `namespace/name`, or the name alone when it has no namespace.
    pub fn agent(&self) -> String {
        match (self.namespace.as_str(), self.service.as_str()) {
            ("", "") => "unknown_service".into(),
            ("", name) => name.into(),
            (namespace, name) => format!("{namespace}/{name}"),
        }
    }
}

impl Span {
    /// How long it took, nanoseconds.
    pub fn duration(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// An attribute that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.attribute(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An attribute that is a whole number.
    pub fn number(&self, name: &str) -> Option<i64> {
        match self.attribute(name)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }
}
