//! Trace context: which trace a call belongs to, read from and written as W3C `traceparent`/`tracestate`/`baggage` and B3.

pub mod b3;
pub mod baggage;
mod fuzz;
pub mod w3c;

use std::fmt;
use std::str::FromStr;

pub use fuzz::fuzz;

/// Names a trace: 16 bytes, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TraceId(pub [u8; 16]);

/// Names a span within its trace: 8 bytes, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// A new one.
    pub fn new(rng: &mut fastrand::Rng) -> TraceId {
        TraceId(rng.u128(1..).to_be_bytes())
    }

    /// Whether it names nothing.
    pub fn is_none(self) -> bool {
        self.0 == [0; 16]
    }

    /// Reads 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<TraceId> {
        bytes(text.as_bytes(), any_digit).map(TraceId).filter(|id| !id.is_none())
    }
}

impl SpanId {
    /// A new one.
    pub fn new(rng: &mut fastrand::Rng) -> SpanId {
        SpanId(rng.u64(1..).to_be_bytes())
    }

    /// Whether it names nothing.
    pub fn is_none(self) -> bool {
        self.0 == [0; 8]
    }

    /// Reads 16 hexadecimal digits.
    pub fn parse(text: &str) -> Option<SpanId> {
        bytes(text.as_bytes(), any_digit).map(SpanId).filter(|id| !id.is_none())
    }
}

/// A hexadecimal digit in either case.
fn any_digit(byte: u8) -> Option<u8> {
    small_digit(byte.to_ascii_lowercase())
}

/// A hexadecimal digit in lower case, as W3C wants it.
fn small_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// Reads exactly `2 * N` digits.
fn bytes<const N: usize>(text: &[u8], digit: impl Fn(u8) -> Option<u8>) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut read = [0; N];
    for (byte, pair) in read.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(read)
}

/// Writes two digits for each byte.
fn write_hex(out: &mut [u8], bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
}

fn hex<const N: usize>(out: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    let mut text = [0; N];
    write_hex(&mut text, bytes);
    out.write_str(std::str::from_utf8(&text).unwrap_or_default())
}

impl fmt::Display for TraceId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::<32>(out, &self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::<16>(out, &self.0)
    }
}

/// Where in which trace a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The span that made the call.
    pub span: SpanId,
    /// Whether spans of it are kept.
    pub sampled: bool,
    /// Whether the last 7 bytes of the trace's id are random (the `random-trace-id` flag of W3C's level 2).
    pub random: bool,
}

/// What a caller says of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Said {
    /// The trace, and the span that makes the call.
    pub parent: Option<(TraceId, SpanId)>,
    /// Whether the caller keeps spans; `None`: it leaves that to others (B3).
    pub sampled: Option<bool>,
    /// The `random-trace-id` flag.
    pub random: bool,
}

/// The formats in which the context is written; all of them are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagators {
    /// `traceparent` and `tracestate`.
    pub w3c: bool,
    /// `baggage`.
    pub baggage: bool,
    /// `b3`.
    pub b3: bool,
    /// `x-b3-traceid` and those like it.
    pub b3multi: bool,
}

impl Propagators {
    /// Nothing is written.
    pub const NONE: Propagators = Propagators { w3c: false, baggage: false, b3: false, b3multi: false };
}

impl Default for Propagators {
    /// OpenTelemetry's default: `tracecontext,baggage`.
    fn default() -> Self {
        Propagators { w3c: true, baggage: true, ..Propagators::NONE }
    }
}

impl FromStr for Propagators {
    type Err = String;

    /// Reads what `OTEL_PROPAGATORS` may say: names with commas between them, or `none`.
    fn from_str(text: &str) -> Result<Self, String> {
        const KNOWN: &str =
            "expected some of tracecontext, baggage, b3, b3multi, with commas between them, or none";
        let mut read = Propagators::NONE;
        for name in text.split(',').map(str::trim) {
            match name {
                "tracecontext" => read.w3c = true,
                "baggage" => read.baggage = true,
                "b3" => read.b3 = true,
                "b3multi" => read.b3multi = true,
                "none" if text.trim() == "none" => {}
                "" => return Err(KNOWN.into()),
                other => return Err(format!("{other:?} is no propagator; {KNOWN}")),
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
