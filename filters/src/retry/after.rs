//! What an answer says about when to come back: `Retry-After` (RFC 9110 section 10.2.3) and gRPC's `grpc-retry-pushback-ms`.

use std::time::Duration;

/// No wait is longer, whatever an answer asks for (Envoy's default of `max_interval`, Linkerd's cap).
pub const LONGEST: Duration = Duration::from_secs(300);

/// When to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pushback {
    /// Nothing is said.
    #[default]
    None,
    /// After so long, at most [`LONGEST`].
    After(Duration),
    /// Not at all.
    Never,
}

impl Pushback {
    /// Reads the two headers. `now` gives the seconds since 1970 from which a date is counted; it is asked for dates only.
    pub fn read(
        pushback_ms: Option<&[u8]>,
        retry_after: Option<&[u8]>,
        now: impl FnOnce() -> u64,
    ) -> Pushback {
        if let Some(value) = pushback_ms {
            return grpc(value);
        }
        let Some(value) = retry_after.map(<[u8]>::trim_ascii) else { return Pushback::None };
        let seconds = match number(value) {
            Some(seconds) => Some(seconds),
            None => date(value).map(|at| at.saturating_sub(now())),
        };
        // What cannot be read says nothing.
        seconds.map_or(Pushback::None, |seconds| Pushback::After(Duration::from_secs(seconds).min(LONGEST)))
    }
}

/// gRPC's proposal A6: what is negative or no number means "not at all".
fn grpc(value: &[u8]) -> Pushback {
    match number(value.trim_ascii()) {
        Some(millis) => Pushback::After(Duration::from_millis(millis).min(LONGEST)),
        None => Pushback::Never,
    }
}

/// Digits only; what is too large for a number is as large as can be.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        text.iter().fold(0, |all: u64, digit| all.saturating_mul(10).saturating_add(u64::from(digit - b'0'))),
    )
}

/// Seconds since 1970 of an HTTP date: `Sun, 06 Nov 1994 08:49:37 GMT`. The two obsolete forms are not read.
pub fn date(text: &[u8]) -> Option<u64> {
    const MONTHS: [&[u8]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    if text.len() != 29 || text.get(3..5)? != b", " || text.get(25..)? != b" GMT" {
        return None;
    }
    let day = number(text.get(5..7)?)?;
    let month = MONTHS.iter().position(|name| text.get(8..11) == Some(name))? as u64 + 1;
    let year = number(text.get(12..16)?)?;
    let (hour, minute) = (number(text.get(17..19)?)?, number(text.get(20..22)?)?);
    let second = number(text.get(23..25)?)?;
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days since 1970-01-01 (Howard Hinnant's `days_from_civil`, for years from 1970).
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}
