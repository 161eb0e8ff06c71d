//! Header names and values in matches and edits.

use crate::model::{HeaderEdits, HeaderOps};
use crate::raw::{HeaderOpsSpec, HeadersSpec, Text, TextMap, Val};
use crate::yaml::clip_text;

use super::check::Cx;

/// Whether `name` is a header name (RFC 9110 section 5.1).
pub(super) fn is_header_name(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(token)
}

/// Pseudo headers that a rule may match on.
const PSEUDO: &[&str] = &[":method", ":scheme", ":authority", ":path", ":status"];

/// The name of a header that a rule matches on, in lower case.
pub(super) fn matched_name(cx: &mut Cx<'_>, name: Val<'_, &str>, mesh: bool) -> String {
    if name.value.starts_with("@request.auth.claims") {
        if mesh {
            let message = "claims of a token can be matched only at a gateway".to_owned();
            cx.diagnose.error_at_key(name.node, message, None);
        }
    } else if !is_header_name(name.value) && !PSEUDO.contains(&name.value) {
        let message = format!("`{}` is not a header name", clip_text(name.value));
        cx.diagnose.error_at_key(name.node, message, None);
    }
    name.value.to_ascii_lowercase()
}

/// The edits of both directions.
pub(super) fn edits(cx: &mut Cx<'_>, spec: Option<&HeadersSpec<'_>>) -> HeaderEdits {
    let Some(spec) = spec else { return HeaderEdits::default() };
    HeaderEdits {
        request: spec.request.as_ref().map(|ops| operations(cx, ops, true)).unwrap_or_default(),
        response: spec.response.as_ref().map(|ops| operations(cx, ops, false)).unwrap_or_default(),
    }
}

fn operations(cx: &mut Cx<'_>, spec: &HeaderOpsSpec<'_>, request: bool) -> HeaderOps {
    let set = pairs(cx, spec.set.as_ref(), request);
    let add = pairs(cx, spec.add.as_ref(), request);
    let remove = spec.remove.iter().flatten().map(|name| edited_name(cx, *name, false)).collect();
    HeaderOps { set, add, remove }
}

fn pairs(cx: &mut Cx<'_>, map: Option<&TextMap<'_>>, request: bool) -> Vec<(String, String)> {
    let map = map.map(Vec::as_slice).unwrap_or_default().iter();
    map.map(|(name, value)| (edited_name(cx, *name, request), value_text(cx, *value))).collect()
}

/// The name of a header that is edited, in lower case. `authority`: Host and `:authority` are allowed.
fn edited_name(cx: &mut Cx<'_>, name: Val<'_, &str>, authority: bool) -> String {
    let lower = name.value.to_ascii_lowercase();
    let is_authority = matches!(&*lower, ":authority" | "host");
    let what = if lower.is_empty() {
        Some("a header name must not be empty".to_owned())
    } else if is_authority && !authority {
        Some(format!("`{}` can only be set or added in a request", name.value))
    } else if is_authority || is_header_name(&lower) {
        None
    } else {
        Some(format!("`{}` is not a header name that can be edited", clip_text(name.value)))
    };
    if let Some(message) = what {
        cx.diagnose.error_at_key(name.node, message, None);
    }
    if is_authority { ":authority".into() } else { lower }
}

/// A header's value: `%%` is `%`; Envoy's `%COMMAND%` is checked and sent as written.
fn value_text(cx: &mut Cx<'_>, value: Text<'_>) -> String {
    if value.bytes().any(|b| (b < 0x20 && b != b'\t') || b == 0x7f) {
        cx.error(value.node, "a header value must not contain control characters");
        return String::new();
    }
    if !value.contains('%') {
        return value.value.to_owned();
    }
    let mut text = String::new();
    let mut rest = value.value;
    let mut commands = false;
    while let Some(start) = rest.find('%') {
        text.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        if let Some(tail) = rest.strip_prefix('%') {
            text.push('%');
            rest = tail;
        } else if let Some(end) = command_end(rest) {
            text.push('%');
            text.push_str(&rest[..=end]);
            rest = &rest[end + 1..];
            commands = true;
        } else {
            cx.error_hint(
                value.node,
                "a `%` stands alone in the header value",
                "write `%%` for a percent sign",
            );
            return String::new();
        }
    }
    text.push_str(rest);
    if commands {
        let hint = "it is sent as written; write `%%` if that is meant";
        cx.warn(value.node, "Envoy's `%COMMAND%` is not evaluated", hint);
    }
    text
}

/// The position of the `%` that ends a command: `NAME%`, `NAME(arguments)%`, `NAME(arguments):LENGTH%`.
fn command_end(text: &str) -> Option<usize> {
    let name = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))?;
    if name == 0 {
        return None;
    }
    let tail = &text[name..];
    let arguments = if tail.starts_with('(') { tail.find(')')? + 1 } else { 0 };
    let tail = &tail[arguments..];
    let length = tail
        .strip_prefix(':')
        .map_or(0, |digits| 1 + digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len()));
    tail[length..].starts_with('%').then_some(name + arguments + length)
}

#[cfg(test)]
mod tests {
    use super::{command_end, is_header_name};

    #[test]
    fn commands_end_at_their_percent() {
        assert_eq!(command_end("HOSTNAME% x"), Some(8));
        assert_eq!(command_end("REQ(x-a):10%"), Some(11));
        assert_eq!(command_end("123"), None);
        assert_eq!(command_end("START_TIME"), None);
        assert_eq!(command_end(" A%"), None);
    }

    #[test]
    fn header_names_are_tokens() {
        assert!(is_header_name("x-a.b_c"));
        for name in ["", "a b", "a:b", "é", "a\n"] {
            assert!(!is_header_name(name), "{name:?}");
        }
    }
}
