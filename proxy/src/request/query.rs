//! Parameters of a target's query: one is set, one is taken away, and nothing that a value has in it becomes another one.

/// The target with one parameter of this name, which has this value; both as a query has them.
pub fn set(target: &str, name: &str, value: &str) -> String {
    let mut all = remove(target, name);
    all.push(if all.contains('?') { '&' } else { '?' });
    all.push_str(name);
    all.push('=');
    all.push_str(value);
    all
}

/// The target without parameters of this name, however they are written.
pub fn remove(target: &str, name: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut all = String::with_capacity(target.len() + name.len() + 32);
    all.push_str(path);
    let others = query.split('&').filter(|one| !one.is_empty() && !is_named(one, name));
    for (number, other) in others.enumerate() {
        all.push(if number == 0 { '?' } else { '&' });
        all.push_str(other);
    }
    all
}

/// What can stand in a query for this text: what is escaped already stays so.
pub fn written(text: &str) -> String {
    let (bytes, mut all) = (text.as_bytes(), String::with_capacity(text.len()));
    for (at, byte) in bytes.iter().enumerate() {
        let is_escape = || bytes.get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
        match byte {
            b'%' if is_escape() => all.push('%'),
            byte if byte.is_ascii_alphanumeric() || b"-._~!$'()*+,:@/?".contains(byte) => {
                all.push(char::from(*byte));
            }
            byte => all.push_str(&format!("%{byte:02X}")),
        }
    }
    all
}

/// Whether a parameter has this name, whichever of both is escaped.
fn is_named(parameter: &str, name: &str) -> bool {
    unescaped(parameter.split('=').next().unwrap_or_default()) == unescaped(name)
}

fn unescaped(written: &str) -> Vec<u8> {
    let written = written.as_bytes();
    let mut decoded = Vec::with_capacity(written.len());
    let mut at = 0;
    while let Some(byte) = written.get(at) {
        let hex = |at: usize| written.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_parameter_of_the_name_is_left() {
        for (target, expected) in [
            ("/a", "/a?key=K"),
            ("/a?", "/a?key=K"),
            ("/a?b=c", "/a?b=c&key=K"),
            ("/a?key=other&b=c&key=", "/a?b=c&key=K"),
            ("/a?%6bey=other&b=%2", "/a?b=%2&key=K"),
            ("/a?key", "/a?key=K"),
            ("/a?keys=1&KEY=2", "/a?keys=1&KEY=2&key=K"),
            ("/a?b=key=x", "/a?b=key=x&key=K"),
        ] {
            assert_eq!(set(target, "key", "K"), expected, "{target}");
        }
    }

    #[test]
    fn or_none() {
        for (target, expected) in [
            ("/a?key=1", "/a"),
            ("/a?b=1&k%65y=2&c", "/a?b=1&c"),
            ("/a?b", "/a?b"),
            ("/a", "/a"),
            ("/a?", "/a"),
        ] {
            assert_eq!(remove(target, "key"), expected, "{target}");
        }
        assert_eq!(remove("/a?key=1&b=2", "%6Bey"), "/a?b=2");
    }

    #[test]
    fn nothing_in_a_value_is_another_parameter() {
        for (text, expected) in [
            ("a b", "a%20b"),
            ("a&admin=1", "a%26admin%3D1"),
            ("a#b;c", "a%23b%3Bc"),
            ("a%20b", "a%20b"),
            ("100%", "100%25"),
            ("x\r\nhost: e", "x%0D%0Ahost:%20e"),
            ("\u{e4}", "%C3%A4"),
        ] {
            assert_eq!(written(text), expected, "{text:?}");
        }
    }
}
