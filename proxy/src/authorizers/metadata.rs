//! What an authorizer says besides (`dynamic_metadata`, a `google.protobuf.Struct`): JSON of a bounded length, for the conditions of policies.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::{Message, Oneof};
use serde_json::{Map, Number, Value};

/// As JSON, bytes. It is kept with every call that is under way, and with every answer that is remembered.
pub(super) const LONGEST: usize = 4096;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Struct {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) fields: BTreeMap<String, Any>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    pub(super) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Kind {
    #[prost(int32, tag = "1")]
    Null(i32),
    #[prost(double, tag = "2")]
    Number(f64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(bool, tag = "4")]
    Bool(bool),
    #[prost(message, tag = "5")]
    Struct(Struct),
    #[prost(message, tag = "6")]
    List(List),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct List {
    #[prost(message, repeated, tag = "1")]
    pub(super) values: Vec<Any>,
}

/// As JSON.
///
/// # Errors
/// It is too long: a policy may hang on what would be left out.
pub(super) fn read(all: Struct) -> Result<Arc<Value>, String> {
    let value = object(all);
    if value.to_string().len() > LONGEST {
        return Err(format!("its dynamic metadata have more than {LONGEST} bytes"));
    }
    Ok(Arc::new(value))
}

fn object(all: Struct) -> Value {
    Value::Object(all.fields.into_iter().map(|(name, value)| (name, one(value))).collect::<Map<_, _>>())
}

fn one(value: Any) -> Value {
    match value.kind {
        None | Some(Kind::Null(_)) => Value::Null,
        // As people write it: 3, not 3.0.
        Some(Kind::Number(number)) if number.fract() == 0.0 && number.abs() < 9e15 => {
            Value::Number(Number::from(number as i64))
        }
        Some(Kind::Number(number)) => Number::from_f64(number).map_or(Value::Null, Value::Number),
        Some(Kind::Text(text)) => Value::String(text),
        Some(Kind::Bool(is)) => Value::Bool(is),
        Some(Kind::Struct(all)) => object(all),
        Some(Kind::List(list)) => Value::Array(list.values.into_iter().map(one).collect()),
    }
}
