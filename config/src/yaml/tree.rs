//! The located tree: every node knows its line, column and path.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::model::Source;

/// No node: the end of a list of siblings, the parent of a root.
pub(super) const NONE: u32 = u32::MAX;

/// A place in the text, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct At {
    /// Line.
    pub line: u32,
    /// Column in characters.
    pub column: u32,
}

#[derive(Debug, Clone)]
pub(super) enum Value<'t> {
    Null,
    /// The text, and whether it was written without quotes (so that it may be a number or a boolean).
    Scalar(Cow<'t, str>, bool),
    List,
    Map,
}

#[derive(Debug, Clone)]
pub(super) struct Cell<'t> {
    pub at: At,
    pub key_at: At,
    pub parent: u32,
    pub first: u32,
    pub last: u32,
    pub next: u32,
    /// The key in a map; empty elsewhere.
    pub key: Cow<'t, str>,
    /// The position in a list.
    pub index: u32,
    pub value: Value<'t>,
}

/// All documents of one file.
#[derive(Debug)]
pub struct Tree<'t> {
    pub(super) file: Arc<str>,
    pub(super) cells: Vec<Cell<'t>>,
    pub(super) roots: Vec<u32>,
}

impl<'t> Tree<'t> {
    /// The documents that are not empty, in order.
    pub fn documents(&self) -> impl Iterator<Item = Node<'_>> {
        self.roots.iter().map(|&id| Node { tree: self, id, hollow: false })
    }

    /// The file's name.
    pub fn file(&self) -> &Arc<str> {
        &self.file
    }
}

/// A node of a tree; cheap to copy.
#[derive(Clone, Copy)]
pub struct Node<'n> {
    tree: &'n Tree<'n>,
    id: u32,
    /// Stands for something absent in this place.
    hollow: bool,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Nothing, `null` or `~`.
    Null,
    /// `true` or `false` without quotes.
    Bool,
    /// A whole or decimal number without quotes.
    Number,
    /// Any other text.
    Text,
    /// A list.
    List,
    /// A map.
    Map,
}

impl Type {
    /// For messages: `a list`.
    pub fn article(self) -> &'static str {
        match self {
            Type::Null => "nothing",
            Type::Bool => "a boolean",
            Type::Number => "a number",
            Type::Text => "a text",
            Type::List => "a list",
            Type::Map => "a map",
        }
    }
}

/// A scalar's text.
#[derive(Debug, Clone, Copy)]
pub struct Scalar<'n> {
    /// The text, unescaped.
    pub text: &'n str,
    /// Whether it was written without quotes.
    pub plain: bool,
}

impl<'n> Node<'n> {
    fn cell(self) -> &'n Cell<'n> {
        &self.tree.cells[self.id as usize]
    }

    /// Something absent that belongs here: nothing, at the same place.
    pub fn hollow(self) -> Node<'n> {
        Node { hollow: true, ..self }
    }

    /// What it is.
    pub fn kind(self) -> Type {
        if self.hollow {
            return Type::Null;
        }
        match &self.cell().value {
            Value::Null => Type::Null,
            Value::List => Type::List,
            Value::Map => Type::Map,
            Value::Scalar(_, false) => Type::Text,
            Value::Scalar(text, true) => match &**text {
                "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Type::Bool,
                text if is_number(text) => Type::Number,
                _ => Type::Text,
            },
        }
    }

    /// Whether it is nothing.
    pub fn is_null(self) -> bool {
        self.hollow || matches!(self.cell().value, Value::Null)
    }

    /// Its text, if it is a scalar.
    pub fn scalar(self) -> Option<Scalar<'n>> {
        match &self.cell().value {
            Value::Scalar(text, plain) if !self.hollow => Some(Scalar { text, plain: *plain }),
            _ => None,
        }
    }

    /// Its children: the values of a map, the items of a list.
    pub fn children(self) -> Entries<'n> {
        Entries { tree: self.tree, next: if self.hollow { NONE } else { self.cell().first } }
    }

    /// How many children it has, those that `<<` merged not counted.
    pub fn count(self) -> usize {
        let last = if self.hollow { NONE } else { self.cell().last };
        self.tree.cells.get(last as usize).map_or(0, |last| last.index as usize + 1)
    }

    /// The value of `key` in a map; `None` when absent or nothing.
    pub fn get(self, key: &str) -> Option<Node<'n>> {
        self.children().find(|child| child.key() == key).filter(|child| !child.is_null())
    }

    /// Its key in the map that holds it.
    pub fn key(self) -> &'n str {
        &self.cell().key
    }

    /// Where its value is.
    pub fn at(self) -> At {
        self.cell().at
    }

    /// Where its key is.
    pub fn key_at(self) -> At {
        self.cell().key_at
    }

    /// The file and place of its value.
    pub fn source(self) -> Source {
        let At { line, column } = self.at();
        Source { file: self.tree.file.clone(), line, column }
    }

    /// The file.
    pub fn file(self) -> &'n Arc<str> {
        &self.tree.file
    }

    /// Its path in the document, `spec.http[0].match[1].headers["x-a b"]`; empty for the document itself.
    pub fn path(self) -> String {
        let mut ids = Vec::new();
        let mut id = self.id;
        while id != NONE {
            ids.push(id);
            id = self.tree.cells[id as usize].parent;
        }
        let mut path = String::new();
        for pair in ids.windows(2).rev() {
            let (cell, parent) = (&self.tree.cells[pair[0] as usize], &self.tree.cells[pair[1] as usize]);
            let plain = cell.key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
            if matches!(parent.value, Value::List) {
                let _ = write!(path, "[{}]", cell.index);
            } else if !plain || cell.key.is_empty() {
                let _ = write!(path, "[{:?}]", clip(&cell.key, 64));
            } else {
                let dot = if path.is_empty() { "" } else { "." };
                let _ = write!(path, "{dot}{}", clip(&cell.key, 64));
            }
        }
        path
    }
}

impl PartialEq for Node<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.tree, other.tree) && self.id == other.id
    }
}

impl std::fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.source(), self.path())
    }
}

/// The children of a node.
#[derive(Clone)]
pub struct Entries<'n> {
    tree: &'n Tree<'n>,
    next: u32,
}

impl<'n> Iterator for Entries<'n> {
    type Item = Node<'n>;
    fn next(&mut self) -> Option<Node<'n>> {
        let cell = self.tree.cells.get(self.next as usize)?;
        let node = Node { tree: self.tree, id: self.next, hollow: false };
        self.next = cell.next;
        Some(node)
    }
}

/// The start of `text`, for messages.
pub(crate) fn clip(text: &str, characters: usize) -> Cow<'_, str> {
    match text.char_indices().nth(characters) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Whether plain text is a number for YAML: decimal, hexadecimal, octal, with a fraction or an exponent.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(hex) = digits.strip_prefix("0x") {
        return !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
    }
    if let Some(octal) = digits.strip_prefix("0o") {
        return !octal.is_empty() && octal.bytes().all(|b| (b'0'..=b'7').contains(&b));
    }
    if matches!(digits, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let starts = digits.as_bytes().first().is_some_and(|b| b.is_ascii_digit() || *b == b'.');
    starts && digits.bytes().any(|b| b.is_ascii_digit()) && text.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::is_number;

    #[test]
    fn numbers_are_told_from_text() {
        for text in ["0", "-1", "+1", "1.5", "1e3", "0x1F", "0o17", ".5", ".inf"] {
            assert!(is_number(text), "{text}");
        }
        for text in ["", "-", ".", "v1", "1.2.3", "1s", "infinity", "nan", "0x", "e5", "1_000"] {
            assert!(!is_number(text), "{text}");
        }
    }
}
