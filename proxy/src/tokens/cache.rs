//! Tokens that a worker has looked at before, good and bad: the same one again costs a look-up.
//!
//! An entry is found by the whole token, never by a hash alone. Good and bad ones have rooms of their own, so a flood of bad tokens drives
//! out no good one. All are forgotten when the rules or any issuer's keys change.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use pilotfish_filters::clock::Micros;
use pilotfish_filters::tokens::TokenRule;

use super::verify::{Refusal, Verified};

/// Good tokens that are kept at most, and their bytes together.
const GOOD: Room = Room { tokens: 1024, bytes: 1024 * 1024 };

/// Bad tokens that are kept at most, and their bytes together.
const BAD: Room = Room { tokens: 1024, bytes: 512 * 1024 };

/// How long a bad token is bad without another look. What was wrong may be right later only when keys change, and then all is forgotten;
/// this is for issuers whose keys could not be fetched.
const BAD_FOR: std::time::Duration = std::time::Duration::from_secs(5);

/// What is known of a token.
#[derive(Debug, Clone, PartialEq)]
pub enum Known {
    /// It is its issuer's.
    Good(Arc<Verified>),
    /// It is not.
    Bad(Refusal),
}

/// One worker's.
#[derive(Debug, Default)]
pub struct Cache {
    /// By which rules its entries were judged.
    rules: Option<Arc<[TokenRule]>>,
    /// The snapshot whose rules those are.
    version: u64,
    /// Which keys there were.
    generation: u64,
    good: Turns<Arc<Verified>>,
    bad: Turns<(Refusal, Micros)>,
}

impl Cache {
    /// Forgets what other rules or keys said. Called before each look.
    pub fn settle(&mut self, version: u64, rules: &Arc<[TokenRule]>, generation: u64) {
        if version == self.version && generation == self.generation {
            return;
        }
        let same = generation == self.generation && self.rules.as_ref() == Some(rules);
        (self.version, self.generation) = (version, generation);
        if !same {
            self.rules = Some(rules.clone());
            self.good = Turns::default();
            self.bad = Turns::default();
        }
    }

    /// What is known of a token.
    pub fn get(&mut self, token: &str, now: Micros) -> Option<Known> {
        if let Some(verified) = self.good.get(token, GOOD) {
            return Some(Known::Good(verified.clone()));
        }
        let (refusal, until) = self.bad.get(token, BAD)?;
        (now < *until).then_some(Known::Bad(*refusal))
    }

    /// Keeps what was found out by the keys of `generation`, unless others hold by now.
    pub fn put(&mut self, token: &str, known: Known, generation: u64, now: Micros) {
        if generation != self.generation {
            return;
        }
        match known {
            Known::Good(verified) => self.good.insert(token.into(), verified, GOOD),
            Known::Bad(refusal) => self.bad.insert(token.into(), (refusal, now.after(BAD_FOR)), BAD),
        }
    }
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
struct Room {
    tokens: usize,
    bytes: usize,
}

/// A bounded map that forgets what was not asked for lately: the newer half, and the half before it. When the newer one is full it becomes
/// the older one, and what was that is dropped.
#[derive(Debug)]
struct Turns<V> {
    newer: Half<V>,
    older: Half<V>,
}

#[derive(Debug)]
struct Half<V> {
    entries: HashMap<Box<str>, V, Tail>,
    bytes: usize,
}

impl<V> Default for Half<V> {
    fn default() -> Self {
        Half { entries: HashMap::default(), bytes: 0 }
    }
}

impl<V> Default for Turns<V> {
    fn default() -> Self {
        Turns { newer: Half::default(), older: Half::default() }
    }
}

impl<V> Turns<V> {
    fn get(&mut self, token: &str, room: Room) -> Option<&V> {
        if !self.newer.entries.contains_key(token) {
            let (token, value) = self.older.entries.remove_entry(token)?;
            self.older.bytes -= token.len();
            self.insert(token, value, room);
        }
        self.newer.entries.get(token)
    }

    fn insert(&mut self, token: Box<str>, value: V, room: Room) {
        let (tokens, bytes) = (self.newer.entries.len(), self.newer.bytes + token.len());
        if tokens >= room.tokens / 2 || bytes > room.bytes / 2 {
            self.older = std::mem::take(&mut self.newer);
        }
        let length = token.len();
        if self.newer.entries.insert(token, value).is_none() {
            self.newer.bytes += length;
        }
    }
}

/// Hashes the end of a token, where its signature is: nobody finds many good tokens that end alike, and bad ones that do only make the
/// room of bad ones a list of bounded length. Fixed, so that a simulation repeats.
#[derive(Debug, Clone, Copy, Default)]
struct Tail(u64);

impl BuildHasher for Tail {
    type Hasher = Tail;
    fn build_hasher(&self) -> Tail {
        *self
    }
}

impl Hasher for Tail {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
        let end = bytes.get(bytes.len().saturating_sub(32)..).unwrap_or_default();
        let (words, rest) = end.as_chunks::<8>();
        let mix = |hash: u64, word: u64| {
            let mixed = (hash ^ word).wrapping_mul(MIX);
            mixed ^ (mixed >> 29)
        };
        let hash =
            words.iter().fold(self.0 ^ bytes.len() as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
        self.0 = rest.iter().fold(hash, |hash, byte| mix(hash, u64::from(*byte)));
    }
}

#[cfg(test)]
mod tests;
