//! Buckets by key, 10,000 at most. A full bucket is like one that never was, so it is forgotten when its place is needed,
//! the one that has been full for longest first; when none is full, new keys share one bucket.
//!
//! Keys are hashes, so a bucket costs 32 bytes whatever the caller sends. Sixteen locks, each held for a look-up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::bucket::{Bucket, GRAIN, Moment};
use crate::route::hash::HashedMap;

/// At most this many keys of one limit have a bucket of their own.
pub const MOST_KEYS: usize = 10_000;
const SHARDS: usize = 16;

/// The buckets of one limit.
#[derive(Debug)]
pub(super) struct Keyed {
    shards: [Mutex<Shard>; SHARDS],
    count: AtomicUsize,
    overflow: Bucket,
    /// Nobody outside knows it, so nobody can send keys that meet in one bucket.
    seed: u64,
}

/// Which bucket a token came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Key(u64),
    Overflow,
}

#[derive(Debug, Default)]
struct Shard {
    /// How high each bucket is.
    buckets: HashedMap<u64>,
    /// How high each was when it was last looked at, lowest first. One entry for each bucket; a token that was given back
    /// since makes no difference that matters.
    lowest: BinaryHeap<Reverse<(u64, u64)>>,
}

impl Shard {
    /// Forgets the bucket that has been full for longest. Gives whether there was one.
    fn forget(&mut self, moment: &Moment) -> bool {
        // Each round but the last brings an entry up to date that was used since.
        while let Some(mut top) = self.lowest.peek_mut() {
            let Reverse((seen, key)) = *top;
            match self.buckets.get(&key) {
                Some(height) if *height > seen => *top = Reverse((*height, key)),
                Some(height) if *height > moment.full() => return false,
                _ => {
                    PeekMut::pop(top);
                    self.buckets.remove(&key);
                    return true;
                }
            }
        }
        false
    }
}

impl Keyed {
    pub(super) fn new(seed: u64) -> Keyed {
        Keyed { shards: Default::default(), count: AtomicUsize::new(0), overflow: Bucket::default(), seed }
    }

    /// A hasher for the parts of a key.
    pub(super) fn hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seed);
        hasher
    }

    /// Keys that have a bucket now.
    pub(super) fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// The same, counted.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        (0..SHARDS).map(|number| self.shard(number).buckets.len()).sum()
    }

    fn shard(&self, number: usize) -> MutexGuard<'_, Shard> {
        // A panic cannot come between two changes here: there is nothing that panics.
        self.shards[number % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The high bits: the map inside of a shard uses the low ones.
    fn own(key: u64) -> usize {
        (key >> 60) as usize
    }

    /// How many grains are missing for a token of this key. One that is new is full, if there is room.
    pub(super) fn missing(&self, key: u64, moment: &Moment) -> Option<u64> {
        let shard = self.shard(Self::own(key));
        moment.next(shard.buckets.get(&key).copied().unwrap_or(0)).err()
    }

    /// Takes a token of this key.
    ///
    /// # Errors
    /// How many grains are missing.
    pub(super) fn take(&self, key: u64, moment: &Moment) -> Result<From, u64> {
        let mut shard = self.shard(Self::own(key));
        if let Some(height) = shard.buckets.get_mut(&key) {
            *height = moment.next(*height)?;
            return Ok(From::Key(key));
        }
        let mut room = self.count.fetch_add(1, Relaxed) < MOST_KEYS;
        if !room {
            self.count.fetch_sub(1, Relaxed);
            room = shard.forget(moment);
            if !room {
                drop(shard);
                room = self.forget_elsewhere(Self::own(key), moment);
                shard = self.shard(Self::own(key));
            }
        }
        if !room {
            return self.overflow.take(moment).map(|()| From::Overflow);
        }
        let known = shard.buckets.get(&key).copied();
        let taken = moment.next(known.unwrap_or(0)).map(|height| {
            shard.buckets.insert(key, height);
            if known.is_none() {
                shard.lowest.push(Reverse((height, key)));
            }
            From::Key(key)
        });
        if known.is_some() || taken.is_err() {
            // Another worker was quicker, so the place is not needed.
            self.count.fetch_sub(1, Relaxed);
        }
        taken
    }

    fn forget_elsewhere(&self, own: usize, moment: &Moment) -> bool {
        (1..SHARDS).any(|step| self.shard(own + step).forget(moment))
    }

    /// Gives a token back that was taken a moment ago.
    pub(super) fn give_back(&self, from: From) {
        match from {
            From::Overflow => self.overflow.give_back(),
            From::Key(key) => {
                let mut shard = self.shard(Self::own(key));
                if let Some(height) = shard.buckets.get_mut(&key) {
                    *height = height.saturating_sub(GRAIN);
                }
            }
        }
    }

    /// What was spent beyond the line is forgiven.
    pub(super) fn forgive(&self, line: u64) {
        self.overflow.forgive(line);
        for number in 0..SHARDS {
            let mut shard = self.shard(number);
            shard.buckets.values_mut().for_each(|height| *height = (*height).min(line));
            shard.lowest = shard.buckets.iter().map(|(key, height)| Reverse((*height, *key))).collect();
        }
    }
}
