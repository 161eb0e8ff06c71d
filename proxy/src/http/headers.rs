//! Header fields in one buffer: the received bytes as they are, edits appended behind them, and a small table of lines.
//!
//! A head is written out again by copying runs of untouched lines, so a proxied header costs a few nanoseconds and no allocation
//! of its own. Look-ups are linear, which for the ten to thirty fields of real messages beats a hash map.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use super::known::Known;

/// A range of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub(crate) at: u32,
    pub(crate) len: u32,
}

impl Span {
    pub(crate) fn new(at: usize, len: usize) -> Span {
        Span { at: at as u32, len: len as u32 }
    }

    pub(crate) fn end(self) -> usize {
        self.at as usize + self.len as usize
    }
}

#[derive(Debug, Clone, Copy)]
struct Line {
    name_at: u32,
    value: Span,
    name_len: u16,
    known: Known,
    /// Whether the buffer has exactly `name: value CRLF` here, so that the line can be copied as it stands.
    canonical: bool,
}

impl Line {
    fn end(&self) -> usize {
        self.value.end() + 2
    }
}

/// An ordered list of header fields. Names compare without regard to case; values are bytes.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    buf: Vec<u8>,
    lines: Vec<Line>,
    /// A bit for each known name that is, or once was, among the lines.
    seen: u32,
    /// Whether a name has, or once had, a `_`.
    underscores: bool,
}

impl Headers {
    /// An empty list.
    pub fn new() -> Self {
        Headers::default()
    }

    /// A list over a copy of `head`, to be filled with [`Headers::push_received`]. Room is left for a few edits.
    pub(crate) fn over(head: &[u8], fields: usize) -> Self {
        let mut buf = Vec::with_capacity(head.len() + 320);
        buf.extend_from_slice(head);
        Headers { buf, lines: Vec::with_capacity(fields + 6), ..Headers::default() }
    }

    /// Adds a field that is already in the buffer; both ranges lie within it and were checked by the parser.
    pub(crate) fn push_received(&mut self, name: Span, value: Span, line_end: usize) {
        let known = Known::of(self.bytes(name));
        let canonical = value.at as usize == name.end() + 2
            && line_end == value.end() + 2
            && self.buf.get(name.end() + 1) == Some(&b' ');
        self.note(known, self.bytes(name).contains(&b'_'));
        self.lines.push(Line { name_at: name.at, name_len: name.len as u16, value, known, canonical });
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.lines.iter().find(|line| self.is_named(line, name)).map(|line| self.bytes(line.value))
    }

    /// Every value of `name`, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.lines.iter().filter(move |line| self.is_named(line, name)).map(|line| self.bytes(line.value))
    }

    /// All values of `name` joined by `,`, as one list (RFC 9110 section 5.2); `cookie` is joined by `; `.
    pub fn joined(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut values = self.lines.iter().filter(|line| self.is_named(line, name));
        let first = values.next()?;
        let mut joined = Cow::Borrowed(self.bytes(first.value));
        let separator: &[u8] = if first.known == Known::Cookie { b"; " } else { b"," };
        for line in values {
            let all = joined.to_mut();
            all.extend_from_slice(separator);
            all.extend_from_slice(self.bytes(line.value));
        }
        Some(joined)
    }

    /// Whether there is a field `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.lines.iter().any(|line| self.is_named(line, name))
    }

    /// Every field as (name as received, value), in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| (self.name(line), self.bytes(line.value)))
    }

    /// Adds a field at the end. False, and nothing added, when the name is not a token or the value has CR, LF, NUL or another
    /// control character: no edit can split a message.
    pub fn append(&mut self, name: &str, value: &[u8]) -> bool {
        if !is_token(name.as_bytes()) || !is_value(value) || name.len() > usize::from(u16::MAX) {
            return false;
        }
        self.append_checked(name.as_bytes(), value);
        true
    }

    /// Adds a field whose name and value are known to be valid.
    pub(crate) fn append_checked(&mut self, name: &[u8], value: &[u8]) {
        let line = self.write_line(name, value);
        self.lines.push(line);
    }

    fn write_line(&mut self, name: &[u8], value: &[u8]) -> Line {
        let name_at = self.buf.len();
        self.buf.reserve(name.len() + value.len() + 4);
        self.buf.extend_from_slice(name);
        self.buf.extend_from_slice(b": ");
        let value_at = self.buf.len();
        self.buf.extend_from_slice(value);
        self.buf.extend_from_slice(b"\r\n");
        let known = Known::of(name);
        self.note(known, name.contains(&b'_'));
        let value = Span::new(value_at, value.len());
        Line { name_at: name_at as u32, name_len: name.len() as u16, value, known, canonical: true }
    }

    /// Sets `name` to one value, in the place of its first field when there is one. False as for [`Headers::append`].
    pub fn set(&mut self, name: &str, value: &[u8]) -> bool {
        if !is_token(name.as_bytes()) || !is_value(value) || name.len() > usize::from(u16::MAX) {
            return false;
        }
        let Some(first) = self.lines.iter().position(|line| self.is_named(line, name)) else {
            self.append_checked(name.as_bytes(), value);
            return true;
        };
        let line = self.write_line(name.as_bytes(), value);
        let mut at = 0;
        let buf = &self.buf;
        self.lines.retain(|old| {
            at += 1;
            at <= first + 1 || !named(buf, old, name)
        });
        if let Some(slot) = self.lines.get_mut(first) {
            *slot = line;
        }
        true
    }

    /// Removes every field `name`; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.lines.len();
        let buf = &self.buf;
        self.lines.retain(|line| !named(buf, line, name));
        self.lines.len() != before
    }

    /// Keeps the fields for which `keep(name, value)` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let buf = &self.buf;
        self.lines.retain(|line| keep(name_in(buf, line), slice(buf, line.value)));
    }

    fn note(&mut self, known: Known, underscore: bool) {
        self.seen |= known.bit();
        self.underscores |= underscore;
    }

    /// Removes the fields whose name looks to many agents like `is` says of a name: they read `_` in it as `-` (CGI, WSGI).
    pub(crate) fn remove_disguised(&mut self, is: impl Fn(&[u8]) -> bool) {
        if self.underscores {
            self.retain(|name, _| !name.contains(&b'_') || !is(name));
        }
    }

    /// Whether a field of this set may be there: exact until something is removed, then an over-estimate.
    pub(crate) fn may_have(&self, set: u32) -> bool {
        self.seen & set != 0
    }

    /// The values of a known name.
    pub(crate) fn known(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let lines: &[Line] = if self.may_have(known.bit()) { &self.lines } else { &[] };
        lines.iter().filter(move |line| line.known == known).map(|line| self.bytes(line.value))
    }

    /// Where the value of the first field of a known name lies.
    pub(crate) fn known_span(&self, known: Known) -> Option<Span> {
        if !self.may_have(known.bit()) {
            return None;
        }
        self.lines.iter().find(|line| line.known == known).map(|line| line.value)
    }

    /// Every field as (what the engine knows of the name, name, where its value lies in [`Headers::buffer`]).
    pub(crate) fn iter_known(&self) -> impl Iterator<Item = (Known, &[u8], Span)> {
        self.lines.iter().map(|line| (line.known, self.name(line), line.value))
    }

    /// The buffer that all ranges refer to.
    pub(crate) fn buffer(&self) -> &[u8] {
        &self.buf
    }

    /// Removes the fields whose known name is in `set`.
    pub(crate) fn remove_known(&mut self, set: u32) {
        if self.may_have(set) {
            self.lines.retain(|line| line.known.bit() & set == 0 || line.known == Known::Other);
            self.seen &= !set;
        }
    }

    /// Sets a known name's field in place, or puts it first.
    pub(crate) fn set_first(&mut self, known: Known, name: &[u8], value: &[u8]) {
        let line = self.write_line(name, value);
        match self.lines.iter_mut().find(|old| old.known == known) {
            Some(slot) => *slot = line,
            None => self.lines.insert(0, line),
        }
    }

    /// Sets a known name's field in place, or adds it at the end; further ones are removed. The value is valid.
    pub(crate) fn put(&mut self, known: Known, name: &str, value: &[u8]) {
        if !self.may_have(known.bit()) {
            return self.append_checked(name.as_bytes(), value);
        }
        self.set(name, value);
    }

    /// Appends bytes that are no field (a request target, an authority) and says where they are.
    pub(crate) fn stash(&mut self, bytes: &[u8]) -> Span {
        let at = self.buf.len();
        self.buf.extend_from_slice(bytes);
        Span::new(at, bytes.len())
    }

    /// The bytes of a range; empty when it is none of ours.
    #[inline]
    pub(crate) fn bytes(&self, span: Span) -> &[u8] {
        slice(&self.buf, span)
    }

    /// The text of a range that the parser found to be ASCII.
    #[inline]
    pub(crate) fn text(&self, span: Span) -> &str {
        std::str::from_utf8(self.bytes(span)).unwrap_or_default()
    }

    /// Writes every field but those whose known name is in `skip`, each as `name: value CRLF`, neighbours in one copy.
    pub(crate) fn write_to(&self, out: &mut BytesMut, skip: u32) {
        let skip = skip & !Known::Other.bit();
        let mut run = 0..0usize;
        for line in &self.lines {
            if line.known.bit() & skip != 0 {
                continue;
            }
            if line.canonical && line.name_at as usize == run.end {
                run.end = line.end();
                continue;
            }
            out.put_slice(self.buf.get(run).unwrap_or_default());
            if line.canonical {
                run = line.name_at as usize..line.end();
            } else {
                run = 0..0;
                out.put_slice(self.name(line));
                out.put_slice(b": ");
                out.put_slice(self.bytes(line.value));
                out.put_slice(b"\r\n");
            }
        }
        out.put_slice(self.buf.get(run).unwrap_or_default());
    }

    /// The bytes that [`Headers::write_to`] may write at most.
    pub(crate) fn written_len(&self) -> usize {
        self.lines.iter().map(|line| usize::from(line.name_len) + line.value.len as usize + 4).sum()
    }

    fn name(&self, line: &Line) -> &[u8] {
        name_in(&self.buf, line)
    }

    #[inline]
    fn is_named(&self, line: &Line, name: &str) -> bool {
        named(&self.buf, line, name)
    }
}

#[inline]
fn slice(buf: &[u8], span: Span) -> &[u8] {
    buf.get(span.at as usize..span.end()).unwrap_or_default()
}

#[inline]
fn name_in<'a>(buf: &'a [u8], line: &Line) -> &'a [u8] {
    slice(buf, Span { at: line.name_at, len: u32::from(line.name_len) })
}

#[inline]
fn named(buf: &[u8], line: &Line, name: &str) -> bool {
    usize::from(line.name_len) == name.len() && name_in(buf, line).eq_ignore_ascii_case(name.as_bytes())
}

/// Whether two names are the same, in any case, to those who read `_` in a header's name as `-`.
pub(crate) fn alike(a: &[u8], b: &[u8]) -> bool {
    let plain = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    a.len() == b.len() && a.iter().map(plain).eq(b.iter().map(plain))
}

/// Whether `bytes` is a token (RFC 9110 section 5.6.2), as names and methods are.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| TOKEN[usize::from(b)])
}

/// Whether `bytes` may be a field value: no control character but the tab.
pub(crate) fn is_value(bytes: &[u8]) -> bool {
    bytes.iter().all(|&b| b == b'\t' || (b >= b' ' && b != 0x7f))
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0;
    while i < 128 {
        let b = i as u8;
        table[i] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn written(headers: &Headers, skip: u32) -> String {
        let mut out = BytesMut::new();
        headers.write_to(&mut out, skip);
        String::from_utf8(out.to_vec()).unwrap()
    }

    fn sample() -> Headers {
        let mut headers = Headers::new();
        assert!(headers.append("Host", b"a"));
        assert!(headers.append("X-One", b"1"));
        assert!(headers.append("x-two", b"2"));
        assert!(headers.append("X-ONE", b"3"));
        headers
    }

    #[test]
    fn looks_up_without_regard_to_case_and_joins() {
        let headers = sample();
        assert_eq!(headers.get("x-one"), Some(&b"1"[..]));
        assert_eq!(headers.get_all("x-one").count(), 2);
        assert_eq!(headers.joined("x-one").as_deref(), Some(&b"1,3"[..]));
        assert_eq!(headers.joined("x-two"), Some(Cow::Borrowed(&b"2"[..])));
        assert_eq!(headers.joined("x-none"), None);
    }

    #[test]
    fn set_replaces_in_place_and_drops_the_others() {
        let mut headers = sample();
        assert!(headers.set("x-one", b"new"));
        assert_eq!(written(&headers, 0), "Host: a\r\nx-one: new\r\nx-two: 2\r\n");
        assert!(headers.set("x-three", b"3"));
        assert_eq!(headers.get("x-three"), Some(&b"3"[..]));
    }

    #[test]
    fn removal_and_skipping() {
        let mut headers = sample();
        assert!(headers.remove("X-ONE") && !headers.remove("x-one"));
        assert_eq!(written(&headers, Known::Host.bit()), "x-two: 2\r\n");
    }

    #[test]
    fn no_edit_can_split_a_message() {
        let mut headers = Headers::new();
        for value in [&b"a\r\nb: c"[..], b"a\nb", b"a\0", b"\x7f"] {
            assert!(!headers.append("x", value) && !headers.set("x", value));
        }
        for name in ["", "a b", "a:", "a\r\nb", "é"] {
            assert!(!headers.append(name, b"v") && !headers.set(name, b"v"));
        }
        assert!(headers.is_empty());
    }

    #[test]
    fn odd_spacing_is_written_in_the_usual_form() {
        let raw = b"A:1\r\nB:  2 \r\nC: 3\r\n";
        let mut headers = Headers::over(raw, 3);
        headers.push_received(Span::new(0, 1), Span::new(2, 1), 5);
        headers.push_received(Span::new(5, 1), Span::new(9, 1), 13);
        headers.push_received(Span::new(13, 1), Span::new(16, 1), 19);
        assert_eq!(written(&headers, 0), "A: 1\r\nB: 2\r\nC: 3\r\n");
    }
}
