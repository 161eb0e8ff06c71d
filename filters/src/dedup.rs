//! Deduplication: a call with a key is done once, however often it arrives. [`window`] is the receiving sidecar's memory of
//! keys, [`pin`] what the calling sidecar may do with a call that perhaps was done already.
//!
//! A key counts within its scope: caller, method, authority, path and query. Who asks makes a digest of both, so nothing
//! here depends on how long they are.

pub mod pin;
pub mod window;

use std::time::Duration;

use pilotfish_config::units::duration;
pub use pin::{Pin, Pins, Tried, Where};
pub use window::{Bell, Claim, Ending, Ticket, Window};

/// How long a key is remembered after its call has ended, by default.
pub const DEFAULT_WINDOW: Duration = Duration::from_secs(600);
/// How many keys are remembered by default.
pub const DEFAULT_KEYS: usize = 10_000;
/// The longest answer that is kept for repeats, in bytes of head and body.
pub const LONGEST_ANSWER: usize = 64 * 1024;
/// How many bytes of answers are kept at once: beyond, repeats are told `already-done`. 10,000 of the longest would be 640 MB.
pub const ANSWER_BYTES: usize = 64 << 20;
/// The longest key, in bytes.
pub const LONGEST_KEY: usize = 256;

/// How a window remembers; `pilotfish.dev/dedup-window` and `pilotfish.dev/dedup-keys` on a Sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DedupSettings {
    /// For how long after a call has ended.
    pub window: Duration,
    /// How many keys.
    pub keys: usize,
}

impl Default for DedupSettings {
    fn default() -> Self {
        DedupSettings { window: DEFAULT_WINDOW, keys: DEFAULT_KEYS }
    }
}

impl DedupSettings {
    /// What annotations say, which were checked.
    pub(crate) fn read<'a>(find: impl Fn(&str) -> Option<&'a str>) -> DedupSettings {
        let default = DedupSettings::default();
        let window = find("dedup-window").and_then(|text| duration(text).ok());
        let keys = find("dedup-keys").and_then(|text| text.parse().ok());
        DedupSettings { window: window.unwrap_or(default.window), keys: keys.unwrap_or(default.keys) }
    }
}

/// The key that a field value says: a structured field's string (`"k"`, draft-ietf-httpapi-idempotency-key-header) or the bare
/// text that most clients send. `None`: empty, longer than [`LONGEST_KEY`], or not printable ASCII.
pub fn key(value: &[u8]) -> Option<Box<str>> {
    let value = value.trim_ascii();
    let key = match value.strip_prefix(b"\"") {
        Some(rest) => quoted(rest)?,
        None => value.to_vec(),
    };
    let fits = (1..=LONGEST_KEY).contains(&key.len()) && key.iter().all(|byte| matches!(byte, b' '..=b'~'));
    if !fits {
        return None;
    }
    String::from_utf8(key).ok().map(Into::into)
}

/// What stands between quotes; parameters may follow (RFC 9651, sections 3.3.3 and 3.1.2).
fn quoted(value: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut bytes = value.iter();
    loop {
        match *bytes.next()? {
            b'"' => break,
            b'\\' => text.push(*bytes.next().filter(|byte| matches!(byte, b'"' | b'\\'))?),
            byte => text.push(byte),
        }
        if text.len() > LONGEST_KEY {
            return None;
        }
    }
    let after = bytes.as_slice().trim_ascii();
    (after.is_empty() || after.starts_with(b";")).then_some(text)
}

#[cfg(test)]
mod tests;
