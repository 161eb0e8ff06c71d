//! The writing side of a body: what the framing that was announced makes of it.

use bytes::{BufMut, Bytes};

use crate::http::buffer::Outbox;
use crate::http::headers::Headers;

/// How the outgoing body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writer {
    /// Nothing was announced yet, or everything was written.
    Closed,
    /// The head promised no body (HEAD, 204, 304): what comes is dropped.
    Nothing,
    /// So many bytes must still come.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Bytes until the connection closes.
    Raw,
    /// More or less came than was announced: the connection must not be used again.
    Broken,
}

impl Writer {
    /// Queues a piece of the body.
    pub(crate) fn push(&mut self, out: &mut Outbox, data: Bytes) {
        match self {
            _ if data.is_empty() => {}
            Writer::Nothing | Writer::Broken => {}
            Writer::Length(left) if *left >= data.len() as u64 => {
                *left -= data.len() as u64;
                out.push(data);
            }
            Writer::Length(_) | Writer::Closed => *self = Writer::Broken,
            Writer::Chunked => {
                size_line(out, data.len());
                out.push(data);
                out.tail(2).put_slice(b"\r\n");
            }
            Writer::Raw => out.push(data),
        }
    }

    /// Ends the body.
    pub(crate) fn finish(&mut self, out: &mut Outbox, trailers: Option<&Headers>) {
        *self = match *self {
            Writer::Closed | Writer::Nothing | Writer::Raw | Writer::Length(0) => Writer::Closed,
            Writer::Length(_) | Writer::Broken => Writer::Broken,
            Writer::Chunked => {
                let fields = trailers.map_or(0, Headers::written_len);
                let tail = out.tail(fields + 8);
                tail.put_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    trailers.write_to(tail, u32::MAX);
                }
                tail.put_slice(b"\r\n");
                Writer::Closed
            }
        };
    }

    /// Whether the message was written to its end, as announced.
    pub(crate) fn is_finished(self) -> bool {
        self == Writer::Closed
    }
}

fn size_line(out: &mut Outbox, len: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut line = [0u8; 18];
    let mut at = line.len() - 2;
    let mut rest = len;
    loop {
        at -= 1;
        line[at] = DIGITS[rest & 15];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    line[16] = b'\r';
    line[17] = b'\n';
    let line = line.get(at..).unwrap_or_default();
    out.tail(line.len()).put_slice(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(mut out: Outbox) -> String {
        String::from_utf8(out.tail(0).to_vec()).unwrap()
    }

    #[test]
    fn chunks_and_trailers() {
        let (mut writer, mut out) = (Writer::Chunked, Outbox::default());
        writer.push(&mut out, Bytes::from_static(b"hello"));
        writer.push(&mut out, Bytes::new());
        writer.push(&mut out, Bytes::from(vec![b'x'; 26]));
        let mut trailers = Headers::new();
        trailers.append("a", b"b");
        writer.finish(&mut out, Some(&trailers));
        assert!(writer.is_finished());
        assert_eq!(text(out), format!("5\r\nhello\r\n1a\r\n{}\r\n0\r\na: b\r\n\r\n", "x".repeat(26)));
    }

    #[test]
    fn a_length_that_is_not_kept_breaks_the_connection() {
        for (announced, sent) in [(3, 4), (3, 2)] {
            let (mut writer, mut out) = (Writer::Length(announced), Outbox::default());
            writer.push(&mut out, Bytes::from(vec![b'x'; sent]));
            writer.finish(&mut out, None);
            assert_eq!(writer, Writer::Broken);
        }
    }

    #[test]
    fn a_head_without_a_body_lets_nothing_follow() {
        let (mut writer, mut out) = (Writer::Nothing, Outbox::default());
        writer.push(&mut out, Bytes::from_static(b"hello"));
        writer.finish(&mut out, None);
        assert!(writer.is_finished() && out.is_empty());
    }
}
