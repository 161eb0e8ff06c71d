//! Request targets and authorities: what is accepted, and where the parts are.

use http::Method;

use super::error::{Bad, BadClass};
use super::head::{Form, Scheme, Target};
use super::headers::{Headers, Span};

const BAD_CHARACTER: Bad = Bad::syntax("invalid character in the request target");
const BAD_FORM: Bad = Bad::syntax("this form of request target does not go with the method");
const BAD_AUTHORITY: Bad = Bad::syntax("invalid authority in the request target");

/// Takes a request target apart. `at` is where it lies in `headers`' buffer. The authority is empty for the origin and asterisk
/// forms, which take it from Host.
pub(crate) fn split(method: &Method, headers: &mut Headers, at: Span) -> Result<Target, Bad> {
    let bytes = headers.bytes(at);
    if !bytes.iter().all(|&b| is_target_byte(b)) {
        return Err(BAD_CHARACTER);
    }
    if *method == Method::CONNECT {
        return connect(bytes, at);
    }
    match bytes.first() {
        Some(b'/') => Ok(origin(bytes, at)),
        Some(b'*') if bytes.len() == 1 => asterisk(method, at),
        Some(_) => absolute(method, headers, at),
        None => Err(BAD_FORM),
    }
}

fn origin(bytes: &[u8], at: Span) -> Target {
    Target { path_and_query: at, path_len: path_len(bytes), ..Target::default() }
}

fn asterisk(method: &Method, at: Span) -> Result<Target, Bad> {
    if *method != Method::OPTIONS {
        return Err(BAD_FORM);
    }
    Ok(Target { form: Form::Asterisk, path_and_query: at, path_len: 1, ..Target::default() })
}

fn connect(bytes: &[u8], at: Span) -> Result<Target, Bad> {
    let port =
        bytes.iter().rposition(|&b| b == b':').and_then(|colon| bytes.get(colon + 1..)).unwrap_or_default();
    if port.is_empty() || !port.iter().all(u8::is_ascii_digit) || !is_authority(bytes) {
        return Err(BAD_AUTHORITY);
    }
    Ok(Target { form: Form::Authority, authority: at, ..Target::default() })
}

fn absolute(method: &Method, headers: &mut Headers, at: Span) -> Result<Target, Bad> {
    let bytes = headers.bytes(at);
    let (scheme, start) = if starts_with(bytes, b"http://") {
        (Scheme::Http, 7)
    } else if starts_with(bytes, b"https://") {
        (Scheme::Https, 8)
    } else {
        return Err(Bad::new(BadClass::Syntax, "neither an absolute path nor an http URI as request target"));
    };
    let rest = bytes.get(start..).unwrap_or_default();
    let authority_len = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_len);
    if authority.is_empty() || !is_authority(authority) {
        return Err(BAD_AUTHORITY);
    }
    let authority_at = Span::new(at.at as usize + start, authority_len);
    let tail_at = Span::new(authority_at.end(), tail.len());
    let path_len = path_len(tail);
    let target =
        Target { form: Form::Absolute, scheme, authority: authority_at, path_and_query: tail_at, path_len };
    if tail.first() == Some(&b'/') {
        return Ok(target);
    }
    // An empty path means `*` for OPTIONS and `/` otherwise (RFC 9112 section 3.2.4).
    let path: &[u8] = if *method == Method::OPTIONS && tail.is_empty() { b"*" } else { b"/" };
    let whole = [path, tail].concat();
    Ok(Target { path_and_query: headers.stash(&whole), path_len: 1, ..target })
}

fn path_len(bytes: &[u8]) -> u32 {
    bytes.iter().position(|&b| b == b'?').unwrap_or(bytes.len()) as u32
}

fn starts_with(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Visible ASCII without `#`: a fragment never travels, and everything else must be percent-encoded.
fn is_target_byte(b: u8) -> bool {
    b > b' ' && b < 0x7f && b != b'#'
}

/// Whether this can be sent as `:path` or origin form.
pub(crate) fn is_path_and_query(bytes: &[u8]) -> bool {
    (bytes.first() == Some(&b'/') || bytes == b"*") && bytes.iter().all(|&b| is_target_byte(b))
}

/// Whether this can be a Host value or an authority without user information: a registered name, IPv4 or bracketed IPv6
/// address, and an optional port. Empty is not.
pub(crate) fn is_authority(bytes: &[u8]) -> bool {
    let (host, port) = if bytes.first() == Some(&b'[') {
        let Some(close) = bytes.iter().position(|&b| b == b']') else { return false };
        let (host, port) = bytes.split_at(close + 1);
        let inner = host.get(1..close).unwrap_or_default();
        let literal =
            |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'.' | b'%' | b'-' | b'_' | b'~');
        if inner.is_empty() || !inner.iter().all(literal) {
            return false;
        }
        (host, port)
    } else {
        let host_len = bytes.iter().position(|&b| b == b':').unwrap_or(bytes.len());
        let (host, port) = bytes.split_at(host_len);
        if !host.iter().all(|&b| is_host_byte(b)) {
            return false;
        }
        (host, port)
    };
    !host.is_empty()
        && (port.is_empty() || (port.first() == Some(&b':') && is_port(port.get(1..).unwrap_or_default())))
}

/// A port of up to five digits that fits 16 bits. It may be empty (`host:`, RFC 3986 section 3.2.3).
fn is_port(digits: &[u8]) -> bool {
    let number = |digits: &[u8]| digits.iter().fold(0u32, |n, d| n * 10 + u32::from(d - b'0'));
    digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) && number(digits) <= u32::from(u16::MAX)
}

/// `reg-name` of RFC 3986 without `,`: a comma in Host is how two Host fields look after a careless merge. Without `%` too: no name
/// needs it, and one that is encoded is another name to whoever compares before decoding (the `http` crate, and with it HTTP/2, does
/// not take it either).
fn is_host_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(
            b,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'='
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: &str, target: &str) -> Result<(Form, String, String), Bad> {
        let mut headers = Headers::over(target.as_bytes(), 0);
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let split = split(&method, &mut headers, Span::new(0, target.len()))?;
        Ok((split.form, headers.text(split.authority).into(), headers.text(split.path_and_query).into()))
    }

    #[test]
    fn the_four_forms() {
        assert_eq!(parts("GET", "/a?b"), Ok((Form::Origin, "".into(), "/a?b".into())));
        assert_eq!(parts("GET", "http://h:1/a?b"), Ok((Form::Absolute, "h:1".into(), "/a?b".into())));
        assert_eq!(parts("GET", "HTTP://h?x/y"), Ok((Form::Absolute, "h".into(), "/?x/y".into())));
        assert_eq!(parts("OPTIONS", "http://h"), Ok((Form::Absolute, "h".into(), "*".into())));
        assert_eq!(parts("GET", "https://[::1]:8"), Ok((Form::Absolute, "[::1]:8".into(), "/".into())));
        assert_eq!(parts("CONNECT", "h:443"), Ok((Form::Authority, "h:443".into(), "".into())));
        assert_eq!(parts("OPTIONS", "*"), Ok((Form::Asterisk, "".into(), "*".into())));
    }

    #[test]
    fn ambiguous_targets_are_refused() {
        let bad = [
            ("GET", "*"),
            ("GET", "h:443"),
            ("GET", "a/b"),
            ("GET", "/a#b"),
            ("GET", "/a\tb"),
            ("GET", "/\x7f"),
            ("GET", "ftp://h/"),
            ("GET", "http:///a"),
            ("GET", "http://u@h/"),
            ("GET", "http://u:p@h/"),
            ("GET", "http://h:99x/"),
            ("CONNECT", "h"),
            ("CONNECT", "h:"),
            ("CONNECT", ":443"),
            ("CONNECT", "/a"),
            ("CONNECT", "http://h:1/"),
            ("CONNECT", "u@h:1"),
        ];
        for (method, target) in bad {
            assert!(parts(method, target).is_err(), "{method} {target}");
        }
        assert!(parts("GET", "/\u{e9}").is_err());
    }

    #[test]
    fn authorities() {
        for good in ["a", "a.b:80", "a:", "[::1]", "[fe80::1%25eth0]:80", "1.2.3.4:5", "a_b", "x*"] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a:b", "a b", "a,b", "a/b", "u@a", "[::1", "[]", "[::1]x", "a:123456", "a\\b", "a#b",
            "a:1:2", "::1", "a%2eb",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }
}
