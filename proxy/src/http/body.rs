//! Bodies: how long they are, and the one polling interface of everything that gives or takes one.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::error::Error;
use super::headers::Headers;

/// How a message's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// Exactly so many bytes.
    Length(u64),
    /// Until its end is marked: chunked in HTTP/1.1, DATA frames in HTTP/2. Trailers may follow.
    Streaming,
    /// Until the connection closes: HTTP/1 responses only.
    UntilClose,
}

impl Framing {
    /// Whether nothing follows the head.
    pub const fn is_empty(self) -> bool {
        matches!(self, Framing::None | Framing::Length(0))
    }
}

/// A piece of a body. A clone shares its bytes.
#[derive(Debug, Clone)]
pub enum Frame {
    /// Bytes, never empty.
    Data(Bytes),
    /// The trailer section, which ends the body. Fields that would change framing or routing were dropped.
    Trailers(Headers),
}

/// Gives a body.
pub trait Source {
    /// The next piece; `None` at the end, and from then on. `Pending` holds no buffer.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Error>>>;
    /// Whether it is already known that nothing more comes, so that the end can travel with the last piece.
    fn is_ended(&self) -> bool;
}

/// Takes a body. Order of calls: `poll_ready`, `push`, and so on; `finish`; `poll_flush`.
pub trait Sink {
    /// Ready when there is room for another chunk; writes first when too much waits (64 KiB).
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>>;
    /// Takes a chunk. It may wait for more until [`Sink::poll_flush`].
    fn push(&mut self, data: Bytes);
    /// Ends the body. Trailers are dropped where the protocol has no place for them.
    fn finish(&mut self, trailers: Option<Headers>);
    /// Ready when everything taken has been handed to the network.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>>;
}
