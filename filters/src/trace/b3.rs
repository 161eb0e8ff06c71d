//! B3, as Zipkin's libraries write it: one field `b3`, or a field for each part (`x-b3-traceid`, ...).

use super::{Said, SpanId, TraceContext, TraceId, any_digit, bytes, write_hex};

/// `<32 digits>-<16 digits>-<flag>`.
const LEN: usize = 51;

/// Reads a `b3`: `{trace}-{span}[-{flag}[-{parent}]]`, or only a flag. `None`: it is none.
pub fn parse(value: &[u8]) -> Option<Said> {
    let value = value.trim_ascii();
    if let [only] = value {
        return Some(Said { sampled: Some(flag(*only)?), ..Said::default() });
    }
    let mut parts = value.split(|byte| *byte == b'-');
    let parent = (trace(parts.next()?)?, span(parts.next()?)?);
    let sampled = match parts.next() {
        None => None,
        Some([only]) => Some(flag(*only)?),
        Some(_) => return None,
    };
    // Who the caller's parent is, is nobody's business here, but it has to be one.
    if let Some(before) = parts.next() {
        span(before)?;
    }
    parts.next().is_none().then_some(Said { parent: Some(parent), sampled, random: false })
}

/// Reads the parts of the form with several fields. `None`: they are none, or not whole.
pub fn parse_parts(
    trace_id: Option<&[u8]>,
    span_id: Option<&[u8]>,
    sampled: Option<&[u8]>,
    flags: Option<&[u8]>,
) -> Option<Said> {
    let debug = flags.is_some_and(|flags| flags.trim_ascii() == b"1");
    let sampled = match sampled.map(<[u8]>::trim_ascii) {
        _ if debug => Some(true),
        None => None,
        // What older tracers wrote.
        Some(b"1" | b"true") => Some(true),
        Some(b"0" | b"false") => Some(false),
        Some(_) => return None,
    };
    let parent = match (trace_id, span_id) {
        (Some(trace_id), Some(span_id)) => Some((trace(trace_id.trim_ascii())?, span(span_id.trim_ascii())?)),
        (None, None) if sampled.is_some() => None,
        _ => return None,
    };
    Some(Said { parent, sampled, random: false })
}

/// A trace's id: 32 digits, or the 16 of older tracers, which are its low half.
fn trace(text: &[u8]) -> Option<TraceId> {
    let id = match text.len() {
        32 => TraceId(bytes(text, any_digit)?),
        16 => {
            let low: [u8; 8] = bytes(text, any_digit)?;
            TraceId(u128::from(u64::from_be_bytes(low)).to_be_bytes())
        }
        _ => return None,
    };
    (!id.is_none()).then_some(id)
}

fn span(text: &[u8]) -> Option<SpanId> {
    bytes(text, any_digit).map(SpanId).filter(|id| !id.is_none())
}

fn flag(byte: u8) -> Option<bool> {
    match byte {
        b'1' | b'd' => Some(true),
        b'0' => Some(false),
        _ => None,
    }
}

/// Writes a `b3`. Its parts are those of the form with several fields: see [`parts`].
pub fn print(context: &TraceContext) -> [u8; LEN] {
    let mut text = *b"00000000000000000000000000000000-0000000000000000-0";
    write_hex(&mut text[..32], &context.trace.0);
    write_hex(&mut text[33..49], &context.span.0);
    text[50] = b'0' + u8::from(context.sampled);
    text
}

/// The names of the form with several fields, with the values that a printed `b3` has.
pub fn parts(printed: &[u8; LEN]) -> [(&'static str, &[u8]); 3] {
    [("x-b3-traceid", &printed[..32]), ("x-b3-spanid", &printed[33..49]), ("x-b3-sampled", &printed[50..])]
}

/// Names of the form with several fields that are read and never written.
pub const UNWRITTEN: [&str; 2] = ["x-b3-parentspanid", "x-b3-flags"];
