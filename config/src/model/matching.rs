//! How a text is matched: exact, prefix, regular expression, presence.

use regex::bytes::Regex;

/// Istio's StringMatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StringMatch {
    /// The whole text, byte for byte.
    Exact(String),
    /// The start of the text.
    Prefix(String),
    /// The whole text against a regular expression (RE2 syntax).
    Regex(Pattern),
    /// An empty StringMatch: the thing is there, whatever its value.
    Presence,
}

/// A regular expression that has to match the whole text. Cheap to clone (the program is shared).
#[derive(Debug, Clone)]
pub struct Pattern {
    source: String,
    regex: Regex,
}

impl Pattern {
    /// Compiles `source`. The error is the regex crate's, one line.
    pub fn new(source: &str) -> Result<Pattern, String> {
        let whole = format!("^(?:{source})$");
        let build = |unicode| {
            regex::bytes::RegexBuilder::new(&whole)
                .size_limit(Self::SIZE_LIMIT)
                .dot_matches_new_line(false)
                .unicode(unicode)
                .build()
        };
        // RE2's `\d`, `\w`, `\s` and `\b` are ASCII, and so is this crate without Unicode (which also compiles many
        // times quicker). What needs Unicode (`\p{L}`, `[é]`) is not understood then, and gets it.
        let regex = build(false).or_else(|_| build(true)).map_err(|error| first_line(source, &error))?;
        Ok(Pattern { source: source.to_owned(), regex })
    }

    /// A compiled program may take this many bytes at most.
    pub const SIZE_LIMIT: usize = 1 << 20;

    /// The expression as it was written, without anchors.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the whole of `text` matches.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

fn first_line(source: &str, error: &regex::Error) -> String {
    // The crate's message draws the pattern with a marker below; its last line says what is wrong.
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ").trim();
    format!("{last} in `{source}`")
}
