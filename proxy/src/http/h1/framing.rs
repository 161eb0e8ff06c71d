//! Where a message ends (RFC 9112 section 6.3), and which of its fields concern this hop only.

use http::{Method, StatusCode, Version};

use crate::http::body::Framing;
use crate::http::error::{Bad, BadClass};
use crate::http::headers::{Headers, alike};
use crate::http::known::{HOP_BY_HOP, Known, essential};

const LENGTH: u32 = Known::ContentLength.bit();
const CODING: u32 = Known::TransferEncoding.bit();

/// What a head says about its connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// The connection may be used again after this message.
    pub(crate) keep_alive: bool,
    /// A change of protocol is asked for or granted.
    pub(crate) upgrade: bool,
    /// The sender takes trailers.
    pub(crate) te_trailers: bool,
}

/// The framing of a request.
pub(crate) fn of_request(method: &Method, version: Version, headers: &mut Headers) -> Result<Framing, Bad> {
    if !headers.may_have(LENGTH | CODING) {
        return Ok(Framing::None);
    }
    if *method == Method::CONNECT {
        return Err(Bad::syntax("CONNECT with a body"));
    }
    let framing = declared(version, headers)?;
    Ok(framing.unwrap_or(Framing::None))
}

/// The framing of a response to `method`.
pub(crate) fn of_response(
    status: StatusCode,
    version: Version,
    method: &Method,
    headers: &mut Headers,
) -> Result<Framing, Bad> {
    let declared = declared(version, headers)?;
    let tunnel = *method == Method::CONNECT && status.is_success();
    if status.is_informational() || status == StatusCode::NO_CONTENT || tunnel {
        headers.remove_known(LENGTH | CODING);
        return Ok(Framing::None);
    }
    if *method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
        return Ok(Framing::None);
    }
    Ok(declared.unwrap_or(Framing::UntilClose))
}

/// What Transfer-Encoding and Content-Length say; anything that another parser might read otherwise is an error.
fn declared(version: Version, headers: &mut Headers) -> Result<Option<Framing>, Bad> {
    let mut codings = headers.known(Known::TransferEncoding);
    if let Some(coding) = codings.next() {
        if codings.next().is_some() {
            return Err(Bad::syntax("more than one Transfer-Encoding field"));
        }
        drop(codings);
        if headers.known(Known::ContentLength).next().is_some() {
            return Err(Bad::syntax("both Transfer-Encoding and Content-Length"));
        }
        if version == Version::HTTP_10 {
            return Err(Bad::syntax("Transfer-Encoding in HTTP/1.0"));
        }
        return chunked(coding).map(|()| Some(Framing::Streaming));
    }
    drop(codings);
    let mut lengths = headers.known(Known::ContentLength);
    let Some(text) = lengths.next() else { return Ok(None) };
    if lengths.next().is_some() {
        return Err(Bad::syntax("more than one Content-Length field"));
    }
    drop(lengths);
    let length = decimal(text).ok_or(Bad::syntax("invalid Content-Length"))?;
    if text.len() > 1 && text.first() == Some(&b'0') {
        // Valid, but some read a leading zero as octal: what travels on is the usual form.
        headers.set_first(Known::ContentLength, b"content-length", length.to_string().as_bytes());
    }
    Ok(Some(Framing::Length(length)))
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = text.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    i64::try_from(value).ok().map(|_| value)
}

/// Exactly `chunked`. A list of real codings is 501; what only looks like chunked is 400.
fn chunked(value: &[u8]) -> Result<(), Bad> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut is_list = true;
    let mut chunked = 0;
    let mut last_chunked = false;
    for item in value.split(|&b| b == b',') {
        let item = item.trim_ascii();
        is_list &= crate::http::headers::is_token(item);
        last_chunked = item.eq_ignore_ascii_case(b"chunked");
        chunked += usize::from(last_chunked);
    }
    let unambiguous = is_list && (chunked == 0 || (chunked == 1 && last_chunked));
    if unambiguous {
        return Err(Bad::new(BadClass::Coding, "transfer coding other than chunked"));
    }
    Err(Bad::syntax("invalid Transfer-Encoding"))
}

/// Removes what concerns this hop from a request, after its framing is known.
pub(crate) fn strip_request(headers: &mut Headers, version: Version, framing: Framing) -> Options {
    let mut options = connection(headers, version);
    if headers.may_have(Known::Te.bit()) {
        let wants = |value: &[u8]| {
            value.split(|&b| b == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(b"trailers"))
        };
        options.te_trailers = headers.known(Known::Te).any(wants);
        headers.remove_known(Known::Te.bit());
        if options.te_trailers {
            headers.append_checked(b"te", b"trailers");
        }
    }
    // An upgrade of a request with a body would leave it open where the new protocol begins.
    options.upgrade &= framing == Framing::None && upgradable(headers);
    if !options.upgrade {
        headers.remove_known(Known::Upgrade.bit());
    }
    // The local agent's secret is read from it; nothing writes it to an upstream.
    headers.remove_known(HOP_BY_HOP & !Known::ProxyAuthorization.bit());
    options
}

/// Removes what concerns this hop from a response.
pub(crate) fn strip_response(headers: &mut Headers, version: Version, status: StatusCode) -> Options {
    let mut options = connection(headers, version);
    options.upgrade &= headers.known(Known::Upgrade).next().is_some();
    // 426 says by Upgrade what it would take; elsewhere it is an advertisement for this hop only.
    if status != StatusCode::SWITCHING_PROTOCOLS && status != StatusCode::UPGRADE_REQUIRED {
        headers.remove_known(Known::Upgrade.bit());
    }
    headers.remove_known(HOP_BY_HOP | Known::Te.bit());
    options
}

/// Exactly one Upgrade field that names neither h2c (another parser would start HTTP/2 behind our back) nor TLS.
fn upgradable(headers: &Headers) -> bool {
    let mut fields = headers.known(Known::Upgrade);
    let (Some(value), None) = (fields.next(), fields.next()) else { return false };
    let allowed = |item: &[u8]| {
        let item = item.trim_ascii();
        let name = item.split(|&b| b == b'/').next().unwrap_or_default();
        crate::http::headers::is_token(name)
            && ![&b"h2c"[..], b"h2", b"http", b"tls"].iter().any(|no| name.eq_ignore_ascii_case(no))
    };
    value.split(|&b| b == b',').all(allowed)
}

/// Reads Connection, and removes the fields that it names unless something relies on them.
fn connection(headers: &mut Headers, version: Version) -> Options {
    let mut options = Options { keep_alive: version == Version::HTTP_11, ..Options::default() };
    if !headers.may_have(Known::Connection.bit()) {
        return options;
    }
    let (mut close, mut keep_alive) = (false, options.keep_alive);
    let mut named: Vec<Box<[u8]>> = Vec::new();
    for item in headers.known(Known::Connection).flat_map(|value| value.split(|&b| b == b',')) {
        let item = item.trim_ascii();
        match Known::of(item) {
            _ if item.eq_ignore_ascii_case(b"close") => close = true,
            Known::KeepAlive => keep_alive = true,
            Known::Upgrade => options.upgrade = true,
            Known::Other if !item.is_empty() && !essential(item) => named.push(item.into()),
            _ => {}
        }
    }
    if !named.is_empty() {
        headers.retain(|name, _| !named.iter().any(|gone| name.eq_ignore_ascii_case(gone)));
    }
    options.keep_alive = keep_alive && !close;
    options.upgrade &= version == Version::HTTP_11;
    options
}

/// Whether a field may stand in a trailer section (RFC 9110 section 6.5.1): nothing that frames, routes or authenticates.
pub(crate) fn may_trail(name: &[u8]) -> bool {
    const NEVER: &[&str] = &[
        "authorization",
        "cache-control",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "forwarded",
        "max-forwards",
        "proxy-authorization",
        "range",
        "set-cookie",
        "trailer",
    ];
    const BEGINNINGS: &[&str] = &["x-forwarded-", "x-pilotfish-", "agent-", "pilotfish-"];
    let begins = |beginning: &&str| {
        name.get(..beginning.len()).is_some_and(|start| alike(start, beginning.as_bytes()))
    };
    matches!(Known::of(name), Known::Other)
        && name.first() != Some(&b':')
        && !NEVER.iter().any(|never| alike(name, never.as_bytes()))
        && !BEGINNINGS.iter().any(begins)
}
