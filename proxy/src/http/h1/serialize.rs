//! Heads to bytes. Framing and connection fields are always our own; everything else is copied.

use bytes::{BufMut, BytesMut};
use http::{Method, StatusCode, Version};

use super::writer::Writer;
use crate::http::body::Framing;
use crate::http::head::{Form, RequestHead, ResponseHead};
use crate::http::headers::Headers;
use crate::http::known::{HOP_BY_HOP, Known};

/// Room for a start line's fixed parts and our own fields.
const OWN: usize = 192;

/// Writes a request head for an HTTP/1.1 upstream.
pub(crate) fn request(out: &mut BytesMut, head: &RequestHead, framing: Framing) {
    let target = if head.form() == Form::Authority { head.authority() } else { head.path_and_query() };
    out.reserve(head.headers.written_len() + target.len() + head.method.as_str().len() + OWN);
    out.put_slice(head.method.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    if head.headers.known_span(Known::Host).is_none() {
        field(out, b"host", head.authority().as_bytes());
    }
    let upgrade = head.upgrade().is_some();
    let mut skip = HOP_BY_HOP;
    if !upgrade {
        skip |= Known::Upgrade.bit();
    }
    let length = match framing {
        Framing::Length(n) => Some(n),
        Framing::None if matches!(head.method, Method::POST | Method::PUT | Method::PATCH) => Some(0),
        _ => None,
    };
    write_fields(out, &head.headers, skip, length);
    if framing == Framing::Streaming {
        out.put_slice(b"transfer-encoding: chunked\r\n");
    }
    match (upgrade, head.te_trailers) {
        (true, true) => out.put_slice(b"connection: upgrade, te\r\n"),
        (true, false) => out.put_slice(b"connection: upgrade\r\n"),
        (false, true) => out.put_slice(b"connection: te\r\n"),
        (false, false) => {}
    }
    if head.expects_continue() {
        out.put_slice(b"expect: 100-continue\r\n");
    }
    out.put_slice(b"\r\n");
}

/// How a response goes out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// The client's version.
    pub(crate) version: Version,
    /// What follows the head.
    pub(crate) body: Writer,
    /// Whether the connection stays open afterwards.
    pub(crate) keep_alive: bool,
    /// The answer to CONNECT that opens the tunnel.
    pub(crate) tunnel: bool,
}

/// Writes a response head.
pub(crate) fn response(out: &mut BytesMut, head: &ResponseHead, manner: Manner) {
    out.reserve(head.headers.written_len() + OWN);
    let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
    status_line(out, head);
    let mut skip = HOP_BY_HOP;
    if !switching && head.status != StatusCode::UPGRADE_REQUIRED {
        skip |= Known::Upgrade.bit();
    }
    match manner.body {
        // HEAD and 304 announce what GET would have got (RFC 9110 section 8.6).
        Writer::Nothing if !no_length(head.status) && !manner.tunnel => head.headers.write_to(out, skip),
        Writer::Length(n) => write_fields(out, &head.headers, skip, Some(n)),
        _ => write_fields(out, &head.headers, skip, None),
    }
    if manner.body == Writer::Chunked {
        out.put_slice(b"transfer-encoding: chunked\r\n");
    }
    if switching {
        out.put_slice(b"connection: upgrade\r\n");
    } else if head.status == StatusCode::UPGRADE_REQUIRED {
        out.put_slice(if manner.keep_alive {
            b"connection: upgrade\r\n"
        } else {
            b"connection: upgrade, close\r\n"
        });
    } else if !manner.keep_alive && !manner.tunnel {
        out.put_slice(b"connection: close\r\n");
    } else if manner.version == Version::HTTP_10 && !manner.tunnel {
        out.put_slice(b"connection: keep-alive\r\n");
    }
    out.put_slice(b"\r\n");
}

/// Writes an interim response (RFC 9110 section 15.2).
pub(crate) fn interim(out: &mut BytesMut, head: &ResponseHead) {
    out.reserve(head.headers.written_len() + OWN);
    status_line(out, head);
    write_fields(out, &head.headers, HOP_BY_HOP | Known::Upgrade.bit(), None);
    out.put_slice(b"\r\n");
}

fn status_line(out: &mut BytesMut, head: &ResponseHead) {
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(head.status.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(head.phrase());
    out.put_slice(b"\r\n");
}

fn no_length(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT
}

/// Writes the fields with exactly the Content-Length that the framing says, where it stood when it stood there.
fn write_fields(out: &mut BytesMut, headers: &Headers, skip: u32, length: Option<u64>) {
    let length_bit = Known::ContentLength.bit();
    let Some(length) = length else {
        headers.write_to(out, skip | length_bit);
        return;
    };
    let mut digits = [0u8; 20];
    let digits = decimal(&mut digits, length);
    let mut stated = headers.known(Known::ContentLength);
    if stated.next() == Some(digits) && stated.next().is_none() {
        headers.write_to(out, skip);
    } else {
        headers.write_to(out, skip | length_bit);
        field(out, b"content-length", digits);
    }
}

fn field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// The decimal digits of `n`.
pub(crate) fn decimal(digits: &mut [u8; 20], n: u64) -> &[u8] {
    let mut at = digits.len();
    let mut rest = n;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    digits.get(at..).unwrap_or_default()
}
