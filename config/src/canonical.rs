//! Documents as JSON, as they are stored and sent: the same content gives the same text, however it was formatted.
//!
//! Keys are sorted, aliases written out, the namespace filled in, and what Kubernetes adds for itself left out. A scalar
//! becomes what the reader of its field takes it for, so that reading the JSON gives the same model.

use crate::document::Document;
use crate::kinds::kind_info;
use crate::raw::{Metadata, Object, Raw, Shape};
use crate::units;
use crate::yaml::{Limits, Node, Type, compose};

/// Keys of `metadata` that an author writes; the others are Kubernetes' own.
const METADATA: [&str; 4] = ["annotations", "labels", "name", "namespace"];

/// The document as JSON, on one line.
pub(crate) fn document(of: &Document<'_>) -> String {
    let mut out = String::new();
    out.push('{');
    for key in ["apiVersion", "kind"] {
        string(key, &mut out);
        out.push(':');
        string(of.node.get(key).and_then(Node::scalar).map_or("", |scalar| scalar.text), &mut out);
        out.push(',');
    }
    out.push_str("\"metadata\":");
    metadata(of, &mut out);
    let spec = kind_info(of.meta.key.kind.name()).map(|info| info.spec);
    if let (Some(node), Some(object)) = (of.node.get("spec"), spec) {
        out.push_str(",\"spec\":");
        value(node, &Shape::Object(object), &mut out);
    }
    out.push('}');
    out
}

/// The first document of `text` (YAML or JSON) as JSON, whatever it is; `None` when it is neither.
pub fn to_json(text: &str) -> Option<String> {
    let (tree, problems) = compose(&"".into(), text, &Limits::default());
    let node = tree.documents().next().filter(|_| problems.is_empty())?;
    let mut out = String::new();
    value(node, &Shape::Any, &mut out);
    Some(out)
}

/// The first document of `text` (YAML or JSON) as YAML for people; `None` when it is neither.
pub fn to_yaml(text: &str) -> Option<String> {
    let (tree, problems) = compose(&"".into(), text, &Limits::default());
    let node = tree.documents().next().filter(|_| problems.is_empty())?;
    Some(crate::yaml::print(node, 0))
}

fn metadata(of: &Document<'_>, out: &mut String) {
    let Shape::Object(object) = <Metadata<'_> as Raw<'_>>::SHAPE else { return };
    let node = of.node.get("metadata");
    out.push('{');
    for (at, key) in METADATA.iter().enumerate() {
        let shape = object.field(key).map_or(&Shape::Any, |field| field.shape);
        let written = node.and_then(|node| node.get(key));
        if written.is_none() && *key != "namespace" {
            continue;
        }
        if at > 0 && !out.ends_with('{') {
            out.push(',');
        }
        string(key, out);
        out.push(':');
        match written {
            Some(written) => value(written, shape, out),
            None => string(&of.meta.key.namespace, out),
        }
    }
    out.push('}');
}

/// Recursion is bounded by [`Limits::depth`].
pub(crate) fn value(node: Node<'_>, shape: &Shape, out: &mut String) {
    match node.kind() {
        Type::Null => out.push_str("null"),
        Type::List => {
            let of = match chosen(shape, Type::List) {
                Shape::List(item) => item,
                _ => &Shape::Any,
            };
            out.push('[');
            for (at, item) in node.children().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                value(item, of, out);
            }
            out.push(']');
        }
        Type::Map => map(node, chosen(shape, Type::Map), out),
        Type::Text | Type::Bool | Type::Number => scalar(node, shape, out),
    }
}

fn map(node: Node<'_>, shape: &Shape, out: &mut String) {
    let object: Option<&'static Object> = if let Shape::Object(object) = shape { Some(object) } else { None };
    let mut children: Vec<Node<'_>> = node.children().collect();
    // A field of nothing is no field; in a map with free keys the key itself says something.
    children.retain(|child| object.is_none() || !child.is_null());
    children.sort_by(|a, b| a.key().cmp(b.key()));
    out.push('{');
    for (at, child) in children.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        string(child.key(), out);
        out.push(':');
        let of = match shape {
            Shape::Map(each) => each,
            _ => object.and_then(|object| object.field(child.key())).map_or(&Shape::Any, |field| field.shape),
        };
        value(child, of, out);
    }
    out.push('}');
}

/// The form of an [`Shape::Either`] that fits.
fn chosen(shape: &Shape, kind: Type) -> &Shape {
    let Shape::Either(forms) = shape else { return shape };
    let fits = |form: &&Shape| match kind {
        Type::Map => matches!(form, Shape::Object(_) | Shape::Map(_)),
        _ => matches!(form, Shape::List(_)),
    };
    forms.iter().find(fits).unwrap_or(shape)
}

fn scalar(node: Node<'_>, shape: &Shape, out: &mut String) {
    let Some(scalar) = node.scalar() else { return };
    let text = scalar.text;
    if !scalar.plain {
        return string(text, out);
    }
    match shape {
        // The words of YAML 1.1 are booleans where one is wanted.
        Shape::Bool if matches!(text, "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON") => {
            out.push_str("true");
        }
        Shape::Bool if matches!(text, "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF") => {
            out.push_str("false");
        }
        _ if matches!(text, "true" | "false") || is_json_number(text) => out.push_str(text),
        // `0x1F`, `+1`, `.5`: numbers that JSON has no such writing for.
        Shape::Int { .. } | Shape::Number => match (units::whole(text), text.parse::<f64>()) {
            (Some(whole), _) => out.push_str(&whole.to_string()),
            (None, Ok(number)) if number.is_finite() => out.push_str(&number.to_string()),
            _ => string(text, out),
        },
        _ => string(text, out),
    }
}

/// Whether JSON (RFC 8259, section 6) writes a number so.
fn is_json_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(digits)
}

/// A JSON string that YAML reads as the same text: what YAML folds, breaks at or forbids is escaped.
pub(crate) fn string(text: &str, out: &mut String) {
    out.push('"');
    let mut plain = 0;
    for (at, c) in text.char_indices() {
        let escape: &str = match c {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\n' => "\\n",
            '\t' => "\\t",
            '\r' => "\\r",
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') =>
            {
                ""
            }
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        match escape {
            "" => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            escape => out.push_str(escape),
        }
        plain = at + c.len_utf8();
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::is_json_number;

    #[test]
    fn only_what_json_allows_is_a_number() {
        for text in ["0", "-0", "10", "1.10", "1e3", "1E+3", "-1.5e-10"] {
            assert!(is_json_number(text), "{text}");
        }
        for text in ["", "-", "+1", "01", "1.", ".5", "0x1", "1e", "1_0", "inf", "--1", "1.2.3"] {
            assert!(!is_json_number(text), "{text}");
        }
    }
}
