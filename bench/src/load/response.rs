//! A response parser that does just enough: where the answer ends, its status, and one watched header.

use memchr::{memchr, memmem};

/// Heads longer than this are an error.
const MAX_HEAD: usize = 32 * 1024;

enum State {
    Head,
    /// So many bytes of the body are still to come.
    Length(u64),
    /// In the line that gives a chunk's size; the size so far.
    ChunkSize {
        size: u64,
        extension: bool,
    },
    /// So many bytes of the chunk and its line end are still to come.
    Chunk(u64),
    /// After the last chunk; whether the current line is empty so far.
    Trailer {
        empty: bool,
    },
}

/// The answer being read on one connection, again and again.
pub struct Response {
    state: State,
    partial: Vec<u8>,
    status: u16,
    close: bool,
    watch: Option<String>,
    watched: Vec<u8>,
}

impl Response {
    /// Keeps the value of the header `watch` (lower case) of each answer.
    pub fn new(watch: Option<&str>) -> Self {
        Self {
            state: State::Head,
            partial: Vec::new(),
            status: 0,
            close: false,
            watch: watch.map(str::to_owned),
            watched: Vec::new(),
        }
    }

    /// The last answer's status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the last answer said that the connection closes.
    pub fn closes(&self) -> bool {
        self.close
    }

    /// The watched header's last value.
    pub fn watched(&self) -> &[u8] {
        &self.watched
    }

    /// Takes what was read; true when the answer is whole, an error when it is no answer or goes on after its end.
    pub fn feed(&mut self, mut input: &[u8]) -> Result<bool, ()> {
        while !input.is_empty() {
            let (used, complete) = match &mut self.state {
                State::Head => (self.head(input)?, matches!(self.state, State::Length(0))),
                State::Length(left) | State::Chunk(left) => {
                    let used = usize::try_from(*left).map_or(input.len(), |l| l.min(input.len()));
                    *left -= used as u64;
                    let whole = *left == 0;
                    let in_chunk = matches!(self.state, State::Chunk(_));
                    if whole && in_chunk {
                        self.state = State::ChunkSize { size: 0, extension: false };
                    }
                    (used, whole && !in_chunk)
                }
                State::ChunkSize { .. } | State::Trailer { .. } => (1, self.line_byte(input[0])?),
            };
            input = &input[used..];
            if complete {
                self.state = State::Head;
                return if input.is_empty() { Ok(true) } else { Err(()) };
            }
        }
        Ok(false)
    }

    /// Reads the head if it is whole, keeps what there is otherwise; returns how much of `input` it took.
    fn head(&mut self, input: &[u8]) -> Result<usize, ()> {
        let before = self.partial.len();
        if before == 0
            && let Some(end) = memmem::find(input, b"\r\n\r\n")
        {
            self.read_head(&input[..end + 2])?;
            return Ok(end + 4);
        }
        self.partial.extend_from_slice(input);
        let Some(end) = memmem::find(&self.partial, b"\r\n\r\n") else {
            return if self.partial.len() > MAX_HEAD { Err(()) } else { Ok(input.len()) };
        };
        let head = std::mem::take(&mut self.partial);
        self.read_head(&head[..end + 2])?;
        Ok(end + 4 - before)
    }

    fn read_head(&mut self, head: &[u8]) -> Result<(), ()> {
        let digits = head.get(9..12).and_then(|d| std::str::from_utf8(d).ok());
        self.status = digits.and_then(|d| d.parse().ok()).ok_or(())?;
        self.close = false;
        self.watched.clear();
        let mut state = None;
        let mut rest = head;
        while let Some(end) = memchr(b'\n', rest) {
            let line = rest[..end].trim_ascii_end();
            rest = &rest[end + 1..];
            // Only three headers matter, and their first letters are enough to pass over most others.
            match line.first().map(u8::to_ascii_lowercase) {
                Some(b'c') => {
                    if let Some(value) = value(line, "content-length") {
                        let text = std::str::from_utf8(value).map_err(|_| ())?;
                        state = Some(State::Length(text.parse().map_err(|_| ())?));
                    } else if let Some(value) = value(line, "connection") {
                        self.close = value.eq_ignore_ascii_case(b"close");
                    }
                }
                Some(b't') if value(line, "transfer-encoding").is_some() => {
                    state = Some(State::ChunkSize { size: 0, extension: false });
                }
                _ => {}
            }
            if let Some(found) = self.watch.as_deref().and_then(|name| value(line, name)) {
                self.watched.extend_from_slice(found);
            }
        }
        self.state = state.ok_or(())?;
        Ok(())
    }

    /// One byte of a chunk-size or trailer line; true at the answer's end.
    fn line_byte(&mut self, byte: u8) -> Result<bool, ()> {
        self.state = match self.state {
            State::Trailer { empty } if byte == b'\n' && empty => return Ok(true),
            State::Trailer { empty } => State::Trailer { empty: byte == b'\n' || (empty && byte == b'\r') },
            State::ChunkSize { size: 0, .. } if byte == b'\n' => State::Trailer { empty: true },
            State::ChunkSize { size, .. } if byte == b'\n' => State::Chunk(size + 2),
            State::ChunkSize { size, extension } => match (char::from(byte).to_digit(16), byte) {
                (Some(digit), _) if !extension => {
                    State::ChunkSize { size: size * 16 + u64::from(digit), extension }
                }
                (_, b'\r') => State::ChunkSize { size, extension },
                (_, b';') => State::ChunkSize { size, extension: true },
                _ if extension => State::ChunkSize { size, extension },
                _ => return Err(()),
            },
            _ => return Err(()),
        };
        Ok(false)
    }
}

/// The value of a header line if it has this name (lower case).
fn value<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds an answer cut at every place, and byte by byte.
    fn whole(answer: &[u8]) -> Response {
        for cut in 1..answer.len() {
            let mut response = Response::new(None);
            assert_eq!(response.feed(&answer[..cut]), Ok(false), "cut at {cut}");
            assert_eq!(response.feed(&answer[cut..]), Ok(true), "cut at {cut}");
        }
        let mut response = Response::new(Some("x-plan"));
        let (last, first) = answer.split_last().unwrap_or((&0, b""));
        for byte in first {
            assert_eq!(response.feed(&[*byte]), Ok(false));
        }
        assert_eq!(response.feed(&[*last]), Ok(true));
        response
    }

    #[test]
    fn a_length_ends_the_answer() {
        let r = whole(b"HTTP/1.1 503 No\r\nX-Plan: 7\r\nContent-Length: 3\r\nConnection: Close\r\n\r\nabc");
        assert_eq!((r.status(), r.closes(), r.watched()), (503, true, b"7".as_slice()));
    }

    #[test]
    fn chunks_end_the_answer() {
        let r = whole(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na;x=1\r\n0123456789\r\n0\r\nt: 1\r\n\r\n",
        );
        assert_eq!(r.status(), 200);
    }

    #[test]
    fn what_is_no_answer_or_too_much_is_an_error() {
        assert_eq!(Response::new(None).feed(b"HTTP/1.1 200 OK\r\n\r\n"), Err(()));
        assert_eq!(Response::new(None).feed(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab"), Err(()));
        assert_eq!(Response::new(None).feed(b"garbage\r\n\r\n"), Err(()));
    }
}
