//! Heads from bytes. `httparse` finds the tokens; what it forgives (bare LF, empty lines, any version text) is refused here.

use std::mem::MaybeUninit;

use http::{Method, StatusCode, Version};
use httparse::Status;

use super::framing;
use crate::http::body::Framing;
use crate::http::error::{Bad, BadClass};
use crate::http::head::{RequestHead, ResponseHead};
use crate::http::headers::{Headers, Span};
use crate::http::known::Known;
use crate::http::limits::Limits;
use crate::http::target;

/// The hard cap on fields, whatever the limits say; the table lives on the stack.
const MAX_FIELDS: usize = 256;
/// The longest field name; real ones stay under 64 bytes.
const MAX_NAME: usize = 1024;

/// A parsed request head and what it means for the connection.
#[derive(Debug)]
pub struct Request {
    /// The head, hop-by-hop fields removed.
    pub head: RequestHead,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the client wants the connection kept.
    pub keep_alive: bool,
    /// The bytes that the head took.
    pub len: usize,
}

/// A parsed response head and what it means for the connection.
#[derive(Debug)]
pub struct Response {
    /// The head, hop-by-hop fields removed.
    pub head: ResponseHead,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the upstream keeps the connection.
    pub keep_alive: bool,
    /// The bytes that the head took.
    pub len: usize,
}

/// Parses a request head at the start of `buf`; `None` while it is incomplete.
pub fn request(buf: &[u8], limits: &Limits) -> Result<Option<Request>, Bad> {
    let mut table = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let table = table.get_mut(..limits.max_fields).unwrap_or_default();
    let mut parsed = httparse::Request::new(&mut []);
    let len = match parsed.parse_with_uninit_headers(buf, table) {
        Ok(Status::Complete(len)) if len <= limits.max_head => len,
        Ok(Status::Complete(_)) => return Err(too_large(buf, limits)),
        Ok(Status::Partial) if buf.len() >= limits.max_head => return Err(too_large(buf, limits)),
        Ok(Status::Partial) if line_len(buf).is_none() && buf.len() > limits.max_request_line => {
            return Err(too_large(buf, limits));
        }
        Ok(Status::Partial) => return Ok(None),
        Err(error) => return Err(request_error(error, buf)),
    };
    let (Some(method), Some(path), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Bad::syntax("invalid request line"));
    };
    let line_end = method.len() + path.len() + " ".len() * 2 + "HTTP/1.1\r\n".len();
    if line_end > limits.max_request_line {
        return Err(Bad::new(BadClass::TargetTooLong, "request line too long"));
    }
    let headers = fields(buf, len, line_end, parsed.headers)?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Bad::syntax("invalid method"))?;
    let version = if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let path = Span::new(method.as_str().len() + 1, path.len());
    finish_request(method, version, path, headers, len).map(Some)
}

fn finish_request(
    method: Method,
    version: Version,
    path: Span,
    mut headers: Headers,
    len: usize,
) -> Result<Request, Bad> {
    let mut target = target::split(&method, &mut headers, path)?;
    host(&mut target, &mut headers, version)?;
    let framing = framing::of_request(&method, version, &mut headers)?;
    let expect_continue = expectation(&mut headers, version, framing)?;
    let options = framing::strip_request(&mut headers, version, framing);
    let head = RequestHead {
        method,
        version,
        headers,
        target,
        upgrade: options.upgrade,
        expect_continue,
        te_trailers: options.te_trailers,
    };
    Ok(Request { head, framing, keep_alive: options.keep_alive, len })
}

/// Exactly one valid Host in HTTP/1.1; an authority in the target wins over it and replaces it (RFC 9112 section 3.2.2).
fn host(target: &mut crate::http::head::Target, headers: &mut Headers, version: Version) -> Result<(), Bad> {
    let mut hosts = headers.known(Known::Host);
    let (first, second) = (hosts.next(), hosts.next());
    drop(hosts);
    match (first, second) {
        (_, Some(_)) => return Err(Bad::syntax("more than one Host field")),
        (None, None) if version == Version::HTTP_11 => return Err(Bad::syntax("no Host field")),
        (Some(value), None) if !target::is_authority(value) => return Err(Bad::syntax("invalid Host field")),
        _ => {}
    }
    let own = headers.known_span(Known::Host);
    if target.authority == Span::default() {
        target.authority = own.unwrap_or_default();
    } else if own.is_none_or(|own| headers.bytes(own) != headers.bytes(target.authority)) {
        let authority = headers.bytes(target.authority).to_vec();
        headers.set_first(Known::Host, b"host", &authority);
    }
    Ok(())
}

/// Takes `Expect` out of the head: the engine answers or forwards it. HTTP/1.0 clients cannot mean it (RFC 9110 section 10.1.1).
fn expectation(headers: &mut Headers, version: Version, framing: Framing) -> Result<bool, Bad> {
    if !headers.may_have(Known::Expect.bit()) {
        return Ok(false);
    }
    for value in headers.known(Known::Expect) {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Bad::new(BadClass::Expectation, "unknown expectation"));
        }
    }
    headers.remove_known(Known::Expect.bit());
    Ok(version == Version::HTTP_11 && !framing.is_empty())
}

/// Parses a response head at the start of `buf`; `None` while it is incomplete. `method` is the request's: it decides whether
/// there can be a body. `upgrade` says whether a change of protocol was asked for.
pub fn response(
    buf: &[u8],
    limits: &Limits,
    method: &Method,
    upgrade: bool,
) -> Result<Option<Response>, Bad> {
    let mut table = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let table = table.get_mut(..limits.max_fields).unwrap_or_default();
    let mut parsed = httparse::Response::new(&mut []);
    // httparse would skip empty lines; nothing may stand before a status line.
    if !b"HTTP/1.".starts_with(buf.get(..buf.len().min(7)).unwrap_or_default()) {
        return Err(Bad::syntax("no status line"));
    }
    let config = httparse::ParserConfig::default();
    let len = match config.parse_response_with_uninit_headers(&mut parsed, buf, table) {
        Ok(Status::Complete(len)) if len <= limits.max_head => len,
        Ok(Status::Partial) if buf.len() < limits.max_head => return Ok(None),
        Ok(_) => return Err(Bad::new(BadClass::HeadTooLarge, "header section too large")),
        Err(error) => return Err(field_error(error)),
    };
    let (Some(code), Some(minor)) = (parsed.code, parsed.version) else {
        return Err(Bad::syntax("invalid status line"));
    };
    let line_end = line_len(buf).unwrap_or_default();
    let headers = fields(buf, len, line_end, parsed.headers)?;
    let status = StatusCode::from_u16(code).map_err(|_| Bad::syntax("invalid status code"))?;
    let phrase_at = "HTTP/1.1 200 ".len();
    let phrase = Span::new(phrase_at, line_end.saturating_sub(phrase_at + 2));
    let version = if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    finish_response(status, phrase, version, headers, len, method, upgrade).map(Some)
}

fn finish_response(
    status: StatusCode,
    phrase: Span,
    version: Version,
    mut headers: Headers,
    len: usize,
    method: &Method,
    upgrade: bool,
) -> Result<Response, Bad> {
    if status.as_u16() > 599 {
        return Err(Bad::syntax("status code out of range"));
    }
    if status.is_informational() && version == Version::HTTP_10 {
        return Err(Bad::syntax("interim response in HTTP/1.0"));
    }
    if status == StatusCode::SWITCHING_PROTOCOLS && !upgrade {
        return Err(Bad::syntax("101 that nobody asked for"));
    }
    let framing = framing::of_response(status, version, method, &mut headers)?;
    let options = framing::strip_response(&mut headers, version, status);
    if status == StatusCode::SWITCHING_PROTOCOLS && !options.upgrade {
        return Err(Bad::syntax("101 without Upgrade"));
    }
    let keep_alive = options.keep_alive && framing != Framing::UntilClose;
    let head = ResponseHead { status, headers, phrase };
    Ok(Response { head, framing, keep_alive, len })
}

/// Builds the field table over a copy of the head, and checks every line end: `httparse` takes a bare LF for one.
fn fields(buf: &[u8], len: usize, line_end: usize, parsed: &[httparse::Header<'_>]) -> Result<Headers, Bad> {
    const BARE_LF: Bad = Bad::syntax("a line of the head does not end in CR LF");
    let head = buf.get(..len).unwrap_or_default();
    let offset = |part: *const u8| part as usize - head.as_ptr() as usize;
    if !ends_in_crlf(head, line_end) || !ends_in_crlf(head, len) {
        return Err(BARE_LF);
    }
    let mut headers = Headers::over(head, parsed.len());
    let mut next = parsed.iter().skip(1).map(|field| offset(field.name.as_ptr())).chain([len - 2]);
    if parsed.first().map_or(len - 2, |field| offset(field.name.as_ptr())) != line_end {
        return Err(BARE_LF);
    }
    for field in parsed {
        let end = next.next().unwrap_or(len);
        let name = Span::new(offset(field.name.as_ptr()), field.name.len());
        if field.name.len() > MAX_NAME {
            return Err(Bad::syntax("field name too long"));
        }
        let value_at = if field.value.is_empty() { name.end() + 1 } else { offset(field.value.as_ptr()) };
        let value = Span::new(value_at, field.value.len());
        if !ends_in_crlf(head, end) || value.end() + 2 > end {
            return Err(BARE_LF);
        }
        headers.push_received(name, value, end);
    }
    Ok(headers)
}

fn ends_in_crlf(head: &[u8], end: usize) -> bool {
    end >= 2 && head.get(end - 2..end) == Some(b"\r\n")
}

fn line_len(buf: &[u8]) -> Option<usize> {
    buf.iter().position(|&b| b == b'\n').map(|at| at + 1)
}

fn too_large(buf: &[u8], limits: &Limits) -> Bad {
    match line_len(buf) {
        Some(line) if line <= limits.max_request_line => {
            Bad::new(BadClass::HeadTooLarge, "header section too large")
        }
        _ => Bad::new(BadClass::TargetTooLong, "request line too long"),
    }
}

fn request_error(error: httparse::Error, buf: &[u8]) -> Bad {
    if error != httparse::Error::Version {
        return field_error(error);
    }
    // `GET / HTTP/2.0` is a version that is not served; anything else in its place is no version at all.
    let line = buf.get(..line_len(buf).unwrap_or(buf.len())).unwrap_or_default();
    let mut words = line.split(|&b| b == b' ').skip(2);
    match (words.next(), words.next()) {
        (Some(&[b'H', b'T', b'T', b'P', b'/', major, b'.', minor, b'\r', ..]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Bad::new(BadClass::Version, "HTTP version not supported")
        }
        _ => Bad::syntax("invalid HTTP version"),
    }
}

fn field_error(error: httparse::Error) -> Bad {
    match error {
        httparse::Error::TooManyHeaders => Bad::new(BadClass::HeadTooLarge, "too many header fields"),
        httparse::Error::HeaderName => Bad::syntax("invalid header name"),
        httparse::Error::HeaderValue => Bad::syntax("invalid header value"),
        httparse::Error::NewLine => Bad::syntax("invalid line end"),
        httparse::Error::Status => Bad::syntax("invalid status line"),
        httparse::Error::Token => Bad::syntax("invalid start line"),
        httparse::Error::Version => Bad::syntax("invalid HTTP version"),
    }
}

/// Parses a trailer section at the start of `buf`, its empty line included: the fields and the bytes it took.
pub(crate) fn trailers(buf: &[u8], max_fields: usize) -> Result<Option<(Headers, usize)>, Bad> {
    let mut table = [httparse::EMPTY_HEADER; 64];
    let table = table.get_mut(..max_fields.min(64)).unwrap_or_default();
    let (len, parsed) = match httparse::parse_headers(buf, table) {
        Ok(Status::Complete(done)) => done,
        Ok(Status::Partial) => return Ok(None),
        Err(error) => return Err(field_error(error)),
    };
    let mut headers = Headers::new();
    if !ends_in_crlf(buf, len) {
        return Err(Bad::syntax("a line of the trailer section does not end in CR LF"));
    }
    let mut rest = buf.get(..len - 2).unwrap_or_default();
    for field in parsed {
        let line = line_len(rest).unwrap_or(rest.len());
        if !ends_in_crlf(rest, line) {
            return Err(Bad::syntax("a line of the trailer section does not end in CR LF"));
        }
        rest = rest.get(line..).unwrap_or_default();
        if framing::may_trail(field.name.as_bytes()) {
            headers.append_checked(field.name.as_bytes(), field.value);
        }
    }
    Ok(Some((headers, len)))
}

/// For the fuzzer: any bytes as a request head. Panics when an accepted head, as it is sent on, could be read otherwise.
pub fn fuzz_request(bytes: &[u8]) {
    let limits = Limits::default();
    let Ok(Some(parsed)) = request(bytes, &limits) else { return };
    let mut again = bytes::BytesMut::new();
    super::serialize::request(&mut again, &parsed.head, parsed.framing);
    // A few bytes of our own may carry a head that just fitted over the limit.
    let roomy =
        Limits { max_head: 2 * limits.max_head, max_request_line: 2 * limits.max_request_line, ..limits };
    let reparsed = request(&again, &roomy);
    let same = matches!(&reparsed, Ok(Some(second)) if second.len == again.len()
        && (second.framing == parsed.framing || (parsed.framing, second.framing) == (Framing::None, Framing::Length(0)))
        && second.head.authority() == parsed.head.authority()
        && second.head.path_and_query() == parsed.head.path_and_query());
    // Only HTTP/1.0 has requests without a host, which HTTP/1.1 cannot say.
    let nameless = parsed.head.authority().is_empty();
    assert!(same || nameless, "{parsed:?} became {again:?}: {reparsed:?}");
}

/// For the fuzzer: any bytes as a response head. Panics when an accepted head, as it is sent on, could be read otherwise.
pub fn fuzz_response(bytes: &[u8]) {
    let limits = Limits::default();
    let Ok(Some(parsed)) = response(bytes, &limits, &Method::GET, true) else { return };
    let body = match parsed.framing {
        Framing::None => super::writer::Writer::Nothing,
        Framing::Length(n) => super::writer::Writer::Length(n),
        Framing::Streaming | Framing::UntilClose => super::writer::Writer::Chunked,
    };
    let mut again = bytes::BytesMut::new();
    let manner =
        super::serialize::Manner { version: Version::HTTP_11, body, keep_alive: true, tunnel: false };
    super::serialize::response(&mut again, &parsed.head, manner);
    let roomy = Limits { max_head: 2 * limits.max_head, ..limits };
    let reparsed = response(&again, &roomy, &Method::GET, true);
    let same = matches!(&reparsed, Ok(Some(second)) if second.len == again.len()
        && second.head.status == parsed.head.status
        && (second.framing == parsed.framing || parsed.framing == Framing::UntilClose));
    assert!(same, "{parsed:?} became {again:?}: {reparsed:?}");
}

#[cfg(test)]
mod tests;
