//! What a call is about, taken from it without doubt: a value that two servers could read differently is no value.

use std::borrow::Cow;

use pilotfish_config::model::{BodyField, ResourcePiece, ResourceTemplate};

use crate::authz::Asking;
use crate::call::Understood;
use crate::verdict::{Deny, Reason};

/// How long a value within a resource may be, bytes.
const LONGEST: usize = 512;

/// Why there is no resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoResource {
    /// The path or a value has this, which servers read differently.
    Unsafe(&'static str),
    /// Nothing is there that the template names.
    Missing(&'static str),
    /// The body leaves doubt.
    Doubtful,
}

impl NoResource {
    /// The refusal; `permission` is what the call needs.
    pub(crate) fn deny(self, permission: &str) -> Deny {
        match self {
            NoResource::Unsafe(what) => Deny::with(
                Reason::AccessDenied,
                format!("the call needs {permission}, and what it is about cannot be told for sure: {what}"),
            ),
            NoResource::Missing(what) => Deny::with(
                Reason::AccessDenied,
                format!("the call needs {permission}, and does not say on what: there is no {what}"),
            ),
            NoResource::Doubtful => Deny::with(
                Reason::NotDecidable,
                "the permission that the call needs hangs on its body, which cannot be understood without doubt",
            ),
        }
    }
}

/// The path without its first slash, as every server reads it: decoded once; a last slash does not count.
pub(crate) fn of_path(path: &str) -> Result<Cow<'_, str>, NoResource> {
    let rest = path.strip_prefix('/').unwrap_or(path);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let decoded = if rest.contains('%') { Cow::Owned(decode(rest)?) } else { Cow::Borrowed(rest) };
    let unsafe_as = |what| Err(NoResource::Unsafe(what));
    for byte in decoded.bytes() {
        match byte {
            b'\\' => return unsafe_as("a backslash"),
            b'*' => return unsafe_as("a `*`"),
            b';' => return unsafe_as("a `;`, with which parameters begin"),
            b'?' | b'#' => return unsafe_as("an encoded `?` or a `#`"),
            0..0x20 | 0x7f => return unsafe_as("a control character"),
            _ => {}
        }
    }
    if decoded.is_empty() {
        return Ok(decoded);
    }
    for segment in decoded.split('/') {
        match segment {
            "" => return unsafe_as("an empty segment in the path"),
            "." | ".." => return unsafe_as("a segment `.` or `..`"),
            _ => {}
        }
    }
    Ok(decoded)
}

/// Percent-decodes once; what would change the meaning of the path has no place in it.
fn decode(text: &str) -> Result<String, NoResource> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| (*byte as char).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if *byte != b'%' {
            decoded.push(*byte);
            at += 1;
            continue;
        }
        let (Some(high), Some(low)) = (digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) else {
            return Err(NoResource::Unsafe("a `%` without two hexadecimal digits"));
        };
        match (high * 16 + low) as u8 {
            b'/' => return Err(NoResource::Unsafe("an encoded slash")),
            b'%' => return Err(NoResource::Unsafe("an encoded `%`")),
            other => decoded.push(other),
        }
        at += 3;
    }
    String::from_utf8(decoded).map_err(|_| NoResource::Unsafe("bytes that are not UTF-8"))
}

/// A value for a template: one segment, without anything that a glob or a path gives a meaning.
fn value<'v>(text: &'v str, missing: &'static str) -> Result<&'v str, NoResource> {
    if text.is_empty() {
        return Err(NoResource::Missing(missing));
    }
    if text.contains('/') {
        return Err(NoResource::Unsafe("a slash within a value"));
    }
    name(text, missing)
}

/// The name of a tool, a model, a skill or a method, which may have slashes.
pub(crate) fn name<'v>(text: &'v str, missing: &'static str) -> Result<&'v str, NoResource> {
    if text.is_empty() {
        return Err(NoResource::Missing(missing));
    }
    if text.len() > LONGEST {
        return Err(NoResource::Unsafe("a value of more than 512 bytes"));
    }
    if text.chars().any(|c| c.is_control() || matches!(c, '*' | '\\' | '%' | ';')) {
        return Err(NoResource::Unsafe("`*`, `%`, `;`, a backslash or a control character in a value"));
    }
    if text.split('/').any(|segment| matches!(segment, "" | "." | "..")) || text.contains("..") {
        return Err(NoResource::Unsafe("`..` or an empty segment in a value"));
    }
    Ok(text)
}

/// What a template means for a call.
pub(crate) fn filled<'p>(
    template: &'p ResourceTemplate,
    asking: &Asking<'_>,
) -> Result<Cow<'p, str>, NoResource> {
    if let [ResourcePiece::Text(text)] = template.pieces.as_slice() {
        return Ok(Cow::Borrowed(text));
    }
    let path = of_path(asking.head.path())?;
    let mut filled = String::new();
    for piece in &template.pieces {
        match piece {
            ResourcePiece::Text(text) => filled.push_str(text),
            ResourcePiece::Segment(number) => {
                let segment = path.split('/').nth(number - 1).unwrap_or_default();
                filled.push_str(value(segment, "such segment in the path")?);
            }
            ResourcePiece::After(before) => {
                let mut segments = path.split('/').skip_while(|segment| **segment != **before).skip(1);
                let segment = segments.next().unwrap_or_default();
                if segment == &**before || segments.any(|segment| *segment == **before) {
                    return Err(NoResource::Unsafe("the segment before it is in the path more than once"));
                }
                filled.push_str(value(segment, "such segment in the path")?);
            }
            ResourcePiece::Header(header) => {
                let found = asking.head.header(header).unwrap_or_default();
                if found.contains(&b',') {
                    return Err(NoResource::Unsafe("several values of one header"));
                }
                let text = std::str::from_utf8(&found)
                    .map_err(|_| NoResource::Unsafe("a header that is not UTF-8"))?;
                filled.push_str(value(text.trim(), "such header")?);
            }
            ResourcePiece::Body(field) => filled.push_str(of_body(*field, asking)?),
        }
    }
    Ok(Cow::Owned(filled))
}

fn of_body<'a>(field: BodyField, asking: &Asking<'a>) -> Result<&'a str, NoResource> {
    let call = asking.call;
    let unsure = match field {
        BodyField::Skill => call.unsure.skill,
        BodyField::Model => call.unsure.model,
        // gRPC's messages are not read at all.
        BodyField::ContextId | BodyField::TaskId => call.unsure.skill,
        BodyField::Session | BodyField::Tool | BodyField::User => false,
    };
    if call.body == Understood::Doubtful || unsure {
        return Err(NoResource::Doubtful);
    }
    let found = match field {
        BodyField::ContextId => &call.context_id,
        BodyField::TaskId => &call.task_id,
        BodyField::Session => &call.session,
        BodyField::Model => &call.model,
        BodyField::Tool => &call.tool,
        BodyField::Skill => &call.skill,
        BodyField::User => &call.user,
    };
    value(found.as_deref().unwrap_or_default(), "such field in the body")
}
