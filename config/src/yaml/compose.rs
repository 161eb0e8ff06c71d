//! Parser events to a tree, within limits.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::place::Place;
use super::tree::{At, Cell, NONE, Tree, Value, clip};

/// How much a file may ask for. Beyond it is an error, not a slow success.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of text (32 MiB).
    pub bytes: usize,
    /// Nested lists and maps (64).
    pub depth: usize,
    /// Nodes, copies made by aliases included (2,000,000).
    pub nodes: usize,
    /// Bytes of one scalar (1 MiB; Istio's largest direct response).
    pub scalar: usize,
    /// Bytes of text in copies made by aliases (8 MiB).
    pub copied_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bytes: 32 << 20, depth: 64, nodes: 2_000_000, scalar: 1 << 20, copied_bytes: 8 << 20 }
    }
}

/// What is wrong with the text itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub at: At,
    /// What.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Builds the tree of all documents. A document with a problem is left out; the next `---` starts afresh.
pub fn compose<'t>(file: &Arc<str>, text: &'t str, limits: &Limits) -> (Tree<'t>, Vec<Problem>) {
    compose_at(file, 1, text, limits)
}

/// [`compose`] for a text that starts in that line of the file.
pub fn compose_at<'t>(
    file: &Arc<str>,
    line: u32,
    text: &'t str,
    limits: &Limits,
) -> (Tree<'t>, Vec<Problem>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut composer = Composer {
        limits,
        cells: Vec::new(),
        roots: Vec::new(),
        problems: Vec::new(),
        open: Vec::new(),
        anchors: HashMap::new(),
        copied: 0,
        base: line.saturating_sub(1).min(u32::MAX / 2),
    };
    if text.len() > limits.bytes {
        let message = format!("the file has {} bytes; the limit is {}", text.len(), limits.bytes);
        composer.problem(At { line: 1, column: 1 }, message, "split it into several files");
    } else {
        // More than routing rules need, because memory that is not touched costs nothing and a move does.
        composer.cells.reserve((text.len() / 6).min(limits.nodes));
        composer.read(text);
    }
    (Tree { file: file.clone(), cells: composer.cells, roots: composer.roots }, composer.problems)
}

/// A list or map that is not closed yet.
struct Open<'t> {
    id: u32,
    is_map: bool,
    /// The key that waits for its value.
    key: Option<(Cow<'t, str>, At)>,
    anchor: usize,
    items: u32,
}

struct Composer<'t, 'l> {
    limits: &'l Limits,
    cells: Vec<Cell<'t>>,
    roots: Vec<u32>,
    problems: Vec<Problem>,
    open: Vec<Open<'t>>,
    /// Anchor number to node.
    anchors: HashMap<usize, u32>,
    copied: usize,
    /// Lines before the part that is being parsed.
    base: u32,
}

/// Why composing a document stopped.
enum Stop {
    /// Go on behind the next `---` after this line.
    Document(u32),
    /// A limit: nothing more of this file.
    File,
}

impl<'t> Composer<'t, '_> {
    fn read(&mut self, text: &'t str) {
        let mut rest = text;
        loop {
            match self.part(rest) {
                Ok(()) | Err(Stop::File) => return,
                Err(Stop::Document(line)) => {
                    self.open.clear();
                    self.anchors.clear();
                    match after_separator(rest, line.saturating_sub(self.base)) {
                        Some((offset, lines)) => {
                            rest = &rest[offset..];
                            self.base += lines;
                        }
                        None => return,
                    }
                }
            }
        }
    }

    fn part(&mut self, text: &'t str) -> Result<(), Stop> {
        let mut parser: Parser<'t, StrInput<'t>> = Parser::new_from_str(text);
        let mut place = Place::new(text);
        while let Some(event) = parser.next_event() {
            match event {
                Ok((Event::StreamEnd, _)) => return Ok(()),
                Ok((Event::Scalar(text, style, anchor, tag), span)) => {
                    let text = place.borrow(text, span.start.index());
                    self.event(Event::Scalar(text, style, anchor, tag), span)?;
                }
                Ok((event, span)) => self.event(event, span)?,
                Err(error) => return Err(self.scan_error(&error)),
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'t>, span: Span) -> Result<(), Stop> {
        let at = self.at(&span);
        match event {
            Event::DocumentStart(_) | Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                if text.len() > self.limits.scalar {
                    return Err(self.too_much(at, "a scalar", text.len(), self.limits.scalar));
                }
                if self.takes_key() {
                    self.set_key(text, at);
                    return Ok(());
                }
                let value = self.scalar(text, style, tag.as_deref(), at);
                let id = self.push(value, at)?;
                if anchor > 0 {
                    self.anchors.insert(anchor, id);
                }
                Ok(())
            }
            Event::SequenceStart(anchor, _) => self.start(false, anchor, at),
            Event::MappingStart(anchor, _) => self.start(true, anchor, at),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::Nothing | Event::StreamStart | Event::StreamEnd => Ok(()),
        }
    }

    fn at(&self, span: &Span) -> At {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        At { line: number(span.start.line()) + self.base, column: number(span.start.col()) + 1 }
    }

    fn takes_key(&self) -> bool {
        self.open.last().is_some_and(|open| open.is_map && open.key.is_none())
    }

    fn set_key(&mut self, key: Cow<'t, str>, at: At) {
        if let Some(open) = self.open.last_mut() {
            open.key = Some((key, at));
        }
    }

    fn scalar(&mut self, text: Cow<'t, str>, style: ScalarStyle, tag: Option<&Tag>, at: At) -> Value<'t> {
        let plain = style == ScalarStyle::Plain;
        match tag {
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Value::Scalar(text, false),
            Some(tag) if !tag.is_yaml_core_schema() && !tag.suffix.is_empty() => {
                let message = format!("the tag `{}{}` means nothing here", tag.handle, clip(&tag.suffix, 32));
                self.problem(at, message, "remove it");
                Value::Null
            }
            _ if plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") => Value::Null,
            _ => Value::Scalar(text, plain),
        }
    }

    /// Adds a node below the innermost open list or map, or as a document.
    fn push(&mut self, value: Value<'t>, at: At) -> Result<u32, Stop> {
        if self.cells.len() >= self.limits.nodes {
            return Err(self.too_much(
                at,
                "the file with its aliases",
                self.cells.len() + 1,
                self.limits.nodes,
            ));
        }
        let id = u32::try_from(self.cells.len()).unwrap_or(NONE);
        let mut cell = Cell {
            at,
            key_at: at,
            parent: NONE,
            first: NONE,
            last: NONE,
            next: NONE,
            key: Cow::Borrowed(""),
            index: 0,
            value,
        };
        if let Some(open) = self.open.last_mut() {
            cell.parent = open.id;
            cell.index = open.items;
            open.items += 1;
            if let Some((key, at)) = open.key.take() {
                cell.key = key;
                cell.key_at = at;
            }
            self.link(id, cell.parent);
        }
        // A document's root is listed when it is complete: a list or map in `end`.
        let root = cell.parent == NONE;
        let leaf = !matches!(cell.value, Value::List | Value::Map);
        let null = matches!(cell.value, Value::Null);
        self.cells.push(cell);
        if root && leaf && !null {
            self.roots.push(id);
        }
        Ok(id)
    }

    fn link(&mut self, id: u32, parent: u32) {
        let parent = &mut self.cells[parent as usize];
        let last = std::mem::replace(&mut parent.last, id);
        if last == NONE {
            parent.first = id;
        } else {
            self.cells[last as usize].next = id;
        }
    }

    fn start(&mut self, is_map: bool, anchor: usize, at: At) -> Result<(), Stop> {
        if self.open.len() >= self.limits.depth {
            return Err(self.too_much(at, "the nesting", self.open.len() + 1, self.limits.depth));
        }
        if self.takes_key() {
            self.problem(at, "a key must be a text, not a list or a map".into(), "quote it if it is a text");
            return Err(Stop::Document(at.line));
        }
        let id = self.push(if is_map { Value::Map } else { Value::List }, at)?;
        self.open.push(Open { id, is_map, key: None, anchor, items: 0 });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Stop> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        if open.is_map {
            self.merge(open.id);
            self.refuse_duplicates(open.id);
        }
        // Only now, so that an alias inside its own anchor finds nothing.
        if open.anchor > 0 {
            self.anchors.insert(open.anchor, open.id);
        }
        if self.open.is_empty() {
            self.roots.push(open.id);
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, at: At) -> Result<(), Stop> {
        let Some(&id) = self.anchors.get(&anchor) else {
            self.problem(at, "this alias refers to a value that contains it".into(), "write the value out");
            return Err(Stop::Document(at.line));
        };
        if self.takes_key() {
            let cell = &self.cells[id as usize];
            if let Value::Scalar(text, _) = &cell.value {
                let key = text.clone();
                self.copy_bytes(key.len(), at)?;
                self.set_key(key, at);
                return Ok(());
            }
            self.problem(at, "a key must be a text, not a list or a map".into(), "write the key out");
            return Err(Stop::Document(at.line));
        }
        let depth = self.open.len();
        self.copy(id, Some(at), depth)
    }

    fn copy_bytes(&mut self, bytes: usize, at: At) -> Result<(), Stop> {
        self.copied += bytes;
        if self.copied > self.limits.copied_bytes {
            return Err(self.too_much(
                at,
                "the text that aliases copy",
                self.copied,
                self.limits.copied_bytes,
            ));
        }
        Ok(())
    }

    /// Copies the subtree of `id` to where the next value goes. Recursion is bounded by the depth limit.
    fn copy(&mut self, id: u32, at: Option<At>, depth: usize) -> Result<(), Stop> {
        let original = &self.cells[id as usize];
        let (own, first, value) = (original.at, original.first, original.value.clone());
        let at = at.unwrap_or(own);
        if depth > self.limits.depth {
            return Err(self.too_much(at, "the nesting", depth, self.limits.depth));
        }
        if let Value::Scalar(text, _) = &value {
            self.copy_bytes(text.len(), at)?;
        }
        let is_map = matches!(value, Value::Map);
        let container = is_map || matches!(value, Value::List);
        let copy = self.push(value, at)?;
        if !container {
            return Ok(());
        }
        self.open.push(Open { id: copy, is_map, key: None, anchor: 0, items: 0 });
        let mut child = first;
        while child != NONE {
            let cell = &self.cells[child as usize];
            let next = cell.next;
            if is_map {
                let key = (cell.key.clone(), cell.key_at);
                self.copy_bytes(key.0.len(), at)?;
                if let Some(open) = self.open.last_mut() {
                    open.key = Some(key);
                }
            }
            self.copy(child, None, depth + 1)?;
            child = next;
        }
        self.open.pop();
        Ok(())
    }

    /// Resolves `<<: *anchor` (YAML 1.1's merge key, which kubectl takes): keys of the map itself win.
    fn merge(&mut self, map: u32) {
        let Some(source) = self.child_ids(map).find(|&id| self.cells[id as usize].key == "<<") else {
            return;
        };
        self.unlink(map, source);
        let from = match self.cells[source as usize].value {
            Value::List => self.child_ids(source).collect(),
            _ => vec![source],
        };
        // Hashes instead of keys: the keys live in the vector that is being changed.
        let hasher = std::collections::hash_map::RandomState::new();
        let hash = |cell: &Cell<'t>| hasher.hash_one(&*cell.key);
        let mut known: HashSet<u64> = self.child_ids(map).map(|id| hash(&self.cells[id as usize])).collect();
        for id in from {
            let cell = &self.cells[id as usize];
            if !matches!(cell.value, Value::Map) {
                self.problem(cell.at, "only a map can be merged by `<<`".into(), "name a map's anchor");
                continue;
            }
            for child in self.child_ids(id).collect::<Vec<_>>() {
                if known.insert(hash(&self.cells[child as usize])) {
                    self.cells[child as usize].next = NONE;
                    self.cells[child as usize].parent = map;
                    self.link(child, map);
                }
            }
        }
    }

    fn child_ids(&self, id: u32) -> impl Iterator<Item = u32> + '_ {
        let some = |id: u32| (id != NONE).then_some(id);
        std::iter::successors(some(self.cells[id as usize].first), move |&id| {
            some(self.cells[id as usize].next)
        })
    }

    fn unlink(&mut self, parent: u32, child: u32) {
        let before = self.child_ids(parent).take_while(|&id| id != child).last();
        let next = self.cells[child as usize].next;
        match before {
            Some(before) => self.cells[before as usize].next = next,
            None => self.cells[parent as usize].first = next,
        }
        if next == NONE {
            self.cells[parent as usize].last = before.unwrap_or(NONE);
        }
    }

    fn refuse_duplicates(&mut self, map: u32) {
        let mut ids: Vec<u32> = Vec::new();
        let duplicates: Vec<(u32, u32)> = {
            ids.extend(self.child_ids(map));
            let key = |id: u32| &*self.cells[id as usize].key;
            if ids.len() <= 8 {
                let earlier = |at: usize| ids[..at].iter().copied().find(|&id| key(id) == key(ids[at]));
                (1..ids.len()).filter_map(|at| Some((earlier(at)?, ids[at]))).collect()
            } else {
                ids.sort_by(|a, b| key(*a).cmp(key(*b)).then(a.cmp(b)));
                let same = |pair: &&[u32]| key(pair[0]) == key(pair[1]);
                ids.windows(2).filter(same).map(|pair| (pair[0], pair[1])).collect()
            }
        };
        for (first, second) in duplicates {
            let (first, second) = (&self.cells[first as usize], &self.cells[second as usize]);
            let at = second.key_at;
            let message = format!(
                "the key `{}` is written twice, here and in line {}",
                clip(&second.key, 64),
                first.key_at.line
            );
            self.problem(at, message, "keep one of them");
        }
    }

    fn problem(&mut self, at: At, message: String, hint: &str) {
        self.problems.push(Problem { at, message, hint: Some(hint.to_owned()) });
    }

    fn too_much(&mut self, at: At, what: &str, is: usize, limit: usize) -> Stop {
        let unit = if what.contains("text") || what.contains("scalar") { "bytes" } else { "levels" };
        let unit = if what.contains("file") { "nodes" } else { unit };
        self.problem(at, format!("{what} has {is} {unit}; the limit is {limit}"), "split or simplify it");
        Stop::File
    }

    fn scan_error(&mut self, error: &ScanError) -> Stop {
        let mark = error.marker();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let at = At { line: number(mark.line()) + self.base, column: number(mark.col()) + 1 };
        let message = match error.info() {
            "recursion limit exceeded" => {
                format!("the nesting is too deep; the limit is {} levels", self.limits.depth)
            }
            info => format!("not YAML: {info}"),
        };
        let problem = Problem { at, message, hint: None };
        self.problems.push(problem);
        Stop::Document(at.line)
    }
}

/// The offset of the first line `---` behind `line` (from 1), and the number of lines before it.
fn after_separator(text: &str, line: u32) -> Option<(usize, u32)> {
    let mut offset = 0;
    for (number, content) in (0u32..).zip(text.split_inclusive('\n')) {
        if number >= line && number > 0 && (content.starts_with("---")) {
            return Some((offset, number));
        }
        offset += content.len();
    }
    None
}
