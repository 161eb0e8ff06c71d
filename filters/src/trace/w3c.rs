//! W3C Trace Context, levels 1 and 2: `traceparent` and `tracestate`.

use super::{Said, SpanId, TraceContext, TraceId, bytes, small_digit, write_hex};

/// `00-<32 digits>-<16 digits>-<2 digits>`.
const LEN: usize = 55;
const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;

/// Members of a `tracestate`.
const MOST_MEMBERS: usize = 32;
/// Bytes of a member's key, and of its value.
const LONGEST_PART: usize = 256;
/// Bytes of a `tracestate` in all its lines; the standard asks for 512 at least.
const LONGEST: usize = 8192;

/// Reads a `traceparent`. `None`: it is none, and the trace begins anew.
pub fn parse(value: &[u8]) -> Option<Said> {
    // Blanks around a value are no part of it; over HTTP/2 nobody has taken them away.
    let value = value.trim_ascii();
    let (head, rest) = value.split_at_checked(LEN)?;
    let [version]: [u8; 1] = bytes(head.get(..2)?, small_digit)?;
    let fits = match version {
        0 => rest.is_empty(),
        0xff => false,
        // A later version may go on, behind a dash.
        _ => rest.first().is_none_or(|next| *next == b'-'),
    };
    if !fits || [head[2], head[35], head[52]] != [b'-'; 3] {
        return None;
    }
    let trace = TraceId(bytes(head.get(3..35)?, small_digit)?);
    let span = SpanId(bytes(head.get(36..52)?, small_digit)?);
    let [flags]: [u8; 1] = bytes(head.get(53..)?, small_digit)?;
    if trace.is_none() || span.is_none() {
        return None;
    }
    let (sampled, random) = (Some(flags & SAMPLED != 0), flags & RANDOM != 0);
    Some(Said { parent: Some((trace, span)), sampled, random })
}

/// Writes a `traceparent` of version 00; flags that nobody knows are not passed on.
pub fn print(context: &TraceContext) -> [u8; LEN] {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(&mut text[3..35], &context.trace.0);
    write_hex(&mut text[36..52], &context.span.0);
    text[54] = b'0' + (u8::from(context.sampled) * SAMPLED) + (u8::from(context.random) * RANDOM);
    text
}

/// What is to be done with the lines of a `tracestate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// They say nothing: none, or only empty ones.
    Empty,
    /// One line, which goes on as it is.
    Good,
    /// Several lines, which go on as one.
    Join,
    /// Too long, too many members, or one that is none: all of it is dropped.
    Bad,
}

/// Judges the lines of a `tracestate`.
pub fn judge<'a>(lines: impl Iterator<Item = &'a [u8]>) -> State {
    let (mut count, mut members, mut size) = (0, 0, 0);
    for line in lines {
        count += 1;
        size += line.len() + 1;
        if size > LONGEST {
            return State::Bad;
        }
        for member in line.split(|byte| *byte == b',').map(trim_blanks).filter(|member| !member.is_empty()) {
            members += 1;
            if members > MOST_MEMBERS || !is_member(member) {
                return State::Bad;
            }
        }
    }
    match (members, count) {
        (0, _) => State::Empty,
        (_, 1) => State::Good,
        _ => State::Join,
    }
}

/// Without blanks around it; those before a value are a part of that.
fn trim_blanks(mut member: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = member {
        member = rest;
    }
    member
}

/// The grammar of level 2, which has that of level 1 within it.
fn is_member(member: &[u8]) -> bool {
    let Some(at) = memchr(member) else { return false };
    let (key, value) = (&member[..at], &member[at + 1..]);
    let small = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    let in_key = |byte: &u8| small(byte) || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@');
    let in_value = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    key.first().is_some_and(small)
        && key.len() <= LONGEST_PART
        && key.iter().all(in_key)
        && !value.is_empty()
        && value.len() <= LONGEST_PART
        && value.iter().all(in_value)
}

fn memchr(member: &[u8]) -> Option<usize> {
    member.iter().position(|byte| *byte == b'=')
}
