//! The field tables and the JSON Schema that comes from them.

use pilotfish_config::kinds::KINDS;
use pilotfish_config::model::Kind;
use pilotfish_config::raw::{Object, Shape};
use pilotfish_config::schema::{any_schema, schema};

fn each_object(object: &'static Object, visit: &mut impl FnMut(&'static Object)) {
    visit(object);
    object.fields.iter().for_each(|field| each_shape(field.shape, visit));
}

fn each_shape(shape: &Shape, visit: &mut impl FnMut(&'static Object)) {
    match shape {
        Shape::Object(object) => each_object(object, visit),
        Shape::List(inner) | Shape::Map(inner) => each_shape(inner, visit),
        Shape::Either(shapes) => shapes.iter().for_each(|shape| each_shape(shape, visit)),
        _ => {}
    }
}

#[test]
fn every_kind_has_a_table_and_every_field_a_description() {
    assert_eq!(KINDS.len(), Kind::ALL.len());
    for info in KINDS {
        each_object(info.spec, &mut |object| {
            assert!(!object.doc.is_empty(), "{}", object.title);
            // `Reader::object` keeps what it saw in 64 bits.
            assert!(object.fields.len() <= 64, "{}", object.title);
            // `Reader::groups` compares neighbours.
            let mut groups: Vec<_> = object.fields.iter().filter_map(|field| field.group).collect();
            groups.dedup();
            let distinct: std::collections::HashSet<_> = groups.iter().collect();
            assert_eq!(groups.len(), distinct.len(), "{}", object.title);
            for field in object.fields {
                assert!(!field.doc.is_empty(), "{}.{}", object.title, field.name);
                let same = object.fields.iter().filter(|other| other.name == field.name).count();
                assert_eq!(same, 1, "{}.{}", object.title, field.name);
            }
        });
    }
}

#[test]
fn the_schema_names_fields_types_words_and_what_is_required() {
    let info = KINDS.iter().find(|info| info.kind == Kind::VirtualService).unwrap();
    let schema = schema(info);
    let route = &schema["properties"]["spec"]["properties"]["http"]["items"];
    assert_eq!(route["properties"]["timeout"]["type"], "string");
    assert_eq!(route["properties"]["route"]["items"]["required"][0], "destination");
    assert_eq!(route["additionalProperties"], false);
    let derive = &route["properties"]["redirect"]["properties"]["derivePort"]["enum"];
    assert_eq!(derive[0], "FROM_PROTOCOL_DEFAULT");
    assert_eq!(any_schema()["oneOf"].as_array().unwrap().len(), KINDS.len());
}
