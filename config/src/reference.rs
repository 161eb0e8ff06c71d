//! The reference of every kind, as Markdown, from the same tables that check documents: `docs/reference.md`.

use std::fmt::Write;

use crate::annotations;
use crate::kinds::{KINDS, KindInfo};
use crate::model::Kind;
use crate::raw::{Field, Object, Shape, Status};

/// The whole reference.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Reference\n\nEvery kind that Pilotfish reads and every field of it, generated from the tables that check documents \
         (`pilotfish schema --markdown`). Fields of Istio's kinds mean what they mean in Istio; where no default is written, \
         there is none.\n\n",
    );
    for info in KINDS {
        let _ =
            writeln!(out, "* [{name}](#{link})", name = info.kind, link = info.kind.name().to_lowercase());
    }
    out.push_str("* [Annotations](#annotations)\n");
    for info in KINDS {
        kind(&mut out, info);
    }
    annotations(&mut out);
    out
}

fn kind(out: &mut String, info: &KindInfo) {
    let _ = write!(out, "\n## {}\n\n{}\n\n", info.kind, sentence(info.spec.doc));
    let versions: Vec<String> = info.versions.iter().map(|version| format!("`{version}`")).collect();
    let _ = writeln!(out, "`apiVersion`: {}\n", versions.join(", "));
    out.push_str("| field | what | value |\n|---|---|---|\n");
    rows(out, "", info.spec, &mut Vec::new());
}

/// One row for each field, those of objects below it with their path.
fn rows(out: &mut String, path: &str, object: &'static Object, within: &mut Vec<&'static str>) {
    within.push(object.title);
    for field in object.fields {
        let name = format!("{path}{}", field.name);
        let _ = writeln!(out, "| `{name}` | {} | {} |", cell(&meaning(field)), cell(&value(field.shape)));
        let (inner, mark) = inner(field.shape);
        // A kind that contains itself is told once.
        if let Some(inner) = inner.filter(|inner| !within.contains(&inner.title)) {
            rows(out, &format!("{name}{mark}."), inner, within);
        }
    }
    within.pop();
}

/// The object that a value is or holds, and how its path is written.
fn inner(shape: &Shape) -> (Option<&'static Object>, &'static str) {
    match shape {
        Shape::Object(object) => (Some(object), ""),
        Shape::List(items) => (inner(items).0, "[]"),
        Shape::Map(values) => (inner(values).0, ".*"),
        Shape::Either(shapes) => shapes.iter().map(inner).find(|one| one.0.is_some()).unwrap_or((None, "")),
        _ => (None, ""),
    }
}

fn meaning(field: &Field) -> String {
    let mut text = sentence(field.doc);
    match field.status {
        Status::Enforced => {}
        Status::Later => text.push_str(" *Not enforced yet.*"),
        Status::Deprecated(better) => {
            let _ = write!(text, " *Deprecated: {better}.*");
        }
        Status::Ignored(why) => {
            let _ = write!(text, " *Ignored: {why}.*");
        }
    }
    if field.required {
        text.push_str(" **Required.**");
    }
    text
}

fn value(shape: &Shape) -> String {
    match shape {
        Shape::Text => "text".into(),
        Shape::Bool => "`true`, `false`".into(),
        Shape::Int { min: 0, max } if *max == i64::from(u32::MAX) => "whole number".into(),
        Shape::Int { min, max } => format!("{min} to {max}"),
        Shape::Number => "number".into(),
        Shape::Duration => "time, `1.5s`".into(),
        Shape::Words(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        Shape::Either(shapes) => {
            let values = shapes.iter().map(|shape| match shape {
                Shape::Object(_) => "the following".into(),
                shape => value(shape),
            });
            values.collect::<Vec<_>>().join(" or ")
        }
        Shape::List(items) => match items {
            Shape::Object(_) => "list".into(),
            items => format!("list of {}", value(items)),
        },
        Shape::Map(Shape::Object(_)) => "map".into(),
        Shape::Map(values) => format!("map to {}", value(values)),
        Shape::Object(_) => String::new(),
        Shape::Any => "anything".into(),
    }
}

fn annotations(out: &mut String) {
    out.push_str(
        "\n## Annotations\n\nWhat Istio has no field for. Those of single rules may also be written as `pilotfish.dev/NAME.RULE` for \
         the rule of that name of a VirtualService; without it they hold for all of its rules. So may those of single agents for \
         agents of an AgentCluster.\n\n| annotation | on | what |\n|---|---|---|\n",
    );
    for (name, kinds, per_rule, doc) in annotations::reference() {
        let rules = match per_rule {
            true if kinds == [Kind::AgentCluster] => ", single agents",
            true => ", single rules",
            false => "",
        };
        let kinds: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
        let _ = writeln!(out, "| `pilotfish.dev/{name}` | {}{rules} | {} |", kinds.join(", "), cell(doc));
    }
}

fn sentence(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}
