//! Kubernetes quantities: `500m`, `0.5`, `4Gi`, `1e3`. Exact, rounded up to whole units as Kubernetes does.

use std::fmt;

/// Why a text is no quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAQuantity {
    /// No number, or a unit that Kubernetes does not have.
    Malformed,
    /// Below zero.
    Negative,
    /// More than fits in 2^63.
    TooLarge,
}

impl fmt::Display for NotAQuantity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            NotAQuantity::Malformed => "a number with a Kubernetes unit is expected, such as 500m, 2 or 4Gi",
            NotAQuantity::Negative => "it cannot be below zero",
            NotAQuantity::TooLarge => "it is too large",
        })
    }
}

/// Decimal units as powers of ten.
const DECIMAL: &[(&str, i32)] = &[
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
/// Binary units as powers of two.
const BINARY: &[(&str, u32)] = &[("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// Thousandths: `0.5` and `500m` are 500.
///
/// # Errors
/// It is none, or out of range.
pub fn milli(text: &str) -> Result<u64, NotAQuantity> {
    scaled(text, 3)
}

/// Whole units: bytes, cards. `0.5` is 1.
///
/// # Errors
/// It is none, or out of range.
pub fn whole(text: &str) -> Result<u64, NotAQuantity> {
    scaled(text, 0)
}

/// The quantity times ten to the power of `shift`, rounded up.
fn scaled(text: &str, shift: i32) -> Result<u64, NotAQuantity> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, unit) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || fraction.contains('.') || digits.len() > 36 {
        return Err(if digits.len() > 36 { NotAQuantity::TooLarge } else { NotAQuantity::Malformed });
    }
    let (mut ten, two) = unit_of(unit)?;
    ten += shift - i32::try_from(fraction.len()).map_err(|_| NotAQuantity::TooLarge)?;
    let mut value: u128 = digits.parse().map_err(|_| NotAQuantity::TooLarge)?;
    if negative && value > 0 {
        return Err(NotAQuantity::Negative);
    }
    // Binary units first: with a fraction, `1.5Gi`, the division by ten has to come last.
    value = value.checked_mul(1 << two).ok_or(NotAQuantity::TooLarge)?;
    if value > 0 && ten > 38 {
        return Err(NotAQuantity::TooLarge);
    }
    let power = 10u128.checked_pow(ten.unsigned_abs());
    value = match (ten >= 0, power) {
        (_, _) if value == 0 => 0,
        (true, Some(power)) => value.checked_mul(power).ok_or(NotAQuantity::TooLarge)?,
        (true, None) => return Err(NotAQuantity::TooLarge),
        (false, Some(power)) => value.div_ceil(power),
        (false, None) => 1,
    };
    u64::try_from(value).ok().filter(|value| *value <= 1 << 63).ok_or(NotAQuantity::TooLarge)
}

/// Powers of ten and of two.
fn unit_of(unit: &str) -> Result<(i32, u32), NotAQuantity> {
    if let Some((_, ten)) = DECIMAL.iter().find(|(name, _)| *name == unit) {
        return Ok((*ten, 0));
    }
    if let Some((_, two)) = BINARY.iter().find(|(name, _)| *name == unit) {
        return Ok((0, *two));
    }
    let exponent = unit.strip_prefix(['e', 'E']).ok_or(NotAQuantity::Malformed)?;
    let plain = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if plain.is_empty() || !plain.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NotAQuantity::Malformed);
    }
    exponent.parse::<i8>().map(|ten| (ten.into(), 0)).map_err(|_| NotAQuantity::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_what_kubernetes_reads() {
        for (text, value) in [
            ("2", 2000),
            ("0.5", 500),
            (".5", 500),
            ("5.", 5000),
            ("500m", 500),
            ("1n", 1),
            ("1500u", 2),
            ("1e3", 1_000_000),
            ("1E-3", 1),
            ("+1", 1000),
            ("0", 0),
            ("-0", 0),
            ("1e-99", 1),
        ] {
            assert_eq!(milli(text), Ok(value), "{text}");
        }
        for (text, value) in [
            ("4Gi", 4 << 30),
            ("1.5Gi", 3 << 29),
            ("1k", 1000),
            ("1M", 1_000_000),
            ("0.5", 1),
            ("100m", 1),
            ("1E", 1_000_000_000_000_000_000),
            ("4e9", 4_000_000_000),
        ] {
            assert_eq!(whole(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_said() {
        for text in ["", "Gi", "4 Gi", "4GB", "1.2.3", ".", "1e", "1e+", "1ex", "x", "++1", "1gi", "４"] {
            assert_eq!(whole(text), Err(NotAQuantity::Malformed), "{text}");
        }
        assert_eq!(whole("-1"), Err(NotAQuantity::Negative));
        let long = "9".repeat(40);
        for text in ["16Ei", "1e99", "99999999999E", "1e999", &long] {
            assert_eq!(whole(text), Err(NotAQuantity::TooLarge), "{text}");
        }
    }
}
