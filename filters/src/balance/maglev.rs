//! Maglev: a table in which every endpoint fills slots in an order of its own, in turn and by weight.
//!
//! Look-up is one multiplication and one read, and shares are more even than a ring's; a change of endpoints moves a few
//! more keys than a ring does (Eisenbud et al., NSDI 2016).

use std::net::SocketAddr;

use super::hash;

/// Envoy's `table_size`.
pub const DEFAULT_SIZE: u32 = 65_537;
/// Envoy's maximum.
pub const MAX_SIZE: u32 = 5_000_011;

/// The table of one group.
#[derive(Debug)]
pub(crate) struct Maglev(Box<[u32]>);

/// One endpoint's way through the table.
struct Walk {
    next: u64,
    stride: u64,
    weight: f64,
    /// Fills its next slot in the round in which `round x weight` reaches this.
    due: f64,
}

impl Maglev {
    /// `size` must be a prime, else some endpoint might never reach some slot; [`is_prime`] tells.
    pub(crate) fn new(endpoints: &[(SocketAddr, u32)], size: u32) -> Maglev {
        let slots = u64::from(size.max(2));
        let largest = f64::from(endpoints.iter().map(|(_, weight)| *weight).max().unwrap_or(1).max(1));
        let mut walks: Vec<Walk> = endpoints
            .iter()
            .map(|(addr, weight)| {
                let seed = hash::address(*addr);
                let stride = 1 + hash::mix(seed) % (slots - 1);
                Walk {
                    next: hash::mix(!seed) % slots,
                    stride,
                    weight: f64::from(*weight) / largest,
                    due: 0.0,
                }
            })
            .collect();
        let mut table = vec![u32::MAX; if walks.is_empty() { 0 } else { slots as usize }];
        let mut empty = table.len();
        let mut round = 1.0;
        while empty > 0 {
            for (owner, walk) in walks.iter_mut().enumerate() {
                if round * walk.weight < walk.due {
                    continue;
                }
                walk.due += 1.0;
                while table.get(walk.next as usize).is_some_and(|slot| *slot != u32::MAX) {
                    walk.next = (walk.next + walk.stride) % slots;
                }
                if let Some(slot) = table.get_mut(walk.next as usize) {
                    *slot = owner as u32;
                }
                empty -= 1;
                if empty == 0 {
                    break;
                }
            }
            round += 1.0;
        }
        Maglev(table.into_boxed_slice())
    }

    /// The endpoint to which `key` belongs.
    pub(crate) fn owner(&self, key: u64) -> usize {
        let slot = (u128::from(key) * self.0.len() as u128) >> 64;
        self.0.get(slot as usize).map_or(0, |owner| *owner as usize)
    }
}

/// Whether `n` is a prime, as a table's size must be.
pub fn is_prime(n: u32) -> bool {
    n == 2
        || (n > 2
            && !n.is_multiple_of(2)
            && (3..).step_by(2).take_while(|d: &u64| d * d <= u64::from(n)).all(|d| u64::from(n) % d != 0))
}

#[cfg(test)]
mod tests;
