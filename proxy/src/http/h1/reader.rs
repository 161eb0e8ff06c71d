//! The reading side of a body: which of the buffered bytes belong to it.

use bytes::BytesMut;

use super::chunked::{Decoder, Step};
use crate::http::body::Framing;
use crate::http::error::Bad;

/// How the rest of the incoming body is delimited.
#[derive(Debug)]
pub(crate) enum Reader {
    /// The body is complete (or there is none).
    Done,
    /// So many bytes are still to come; at least one.
    Length(u64),
    /// Chunked.
    Chunked(Decoder),
    /// Everything until the connection closes.
    UntilClose,
}

impl Reader {
    pub(crate) const fn new(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Reader::Done,
            Framing::Length(n) => Reader::Length(n),
            Framing::Streaming => Reader::Chunked(Decoder::new()),
            Framing::UntilClose => Reader::UntilClose,
        }
    }

    pub(crate) const fn is_done(&self) -> bool {
        matches!(self, Reader::Done)
    }

    /// How much is worth reading at once, as far as is known.
    pub(crate) fn hint(&self) -> usize {
        match self {
            Reader::Length(left) => usize::try_from(*left).unwrap_or(usize::MAX),
            Reader::Chunked(decoder) => decoder.expected(),
            Reader::Done | Reader::UntilClose => 0,
        }
    }

    /// Takes the next piece of the body out of `buf`.
    pub(crate) fn decode(&mut self, buf: &mut BytesMut) -> Result<Step, Bad> {
        match self {
            Reader::Done => Ok(Step::End(None)),
            _ if buf.is_empty() => Ok(Step::More),
            Reader::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
                let data = buf.split_to(n).freeze();
                *left -= n as u64;
                if *left == 0 {
                    *self = Reader::Done;
                }
                Ok(Step::Data(data))
            }
            Reader::Chunked(decoder) => {
                let step = decoder.decode(buf)?;
                if matches!(step, Step::End(_)) {
                    *self = Reader::Done;
                }
                Ok(step)
            }
            Reader::UntilClose => Ok(Step::Data(buf.split().freeze())),
        }
    }

    /// The connection ended here: whether the body may end so.
    pub(crate) fn end(&mut self) -> bool {
        let may = matches!(self, Reader::UntilClose | Reader::Done);
        *self = Reader::Done;
        may
    }
}
