//! Text that came from outside, made safe for one line of a log: nothing in it can end the line, move a terminal's
//! cursor, or look like another field.

use std::fmt::Write;

/// Appends `value`, bare when it is plain and otherwise in quotes with everything unusual escaped.
pub fn push_value(line: &mut String, value: &str) {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\');
    if !value.is_empty() && value.bytes().all(plain) {
        line.push_str(value);
    } else {
        push_quoted(line, value);
    }
}

/// Appends `value` as a JSON string: quotes, backslashes and every control character escaped, and also the
/// characters beyond ASCII that end a line or change the direction of text.
pub fn push_quoted(line: &mut String, value: &str) {
    line.push('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            line.push('\\');
            line.push(c);
        } else {
            push_visible(line, c);
        }
    }
    line.push('"');
}

/// Appends a sentence as it is, except for what could end the line or deceive its reader.
pub fn push_sentence(line: &mut String, sentence: &str) {
    sentence.chars().for_each(|c| push_visible(line, c));
}

fn push_visible(line: &mut String, c: char) {
    match c {
        '\n' => line.push_str("\\n"),
        '\r' => line.push_str("\\r"),
        '\t' => line.push_str("\\t"),
        _ if c.is_control() || is_treacherous(c) => {
            let _ = write!(line, "\\u{:04x}", u32::from(c));
        }
        _ => line.push(c),
    }
}

/// Line and paragraph separators, zero-width and bidirectional controls: invisible, yet they change what is read.
fn is_treacherous(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Appends a UTC time as RFC 3339 with milliseconds, `2026-11-21T09:09:30.123Z`.
pub fn push_time(line: &mut String, since_epoch: std::time::Duration) {
    let seconds = since_epoch.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let millis = since_epoch.subsec_millis();
    let _ = write!(line, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z");
}

/// Year, month and day of a day counted from 1970-01-01, in eras of 400 years that start on 1 March.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn value(text: &str) -> String {
        let mut line = String::new();
        push_value(&mut line, text);
        line
    }

    #[test]
    fn plain_values_stay_bare() {
        assert_eq!(value("/v1/chat?x"), "/v1/chat?x");
    }

    #[test]
    fn nothing_from_outside_can_start_a_line_or_a_field() {
        assert_eq!(value("a\nerror forged=1"), r#""a\nerror forged=1""#);
        assert_eq!(value("a\r\x1b[31m"), r#""a\r\u001b[31m""#);
        assert_eq!(value("a=b"), r#""a=b""#);
        assert_eq!(value(""), r#""""#);
        assert_eq!(value("\u{2028}\u{202e}\u{85}"), r#""\u2028\u202e\u0085""#);
        assert_eq!(value(r#"say "\""#), r#""say \"\\\"""#);
    }

    #[test]
    fn quoted_text_is_json() {
        let outside: String = (0..0x3000).filter_map(char::from_u32).collect();
        let mut line = String::new();
        push_quoted(&mut line, &outside);
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), outside);
    }

    #[test]
    fn times_are_utc() {
        let time = |seconds, millis| {
            let mut line = String::new();
            push_time(&mut line, Duration::from_secs(seconds) + Duration::from_millis(millis));
            line
        };
        assert_eq!(time(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(951_827_696, 7), "2000-02-29T12:34:56.007Z");
        assert_eq!(time(1_798_761_599, 999), "2026-12-31T23:59:59.999Z");
        assert_eq!(time(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }
}
