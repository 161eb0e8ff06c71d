//! The hash by which route tables are indexed: 64-bit FNV-1a, because it is extended byte by byte, so that one pass
//! over a path gives the hash of every prefix. Tables verify what they find, so a collision costs only a miss.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A running hash.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fnv(u64);

impl Fnv {
    pub(crate) const START: Fnv = Fnv(0xcbf2_9ce4_8422_2325);

    /// The hash of what was hashed before, followed by `bytes`.
    pub(crate) fn extend(self, bytes: &[u8]) -> Fnv {
        Fnv(bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    /// The hash as a table's key: mixed, since FNV's high bits are weak for short inputs.
    pub(crate) fn finish(self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    }
}

/// The key of `bytes`.
pub(crate) fn key(bytes: &[u8]) -> u64 {
    Fnv::START.extend(bytes).finish()
}

/// For maps whose keys are hashes already.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 ^= key(bytes);
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// For maps whose keys are text, or structures of text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TextHasher(Fnv);

impl Default for TextHasher {
    fn default() -> Self {
        TextHasher(Fnv::START)
    }
}

impl Hasher for TextHasher {
    fn finish(&self) -> u64 {
        self.0.finish()
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = self.0.extend(bytes);
    }
}

/// A map from a finished hash.
pub(crate) type HashedMap<V> = HashMap<u64, V, BuildHasherDefault<Identity>>;

/// A map with a fixed hasher: configuration chooses the keys, not callers.
pub(crate) type FixedMap<K, V> = HashMap<K, V, BuildHasherDefault<TextHasher>>;
