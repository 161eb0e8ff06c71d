//! Trace context: which trace a call belongs to, read from and written as W3C `traceparent`/`tracestate`/`baggage` and B3.

use std::fmt;

/// Names a trace: 16 bytes, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TraceId(pub [u8; 16]);

/// Names a span within its trace: 8 bytes, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// Whether it names nothing.
    pub fn is_none(self) -> bool {
        self.0 == [0; 16]
    }

    /// Reads 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<TraceId> {
        bytes::<16>(text).map(TraceId).filter(|id| !id.is_none())
    }
}

impl SpanId {
    /// Whether it names nothing.
    pub fn is_none(self) -> bool {
        self.0 == [0; 8]
    }

    /// Reads 16 hexadecimal digits.
    pub fn parse(text: &str) -> Option<SpanId> {
        bytes::<8>(text).map(SpanId).filter(|id| !id.is_none())
    }
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut read = [0; N];
    for (byte, pair) in read.iter_mut().zip(text.chunks_exact(2)) {
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(read)
}

fn hex(out: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
}

impl fmt::Display for TraceId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(out, &self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(out, &self.0)
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
}
