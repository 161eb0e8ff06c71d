//! Scalars as parts of the text. The parser makes a string of its own for nearly every scalar, with room to spare; most
//! of them are in the text as they are, and a large file has hundreds of thousands.

use std::borrow::Cow;

/// Finds scalars in the text by the parser's position, which counts characters.
pub(super) struct Place<'t> {
    text: &'t str,
    /// A position that is known: characters, bytes.
    known: (usize, usize),
    /// Characters are bytes.
    ascii: bool,
}

impl<'t> Place<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Place { text, known: (0, 0), ascii: text.is_ascii() }
    }

    /// `scalar`, which starts at that character, borrowed from the text where it is there letter by letter.
    pub(super) fn borrow(&mut self, scalar: Cow<'t, str>, start: usize) -> Cow<'t, str> {
        let Cow::Owned(owned) = scalar else { return scalar };
        let Some(start) = self.byte(start) else { return Cow::Owned(owned) };
        // Plain, or behind the quote.
        let found = [start, start + 1].into_iter().find_map(|start| {
            let slice = self.text.get(start..start + owned.len())?;
            (slice == owned).then_some(slice)
        });
        found.map_or(Cow::Owned(owned), Cow::Borrowed)
    }

    /// The byte of a character. Positions grow, so the way from the last one is short; others are not looked for.
    fn byte(&mut self, index: usize) -> Option<usize> {
        if self.ascii {
            return Some(index);
        }
        let (characters, bytes) = self.known;
        let rest = self.text.get(bytes..)?;
        let way = rest.chars().take(index.checked_sub(characters)?).map(char::len_utf8).sum::<usize>();
        self.known = (index, bytes + way);
        Some(bytes + way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn borrowed(text: &str, scalar: &str, start: usize) -> bool {
        let found = Place::new(text).borrow(Cow::Owned(scalar.to_owned()), start);
        assert_eq!(found, scalar);
        matches!(found, Cow::Borrowed(_))
    }

    #[test]
    fn plain_and_quoted_scalars_are_borrowed_others_are_kept() {
        assert!(borrowed("a: bcd", "bcd", 3));
        assert!(borrowed("a: \"bcd\"", "bcd", 3));
        assert!(borrowed("ä: 'ö'", "ö", 3));
        assert!(!borrowed(r#"a: "b\n""#, "b\n", 3));
        assert!(!borrowed("a: b\n  c", "b c", 3));
        assert!(!borrowed("a: b", "b", 99));
    }

    #[test]
    fn positions_may_stand_still_and_never_go_back() {
        let mut place = Place::new("äöü: x");
        assert_eq!((place.byte(2), place.byte(2), place.byte(3)), (Some(4), Some(4), Some(6)));
        assert_eq!(place.byte(1), None);
    }
}
