//! A short text of a fixed size: what a call is remembered by takes no memory of its own.

use std::fmt;

/// A text in place; what does not fit is cut off at a character.
#[derive(Clone, Copy)]
pub struct Text<const N: usize> {
    len: u8,
    bytes: [u8; N],
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Text { len: 0, bytes: [0; N] }
    }
}

impl<const N: usize> Text<N> {
    const FITS: () = assert!(N <= 255, "the length is one byte");

    /// Replaces it.
    pub fn set(&mut self, text: &str) {
        self.clear();
        self.push(text);
    }

    /// Goes on with `text`, as far as there is room.
    pub fn push(&mut self, text: &str) {
        let () = Self::FITS;
        let from = usize::from(self.len);
        let end = from + text.floor_char_boundary(N - from);
        self.bytes[from..end].copy_from_slice(&text.as_bytes()[..end - from]);
        self.len = end as u8;
    }

    /// Becomes what `other` is; copies what there is of it, not the room.
    pub fn copy(&mut self, other: &Self) {
        let len = usize::from(other.len);
        self.bytes[..len].copy_from_slice(&other.bytes[..len]);
        self.len = other.len;
    }

    /// It.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Empties it; its bytes stay as they are.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}

impl<const N: usize> PartialEq for Text<N> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes[..usize::from(self.len)] == other.bytes[..usize::from(other.len)]
    }
}

impl<const N: usize> Eq for Text<N> {}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_a_character() {
        let mut text = Text::<4>::default();
        text.set("abcü");
        assert_eq!(text.as_str(), "abc");
        text.set("abü");
        assert_eq!(text.as_str(), "abü");
        text.push("more");
        assert_eq!(text.as_str(), "abü");
        text.set("");
        text.push("a");
        text.push("/b");
        assert_eq!(text.as_str(), "a/b");
    }
}
