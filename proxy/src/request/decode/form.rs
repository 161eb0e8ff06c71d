//! Forms in which a model is named (`multipart/form-data`, RFC 7578): audio and images of OpenAI's API.
//!
//! Only what every parser reads alike counts: one boundary, CRLF everywhere, plain names.

use memchr::memmem;

use crate::http::RequestHead;

/// Longest name of a model, bytes.
const LONGEST: usize = 256;

/// Parsers could read different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unclear;

/// The model that a form names.
///
/// # Errors
/// Some parser may read another.
pub fn model(head: &RequestHead, body: &[u8]) -> Result<Option<Box<str>>, Unclear> {
    let kind = head.headers.get("content-type").unwrap_or_default();
    let delimiter = [b"\r\n--", boundary(kind).ok_or(Unclear)?].concat();
    let mut rest = body.strip_prefix(&delimiter[2..]).ok_or(Unclear)?;
    let mut model = None;
    loop {
        if let Some(end) = rest.strip_prefix(b"--") {
            return if end.is_empty() || end == b"\r\n" { Ok(model) } else { Err(Unclear) };
        }
        let part = rest.strip_prefix(b"\r\n").ok_or(Unclear)?;
        let end = memmem::find(part, &delimiter).ok_or(Unclear)?;
        rest = &part[end + delimiter.len()..];
        let part = &part[..end];
        let head_end = memmem::find(part, b"\r\n\r\n").ok_or(Unclear)?;
        let (name, file) = name(&part[..head_end])?;
        if !may_be_model(name) {
            continue;
        }
        let value = &part[head_end + 4..];
        let plain =
            value.len() <= LONGEST && !value.is_empty() && value.iter().all(|byte| !byte.is_ascii_control());
        let value = std::str::from_utf8(value).map_err(|_| Unclear)?;
        if name != "model" || file || !plain || model.replace(value.into()).is_some() {
            return Err(Unclear);
        }
    }
}

/// Whether some parser may take a field of this name for the model: `Model`, `model[]`, `model.x`.
fn may_be_model(name: &str) -> bool {
    let start = name.trim().split(['[', '.', '\0']).next().unwrap_or_default();
    start.trim_end().eq_ignore_ascii_case("model")
}

/// The boundary, if there is one that everybody reads alike.
fn boundary(kind: &[u8]) -> Option<&[u8]> {
    let mut found = None;
    for parameter in kind.split(|byte| *byte == b';').skip(1) {
        let parameter = parameter.trim_ascii();
        let (key, value) = parameter.split_at(parameter.iter().position(|byte| *byte == b'=')?);
        let value = &value[1..];
        let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        // `boundary*` (RFC 2231) is one to some.
        if key.len() >= 8 && key[..8].eq_ignore_ascii_case(b"boundary") {
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(byte);
            let good = key.len() == 8 && (1..=70).contains(&value.len()) && value.iter().all(plain);
            if !good || found.replace(value).is_some() {
                return None;
            }
        }
    }
    found
}

/// The name of a part, and whether it is a file.
fn name(head: &[u8]) -> Result<(&str, bool), Unclear> {
    let head = std::str::from_utf8(head).map_err(|_| Unclear)?;
    let mut found = None;
    for line in head.split("\r\n") {
        let (field, value) = line.split_once(':').ok_or(Unclear)?;
        // A field that is folded, or whose name is odd, is another to some.
        if !field.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            || value.contains(['\r', '\n'])
        {
            return Err(Unclear);
        }
        if field.eq_ignore_ascii_case("content-transfer-encoding") {
            return Err(Unclear);
        }
        if !field.eq_ignore_ascii_case("content-disposition") {
            continue;
        }
        if found.replace(disposition(value)?).is_some() {
            return Err(Unclear);
        }
    }
    found.ok_or(Unclear)
}

fn disposition(value: &str) -> Result<(&str, bool), Unclear> {
    let mut rest = value.trim().strip_prefix("form-data").ok_or(Unclear)?;
    let (mut name, mut file) = (None, false);
    while let Some(parameter) = rest.trim_start().strip_prefix(';') {
        let (key, quoted) = parameter.trim_start().split_once("=\"").ok_or(Unclear)?;
        let (text, after) = quoted.split_once('"').ok_or(Unclear)?;
        if text.contains('\\') {
            return Err(Unclear);
        }
        match key {
            "name" if name.is_none() => name = Some(text),
            "filename" if !file => file = true,
            _ => return Err(Unclear),
        }
        rest = after;
    }
    match rest.trim().is_empty() {
        true => name.map(|name| (name, file)).ok_or(Unclear),
        false => Err(Unclear),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, body: &str) -> Result<Option<Box<str>>, Unclear> {
        let mut head = RequestHead::new(http::Method::POST, "agent", "/v1/audio/transcriptions");
        assert!(head.headers.append("content-type", kind.as_bytes()));
        model(&head, body.as_bytes())
    }

    const KIND: &str = "multipart/form-data; boundary=b";

    fn part(disposition: &str, value: &str) -> String {
        format!("--b\r\nContent-Disposition: {disposition}\r\n\r\n{value}\r\n")
    }

    #[test]
    fn the_model_of_a_plain_form_is_read() {
        let file = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a b.mp3\"\r\nContent-Type: audio/mpeg\r\n\r\n\0\r\n--x\r\n";
        let model = part("form-data; name=\"model\"", "big");
        let both = format!("{file}{model}--b--\r\n");
        assert_eq!(read(KIND, &both), Ok(Some("big".into())));
        assert_eq!(read("multipart/form-data; boundary=\"b\"", &both), Ok(Some("big".into())));
        assert_eq!(read(KIND, &format!("{file}--b--")), Ok(None));
    }

    #[test]
    fn what_parsers_could_read_differently_is_unclear() {
        let good = part("form-data; name=\"model\"", "small");
        let form = |more: &str| format!("{good}{more}--b--\r\n");
        for odd in [
            form(&part("form-data; name=\"model\"", "big")),
            form(&part("form-data; name=\"Model\"", "big")),
            form(&part("form-data; name=\"model[]\"", "big")),
            form(&part("form-data; name=model", "big")),
            form(&part("form-data; name=\"x\"; name*=utf-8''model", "big")),
            form(&part("form-data; name=\"mod\\el\"", "big")),
            form(&part("form-data; name=\"x\"; name=\"model\"", "big")),
            form("--b\r\nContent-Disposition: form-data;\r\n name=\"model\"\r\n\r\nbig\r\n"),
            form("--b\nContent-Disposition: form-data; name=\"model\"\n\nbig\r\n"),
            part("form-data; name=\"model\"; filename=\"x\"", "big") + "--b--",
            part("form-data; name=\"model\"", "a\nb") + "--b--",
            format!("preamble\r\n{}", form("")),
            form("") + "--b\r\n",
            good.clone(),
        ] {
            assert_eq!(read(KIND, &odd), Err(Unclear), "{odd}");
        }
        for kind in [
            "multipart/form-data",
            "multipart/form-data; boundary=b; boundary=c",
            "multipart/form-data; boundary=b; boundary*=c",
            "multipart/form-data; boundary=\"b",
        ] {
            assert_eq!(read(kind, &form("")), Err(Unclear), "{kind}");
        }
    }
}
