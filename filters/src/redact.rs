//! What may leave in spans, logs and records, and what never: credentials. Everything that is told of a call passes here.
//!
//! * [`header`]: the value of a header, or [`HIDDEN`] when the header is for credentials;
//! * [`path`], [`query`], [`url`]: what a call asked for, without credentials in parameters, user names or segments;
//! * [`value`]: any other text, without what looks like a credential;
//! * [`variable`]: whether an environment variable may be shown.
//!
//! A text without anything to hide is borrowed as it is.

use std::borrow::Cow;

/// What stands for a credential; OpenTelemetry's semantic conventions ask for this word in `url.full`.
pub const HIDDEN: &str = "REDACTED";

/// Headers that carry credentials and whose names do not say so by one of [`WORDS`].
const HEADERS: [&str; 14] = [
    "authentication-info",
    "authorization",
    "cookie",
    "cookie2",
    "dpop",
    "proxy-authentication-info",
    "proxy-authorization",
    "set-cookie",
    "set-cookie2",
    "www-authenticate",
    "x-amz-signature",
    "x-forwarded-authorization",
    "x-goog-iap-jwt-assertion",
    "x-hub-signature",
];

/// What makes a name one of a credential, wherever it stands in it; `-`, `_`, `.` and case do not matter.
const WORDS: [&str; 21] = [
    "accesskey",
    "accountkey",
    "apikey",
    "assertion",
    "authkey",
    "authorization",
    "bearer",
    "clientkey",
    "cookie",
    "credential",
    "functionskey",
    "jwt",
    "masterkey",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "secret",
    "sessionkey",
    "subscriptionkey",
    "token",
];

/// Names that end in `token` or contain it and tell how many or which kind, not a secret.
const HARMLESS: [&str; 9] = [
    "completiontokens",
    "inputtokens",
    "maxcompletiontokens",
    "maxtokens",
    "outputtokens",
    "pagetoken",
    "nextpagetoken",
    "tokentype",
    "totaltokens",
];

/// Query parameters whose value never leaves, besides those with one of [`WORDS`]: those of OpenTelemetry's semantic
/// conventions (the first four), and what clients of other services send.
const PARAMETERS: [&str; 14] = [
    "sig",
    "signature",
    "awsaccesskeyid",
    "xgoogsignature",
    "xamzsignature",
    "auth",
    "code",
    "codeverifier",
    "key",
    "otp",
    "pin",
    "pwd",
    "sessionid",
    "sid",
];

/// Beginnings of keys that services hand out; what follows has to be at least [`SHORTEST`] letters and digits.
const PREFIXES: [&str; 24] = [
    "sk-",
    "sk_",
    "pk_",
    "rk_",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "xoxr-",
    "xapp-",
    "AKIA",
    "ASIA",
    "AIza",
    "ya29.",
    "hf_",
    "gsk_",
    "npm_",
    "pypi-",
];

/// How much has to follow a prefix: a shorter text is a word that begins like a key.
const SHORTEST: usize = 12;

/// Whether a header's value never leaves. Case does not matter.
pub fn is_sensitive_header(name: &str) -> bool {
    HEADERS.iter().any(|known| known.eq_ignore_ascii_case(name)) || names_credential(name)
}

/// A header's value as it may be told.
pub fn header<'v>(name: &str, value: &'v str) -> Cow<'v, str> {
    if is_sensitive_header(name) { Cow::Borrowed(HIDDEN) } else { self::value(value) }
}

/// Whether the value of a query parameter never leaves. Case does not matter.
pub fn is_sensitive_parameter(name: &str) -> bool {
    let name = plain(name);
    PARAMETERS.contains(&&*name) || names_credential(&name)
}

/// Whether an environment variable may be shown to whoever reads the spans: neither its name nor its value is one of a
/// credential.
pub fn variable(name: &str, value: &str) -> bool {
    let named = plain(name);
    let ends = ["key", "pwd", "pass", "auth", "dsn", "sid"].iter().any(|end| named.ends_with(end));
    !ends && !names_credential(name) && !hides(value)
}

/// A path (without a query) as it may be told: segments that look like credentials are hidden, and the value of
/// `name=value` and `;name=value` in a segment when the name is one of a credential.
pub fn path(path: &str) -> Cow<'_, str> {
    let mut shown = Cow::Borrowed(path);
    if path.contains('@') {
        // A URL in the path, perhaps with its user.
        shown = pieces(path, &['/'], |segment| match segment.rsplit_once('@') {
            Some((user, host)) if user.contains(':') => Some(format!("{HIDDEN}:{HIDDEN}@{host}")),
            _ => None,
        });
    }
    if path.contains('=') {
        shown = chain(shown, |path| {
            pieces(path, &['/', ';', '&'], |piece| match piece.split_once('=') {
                Some((name, given)) if !["", HIDDEN].contains(&given) && is_sensitive_parameter(name) => {
                    Some(format!("{name}={HIDDEN}"))
                }
                _ => None,
            })
        });
    }
    chain(shown, value)
}

/// A query (without `?`) as it may be told: the names of its parameters stay, so do values that are no credentials.
pub fn query(query: &str) -> Cow<'_, str> {
    let shown = pieces(query, &['&', ';'], |piece| match piece.split_once('=') {
        Some((_, "")) => None,
        Some((_, HIDDEN)) => None,
        Some((name, given)) if is_sensitive_parameter(&decoded(name)) || hides(&decoded(given)) => {
            Some(format!("{name}={HIDDEN}"))
        }
        _ => None,
    });
    chain(shown, value)
}

/// A URL or a target as it may be told: user and password, path and query.
pub fn url(url: &str) -> Cow<'_, str> {
    let (rest, fragment) = url.split_once('#').map_or((url, None), |(rest, fragment)| (rest, Some(fragment)));
    let (before, asked) = rest.split_once('?').map_or((rest, None), |(before, asked)| (before, Some(asked)));
    let starts = scheme(before).or(before.starts_with("//").then_some(2)).unwrap_or(0);
    let ends = before[starts..].find('/').map_or(before.len(), |at| starts + at);
    let ends = if starts == 0 { 0 } else { ends };
    let host = match before[starts..ends].rsplit_once('@') {
        Some((_, host)) => Cow::Owned(format!("{HIDDEN}:{HIDDEN}@{}", value(host))),
        None => value(&before[starts..ends]),
    };
    // A fragment may hold parameters: OAuth's implicit answer has its token there.
    let told = (host, path(&before[ends..]), asked.map(query), fragment.map(query));
    if let (
        Cow::Borrowed(_),
        Cow::Borrowed(_),
        None | Some(Cow::Borrowed(_)),
        None | Some(Cow::Borrowed(_)),
    ) = told
    {
        return Cow::Borrowed(url);
    }
    let (host, path, asked, fragment) = told;
    let mut shown = [&before[..starts], &*host, &*path].concat();
    for (mark, part) in [('?', asked), ('#', fragment)] {
        if let Some(part) = part {
            shown.push(mark);
            shown.push_str(&part);
        }
    }
    Cow::Owned(shown)
}

/// Where a URL's scheme and the slashes after it end, if it has one.
fn scheme(url: &str) -> Option<usize> {
    let at = url.find("://")?;
    let name =
        url[..at].bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    name.then_some(at + 3)
}

/// Any text as it may be told: what looks like a credential in it is hidden (bearer tokens, basic credentials, JSON Web
/// Tokens, keys with known beginnings, private keys in PEM).
pub fn value(text: &str) -> Cow<'_, str> {
    // Shorter than any credential that is told apart.
    if text.len() < SHORTEST || is_harmless(text) {
        return Cow::Borrowed(text);
    }
    if text.contains("-----BEGIN") && text.contains("PRIVATE KEY") {
        return Cow::Owned(HIDDEN.to_owned());
    }
    // In paths and queries a space may be written as `%20`.
    let shown = words(text);
    if shown.contains('%') { chain(shown, encoded) } else { shown }
}

/// Hides those words of a text that look like credentials.
fn words(text: &str) -> Cow<'_, str> {
    let mut after_scheme = false;
    pieces(text, &SEPARATORS, |piece| {
        let hidden = piece != HIDDEN && ((after_scheme && piece.len() >= 6) || looks_secret(piece));
        if !piece.is_empty() {
            after_scheme = SCHEMES.iter().any(|s| piece.eq_ignore_ascii_case(s));
        }
        hidden.then(|| HIDDEN.to_owned())
    })
}

/// Between the words of a text.
const SEPARATORS: [char; 18] =
    ['/', ' ', '\t', '\r', '\n', ',', ';', '&', '=', '"', '\'', ':', '@', '?', '(', ')', '[', ']'];

/// Whether nothing in a text can be a credential, by one look at each byte: most texts are such. What is not, [`value`] looks at word by
/// word.
fn is_harmless(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (mut start, mut has_space) = (0, false);
    for at in 0..=bytes.len() {
        let byte = bytes.get(at).copied().unwrap_or(b' ');
        match KINDS[usize::from(byte)] & (SEPARATES | ENCODES) {
            0 => continue,
            ENCODES => return false,
            _ => {}
        }
        let first = bytes.get(start).map_or(0, |first| KINDS[usize::from(*first)]);
        let length = at - start;
        if (length >= SHORTEST && first & BEGINS_KEY != 0)
            || (matches!(length, 5 | 6 | 9) && first & BEGINS_SCHEME != 0)
        {
            return false;
        }
        has_space |= byte == b' ' && at < bytes.len();
        start = at + 1;
    }
    // A private key has a space in its first line.
    !(has_space && text.contains("-----BEGIN"))
}

const SEPARATES: u8 = 1;
const ENCODES: u8 = 2;
const BEGINS_KEY: u8 = 4;
const BEGINS_SCHEME: u8 = 8;

/// What each byte may be of a text, see [`is_harmless`].
const KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut at = 0;
    while at < SEPARATORS.len() {
        kinds[SEPARATORS[at] as usize] |= SEPARATES;
        at += 1;
    }
    kinds[b'%' as usize] |= ENCODES;
    at = 0;
    while at < PREFIXES.len() {
        kinds[PREFIXES[at].as_bytes()[0] as usize] |= BEGINS_KEY;
        at += 1;
    }
    // A JSON Web Token's.
    kinds[b'e' as usize] |= BEGINS_KEY;
    at = 0;
    while at < SCHEMES.len() {
        let first = SCHEMES[at].as_bytes()[0];
        kinds[first as usize] |= BEGINS_SCHEME;
        kinds[first.to_ascii_uppercase() as usize] |= BEGINS_SCHEME;
        at += 1;
    }
    kinds
};

/// After these a credential follows.
const SCHEMES: [&str; 4] = ["bearer", "basic", "digest", "negotiate"];

/// Hides percent-encoded credentials: the whole segment in which one is found once it is decoded.
fn encoded(text: &str) -> Cow<'_, str> {
    pieces(text, &['/', '&', '=', ';'], |piece| {
        (piece.contains('%') && words(&decoded(piece)) != *decoded(piece)).then(|| HIDDEN.to_owned())
    })
}

/// Whether something in a text is hidden.
fn hides(text: &str) -> bool {
    matches!(value(text), Cow::Owned(_))
}

/// Whether one word looks like a credential.
fn looks_secret(word: &str) -> bool {
    is_jwt(word) || PREFIXES.iter().any(|prefix| word.strip_prefix(prefix).is_some_and(is_key))
}

/// `header.payload.signature`, of which the first is the base64 of `{"`.
fn is_jwt(word: &str) -> bool {
    let Some(rest) = word.strip_prefix("eyJ") else { return false };
    let code = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+' | b'=');
    rest.len() >= SHORTEST && rest.contains('.') && rest.bytes().all(code)
}

/// What follows the beginning of a key: long, of letters, digits, `-` and `_`, and not only words of lower-case letters
/// (`sk-learn-regression-model` is no key).
fn is_key(rest: &str) -> bool {
    let code = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    rest.len() >= SHORTEST
        && rest.bytes().all(code)
        && rest.bytes().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}

/// Whether a name is one of a credential.
fn names_credential(name: &str) -> bool {
    let name = plain(name);
    WORDS.iter().any(|word| name.contains(word)) && !HARMLESS.contains(&&*name)
}

/// A name without what does not matter in it.
fn plain(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return Cow::Borrowed(name);
    }
    let kept = name.chars().filter(|c| c.is_alphanumeric());
    Cow::Owned(kept.map(|c| c.to_ascii_lowercase()).collect())
}

/// Percent-encoding and `+` undone; what is no valid code stays as it is.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = (byte == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        let code = code.and_then(|two| std::str::from_utf8(two).ok());
        match code.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(code) => {
                plain.push(code);
                at += 3;
            }
            None => {
                plain.push(if byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&plain).into_owned())
}

/// `text` with the pieces between separators replaced that `hide` replaces.
fn pieces<'t>(
    text: &'t str,
    separators: &[char],
    mut hide: impl FnMut(&str) -> Option<String>,
) -> Cow<'t, str> {
    let mut shown: Option<String> = None;
    let mut kept = 0;
    let mut start = 0;
    while start <= text.len() {
        let end = text[start..].find(separators).map_or(text.len(), |at| start + at);
        if let Some(instead) = hide(&text[start..end]) {
            let shown = shown.get_or_insert_with(|| String::with_capacity(text.len()));
            shown.push_str(&text[kept..start]);
            shown.push_str(&instead);
            kept = end;
        }
        start = end + text[end..].chars().next().map_or(1, char::len_utf8);
    }
    match shown {
        None => Cow::Borrowed(text),
        Some(mut shown) => {
            shown.push_str(&text[kept..]);
            Cow::Owned(shown)
        }
    }
}

/// The next step on what a step gave.
fn chain<'t>(text: Cow<'t, str>, next: impl for<'a> Fn(&'a str) -> Cow<'a, str>) -> Cow<'t, str> {
    match text {
        Cow::Borrowed(text) => next(text),
        Cow::Owned(text) => Cow::Owned(next(&text).into_owned()),
    }
}

#[cfg(test)]
mod tests;
