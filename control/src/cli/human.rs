//! Times, durations, sizes and counts as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Seconds since 1970, now.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A length of time in its largest unit, rounded down: `0 s`, `59 s`, `3 min`, `21 h`, `12 d`. Hours and days are
/// used from two of them on, so that `in 90 min` does not become `in 1 h`.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..MINUTE => format!("{seconds} s"),
        MINUTE..7200 => format!("{} min", seconds / MINUTE),
        7200..172_800 => format!("{} h", seconds / HOUR),
        _ => format!("{} d", seconds / DAY),
    }
}

/// A moment, both in seconds since 1970, as seen from `now`: `3 s ago`, `in 21 h`, `now`.
pub fn moment(at: u64, now: u64) -> String {
    match at.cmp(&now) {
        std::cmp::Ordering::Equal => "now".into(),
        std::cmp::Ordering::Less => format!("{} ago", span(now - at)),
        std::cmp::Ordering::Greater => format!("in {}", span(at - now)),
    }
}

/// When something ends: `in 21 h`, or `expired 3 min ago`.
pub fn expiry(at: u64, now: u64) -> String {
    if at <= now { format!("expired {} ago", span(now - at)) } else { moment(at, now) }
}

/// A moment in full, `2026-11-21 13:20:05 UTC`.
pub fn date(at: u64) -> String {
    let moment = i64::try_from(at).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    let Some(moment) = moment else { return "-".into() };
    let (date, hour, minute, second) = (moment.date(), moment.hour(), moment.minute(), moment.second());
    format!("{date} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Microseconds: `850 us`, `1.2 ms`, `340 ms`, `2.5 s`.
pub fn latency(micros: u64) -> String {
    let tenths = |value: u64, unit: u64, name: &str| {
        let (whole, tenth) = (value / unit, value % unit * 10 / unit);
        if whole >= 100 || tenth == 0 { format!("{whole} {name}") } else { format!("{whole}.{tenth} {name}") }
    };
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => tenths(micros, 1_000, "ms"),
        _ => tenths(micros, 1_000_000, "s"),
    }
}

/// A share of 0 to 1: `100 %`, `99.5 %`. Rounded down, so that 100 % means all.
pub fn share(share: f32) -> String {
    // A share is clamped first, so the cast neither overflows nor loses a sign.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let tenths = (f64::from(share).clamp(0.0, 1.0) * 1000.0 + 1e-3) as u64;
    if tenths.is_multiple_of(10) {
        format!("{} %", tenths / 10)
    } else {
        format!("{}.{} %", tenths / 10, tenths % 10)
    }
}

/// Bytes: `512 B`, `1.5 KiB`, `20 MiB`.
pub fn size(bytes: u64) -> String {
    let (mut unit, mut name) = (1u64, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if bytes / unit < 1024 {
            break;
        }
        (unit, name) = (unit * 1024, next);
    }
    let (whole, tenth) = (bytes / unit, bytes % unit * 10 / unit);
    if whole >= 100 || tenth == 0 { format!("{whole} {name}") } else { format!("{whole}.{tenth} {name}") }
}

/// Thousandths of a core as cores: `0.25`, `4`.
pub fn cores(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A number with its noun: `1 sidecar`, `2 sidecars`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_take_their_largest_unit() {
        let table = [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (5400, "90 min"),
            (7199, "119 min"),
            (7200, "2 h"),
            (86_400, "24 h"),
            (172_799, "47 h"),
            (172_800, "2 d"),
            (u64::MAX, "213503982334601 d"),
        ];
        for (seconds, text) in table {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn moments_are_relative_and_dates_absolute() {
        assert_eq!(moment(97, 100), "3 s ago");
        assert_eq!(moment(100, 100), "now");
        assert_eq!(moment(100 + 21 * HOUR, 100), "in 21 h");
        assert_eq!(expiry(100, 280), "expired 3 min ago");
        assert_eq!(expiry(280, 100), "in 3 min");
        assert_eq!(date(1_795_267_205), "2026-11-21 13:20:05 UTC");
        assert_eq!(date(u64::MAX), "-");
    }

    #[test]
    fn latencies_keep_three_digits() {
        let table = [
            (0, "0 us"),
            (999, "999 us"),
            (1_000, "1 ms"),
            (1_250, "1.2 ms"),
            (340_900, "340 ms"),
            (2_500_000, "2.5 s"),
        ];
        for (micros, text) in table {
            assert_eq!(latency(micros), text);
        }
    }

    #[test]
    fn a_share_is_all_only_when_it_is_all() {
        for (value, text) in [
            (1.0, "100 %"),
            (0.9999, "99.9 %"),
            (0.5, "50 %"),
            (0.0, "0 %"),
            (2.0, "100 %"),
            (f32::NAN, "0 %"),
        ] {
            assert_eq!(share(value), text);
        }
    }

    #[test]
    fn sizes_are_binary() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (20 << 20, "20 MiB"),
            (u64::MAX, "16777215 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!((cores(0), cores(250), cores(4000)), ("0".into(), "0.25".into(), "4".into()));
        for (milli, text) in [(0, "0"), (500, "0.5"), (1250, "1.25"), (20_000, "20"), (1, "0.001")] {
            assert_eq!(cores(milli), text);
        }
        assert_eq!((count(1, "sidecar"), count(0, "sidecar")), ("1 sidecar".into(), "0 sidecars".into()));
    }
}
