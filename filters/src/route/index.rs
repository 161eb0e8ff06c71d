//! The index of one virtual host's match blocks: finds the first block that matches without looking at the others.
//!
//! Each block is filed once, under the condition that is rarest in this table: its exact path, the literal beginning
//! of its path, or the exact value of a header; what has none of these goes to an ordered residual list. A look-up
//! walks the few lists that the request can touch and keeps the smallest position, so the answer is that of a scan
//! from the top (a property test says so) while its cost does not depend on the number of routes.

use crate::call::{Caller, Head};
use crate::route::block::{Block, Condition, PathMatch};
use crate::route::hash::{Fnv, HashedMap, key};
use crate::route::text::{TextMatch, literal_prefix};

/// A path bucket larger than this is split by a header's exact value where a block has one.
const CROWDED: u32 = 4;
/// Up to this many blocks are looked at one after the other: quicker than an index, and it takes no memory.
const SMALL: usize = 4;

/// Blocks in order, and where to find them.
#[derive(Debug, Default)]
pub(crate) struct RouteIndex {
    blocks: Box<[Block]>,
    exact: HashedMap<Bucket>,
    prefix: HashedMap<Bucket>,
    /// The distinct lengths of the prefixes, ascending.
    lengths: Box<[u32]>,
    headers: Box<[HeaderIndex]>,
    residual: Box<[u32]>,
}

/// Blocks that share a key, ascending. Mostly there is one: no allocation for it.
#[derive(Debug)]
struct Bucket {
    first: u32,
    more: Vec<u32>,
}

/// Files a block under a key; blocks come in ascending order.
fn file(map: &mut HashedMap<Bucket>, key: u64, at: u32) {
    map.entry(key)
        .and_modify(|bucket| bucket.more.push(at))
        .or_insert_with(|| Bucket { first: at, more: Vec::new() });
}

#[derive(Debug)]
struct HeaderIndex {
    name: Box<str>,
    values: HashedMap<Bucket>,
}

/// Under what a block is filed.
enum Filed<'b> {
    Exact(&'b str),
    Prefix(&'b str),
    Header(&'b str, &'b str),
    Residual,
}

impl RouteIndex {
    /// Files `blocks`, which are in the order of precedence.
    pub(crate) fn new(blocks: Vec<Block>) -> Self {
        if blocks.len() <= SMALL {
            return RouteIndex { blocks: blocks.into(), ..RouteIndex::default() };
        }
        let prefixes: Vec<Option<String>> = blocks.iter().map(pattern_prefix).collect();
        let crowd = Crowd::count(&blocks, &prefixes);
        let mut index = RouteIndex::default();
        let mut headers: Vec<HeaderIndex> = Vec::new();
        let mut residual = Vec::new();
        let mut lengths = Vec::new();
        for (at, (block, prefix)) in blocks.iter().zip(&prefixes).enumerate() {
            let at = at as u32;
            match crowd.file(block, prefix.as_deref()) {
                Filed::Exact(path) => file(&mut index.exact, key(path.as_bytes()), at),
                Filed::Prefix(path) => {
                    lengths.push(path.len() as u32);
                    file(&mut index.prefix, key(path.as_bytes()), at);
                }
                Filed::Header(name, value) => {
                    let known = headers.iter().position(|h| &*h.name == name).unwrap_or_else(|| {
                        headers.push(HeaderIndex { name: name.into(), values: HashedMap::default() });
                        headers.len() - 1
                    });
                    file(&mut headers[known].values, key(value.as_bytes()), at);
                }
                Filed::Residual => residual.push(at),
            }
        }
        lengths.sort_unstable();
        lengths.dedup();
        index.lengths = lengths.into();
        index.headers = headers.into();
        index.residual = residual.into();
        index.blocks = blocks.into();
        index
    }

    /// The first block that the request meets.
    pub(crate) fn find<H: Head>(&self, head: &H, caller: &Caller) -> Option<&Block> {
        if self.blocks.len() <= SMALL {
            return self.blocks.iter().find(|block| block.matches(head, caller));
        }
        let mut search = Search { index: self, head, caller, best: u32::MAX };
        search.paths(head.path().as_bytes());
        for header in &self.headers {
            if let Some(value) = head.header(&header.name) {
                search.bucket(header.values.get(&key(&value)));
            }
        }
        search.list(&self.residual);
        self.blocks.get(search.best as usize)
    }

    /// The blocks in order of precedence.
    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }
}

/// The best position so far, and what it is judged by.
struct Search<'i, 'h, H> {
    index: &'i RouteIndex,
    head: &'h H,
    caller: &'h Caller,
    best: u32,
}

impl<H: Head> Search<'_, '_, H> {
    /// Walks every indexed prefix of the path, then the path itself, extending one hash.
    fn paths(&mut self, path: &[u8]) {
        let index = self.index;
        if index.prefix.is_empty() && index.exact.is_empty() {
            return;
        }
        let (mut hash, mut hashed) = (Fnv::START, 0);
        for &length in &index.lengths {
            let length = length as usize;
            let Some(next) = path.get(hashed..length) else { break };
            hash = hash.extend(next);
            hashed = length;
            self.bucket(index.prefix.get(&hash.finish()));
        }
        if !index.exact.is_empty() {
            hash = hash.extend(&path[hashed..]);
            self.bucket(index.exact.get(&hash.finish()));
        }
    }

    fn bucket(&mut self, bucket: Option<&Bucket>) {
        if let Some(bucket) = bucket {
            self.list(&[bucket.first]);
            self.list(&bucket.more);
        }
    }

    /// Takes the first of `list` that matches, if it precedes the best so far.
    fn list(&mut self, list: &[u32]) {
        for &at in list {
            if at >= self.best {
                return;
            }
            if self.index.blocks[at as usize].matches(self.head, self.caller) {
                self.best = at;
                return;
            }
        }
    }
}

/// How many blocks share each key, so that each is filed under its rarest.
struct Crowd {
    paths: HashedMap<u32>,
    headers: HashedMap<u32>,
}

impl Crowd {
    fn count(blocks: &[Block], prefixes: &[Option<String>]) -> Crowd {
        let mut crowd = Crowd { paths: HashedMap::default(), headers: HashedMap::default() };
        crowd.paths.reserve(blocks.len());
        for (block, prefix) in blocks.iter().zip(prefixes) {
            if let Some((path, exact)) = path_key(block, prefix.as_deref()) {
                *crowd.paths.entry(Self::path(path, exact)).or_default() += 1;
            }
            for (name, value) in exact_headers(block) {
                *crowd.headers.entry(Self::header(name, value)).or_default() += 1;
            }
        }
        crowd
    }

    fn path(path: &str, exact: bool) -> u64 {
        Fnv::START.extend(&[u8::from(exact)]).extend(path.as_bytes()).finish()
    }

    fn header(name: &str, value: &str) -> u64 {
        Fnv::START.extend(name.as_bytes()).extend(b"\0").extend(value.as_bytes()).finish()
    }

    fn file<'b>(&self, block: &'b Block, prefix: Option<&'b str>) -> Filed<'b> {
        let path = path_key(block, prefix);
        let sharing_path =
            path.map_or(u32::MAX, |(path, exact)| *self.paths.get(&Self::path(path, exact)).unwrap_or(&0));
        if sharing_path > CROWDED {
            let count = |(n, v): &(&str, &str)| *self.headers.get(&Self::header(n, v)).unwrap_or(&0);
            if let Some(rarest) = exact_headers(block).min_by_key(count)
                && count(&rarest) < sharing_path
            {
                return Filed::Header(rarest.0, rarest.1);
            }
        }
        match path {
            Some((path, true)) => Filed::Exact(path),
            Some((path, false)) => Filed::Prefix(path),
            None => Filed::Residual,
        }
    }
}

fn exact_headers(block: &Block) -> impl Iterator<Item = (&str, &str)> {
    block.rest.iter().filter_map(|condition| match condition {
        Condition::Header(name, TextMatch::Exact(value)) => Some((&**name, &**value)),
        _ => None,
    })
}

/// The path that a block can be filed under, and whether it is the whole path.
fn path_key<'b>(block: &'b Block, pattern: Option<&'b str>) -> Option<(&'b str, bool)> {
    match &block.path {
        PathMatch::Text(TextMatch::Exact(path)) => Some((path, true)),
        PathMatch::Text(TextMatch::Prefix(path)) => Some((path, false)),
        _ => pattern.map(|prefix| (prefix, false)),
    }
}

/// The literal beginning of a regular expression on the path, if there is one worth filing under.
fn pattern_prefix(block: &Block) -> Option<String> {
    match &block.path {
        PathMatch::Text(TextMatch::Regex(pattern)) => {
            Some(literal_prefix(pattern.source())).filter(|prefix| prefix.len() > 1)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
