//! How long a call may still take: `agent-deadline-ms`, `grpc-timeout`, the route's timeout.
//!
//! What is left travels from hop to hop and only shrinks: each hop sends what is left at the moment of sending, rounded down.

use std::time::Duration;

use serde_json::{Value, json};

/// The field by which a caller says how many milliseconds it still waits.
pub const AGENT_DEADLINE: &str = "agent-deadline-ms";
/// The same for gRPC ("gRPC over HTTP2", Timeout).
pub const GRPC_TIMEOUT: &str = "grpc-timeout";

/// How long nothing may move on a stream when nobody says (Envoy's `stream_idle_timeout`).
pub const STREAM_IDLE: Duration = Duration::from_secs(300);

/// A longer time is this: a year is as good as for ever, and sums stay small.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The times of a rule besides its timeout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the head of an answer, over all tries; `None`: none.
    pub response_header: Option<Duration>,
    /// How long nothing may move; `None`: for ever.
    pub stream_idle: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { response_header: None, stream_idle: Some(STREAM_IDLE) }
    }
}

impl Timeouts {
    /// For a person; a time that is not there is `null`.
    pub(crate) fn describe(&self) -> Value {
        let millis = |time: Option<Duration>| time.map(|time| time.as_millis() as u64);
        json!({
            "response_header_ms": millis(self.response_header),
            "stream_idle_ms": millis(self.stream_idle),
        })
    }
}

/// Reads `agent-deadline-ms`: a whole number of milliseconds. `None` for anything else.
pub fn parse_millis(value: &[u8]) -> Option<Duration> {
    let digits = std::str::from_utf8(value.trim_ascii()).ok().filter(|text| !text.is_empty())?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // More digits than a u64 has are a long time, no mistake.
    let millis = digits.parse::<u64>().unwrap_or(u64::MAX);
    Some(Duration::from_millis(millis).min(LONGEST))
}

/// Reads `grpc-timeout`: at most eight digits and a unit. `None` for anything else, which Envoy ignores too.
pub fn parse_grpc(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.trim_ascii().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(digits).ok()?.parse::<u64>().ok()?;
    let time = match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    };
    Some(time.min(LONGEST))
}

/// `agent-deadline-ms` for what is left; `None` when that is less than a millisecond: then the call is over.
pub fn print_millis(left: Duration) -> Option<String> {
    match left.min(LONGEST).as_millis() {
        0 => None,
        millis => Some(millis.to_string()),
    }
}

/// `grpc-timeout` for what is left, in the finest unit whose number has eight digits.
pub fn print_grpc(left: Duration) -> String {
    const MOST: u128 = 99_999_999;
    let left = left.min(LONGEST);
    for (number, unit) in [(left.as_micros(), 'u'), (left.as_millis(), 'm')] {
        if number <= MOST {
            return format!("{number}{unit}");
        }
    }
    format!("{}S", left.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_digits_and_nothing_else() {
        assert_eq!(parse_millis(b"1500"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_millis(b" 0 "), Some(Duration::ZERO));
        assert_eq!(parse_millis(b"99999999999999999999999999"), Some(LONGEST));
        for bad in ["", " ", "-1", "+1", "1.5", "1s", "0x10", "1 2", "\u{661}"] {
            assert_eq!(parse_millis(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(parse_millis(b"\xff"), None);
    }

    #[test]
    fn grpc_timeouts_are_those_of_its_specification() {
        for (text, micros) in [
            ("1H", 3_600_000_000),
            ("2M", 120_000_000),
            ("3S", 3_000_000),
            ("4m", 4000),
            ("5u", 5),
            ("6000n", 6),
        ] {
            assert_eq!(parse_grpc(text.as_bytes()), Some(Duration::from_micros(micros)), "{text}");
        }
        assert_eq!(parse_grpc(b"99999999H"), Some(LONGEST));
        for bad in ["", "1", "S", "-1S", "123456789S", "1s", "1.5S", "1 S"] {
            assert_eq!(parse_grpc(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_printed_is_never_more_than_what_is_left() {
        let mut rng = fastrand::Rng::with_seed(4);
        for _ in 0..10_000 {
            let left = Duration::from_nanos(rng.u64(..) >> rng.u32(..60));
            let grpc = parse_grpc(print_grpc(left).as_bytes()).unwrap();
            assert!(grpc <= left && grpc + Duration::from_secs(1) > left.min(LONGEST), "{left:?} {grpc:?}");
            match print_millis(left) {
                None => assert!(left < Duration::from_millis(1)),
                Some(text) => {
                    let millis = parse_millis(text.as_bytes()).unwrap();
                    assert!(millis <= left && !millis.is_zero(), "{left:?} {millis:?}");
                }
            }
        }
    }
}
