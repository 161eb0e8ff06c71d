//! Heads between the `h2` crate's types and ours. What HTTP/1 could read differently stops here.

use bytes::Bytes;
use h2::ext::Protocol;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};

use crate::http::body::Framing;
use crate::http::error::Bad;
use crate::http::h1::framing::may_trail;
use crate::http::h1::serialize::decimal;
use crate::http::head::{Form, RequestHead, ResponseHead, Scheme, Target};
use crate::http::headers::{Headers, Span};
use crate::http::known::{HOP_BY_HOP, Known};
use crate::http::target::{is_authority, is_path_and_query};

/// A request head from an HTTP/2 client, and its framing. `ended` says that nothing follows the head.
///
/// WebSocket by extended CONNECT (RFC 8441) becomes the Upgrade that HTTP/1.1 has for it, so that rules and upstreams see one
/// kind of WebSocket; the answer is turned back by the stream (see [`super::server`]).
pub(crate) fn request(parts: &http::request::Parts, ended: bool) -> Result<(RequestHead, Framing), Bad> {
    let protocol = parts.extensions.get::<Protocol>().map(Protocol::as_str);
    if protocol.is_some_and(|protocol| protocol != "websocket") {
        return Err(Bad::syntax("unknown :protocol"));
    }
    let mut headers = Headers::over(&[], parts.headers.len() + 1);
    let authority = authority(parts)?;
    headers.append_checked(b"host", authority);
    let mut target =
        Target { authority: headers.known_span(Known::Host).unwrap_or_default(), ..Target::default() };
    if parts.uri.scheme_str() == Some("https") {
        target.scheme = Scheme::Https;
    }
    if parts.method == Method::CONNECT && protocol.is_none() {
        target.form = Form::Authority;
    } else {
        let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        if !is_path_and_query(path.as_bytes()) || (path == "*" && parts.method != Method::OPTIONS) {
            return Err(Bad::syntax("invalid :path"));
        }
        target.form = if path == "*" { Form::Asterisk } else { Form::Origin };
        target.path_and_query = headers.stash(path.as_bytes());
        target.path_len = path.find('?').unwrap_or(path.len()) as u32;
    }
    let te_trailers = copy_fields(&parts.headers, &mut headers)?;
    let connect = parts.method == Method::CONNECT;
    if protocol.is_some() {
        headers.append_checked(b"upgrade", b"websocket");
        headers.append_checked(b"sec-websocket-key", &websocket_key());
    }
    let expect_continue = expectation(&mut headers)? && !ended;
    let framing = framing(&parts.headers, ended || connect);
    let head = RequestHead {
        method: if protocol.is_some() { Method::GET } else { parts.method.clone() },
        version: Version::HTTP_2,
        headers,
        target,
        upgrade: protocol.is_some(),
        expect_continue,
        te_trailers,
    };
    Ok((head, framing))
}

/// A nonce of 16 bytes in base64, as the handshake wants it (RFC 6455 section 4.1).
fn websocket_key() -> [u8; 24] {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = fastrand::u128(..);
    let mut key = [b'='; 24];
    // 128 bits are 21 digits and two bits; those two are the high bits of the last digit.
    for digit in key.iter_mut().take(21) {
        *digit = DIGITS[(bits & 63) as usize];
        bits >>= 6;
    }
    key[21] = DIGITS[((bits & 3) << 4) as usize];
    key
}

/// `:authority`, or Host where a translating client sent only that. Both must agree (RFC 9113 section 8.3.1).
fn authority(parts: &http::request::Parts) -> Result<&[u8], Bad> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    let pseudo = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = host.map(HeaderValue::as_bytes);
    let authority = match (pseudo, host) {
        _ if second.is_some() => return Err(Bad::syntax("more than one host field")),
        (Some(pseudo), Some(host)) if !pseudo.eq_ignore_ascii_case(host) => {
            return Err(Bad::syntax("host differs from :authority"));
        }
        (Some(authority), _) | (None, Some(authority)) => authority,
        (None, None) => return Err(Bad::syntax("neither :authority nor host")),
    };
    if is_authority(authority) { Ok(authority) } else { Err(Bad::syntax("invalid :authority")) }
}

fn expectation(headers: &mut Headers) -> Result<bool, Bad> {
    let mut expects = false;
    for value in headers.known(Known::Expect) {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Bad::new(crate::http::error::BadClass::Expectation, "unknown expectation"));
        }
        expects = true;
    }
    headers.remove_known(Known::Expect.bit());
    Ok(expects)
}

/// Copies fields, cookie crumbs joined (RFC 9113 section 8.2.3); whether `te: trailers` is among them.
fn copy_fields(from: &HeaderMap, to: &mut Headers) -> Result<bool, Bad> {
    let mut te_trailers = false;
    for (name, value) in from {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        if value.first().is_some_and(|b| matches!(b, b' ' | b'\t'))
            || value.last().is_some_and(|b| matches!(b, b' ' | b'\t'))
        {
            return Err(Bad::syntax("a field value begins or ends with a space"));
        }
        match Known::of(name) {
            Known::Host => continue,
            Known::Cookie => {
                if let Some(so_far) = to.known_span(Known::Cookie) {
                    let joined = [to.bytes(so_far), b"; ", value].concat();
                    to.set_first(Known::Cookie, b"cookie", &joined);
                    continue;
                }
            }
            Known::Te => te_trailers = true,
            // The local agent's secret is read from it; nothing writes it to an upstream.
            Known::ProxyAuthorization => {}
            known if known.bit() & HOP_BY_HOP != 0 => continue,
            _ => {}
        }
        to.append_checked(name, value);
    }
    Ok(te_trailers)
}

/// The framing that a head announces; the `h2` crate has checked Content-Length and holds the body to it.
pub(crate) fn framing(headers: &HeaderMap, ended: bool) -> Framing {
    if ended {
        return Framing::None;
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    length.map_or(Framing::Streaming, Framing::Length)
}

/// A response head from an HTTP/2 upstream.
pub(crate) fn response(status: StatusCode, headers: &HeaderMap) -> Result<ResponseHead, Bad> {
    let mut copy = Headers::over(&[], headers.len());
    copy_fields(headers, &mut copy)?;
    copy.remove_known(Known::Te.bit() | Known::Upgrade.bit());
    Ok(ResponseHead { status, headers: copy, phrase: Span::default() })
}

/// A trailer section, without what may not stand in one.
pub(crate) fn trailers(from: &HeaderMap) -> Headers {
    let mut copy = Headers::over(&[], from.len());
    for (name, value) in from {
        if may_trail(name.as_str().as_bytes()) {
            copy.append_checked(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    copy
}

/// A request for the `h2` crate. Fails when the authority is one that the `http` crate does not take.
pub(crate) fn to_request(head: &RequestHead, framing: Framing) -> Option<Request<()>> {
    let mut uri = Uri::builder().authority(head.authority());
    if head.form() != Form::Authority {
        uri = uri.scheme(head.scheme()).path_and_query(head.path_and_query());
    }
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri.build().ok()?;
    *request.version_mut() = Version::HTTP_2;
    let skip = HOP_BY_HOP | Known::Host.bit() | Known::Upgrade.bit();
    let fields = request.headers_mut();
    *fields = to_fields(&head.headers, skip, length_of(framing));
    if head.expects_continue() {
        fields.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
    }
    Some(request)
}

/// A response for the `h2` crate. `framing` is `None` where the head announces a body that does not follow (HEAD, 304): then its
/// own Content-Length stays.
pub(crate) fn to_response(head: &ResponseHead, framing: Option<Framing>) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    *response.version_mut() = Version::HTTP_2;
    let skip = HOP_BY_HOP | Known::Upgrade.bit() | Known::Te.bit();
    *response.headers_mut() = match framing {
        None => fields(&head.headers, skip),
        Some(framing) => to_fields(&head.headers, skip, length_of(framing)),
    };
    response
}

/// A trailer section for the `h2` crate.
pub(crate) fn to_trailers(headers: &Headers) -> HeaderMap {
    fields(headers, !Known::Other.bit())
}

fn length_of(framing: Framing) -> Option<u64> {
    match framing {
        Framing::Length(n) => Some(n),
        _ => None,
    }
}

fn to_fields(headers: &Headers, skip: u32, length: Option<u64>) -> HeaderMap {
    let mut map = fields(headers, skip | Known::ContentLength.bit());
    if let Some(length) = length {
        let mut digits = [0u8; 20];
        if let Ok(value) = HeaderValue::from_bytes(decimal(&mut digits, length)) {
            map.insert(header::CONTENT_LENGTH, value);
        }
    }
    map
}

/// Copies all values in one allocation, which they then share.
fn fields(headers: &Headers, skip: u32) -> HeaderMap {
    let shared = Bytes::copy_from_slice(headers.buffer());
    let mut map = HeaderMap::with_capacity(headers.len() + 1);
    for (known, name, value) in headers.iter_known() {
        if known != Known::Other && known.bit() & skip != 0 {
            continue;
        }
        let value = HeaderValue::from_maybe_shared(shared.slice(value.at as usize..value.end()));
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
            map.append(name, value);
        }
    }
    map
}
