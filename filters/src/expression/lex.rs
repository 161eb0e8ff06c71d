//! A condition as words, texts, numbers and signs, each with its place.

use super::ExpressionError;

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A name or a keyword.
    Word(String),
    /// A text in quotes, without them.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A number.
    Double(f64),
    /// A span of time in nanoseconds.
    Duration(i64),
    /// An operator or a bracket.
    Sign(&'static str),
    /// Nothing more.
    End,
}

impl Token {
    /// As errors call it.
    pub(super) fn shown(&self) -> String {
        match self {
            Token::Word(word) => format!("`{word}`"),
            Token::Text(_) => "a text".into(),
            Token::Int(_) | Token::Double(_) => "a number".into(),
            Token::Duration(_) => "a duration".into(),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::End => "the end".into(),
        }
    }
}

/// Longer ones first.
const SIGNS: [&str; 18] =
    ["&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", ",", ".", "-", "?", ":"];

/// What is wrong at byte `at` of `source`.
pub(super) fn error(source: &str, at: usize, message: String, hint: Option<String>) -> ExpressionError {
    let before = &source[..at.min(source.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    ExpressionError { line, column, message, hint }
}

/// All tokens, each with the byte at which it begins; the last is [`Token::End`].
pub(super) fn lex(source: &str) -> Result<Vec<(usize, Token)>, ExpressionError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = source[at..].chars().next() {
        let rest = &source[at..];
        let begins = at;
        let token = if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        } else if let Some(raw) = rest.strip_prefix(['r', 'R']).filter(|raw| raw.starts_with(['\'', '"'])) {
            let (text, read) = quoted(source, at + 1, raw, true)?;
            at += 1 + read;
            Token::Text(text)
        } else if matches!(c, '\'' | '"') {
            let (text, read) = quoted(source, at, rest, false)?;
            at += read;
            Token::Text(text)
        } else if c.is_ascii_digit()
            || (c == '.' && rest[1..].starts_with(|next: char| next.is_ascii_digit()))
        {
            let read = number_end(rest);
            at += read;
            number(&rest[..read]).map_err(|(message, hint)| error(source, begins, message, hint))?
        } else if c.is_ascii_alphabetic() || c == '_' {
            let read = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            at += read;
            Token::Word(rest[..read].to_owned())
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            at += sign.len();
            Token::Sign(sign)
        } else {
            let hint = match c {
                '=' => Some("write `==`"),
                '&' => Some("write `&&`"),
                '|' => Some("write `||`"),
                '‘' | '’' | '“' | '”' => Some("write straight quotes: 'text'"),
                '+' | '*' | '/' | '%' => Some("conditions do not calculate"),
                _ => None,
            };
            return Err(error(
                source,
                at,
                format!("unexpected `{}`", c.escape_default()),
                hint.map(Into::into),
            ));
        };
        tokens.push((begins, token));
    }
    tokens.push((source.len(), Token::End));
    Ok(tokens)
}

/// How far a number with its unit goes.
fn number_end(text: &str) -> usize {
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        let sign = matches!(c, '+' | '-') && matches!(before, 'e' | 'E') && !text.starts_with("0x");
        if !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | 'µ' | 'μ') || sign) {
            return at;
        }
        before = c;
    }
    text.len()
}

fn number(text: &str) -> Result<Token, (String, Option<String>)> {
    let large = || (format!("`{text}` is too large"), None);
    if let Some(hex) = text.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).map(Token::Int).map_err(|_| large());
    }
    // CEL's unsigned numbers are numbers here.
    let digits = text.strip_suffix(['u', 'U']).unwrap_or(text);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return digits.parse().map(Token::Int).map_err(|_| large());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'))
        && let Ok(number) = text.parse::<f64>()
    {
        return if number.is_finite() { Ok(Token::Double(number)) } else { Err(large()) };
    }
    duration(text).map(Token::Duration).map_err(|why| (format!("`{text}` is no number: {why}"), None))
}

/// Nanoseconds.
pub(super) fn duration(text: &str) -> Result<i64, &'static str> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |text| (-1, text));
    let read = pilotfish_config::units::duration(text)?;
    Ok(sign * i64::try_from(read.as_nanos()).map_err(|_| "it is longer than 292 years")?)
}

/// The text at the beginning of `rest`, which stands at `at` of `source`, and its bytes with the quotes.
fn quoted(source: &str, at: usize, rest: &str, raw: bool) -> Result<(String, usize), ExpressionError> {
    let mut chars = rest.char_indices();
    let quote = chars.next().map(|(_, c)| c);
    let mut text = String::new();
    while let Some((place, c)) = chars.next() {
        match c {
            _ if Some(c) == quote => return Ok((text, place + 1)),
            '\n' | '\r' => break,
            '\\' if !raw => {
                let bad = |message: String| {
                    error(source, at + place, message, Some("a backslash itself is `\\\\`".into()))
                };
                let Some((_, escaped)) = chars.next() else { break };
                let code = |digits: usize,
                            radix: u32,
                            first: Option<char>,
                            chars: &mut std::str::CharIndices<'_>| {
                    let mut value = first.map_or(Some(0), |c| c.to_digit(radix));
                    for _ in 0..digits {
                        let digit = chars.next().and_then(|(_, c)| c.to_digit(radix));
                        value = value
                            .zip(digit)
                            .and_then(|(value, digit)| value.checked_mul(radix)?.checked_add(digit));
                    }
                    value.and_then(char::from_u32)
                };
                let plain = match escaped {
                    'n' => Some('\n'),
                    'r' => Some('\r'),
                    't' => Some('\t'),
                    'a' => Some('\u{7}'),
                    'b' => Some('\u{8}'),
                    'f' => Some('\u{c}'),
                    'v' => Some('\u{b}'),
                    '\\' | '\'' | '"' | '`' | '?' => Some(escaped),
                    'x' | 'X' => code(2, 16, None, &mut chars),
                    'u' => code(4, 16, None, &mut chars),
                    'U' => code(8, 16, None, &mut chars),
                    '0'..='3' => code(2, 8, Some(escaped), &mut chars),
                    _ => None,
                };
                text.push(
                    plain
                        .ok_or_else(|| bad(format!("there is no escape `\\{}`", escaped.escape_default())))?,
                );
            }
            _ => text.push(c),
        }
    }
    Err(error(source, at, "the text has no closing quote".into(), None))
}
