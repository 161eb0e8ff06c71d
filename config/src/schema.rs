//! JSON Schema of every kind, from the same tables that check documents.

use serde_json::{Map, Value, json};

use crate::kinds::{KINDS, KindInfo};
use crate::raw::{Field, Metadata, Object, Raw, Shape, Status};

/// The schema of one kind's documents.
pub fn schema(info: &KindInfo) -> Value {
    let required = if info.spec_required {
        vec!["apiVersion", "kind", "metadata", "spec"]
    } else {
        vec!["apiVersion", "kind", "metadata"]
    };
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": info.kind.name(),
        "description": description(info.spec.doc),
        "type": "object",
        "properties": {
            "apiVersion": { "enum": info.versions },
            "kind": { "const": info.kind.name() },
            "metadata": shape(&<Metadata<'_> as Raw<'_>>::SHAPE),
            "spec": object(info.spec),
            "status": true,
        },
        "required": required,
        "additionalProperties": false,
    })
}

/// The schema of a document of any kind.
pub fn any_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Pilotfish",
        "oneOf": KINDS.iter().map(schema).collect::<Vec<_>>(),
    })
}

fn description(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

fn shape(shape: &Shape) -> Value {
    match shape {
        Shape::Text => json!({ "type": "string" }),
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::Int { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Shape::Number => json!({ "type": "number" }),
        Shape::Duration => {
            json!({ "type": "string", "pattern": "^(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(h|m|s|ms|us|ns))+$", "examples": ["1.5s"] })
        }
        Shape::Words(words) => json!({ "type": "string", "enum": words }),
        Shape::Either(shapes) => json!({ "anyOf": shapes.iter().map(self::shape).collect::<Vec<_>>() }),
        Shape::List(items) => json!({ "type": "array", "items": self::shape(items) }),
        Shape::Map(values) => json!({ "type": "object", "additionalProperties": self::shape(values) }),
        Shape::Object(object) => self::object(object),
        Shape::Any => json!(true),
    }
}

fn object(object: &Object) -> Value {
    let mut properties = Map::new();
    for field in object.fields {
        properties.insert(field.name.to_owned(), self::field(field));
    }
    let required: Vec<&str> =
        object.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let mut schema = json!({
        "title": object.title,
        "description": description(object.doc),
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    let exclusive = exclusive(object);
    if !exclusive.is_empty() {
        schema["allOf"] = json!(exclusive);
    }
    schema
}

/// No two fields of one group.
fn exclusive(object: &Object) -> Vec<Value> {
    let grouped: Vec<&Field> = object.fields.iter().filter(|field| field.group.is_some()).collect();
    let mut rules = Vec::new();
    for (position, first) in grouped.iter().enumerate() {
        for second in grouped[position + 1..].iter().filter(|second| second.group == first.group) {
            rules.push(json!({ "not": { "required": [first.name, second.name] } }));
        }
    }
    rules
}

fn field(field: &Field) -> Value {
    let mut text = description(field.doc);
    let mut schema = shape(field.shape);
    match field.status {
        Status::Enforced => {}
        Status::Later => text.push_str(" Not enforced yet."),
        Status::Deprecated(instead) => text.push_str(&format!(" Deprecated: write {instead}.")),
        Status::Ignored(why) => text.push_str(&format!(" Does nothing: {why}.")),
    }
    if let Some(map) = schema.as_object_mut() {
        map.insert("description".into(), text.into());
        if matches!(field.status, Status::Deprecated(_) | Status::Ignored(_)) {
            map.insert("deprecated".into(), true.into());
        }
    }
    schema
}
