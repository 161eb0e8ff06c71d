//! How many there were in the last while: ten slots that are used in turn, without locks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::Micros;

/// Slots that make up the interval.
const SLOTS: u64 = 10;

/// A count over a sliding interval, exact to a tenth of it. When a reload changes the interval, what was counted before is
/// forgotten or counted a little longer.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Each the number of its slot (upper half) and the count. One more than are summed, so that the oldest is not being
    /// overwritten while it still counts.
    slots: [AtomicU64; SLOTS as usize + 1],
}

impl Window {
    /// Counts one.
    pub(super) fn add(&self, now: Micros, interval: Duration) {
        let number = slot(now, interval);
        let Some(slot) = self.slots.get((number % (SLOTS + 1)) as usize) else { return };
        let tag = number << 32;
        // The closure never gives up, so the result is of no interest.
        let _ = slot.fetch_update(Relaxed, Relaxed, |old| {
            let count = if old >> 32 == number & 0xffff_ffff { old & 0xffff_ffff } else { 0 };
            Some(tag | (count + 1).min(0xffff_ffff))
        });
    }

    /// Takes back one that was counted just now.
    pub(super) fn take_back(&self, now: Micros, interval: Duration) {
        let number = slot(now, interval);
        let Some(slot) = self.slots.get((number % (SLOTS + 1)) as usize) else { return };
        let one = |old: u64| (old >> 32 == number & 0xffff_ffff && old & 0xffff_ffff > 0).then(|| old - 1);
        // A slot that has been used anew meanwhile has forgotten it.
        let _ = slot.fetch_update(Relaxed, Relaxed, one);
    }

    /// How many there were.
    pub(super) fn sum(&self, now: Micros, interval: Duration) -> u32 {
        let newest = slot(now, interval) & 0xffff_ffff;
        let live = |value: &u64| newest.wrapping_sub(value >> 32) & 0xffff_ffff < SLOTS;
        let counts = self.slots.iter().map(|slot| slot.load(Relaxed)).filter(live);
        u32::try_from(counts.map(|value| value & 0xffff_ffff).sum::<u64>()).unwrap_or(u32::MAX)
    }
}

fn slot(now: Micros, interval: Duration) -> u64 {
    let width = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX) / SLOTS;
    now.0 / width.max(1)
}
