//! The judge: an HTTP/1.1 parser that accepts only what every parser reads alike.
//!
//! It is used on what a recording origin received and on what a raw client got back. It is deliberately narrower than
//! RFC 9112: no chunk extensions, no bare CR or LF, no folding, one `Host`, one way to tell the length.

/// A message as it stood on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The request line or status line without its CRLF.
    pub start: String,
    /// Header lines in order, names as sent, values trimmed.
    pub headers: Vec<(String, String)>,
    /// The content, decoded from chunks.
    pub body: Vec<u8>,
    /// Trailer lines in order.
    pub trailers: Vec<(String, String)>,
    /// Whether the content came in chunks.
    pub chunked: bool,
    /// Whether the content's end was reached.
    pub complete: bool,
}

impl Message {
    /// All values of a header joined by `, `; `None` when it is absent.
    pub fn header(&self, name: &str) -> Option<String> {
        let found: Vec<&str> =
            self.headers.iter().filter(|h| h.0.eq_ignore_ascii_case(name)).map(|h| h.1.as_str()).collect();
        (!found.is_empty()).then(|| found.join(", "))
    }

    /// The method of a request.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or("")
    }

    /// The target of a request.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or("")
    }

    /// The status of a response; 0 when there is none.
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
    }
}

/// How far a message got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// Not even the head is there.
    Nothing,
    /// The head is there, the content is not complete.
    Head(Message),
    /// The whole message, and how many bytes it took.
    Whole(Message, usize),
}

/// What two parsers could read differently.
pub type Ambiguity = String;

/// Reads one request from the beginning of `bytes`.
///
/// # Errors
/// Says what is ambiguous or malformed.
pub fn request(bytes: &[u8]) -> Result<Parsed, Ambiguity> {
    let Some((mut message, head)) = head(bytes)? else { return Ok(Parsed::Nothing) };
    let parts: Vec<&str> = message.start.split(' ').collect();
    let [method, target, version] = parts[..] else {
        return Err(format!("request line {:?}", message.start));
    };
    if !is_token(method) || target.is_empty() || !target.bytes().all(|b| (0x21..0x7f).contains(&b)) {
        return Err(format!("request line {:?}", message.start));
    }
    if version != "HTTP/1.1" {
        return Err(format!("version {version:?}"));
    }
    if message.headers.iter().filter(|h| h.0.eq_ignore_ascii_case("host")).count() != 1 {
        return Err("not exactly one Host".into());
    }
    let length = match framing(&message)? {
        Framing::Chunked => return chunks(message, bytes, head),
        Framing::Length(n) => n,
        Framing::None => 0,
    };
    Ok(sized(&mut message, bytes, head, length))
}

/// Reads one response from the beginning of `bytes`; `to` is the method it answers, `eof` says that nothing follows.
///
/// # Errors
/// Says what is ambiguous or malformed.
pub fn response(bytes: &[u8], to: &str, eof: bool) -> Result<Parsed, Ambiguity> {
    let Some((mut message, head)) = head(bytes)? else { return Ok(Parsed::Nothing) };
    let b = message.start.as_bytes();
    let ok = b.len() >= 12 && b.starts_with(b"HTTP/1.") && (b[7] == b'1' || b[7] == b'0') && b[8] == b' ';
    let status = message.status();
    if !ok || !(100..=999).contains(&status) || b.get(12).is_some_and(|c| *c != b' ') {
        return Err(format!("status line {:?}", message.start));
    }
    let framing = framing(&message)?;
    if status < 200 || status == 204 || status == 304 || to == "HEAD" || (to == "CONNECT" && status < 300) {
        return Ok(sized(&mut message, bytes, head, 0));
    }
    match framing {
        Framing::Chunked => chunks(message, bytes, head),
        Framing::Length(n) => Ok(sized(&mut message, bytes, head, n)),
        Framing::None => {
            message.body = bytes[head..].to_vec();
            message.complete = eof;
            Ok(if eof { Parsed::Whole(message, bytes.len()) } else { Parsed::Head(message) })
        }
    }
}

enum Framing {
    None,
    Length(usize),
    Chunked,
}

fn framing(message: &Message) -> Result<Framing, Ambiguity> {
    let all = |name: &str| -> Vec<&str> {
        message.headers.iter().filter(|h| h.0.eq_ignore_ascii_case(name)).map(|h| h.1.as_str()).collect()
    };
    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(Framing::None),
        ([], ["chunked"]) => Ok(Framing::Chunked),
        ([n], []) if !n.is_empty() && n.len() < 19 && n.bytes().all(|b| b.is_ascii_digit()) => {
            n.parse().map(Framing::Length).map_err(|e| format!("{e}"))
        }
        _ => Err(format!("Content-Length {lengths:?} with Transfer-Encoding {codings:?}")),
    }
}

fn sized(message: &mut Message, bytes: &[u8], head: usize, length: usize) -> Parsed {
    let there = (bytes.len() - head).min(length);
    message.body = bytes[head..head + there].to_vec();
    message.complete = there == length;
    let message = std::mem::take(message);
    if message.complete { Parsed::Whole(message, head + length) } else { Parsed::Head(message) }
}

/// The start line and the headers, and where they end.
fn head(bytes: &[u8]) -> Result<Option<(Message, usize)>, Ambiguity> {
    let Some((start, mut at)) = line(bytes, 0)? else { return Ok(None) };
    let mut message = Message { start, ..Message::default() };
    loop {
        let Some((text, next)) = line(bytes, at)? else { return Ok(None) };
        at = next;
        if text.is_empty() {
            return Ok(Some((message, at)));
        }
        message.headers.push(field(&text)?);
    }
}

fn field(text: &str) -> Result<(String, String), Ambiguity> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("header line {text:?}"))?;
    if !is_token(name) {
        return Err(format!("header name {name:?}"));
    }
    if value.bytes().any(|b| (b < 0x20 && b != b'\t') || b == 0x7f) {
        return Err(format!("control byte in value of {name}: {value:?}"));
    }
    Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// One line without its CRLF (bytes over 127 as Latin-1), and where the next begins.
fn line(bytes: &[u8], from: usize) -> Result<Option<(String, usize)>, Ambiguity> {
    for (i, b) in bytes.iter().enumerate().skip(from) {
        match b {
            b'\r' => match bytes.get(i + 1) {
                None => return Ok(None),
                Some(b'\n') => {
                    let text = bytes[from..i].iter().map(|b| char::from(*b)).collect();
                    return Ok(Some((text, i + 2)));
                }
                Some(_) => return Err("bare CR".into()),
            },
            b'\n' => return Err("bare LF".into()),
            0 => return Err("NUL".into()),
            _ => {}
        }
    }
    Ok(None)
}

fn chunks(mut message: Message, bytes: &[u8], head: usize) -> Result<Parsed, Ambiguity> {
    message.chunked = true;
    let mut at = head;
    loop {
        let Some((size, next)) = line(bytes, at)? else { return Ok(Parsed::Head(message)) };
        if size.is_empty() || size.len() > 8 || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("chunk size {size:?}"));
        }
        let size = usize::from_str_radix(&size, 16).map_err(|e| format!("{e}"))?;
        at = next;
        if size == 0 {
            break;
        }
        message.body.extend_from_slice(&bytes[at..(at + size).min(bytes.len())]);
        match bytes.get(at + size..) {
            None | Some([] | [b'\r']) => return Ok(Parsed::Head(message)),
            Some([b'\r', b'\n', ..]) => at += size + 2,
            Some(_) => return Err("chunk data not followed by CRLF".into()),
        }
    }
    loop {
        let Some((text, next)) = line(bytes, at)? else { return Ok(Parsed::Head(message)) };
        at = next;
        if text.is_empty() {
            message.complete = true;
            return Ok(Parsed::Whole(message, at));
        }
        let trailer = field(&text)?;
        if ["content-length", "transfer-encoding", "host"].contains(&trailer.0.to_ascii_lowercase().as_str())
        {
            return Err(format!("trailer {}", trailer.0));
        }
        message.trailers.push(trailer);
    }
}

/// What a byte stream of requests says: those complete, the one cut short if any, or why it is ambiguous.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The requests in order; only the last may be incomplete.
    pub requests: Vec<Message>,
    /// Bytes after the last request that do not make up a head.
    pub rest: Vec<u8>,
    /// What two parsers could read differently.
    pub ambiguous: Option<Ambiguity>,
}

/// Reads all the requests of one connection.
pub fn requests(mut bytes: &[u8]) -> View {
    let mut view = View::default();
    while !bytes.is_empty() {
        match request(bytes) {
            Ok(Parsed::Whole(message, used)) => {
                view.requests.push(message);
                bytes = &bytes[used..];
            }
            Ok(Parsed::Head(message)) => {
                view.requests.push(message);
                break;
            }
            Ok(Parsed::Nothing) => {
                view.rest = bytes.to_vec();
                break;
            }
            Err(why) => {
                view.ambiguous = Some(why);
                break;
            }
        }
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_requests_one_after_the_other() {
        let view = requests(
            b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: x\r\n\r\nGET",
        );
        assert_eq!(view.requests.len(), 2);
        assert_eq!(view.requests[0].body, b"abc");
        assert_eq!(view.requests[1].target(), "/b");
        assert_eq!(view.rest, b"GET");
        assert_eq!(view.ambiguous, None);
    }

    #[test]
    fn reads_chunks_and_trailers() {
        let bytes =
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\nx: y\r\n\r\n";
        let view = requests(bytes);
        assert_eq!(view.requests[0].body, b"abc0123456789");
        assert_eq!(view.requests[0].trailers, [("x".to_owned(), "y".to_owned())]);
        assert!(view.requests[0].complete);
        for cut in 0..bytes.len() {
            assert!(requests(&bytes[..cut]).ambiguous.is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn refuses_what_can_be_read_in_two_ways() {
        for bad in [
            &b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx0\r\n\r\n",
            b"GET / HTTP/1.1\nHost: x\n\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00\r\n\r\n",
        ] {
            assert!(requests(bad).ambiguous.is_some(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_response_without_a_length_ends_with_the_connection() {
        let bytes = b"HTTP/1.1 200 OK\r\n\r\nabc";
        assert!(matches!(response(bytes, "GET", false), Ok(Parsed::Head(_))));
        assert!(matches!(response(bytes, "GET", true), Ok(Parsed::Whole(m, 22)) if m.body == b"abc"));
        assert!(matches!(response(b"HTTP/1.1 204\r\n\r\nabc", "GET", true), Ok(Parsed::Whole(_, 16))));
        assert!(response(b"HTTP/1.1 20x\r\n\r\n", "GET", true).is_err());
    }
}
