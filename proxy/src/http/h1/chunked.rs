//! The chunked transfer coding (RFC 9112 section 7.1), without the freedoms that parsers disagree about.

use bytes::{Buf, Bytes, BytesMut};

use super::parse;
use crate::http::error::Bad;
use crate::http::headers::Headers;

/// The longest chunk-size line, extensions included. Real extensions are rare and short.
const MAX_SIZE_LINE: usize = 256;
/// The largest trailer section, bytes.
const MAX_TRAILERS: usize = 16 * 1024;
/// The most trailer fields.
const MAX_TRAILER_FIELDS: usize = 64;
/// Bytes of extensions in one body beyond which the sender is only wasting our time (Go's net/http has 16 KiB of excess).
const MAX_EXTENSIONS: usize = 16 * 1024;

/// Where the decoder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

/// What a step of decoding gave.
#[derive(Debug)]
pub(crate) enum Step {
    /// More bytes are needed.
    More,
    /// A piece of a chunk.
    Data(Bytes),
    /// The body ended; trailers when there are any that may travel.
    End(Option<Headers>),
}

/// Decodes one chunked body.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    extensions: usize,
}

impl Decoder {
    pub(crate) const fn new() -> Self {
        Decoder { state: State::Size, extensions: 0 }
    }

    /// The bytes of the chunk that are still to come, as a hint for reading.
    pub(crate) fn expected(&self) -> usize {
        match self.state {
            State::Data(left) => usize::try_from(left).unwrap_or(usize::MAX),
            _ => 0,
        }
    }

    /// Takes the next piece out of `buf`.
    pub(crate) fn decode(&mut self, buf: &mut BytesMut) -> Result<Step, Bad> {
        loop {
            match self.state {
                State::Size => match self.size(buf)? {
                    None => return Ok(Step::More),
                    Some(0) => self.state = State::Trailers,
                    Some(size) => self.state = State::Data(size),
                },
                State::Data(left) if buf.is_empty() => {
                    debug_assert!(left > 0);
                    return Ok(Step::More);
                }
                State::Data(left) => {
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
                    let left = left - n as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Step::Data(buf.split_to(n).freeze()));
                }
                State::DataEnd => match buf.get(..2) {
                    Some(b"\r\n") => {
                        buf.advance(2);
                        self.state = State::Size;
                    }
                    None if buf.is_empty() || buf.first() == Some(&b'\r') => return Ok(Step::More),
                    _ => return Err(Bad::syntax("a chunk is longer than its size")),
                },
                State::Trailers => return self.trailers(buf),
                State::Done => return Ok(Step::End(None)),
            }
        }
    }

    /// `1*16HEXDIG [extension] CRLF`. The whole line is in `buf` before it is read, so nothing depends on how it was cut.
    fn size(&mut self, buf: &mut BytesMut) -> Result<Option<u64>, Bad> {
        let window = buf.get(..buf.len().min(MAX_SIZE_LINE)).unwrap_or_default();
        let Some(end) = window.iter().position(|&b| b == b'\n') else {
            // What is certainly wrong is refused at once, not when the rest has come.
            let digits = window.iter().take_while(|b| b.is_ascii_hexdigit()).count();
            let odd =
                digits > 16 || window.get(digits).is_some_and(|b| !matches!(b, b';' | b'\r' | b' ' | b'\t'));
            if window.len() == MAX_SIZE_LINE || odd || (digits == 0 && !window.is_empty()) {
                return Err(Bad::syntax("invalid chunk size"));
            }
            return Ok(None);
        };
        let line = window.get(..end).unwrap_or_default();
        let Some(line) = line.strip_suffix(b"\r") else {
            return Err(Bad::syntax("a chunk size does not end in CR LF"));
        };
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let (number, extension) = line.split_at(digits);
        if digits == 0 || digits > 16 || !is_extension(extension) {
            return Err(Bad::syntax("invalid chunk size"));
        }
        let size = number.iter().fold(0u64, |sum, &digit| sum << 4 | u64::from(hex(digit)));
        self.extensions += extension.len();
        if i64::try_from(size).is_err() || self.extensions > MAX_EXTENSIONS {
            return Err(Bad::syntax("chunk size or extensions too large"));
        }
        buf.advance(end + 1);
        Ok(Some(size))
    }

    fn trailers(&mut self, buf: &mut BytesMut) -> Result<Step, Bad> {
        if buf.get(..2) == Some(b"\r\n") {
            buf.advance(2);
            self.state = State::Done;
            return Ok(Step::End(None));
        }
        match parse::trailers(buf, MAX_TRAILER_FIELDS)? {
            None if buf.len() > MAX_TRAILERS => Err(Bad::syntax("trailer section too large")),
            None => Ok(Step::More),
            Some((_, len)) if len > MAX_TRAILERS => Err(Bad::syntax("trailer section too large")),
            Some((fields, len)) => {
                buf.advance(len);
                self.state = State::Done;
                Ok(Step::End((!fields.is_empty()).then_some(fields)))
            }
        }
    }
}

/// Nothing, or `;` and visible text without control characters. A space before the semicolon is old practice and harmless; a
/// line of spaces only is not an extension and refused.
fn is_extension(extension: &[u8]) -> bool {
    let trimmed = extension.trim_ascii_start();
    extension.is_empty()
        || (trimmed.first() == Some(&b';')
            && trimmed.len() > 1
            && extension.iter().all(|&b| b == b'\t' || (b >= b' ' && b != 0x7f)))
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// For the fuzzer: any bytes as a chunked body, whole and byte by byte. Panics when the cuts change the result.
pub fn fuzz(bytes: &[u8]) {
    let whole = decode_all(std::iter::once(bytes));
    let single = decode_all(bytes.chunks(1));
    assert_eq!(whole, single, "{bytes:?}");
}

/// The data, and how the decoding stood at the end: `Ok(true)` when the body was complete. Data of a body that turns out to be
/// wrong does not count, since how much of it was seen depends on the cuts.
fn decode_all<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<(Vec<u8>, bool), ()> {
    let mut decoder = Decoder::new();
    let mut buf = BytesMut::new();
    let mut data = Vec::new();
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buf) {
                Ok(Step::More) => break,
                Ok(Step::Data(bytes)) => data.extend_from_slice(&bytes),
                Ok(Step::End(_)) => return Ok((data, true)),
                Err(_) => return Err(()),
            }
        }
    }
    Ok((data, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(body: &[u8]) -> Result<(Vec<u8>, bool), ()> {
        decode_all(std::iter::once(body))
    }

    #[test]
    fn good_bodies() {
        for body in [
            &b"5\r\nhello\r\n0\r\n\r\n"[..],
            b"05;a=b\r\nhello\r\n0;x\r\n\r\n",
            b"2\r\nhe\r\n3\r\nllo\r\n000\r\nX-T: 1\r\n\r\n",
            b"5 ;a=\"b\"\r\nhello\r\n0\r\n\r\n",
        ] {
            assert_eq!(whole(body), Ok((b"hello".to_vec(), true)), "{}", body.escape_ascii());
            fuzz(body);
        }
    }

    #[test]
    fn bad_bodies() {
        for body in [
            &b"5\nhello\r\n0\r\n\r\n"[..],
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello!\r\n0\r\n\r\n",
            b"5;a\nb\r\nhello\r\n0\r\n\r\n",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"-1\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"\r\n5\r\nhello\r\n",
            b"5;\r\nhello\r\n0\r\n\r\n",
            b"g\r\n",
            b"10000000000000000\r\n",
            b"ffffffffffffffff\r\n",
            b"8000000000000000\r\n",
            b"5_0\r\n",
            b"0\r\nX-T: 1\n\r\n",
            b"0\r\nX-T: 1\r\n\n",
            b"0\r\nX T: 1\r\n\r\n",
            b"0\r\n X: 1\r\n\r\n",
            b"0\r\nX: a\r\n b\r\n\r\n",
        ] {
            assert_eq!(whole(body), Err(()), "{}", body.escape_ascii());
            fuzz(body);
        }
    }

    #[test]
    fn long_lines_and_many_extensions_are_refused() {
        let mut body = b"1;".to_vec();
        body.extend(vec![b'a'; MAX_SIZE_LINE]);
        assert_eq!(whole(&body), Err(()));
        let chunk = [&b"1;"[..], &[b'a'; 200], b"\r\nx\r\n"].concat();
        assert_eq!(whole(&chunk.repeat(MAX_EXTENSIONS / 201 + 2)), Err(()));
        assert!(whole(&[&b"0\r\n"[..], &b"a: b\r\n".repeat(MAX_TRAILER_FIELDS + 1)].concat()).is_err());
        assert!(whole(&[&b"0\r\na: "[..], &[b'a'; MAX_TRAILERS]].concat()).is_err());
    }

    #[test]
    fn trailers_that_frame_or_route_are_dropped() {
        let mut buf = BytesMut::from(
            &b"0\r\nContent-Length: 3\r\ngrpc-status: 0\r\nHost: x\r\nX-Forwarded-For: y\r\nAuthorization: z\r\n\r\n"[..],
        );
        let Ok(Step::End(Some(fields))) = Decoder::new().decode(&mut buf) else { panic!("no trailers") };
        assert_eq!(fields.iter().collect::<Vec<_>>(), [(&b"grpc-status"[..], &b"0"[..])]);
        assert!(buf.is_empty());
    }

    #[test]
    fn fuzz_for_a_while() {
        crate::http::fuzzing::for_a_while("chunked", fuzz);
    }
}
