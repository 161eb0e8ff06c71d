//! How one string is compared: exact, prefix, regular expression, presence.

use pilotfish_config::model::Pattern;

/// One condition on a text.
#[derive(Debug, Clone)]
pub enum TextMatch {
    /// The whole text, byte for byte.
    Exact(Box<str>),
    /// The beginning of the text.
    Prefix(Box<str>),
    /// The whole text, by a regular expression.
    Regex(Pattern),
    /// Any text, so long as there is one.
    Present,
}

impl TextMatch {
    /// Whether `text` meets the condition.
    pub fn matches(&self, text: &[u8]) -> bool {
        match self {
            TextMatch::Exact(want) => want.as_bytes() == text,
            TextMatch::Prefix(want) => text.starts_with(want.as_bytes()),
            TextMatch::Regex(pattern) => pattern.is_match(text),
            TextMatch::Present => true,
        }
    }
}

/// A beginning that every text matched by `pattern` must have; empty when none can be told cheaply.
///
/// It lets a table of regular expressions be indexed like prefixes. Being too short costs only speed, so anything
/// unusual (alternatives at the top, flags, classes) ends it.
pub(crate) fn literal_prefix(pattern: &str) -> String {
    if has_top_level_alternative(pattern) {
        return String::new();
    }
    let mut literal = String::new();
    let mut chars = pattern.strip_prefix('^').unwrap_or(pattern).chars().peekable();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => match chars.next() {
                Some(escaped) if escaped.is_ascii_punctuation() => escaped,
                _ => break,
            },
            '.' | '[' | ']' | '(' | ')' | '{' | '}' | '*' | '+' | '?' | '^' | '$' | '|' => break,
            other => other,
        };
        // What a quantifier follows may be absent; `+` needs it at least once.
        match chars.peek() {
            Some('?' | '*' | '{') => break,
            _ => literal.push(c),
        }
    }
    literal
}

fn has_top_level_alternative(pattern: &str) -> bool {
    let (mut depth, mut in_class, mut escaped) = (0i32, false, false);
    for c in pattern.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => in_class = true,
            ']' => in_class = false,
            _ if in_class => {}
            '(' => depth += 1,
            ')' => depth -= 1,
            '|' if depth <= 0 => return true,
            _ => {}
        }
    }
    // A class that never closed was misread (`[]|a]`): say nothing about such a pattern.
    in_class || depth != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(source: &str) -> TextMatch {
        TextMatch::Regex(Pattern::new(source).unwrap())
    }

    #[test]
    fn regex_must_match_the_whole_text() {
        assert!(pattern("/a[0-9]+").matches(b"/a12"));
        assert!(!pattern("/a[0-9]+").matches(b"/a12/b"));
        assert!(!pattern("a|b").matches(b"ab"), "an alternative must not escape the anchors");
        assert!(!pattern("/a").matches(b"/a\n"));
    }

    #[test]
    fn classes_are_ascii_as_in_re2_and_unicode_still_works() {
        assert!(!pattern(r"\d").matches("٣".as_bytes()));
        assert!(pattern(r"\p{Greek}+").matches("αβγ".as_bytes()));
        assert!(pattern("[é]").matches("é".as_bytes()));
        assert!(pattern("(?i)ÉA").matches("Éa".as_bytes()));
    }

    #[test]
    fn presence_is_not_emptiness() {
        assert!(TextMatch::Present.matches(b""));
        assert!(TextMatch::Exact("".into()).matches(b""));
        assert!(!TextMatch::Exact("".into()).matches(b"x"));
    }

    #[test]
    fn literal_prefixes() {
        for (source, want) in [
            ("/api/v1/.*", "/api/v1/"),
            ("^/api", "/api"),
            (r"/a\.b/\d+", "/a.b/"),
            ("/ab?c", "/a"),
            ("/ab{0,1}", "/a"),
            ("/ab+c", "/ab"),
            ("/a|/b", ""),
            ("/x(a|b)", "/x"),
            ("(?i)/x", ""),
            ("/x[|]y", "/x"),
            ("/x[]|]y|z", ""),
            (".*", ""),
        ] {
            assert_eq!(literal_prefix(source), want, "{source}");
        }
    }
}
