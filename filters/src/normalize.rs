//! Path normalisation (Istio's table): what is decided on is what is sent upstream.
//!
//! | | `\` | `.`, `..` | `%41` (unreserved) | `//` | `%2F`, `%5C` |
//! |---|---|---|---|---|---|
//! | NONE | | | | | |
//! | BASE | `/` | resolved | decoded | | |
//! | MERGE_SLASHES | `/` | resolved | decoded | `/` | |
//! | DECODE_AND_MERGE_SLASHES | `/` | resolved | decoded | `/` | `/` |
//!
//! `..` at the root stays at the root (RFC 3986, section 5.2.4). Decoding happens once. `;params` stay as they are. `%00` is refused
//! always, and `#` by the HTTP engine, as Envoy does.

use std::borrow::Cow;

pub use pilotfish_config::wire::Normalization;

/// The path (without its query) as decisions and the upstream see it; borrowed when nothing changes.
///
/// # Errors
/// It has `%00`, in words.
pub fn normalize(path: &str, how: Normalization) -> Result<Cow<'_, str>, &'static str> {
    let odd = odd(path.as_bytes());
    if odd == Odd::default() {
        return Ok(Cow::Borrowed(path));
    }
    if odd.percent && path.contains("%00") {
        return Err("the path has %00");
    }
    let merge = matches!(how, Normalization::MergeSlashes | Normalization::DecodeAndMergeSlashes);
    let works = odd.percent || odd.backslash || odd.dot || (odd.slashes && merge);
    if how == Normalization::None || !works || !path.starts_with('/') {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path, how == Normalization::DecodeAndMergeSlashes);
    let (mut normal, _) = resolve(&decoded);
    if merge {
        normal = merged(&normal);
    }
    Ok(if normal == path { Cow::Borrowed(path) } else { Cow::Owned(normal) })
}

/// What origins may make of a path besides what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loose {
    /// Each another path than the one that is sent.
    pub readings: Vec<String>,
    /// Whether one of them may be elsewhere: it came by a `..`, or without what `;`, `?` or `#` begins, or without a host.
    pub strays: bool,
}

/// The path as obliging origins would read it: everything decoded, however often it was encoded, `;params` and what an encoded `?` begins
/// cut or not, before or after that, dots resolved before or after slashes are merged; and what two slashes begin as a host, as those
/// read it who take a path for a URL (`new URL(path, base)`, `urlsplit`). `None`: all read what it is.
pub fn loosest(path: &str) -> Option<Loose> {
    let odd = odd(path.as_bytes());
    if odd == Odd::default() || !path.starts_with('/') {
        return None;
    }
    let decoded = decode_all(path);
    let mut plain = vec![decoded];
    if plain[0].contains([';', '?', '#', '\0']) {
        plain.push(without_parameters(&plain[0]));
        if odd.semicolon {
            plain.push(decode_all(&without_parameters(path)));
        }
    }
    let mut loose = Loose { readings: Vec::new(), strays: plain.len() > 1 };
    for plain in plain {
        let (resolved, climbs) = resolve(&plain);
        loose.read(path, merged(&resolved));
        if let Some(behind) = behind_host(&resolved) {
            loose.strays = true;
            loose.read(path, merged(behind));
        }
        if climbs {
            loose.strays = true;
            loose.read(path, merged(&resolve(&merged(&plain)).0));
        }
    }
    (!loose.readings.is_empty()).then_some(loose)
}

impl Loose {
    fn read(&mut self, path: &str, reading: String) {
        if reading != path && !self.readings.contains(&reading) {
            self.readings.push(reading);
        }
    }
}

/// What a path has that may be read in several ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Odd {
    percent: bool,
    backslash: bool,
    semicolon: bool,
    /// A segment begins with a dot.
    dot: bool,
    slashes: bool,
}

/// One pass, which finds nothing in nearly every path.
fn odd(path: &[u8]) -> Odd {
    let mut odd = Odd::default();
    let mut before = 0;
    for byte in path {
        match byte {
            b'%' => odd.percent = true,
            b'\\' => odd.backslash = true,
            b';' => odd.semicolon = true,
            b'.' => odd.dot |= matches!(before, b'/' | b'\\'),
            b'/' => odd.slashes |= before == b'/',
            _ => {}
        }
        before = *byte;
    }
    odd
}

/// Unreserved characters decoded, `\` as `/`; with `slashes` escaped slashes too.
fn decode(path: &str, slashes: bool) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['%', '\\']) {
        decoded.push_str(&rest[..at]);
        rest = &rest[at..];
        let (taken, character) = match escaped(rest.as_bytes()) {
            _ if rest.starts_with('\\') => (1, '/'),
            Some(b'/' | b'\\') if slashes => (3, '/'),
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => (3, char::from(byte)),
            _ => (1, '%'),
        };
        decoded.push(character);
        rest = &rest[taken..];
    }
    decoded.push_str(rest);
    decoded
}

/// Everything decoded, until there is nothing left to decode: escapes of escapes, and the overlong forms of ASCII in UTF-8 too. `\` as `/`.
fn decode_all(path: &str) -> String {
    let mut decoded = Vec::with_capacity(path.len());
    for byte in path.bytes() {
        decoded.push(byte);
        // What an escape stands for may be the end of another one.
        while let Some((taken, byte)) = decoded_end(&decoded) {
            decoded.truncate(decoded.len() - taken);
            decoded.push(byte);
        }
    }
    String::from_utf8_lossy(&decoded).replace('\\', "/")
}

/// What the end of a text stands for, and how many bytes that is.
fn decoded_end(text: &[u8]) -> Option<(usize, u8)> {
    match text {
        [.., first @ (0xc0 | 0xc1), second @ 0x80..=0xbf] => Some((2, (first & 1) << 6 | second & 0x3f)),
        _ => Some((3, escaped(text.last_chunk::<3>()?)?)),
    }
}

/// The byte that an escape at the beginning stands for.
fn escaped(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Without `.` and `..` (RFC 3986, section 5.2.4), and whether there was a `..`.
fn resolve(path: &str) -> (String, bool) {
    let mut kept: Vec<&str> = Vec::new();
    let mut climbs = false;
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    climbs = true;
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    let mut resolved = String::with_capacity(path.len());
    for segment in kept {
        resolved.push('/');
        resolved.push_str(segment);
    }
    if resolved.is_empty() {
        resolved.push('/');
    }
    (resolved, climbs)
}

/// What comes after a host, when slashes at the beginning can be read as that of one: the path of `//host/a`.
fn behind_host(path: &str) -> Option<&str> {
    let host = path.strip_prefix("//")?.trim_start_matches('/');
    Some(host.find('/').map_or("/", |at| &host[at..]))
}

fn merged(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !merged.ends_with('/') {
            merged.push(character);
        }
    }
    merged
}

/// Up to a `?`, a `#` or a NUL, and each segment to its first `;`.
fn without_parameters(path: &str) -> String {
    let path = path.split(['?', '#', '\0']).next().unwrap_or_default();
    let mut plain = String::with_capacity(path.len());
    for (number, segment) in path.split('/').enumerate() {
        if number > 0 {
            plain.push('/');
        }
        plain.push_str(segment.split(';').next().unwrap_or_default());
    }
    plain
}

#[cfg(test)]
mod tests;
