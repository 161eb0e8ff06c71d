//! Durations and numbers as text: parse and print.

use std::time::Duration;

/// Parses a duration as Go and Istio write it: decimal numbers with the units `h`, `m`, `s`, `ms`, `us`, `ns`,
/// one after the other (`1h2m3.5s`). The error says what is allowed.
pub fn duration(text: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "write a number with a unit, such as `300ms`, `1.5s` or `1h30m`";
    if text.starts_with('-') {
        return Err("it must not be negative");
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(FORM);
    }
    let mut total = 0u128;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(FORM)?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let nanos = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(FORM),
        };
        total = total.checked_add(scaled(number, nanos).ok_or(FORM)?).ok_or(FORM)?;
        rest = tail;
    }
    // Go's largest duration: about 292 years.
    u64::try_from(total)
        .ok()
        .filter(|nanos| *nanos <= i64::MAX as u64)
        .map(Duration::from_nanos)
        .ok_or("it is longer than 292 years")
}

/// `number` (decimal text) x `unit`, rounded down.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 20 || fraction.contains('.') {
        return None;
    }
    let mut total = if whole.is_empty() { 0 } else { whole.parse::<u128>().ok()?.checked_mul(unit)? };
    let mut scale = unit;
    for digit in fraction.bytes() {
        scale /= 10;
        total += u128::from(digit - b'0') * scale;
    }
    Some(total)
}

/// Prints a duration so that [`duration`] reads it back: `1h30m`, `1.5s`, `300ms`.
pub fn print_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    for (unit, size) in [
        ("h", 3_600_000_000_000u128),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
    ] {
        if nanos >= size && nanos.is_multiple_of(size) {
            return format!("{}{unit}", nanos / size);
        }
    }
    if nanos >= 1_000_000_000 {
        return format!("{}s", duration.as_secs_f64());
    }
    if nanos == 0 { "0s".into() } else { format!("{nanos}ns") }
}

/// Parses a whole number: decimal, `0x` and `0o` too, or a decimal number without a fraction (`80.0`, `1e3`).
pub fn whole(text: &str) -> Option<i128> {
    if let Ok(number) = text.parse::<i64>() {
        return Some(i128::from(number));
    }
    if let Ok(number) = text.parse::<u64>() {
        return Some(i128::from(number));
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(i128::from);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return u64::from_str_radix(octal, 8).ok().map(i128::from);
    }
    if !text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-')) {
        return None;
    }
    let number = text.parse::<f64>().ok()?;
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i128)
}

#[cfg(test)]
mod tests {
    use super::{duration, print_duration, whole};
    use std::time::Duration;

    #[test]
    fn durations_parse_as_go_writes_them() {
        for (text, millis) in [
            ("1h2m3.5s", 3_723_500),
            ("300ms", 300),
            ("0.25s", 250),
            (".5s", 500),
            ("0s", 0),
            ("0", 0),
            ("1.s", 1000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(duration("5us"), Ok(Duration::from_micros(5)));
        for text in ["", "5", "s", "5x", "-1s", "1s 2m", "..s", "1.2.3s", "1e3s", "99999999999h", "5 s", "+"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_print_as_they_parse() {
        for nanos in [0, 1, 1_000_000, 1_500_000_000, 90_000_000_000, 3_600_000_000_000, 61_250_000_000] {
            let time = Duration::from_nanos(nanos);
            assert_eq!(duration(&print_duration(time)), Ok(time));
        }
    }

    #[test]
    fn whole_numbers_may_be_written_in_several_ways() {
        for (text, number) in
            [("80", 80), ("-1", -1), ("0x10", 16), ("0o17", 15), ("80.0", 80), ("1e3", 1000)]
        {
            assert_eq!(whole(text), Some(number), "{text}");
        }
        for text in ["", "1.5", "x", "1_000", "NaN", "inf", "1e300"] {
            assert_eq!(whole(text), None, "{text}");
        }
    }
}
