//! One line and how it hangs on the one before: SHA-256 over the line, with the hash of the line before in the place of its own.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256, digest};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};

/// What a line begins with.
const SEQ: &[u8] = b"{\"seq\":";
/// What the first line of a file begins with: the hash of the line before, which is in another file.
const PREV: &[u8] = b"{\"prev\":\"";
/// What stands before a line's hash.
const HASH: &str = ",\"hash\":\"";
/// What stands behind it.
const END: &str = "\"}";
/// Digits of a hash.
const DIGITS: usize = 43;

/// A hash, as 43 digits of base64url.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; DIGITS]);

impl Hash {
    /// Of some bytes.
    pub fn of(bytes: &[u8]) -> Hash {
        Hash::encoded(digest(&SHA256, bytes).as_ref())
    }

    fn encoded(bytes: &[u8]) -> Hash {
        let mut digits = [0; DIGITS];
        BASE64URL_NOPAD.encode_mut(bytes, &mut digits);
        Hash(digits)
    }

    /// From its digits.
    pub fn parse(digits: &[u8]) -> Option<Hash> {
        let digits: [u8; DIGITS] = digits.try_into().ok()?;
        let mut bytes = [0; 32];
        BASE64URL_NOPAD.decode_mut(&digits, &mut bytes).ok()?;
        Some(Hash(digits))
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// How far a chain goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// The last record; 0: there is none.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Tip {
    /// Of a chain without records.
    pub fn origin(chain: &str) -> Tip {
        Tip { seq: 0, hash: Hash::of(format!("pilotfish audit chain {chain}").as_bytes()) }
    }

    /// Closes the record that begins at `from` and is open (`{"seq":8,"time_ns":..."` and no brace): its hash and the line's end
    /// are added, and it is the last one now. Its `seq` has to be the next.
    pub fn seal(&mut self, lines: &mut String, from: usize) {
        lines.push_str(HASH);
        let at = lines.len();
        lines.push_str(self.hash.as_str());
        self.hash = Hash::of(&lines.as_bytes()[from..]);
        self.seq += 1;
        lines.truncate(at);
        lines.push_str(self.hash.as_str());
        lines.push_str(END);
        lines.push('\n');
    }
}

/// How the first line of a file begins, behind the line `before`; the line goes on behind its brace.
pub(crate) fn prefix(before: &Hash) -> String {
    format!("{{\"prev\":\"{}\",", before.as_str())
}

/// A line that has the form of one. Whether it is as it was written, [`Line::is_behind`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its place.
    pub seq: u64,
    /// The hash that it says it has.
    pub hash: Hash,
    /// The hash of the record before, which the first line of a file says.
    pub prev: Option<Hash>,
    /// What the hash is over, without the first brace and up to the digits.
    body: &'a [u8],
}

impl<'a> Line<'a> {
    /// Reads a line without its end. `None`: it is none.
    pub fn read(line: &'a [u8]) -> Option<Line<'a>> {
        let prev = match line.strip_prefix(PREV) {
            Some(rest) => Some(Hash::parse(rest.get(..DIGITS)?)?),
            None => None,
        };
        let rest = plain(line)?;
        let (body, digits) = rest.strip_suffix(END.as_bytes())?.split_last_chunk::<DIGITS>()?;
        let hash = Hash::parse(digits).filter(|_| body.ends_with(HASH.as_bytes()))?;
        Some(Line { seq: seq(line)?, hash, prev, body })
    }

    /// The hash that it has to have behind a record with this one.
    pub fn hash_behind(&self, before: &Hash) -> Hash {
        let mut over = Context::new(&SHA256);
        for part in [b"{", self.body, &before.0] {
            over.update(part);
        }
        Hash::encoded(over.finish().as_ref())
    }

    /// Whether it is as it was written, behind a record with this hash.
    pub fn is_behind(&self, before: &Hash) -> bool {
        self.hash == self.hash_behind(before)
    }

    /// Whether it is the one that comes after `tip`, as it was written.
    pub fn follows(&self, tip: &Tip) -> bool {
        self.seq == tip.seq + 1 && self.is_behind(&tip.hash)
    }

    /// The tip after it.
    pub fn tip(&self) -> Tip {
        Tip { seq: self.seq, hash: self.hash }
    }
}

/// A line without its first brace and, of the first one of a file, without what that says of the record before.
fn plain(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(PREV) {
        Some(rest) => rest.get(DIGITS..)?.strip_prefix(b"\","),
        None => line.strip_prefix(b"{"),
    }
}

/// A line as it was sealed, whether or not it is the first one of a file.
pub fn sealed(line: &str) -> String {
    match plain(line.as_bytes()).and_then(|rest| line.get(line.len() - rest.len()..)) {
        Some(rest) if line.as_bytes().starts_with(PREV) => format!("{{{rest}"),
        _ => line.to_owned(),
    }
}

/// The place that a line says it has.
pub fn seq(line: &[u8]) -> Option<u64> {
    number(plain(line)?.strip_prefix(&SEQ[1..])?).map(|(seq, _)| seq)
}

/// When a line says it was written, nanoseconds since 1970.
pub fn time(line: &[u8]) -> Option<u64> {
    let (_, rest) = number(plain(line)?.strip_prefix(&SEQ[1..])?)?;
    number(rest.strip_prefix(b"\"time_ns\":")?).map(|(time, _)| time)
}

/// Digits that a comma ends, as nobody would write them otherwise, and what is behind it.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let end = text.iter().take(21).position(|byte| !byte.is_ascii_digit())?;
    let (digits, rest) = text.split_at(end);
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((number, rest.strip_prefix(b",")?))
}

/// Lines of version 0.1 before its release named the hash before in each line, in hexadecimal digits. They are told apart so that
/// nobody takes them for ones that were tampered with; nothing else is done with them.
pub(crate) mod older {
    use super::{HEXLOWER, SHA256, digest};

    const DIGITS: usize = 64;

    /// A hash as it was written.
    pub fn hash(bytes: &[u8]) -> String {
        HEXLOWER.encode(digest(&SHA256, bytes).as_ref())
    }

    /// Whether a line is one, and as it was written.
    pub fn is_line(line: &[u8]) -> bool {
        let own = line.strip_suffix(b"\"}").and_then(|line| line.split_last_chunk::<DIGITS>());
        let Some((body, own)) = own else { return false };
        let covered = body.strip_suffix(b",\"hash\":\"");
        covered.is_some_and(|covered| hash(covered).as_bytes() == own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back_and_any_other_byte_is_seen() {
        let mut tip = Tip::origin("c");
        let mut lines = String::new();
        for seq in 1..=2 {
            let from = lines.len();
            lines.push_str(&format!(
                "{{\"seq\":{seq},\"time_ns\":7{seq},\"what\":\"decision\",\"caller\":\"a\""
            ));
            tip.seal(&mut lines, from);
        }
        let mut before = Tip::origin("c");
        for text in lines.lines() {
            let first = format!("{}{}", prefix(&before.hash), &text[1..]);
            assert_eq!(Line::read(first.as_bytes()).unwrap().prev, Some(before.hash));
            assert_eq!(sealed(&first), text);
            for (text, named) in [(text, 0), (&*first, first.len() - text.len())] {
                let line = Line::read(text.as_bytes()).unwrap();
                assert!(line.follows(&before), "{text}");
                assert_eq!(time(text.as_bytes()), Some(70 + line.seq));
                let record: pilotfish_config::wire::AuditRecord = serde_json::from_str(text).unwrap();
                assert_eq!((record.seq, record.caller.as_str()), (line.seq, "a"));
                let good = |bytes: &[u8]| {
                    Line::read(bytes).is_some_and(|line| {
                        line.follows(&before)
                            && line.prev.is_some() == (named > 0)
                            && line.prev.is_none_or(|prev| prev == before.hash)
                    })
                };
                assert!(good(text.as_bytes()));
                for at in 0..text.len() {
                    for other in [0, b' ', b'0', b'"', text.as_bytes()[at] ^ 0x20, text.as_bytes()[at] ^ 1] {
                        let mut bytes = text.as_bytes().to_vec();
                        if other != bytes[at] {
                            bytes[at] = other;
                            assert!(!good(&bytes), "{at}");
                        }
                    }
                    assert!(!good(&text.as_bytes()[..at]));
                    assert!(!good(&text.as_bytes()[at + 1..]));
                }
            }
            before = Line::read(text.as_bytes()).unwrap().tip();
        }
        assert_eq!(before, tip);
    }

    #[test]
    fn a_line_of_the_older_format_is_told_apart() {
        let covered = format!("{{\"seq\":1,\"time_ns\":7,\"what\":\"start\",\"prev\":\"{}\"", "0".repeat(64));
        let line = format!("{covered},\"hash\":\"{}\"}}", older::hash(covered.as_bytes()));
        assert!(older::is_line(line.as_bytes()) && Line::read(line.as_bytes()).is_none());
        assert!(!older::is_line(line.replace("start", "Start").as_bytes()));
    }
}
