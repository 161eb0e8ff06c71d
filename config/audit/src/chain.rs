//! One line and how it hangs on the one before: SHA-256 over the line up to and including `prev`.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

/// What stands before the hash of the record before.
const PREV: &str = ",\"prev\":\"";
/// What stands before a line's own hash.
const HASH: &str = "\",\"hash\":\"";
/// What a line begins with.
const SEQ: &[u8] = b"{\"seq\":";
/// Digits of a hash.
const DIGITS: usize = 64;
/// From the own hash's name to the line's end: the quote that closes `prev`, the name, the digits, `"}`.
const TAIL: usize = HASH.len() + DIGITS + 2;

/// A hash, as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; DIGITS]);

impl Hash {
    /// Of some bytes.
    pub fn of(bytes: &[u8]) -> Hash {
        let mut digits = [0; DIGITS];
        HEXLOWER.encode_mut(digest(&SHA256, bytes).as_ref(), &mut digits);
        Hash(digits)
    }

    /// From its digits.
    pub fn parse(digits: &[u8]) -> Option<Hash> {
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        Some(Hash(digits.try_into().ok()?)).filter(|hash| hash.0.iter().all(is_digit))
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

    /// Closes the record that begins at `from` and is open (`{"seq":8,"time_ns":..."` and no brace): its `prev`, its hash and the
    /// line's end are added, and it is the last one now. Its `seq` has to be the next.
    pub fn seal(&mut self, lines: &mut String, from: usize) {
        lines.push_str(PREV);
        lines.push_str(self.hash.as_str());
        lines.push('"');
        self.hash = Hash::of(&lines.as_bytes()[from..]);
        self.seq += 1;
        lines.push_str(&HASH[1..]);
        lines.push_str(self.hash.as_str());
        lines.push_str("\"}\n");
    }
}

/// A line that is as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Its place.
    pub seq: u64,
    /// The hash of the one before.
    pub prev: Hash,
    /// Its own.
    pub hash: Hash,
}

impl Line {
    /// Reads a line without its end. `None`: it is not as it was written.
    pub fn read(line: &[u8]) -> Option<Line> {
        let (covered, tail) = line.split_at_checked(line.len().checked_sub(TAIL - 1)?)?;
        let digits = tail.strip_prefix(&HASH.as_bytes()[1..])?.strip_suffix(b"\"}")?;
        let (body, prev) =
            covered.strip_suffix(b"\"")?.split_at_checked(covered.len().checked_sub(DIGITS + 1)?)?;
        if !body.ends_with(PREV.as_bytes()) {
            return None;
        }
        let hash = Hash::parse(digits).filter(|hash| *hash == Hash::of(covered))?;
        Some(Line { seq: seq(line)?, prev: Hash::parse(prev)?, hash })
    }

    /// The tip after it.
    pub fn tip(&self) -> Tip {
        Tip { seq: self.seq, hash: self.hash }
    }

    /// Whether it is the one that comes after `tip`.
    pub fn follows(&self, tip: &Tip) -> bool {
        self.seq == tip.seq + 1 && self.prev == tip.hash
    }
}

/// The place that a line says it has.
pub fn seq(line: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(SEQ)?;
    let end = rest.iter().take(20).position(|byte| !byte.is_ascii_digit())?;
    if rest[end] != b',' {
        return None;
    }
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

/// When a line says it was written, nanoseconds since 1970.
pub fn time(line: &[u8]) -> Option<u64> {
    let comma = line.iter().position(|byte| *byte == b',')?;
    let rest = line[comma..].strip_prefix(b",\"time_ns\":")?;
    let end = rest.iter().take(21).position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
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
            let line = Line::read(text.as_bytes()).unwrap();
            assert!(line.follows(&before), "{text}");
            before = line.tip();
            assert_eq!(time(text.as_bytes()), Some(70 + line.seq));
            let record: pilotfish_config::wire::AuditRecord = serde_json::from_str(text).unwrap();
            assert_eq!((record.seq, record.caller.as_str()), (line.seq, "a"));
            for at in 0..text.len() {
                for other in [0, b' ', b'0', b'"', text.as_bytes()[at] ^ 0x20, text.as_bytes()[at] ^ 1] {
                    let mut bytes = text.as_bytes().to_vec();
                    if other != bytes[at] {
                        bytes[at] = other;
                        assert_eq!(Line::read(&bytes), None, "{at}");
                    }
                }
                assert_eq!(Line::read(&text.as_bytes()[..at]), None);
                assert_eq!(Line::read(&text.as_bytes()[at + 1..]), None);
            }
        }
        assert_eq!(before, tip);
    }
}
