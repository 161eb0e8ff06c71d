//! ROUND_ROBIN: each in turn, by weight, from one atomic cursor.
//!
//! The weighted schedule is gRPC's static stride: the cursor counts turns; in its `k`-th round an endpoint takes its
//! turn when the multiple `k x weight` passes a whole number of the largest weight. No lock, no heap, and the turns of
//! a heavy endpoint are spread over the round.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Accept, Choice};

/// The largest scaled weight.
const FULL: u64 = 65_535;

/// The schedule of one group.
#[derive(Debug)]
pub(crate) struct RoundRobin {
    cursor: AtomicU64,
    /// Scaled so that the largest is [`FULL`]; empty when all are equal.
    weights: Box<[u16]>,
}

impl RoundRobin {
    /// `start` shifts the first turn, so that many sidecars do not begin with the same endpoint.
    pub(crate) fn new(weights: &[u32], start: u32) -> RoundRobin {
        let largest = u64::from(weights.iter().copied().max().unwrap_or(1).max(1));
        let equal = weights.iter().all(|w| u64::from(*w) == largest);
        let scaled = |w: &u32| (u64::from(*w) * FULL / largest).max(1) as u16;
        let weights = if equal { Box::default() } else { weights.iter().map(scaled).collect() };
        RoundRobin { cursor: AtomicU64::new(u64::from(start)), weights }
    }

    pub(super) fn choose(
        &self,
        choice: &Choice<'_, '_>,
        accept: Accept,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let len = choice.endpoints.len();
        let slow_start = choice.slow_start.filter(|s| s.is_running(choice.pick.now));
        // In len turns everyone is asked; light ones may need more before their turn is due.
        for _ in 0..len.saturating_mul(2) {
            let at = self.turn(len)?;
            if !choice.usable(at, accept) {
                continue;
            }
            let starting = slow_start.zip(choice.endpoints.get(at));
            if starting.is_none_or(|(slow, endpoint)| slow.passes(&endpoint.stats, choice.pick.now, rng)) {
                return Some(at);
            }
        }
        choice.scan(accept, rng)
    }

    /// The position whose turn it is.
    fn turn(&self, len: usize) -> Option<usize> {
        if len == 0 {
            return None;
        }
        loop {
            let turn = self.cursor.fetch_add(1, Relaxed);
            let (round, at) = (turn / len as u64, (turn % len as u64) as usize);
            let Some(weight) = self.weights.get(at).copied().map(u64::from) else { return Some(at) };
            // Half a step between neighbours, lest equal weights all take their turn in the same round.
            let offset = (FULL / 2).wrapping_mul(at as u64);
            if weight.wrapping_mul(round).wrapping_add(offset) % FULL >= FULL - weight {
                return Some(at);
            }
        }
    }
}
