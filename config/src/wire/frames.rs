//! Frames, and messages whose type is a field: what both kinds of streams are made of.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// The text of a message, and its `type`.
pub(super) struct Tagged<'a> {
    pub(super) kind: Cow<'a, str>,
    pub(super) text: &'a str,
}

impl<'a> Tagged<'a> {
    /// Reads the type only.
    pub(super) fn read<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Type<'a> {
            #[serde(rename = "type", borrow)]
            kind: Cow<'a, str>,
        }
        let text = <&RawValue>::deserialize(deserializer)?.get();
        Ok(Tagged { kind: read::<Type<'_>, D::Error>(text)?.kind, text })
    }
}

/// Reads the message itself.
pub(super) fn read<'a, T: Deserialize<'a>, E: de::Error>(text: &'a str) -> Result<T, E> {
    serde_json::from_str(text).map_err(E::custom)
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireError {
    /// A frame longer than the reader takes.
    TooLong(usize),
    /// No JSON, or not of this shape.
    NotAMessage(String),
    /// The stream ended within a frame.
    Truncated,
}

impl fmt::Display for WireError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::TooLong(length) => write!(out, "a frame of {length} bytes is too long"),
            WireError::NotAMessage(why) => write!(out, "not a message: {why}"),
            WireError::Truncated => out.write_str("the stream ended within a frame"),
        }
    }
}

impl std::error::Error for WireError {}

/// One message as a frame.
///
/// # Errors
/// Longer than four bytes of length can say.
pub fn frame<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message).map_err(|error| WireError::NotAMessage(error.to_string()))?;
    let length = u32::try_from(bytes.len() - 4).map_err(|_| WireError::TooLong(bytes.len()))?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}

/// Bytes in, messages out; holds at most one frame.
#[derive(Debug)]
pub struct Frames<T> {
    buffer: Vec<u8>,
    longest: usize,
    messages: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Frames<T> {
    /// A reader that refuses frames over `longest` bytes.
    pub fn new(longest: usize) -> Self {
        Frames { buffer: Vec::new(), longest, messages: PhantomData }
    }

    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message; `None` until more bytes come. After an error the stream has to be closed.
    ///
    /// # Errors
    /// A frame that is too long or no message.
    #[expect(clippy::should_implement_trait, reason = "an iterator ends; this one may go on with more bytes")]
    pub fn next(&mut self) -> Result<Option<T>, WireError> {
        let Some(length) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > self.longest {
            return Err(WireError::TooLong(length));
        }
        let Some(body) = self.buffer.get(4..4 + length) else { return Ok(None) };
        let message =
            serde_json::from_slice(body).map_err(|error| WireError::NotAMessage(error.to_string()))?;
        self.buffer.drain(..4 + length);
        if self.buffer.is_empty() && self.buffer.capacity() > 64 << 10 {
            self.buffer = Vec::new();
        }
        Ok(Some(message))
    }

    /// The end of the stream.
    ///
    /// # Errors
    /// It came within a frame.
    pub fn end(&self) -> Result<(), WireError> {
        if self.buffer.is_empty() { Ok(()) } else { Err(WireError::Truncated) }
    }
}
