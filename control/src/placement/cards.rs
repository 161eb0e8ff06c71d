//! Cards of a machine, as far as they are given out, and which of them a replica gets.

use std::borrow::Cow;

use pilotfish_config::model::GpuSharing;

use super::value::Mix;
use super::world::{Card, GpuShare, Machine, Need};

/// What of a card is given out.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CardBook {
    /// Index of its pool; none: nobody's, given out whole to everybody.
    pub pool: Option<usize>,
    pub sharing: GpuSharing,
    pub healthy: bool,
    /// Bytes; of its MIG instances together when it has some.
    pub total: u64,
    /// Bytes given out.
    pub used: u64,
    /// Replicas on it.
    pub holders: u32,
    /// Replicas that have all of it.
    pub whole: u32,
    /// Holders of each MIG instance.
    pub slices: Vec<u32>,
}

impl CardBook {
    pub fn new(card: &Card, pool: Option<(usize, GpuSharing)>) -> CardBook {
        let sliced = card.slices.iter().map(|slice| slice.2).sum();
        CardBook {
            pool: pool.map(|pool| pool.0),
            sharing: pool.map(|pool| pool.1).unwrap_or_default(),
            healthy: card.healthy,
            total: if card.slices.is_empty() { card.memory } else { sliced },
            used: 0,
            holders: 0,
            whole: 0,
            slices: vec![0; card.slices.len()],
        }
    }

    pub fn free(&self) -> u64 {
        self.total.saturating_sub(self.used)
    }

    /// Nobody has any of it, and it may be given out whole.
    pub fn is_whole(&self) -> bool {
        self.healthy && self.holders == 0 && self.slices.is_empty() && self.sharing != GpuSharing::Slices
    }

    /// Parts of it may be given out by memory.
    pub fn is_shared(&self) -> bool {
        self.healthy && self.whole == 0 && self.slices.is_empty() && self.sharing == GpuSharing::Fractional
    }

    /// Its MIG instances may be given out. Those of a card in no pool are everybody's, as the card would be.
    pub fn is_sliced(&self) -> bool {
        self.healthy && !self.slices.is_empty() && (self.pool.is_none() || self.sharing == GpuSharing::Slices)
    }

    pub fn take(&mut self, take: &Take) {
        self.used += take.memory;
        self.holders += 1;
        self.whole += u32::from(take.whole);
        if let Some(holders) = take.slice.and_then(|slice| self.slices.get_mut(slice)) {
            *holders += 1;
        }
    }

    pub fn give_back(&mut self, take: &Take) {
        self.used = self.used.saturating_sub(take.memory);
        self.holders = self.holders.saturating_sub(1);
        self.whole = self.whole.saturating_sub(u32::from(take.whole));
        if let Some(holders) = take.slice.and_then(|slice| self.slices.get_mut(slice)) {
            *holders = holders.saturating_sub(1);
        }
    }
}

/// A card, or a part of one, that a replica gets; cards and slices by their index on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Take {
    pub card: usize,
    pub slice: Option<usize>,
    pub memory: u64,
    pub whole: bool,
}

impl Take {
    /// What a share in a record is on this machine; none: it has no such card any more.
    pub fn of(share: &GpuShare, need: &Need, machine: &Machine) -> Option<Take> {
        let card = machine.gpus.iter().position(|card| card.id == share.gpu)?;
        let slice = match &share.slice {
            Some(id) => Some(machine.gpus[card].slices.iter().position(|slice| slice.0 == *id)?),
            None => None,
        };
        Some(Take { card, slice, memory: share.memory, whole: need.gpus > 0 })
    }

    /// For records.
    pub fn share(&self, machine: &Machine) -> GpuShare {
        let card = &machine.gpus[self.card];
        let slice = self.slice.map(|slice| card.slices[slice].0.clone());
        GpuShare { gpu: card.id.clone(), slice, memory: self.memory }
    }
}

/// What is asked of cards, and whose may be given.
#[derive(Debug, Clone)]
pub(super) struct Asks<'w> {
    pub need: Cow<'w, Need>,
    /// For each pool, whether its cards may be given; then whether cards of no pool may.
    pub pools: Vec<bool>,
}

impl Asks<'_> {
    pub fn may(&self, pool: Option<usize>) -> bool {
        self.pools.get(pool.unwrap_or(self.pools.len() - 1)).copied().unwrap_or(false)
    }

    pub fn fits_whole(&self, card: &CardBook) -> bool {
        card.is_whole() && card.total >= self.need.gpu_memory && self.may(card.pool)
    }

    pub fn fits_share(&self, card: &CardBook) -> bool {
        card.is_shared() && card.free() >= self.need.gpu_memory && self.may(card.pool)
    }

    /// Free MIG instances of the profile.
    pub fn free_slices<'a>(&'a self, at: &'a Card, card: &'a CardBook) -> impl Iterator<Item = usize> + 'a {
        let given = card.is_sliced() && self.may(card.pool);
        let profile = self.need.gpu_slice.as_deref().unwrap_or_default();
        let fits = move |slice: usize| card.slices[slice] == 0 && at.slices[slice].1 == profile;
        (0..card.slices.len()).filter(move |slice| given && fits(*slice))
    }
}

/// The cards that a replica gets on a machine: those whose use loses the least of what could still be placed there. None: they
/// are not there. `room` has the bytes that each pool may still give to it.
pub(super) fn choose(
    machine: &Machine,
    cards: &mut [CardBook],
    asks: &Asks<'_>,
    room: &[u64],
    mix: Option<&Mix<'_>>,
) -> Option<Vec<Take>> {
    let takes = match &*asks.need {
        need if !need.gpu() => return Some(Vec::new()),
        need if need.gpus > 0 => whole(cards, asks, mix, machine)?,
        need if need.gpu_slice.is_some() => vec![slice(machine, cards, asks)?],
        _ => vec![share(machine, cards, asks, room, mix)?],
    };
    let within = |pool: usize| {
        let of_pool = takes.iter().filter(|take| cards[take.card].pool == Some(pool));
        of_pool.map(|take| take.memory).sum::<u64>() <= room[pool]
    };
    (0..room.len()).all(within).then_some(takes)
}

/// The smallest ones that will do, and of those the ones that are the least use to others.
fn whole(
    cards: &mut [CardBook],
    asks: &Asks<'_>,
    mix: Option<&Mix<'_>>,
    machine: &Machine,
) -> Option<Vec<Take>> {
    let wanted = usize::try_from(asks.need.gpus).ok()?;
    let fit = (0..cards.len()).filter(|card| asks.fits_whole(&cards[*card]));
    let mut fit: Vec<usize> = fit.collect();
    if fit.len() < wanted {
        return None;
    }
    let alike = |one: &usize| {
        let (one, first) = (&cards[*one], &cards[fit[0]]);
        one.total == first.total && one.pool == first.pool
    };
    if !fit.iter().all(alike) {
        let worth = |card: usize| mix.map_or(0.0, |mix| mix.of_card(&machine.gpus[card], &cards[card]));
        let mut by: Vec<(f64, u64, usize)> =
            fit.iter().map(|card| (worth(*card), cards[*card].total, *card)).collect();
        by.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        fit = by.into_iter().map(|card| card.2).collect();
    }
    fit.truncate(wanted);
    let take = |card: usize| Take { card, slice: None, memory: cards[card].total, whole: true };
    Some(fit.into_iter().map(take).collect())
}

/// One of the card with the fewest free ones.
fn slice(machine: &Machine, cards: &[CardBook], asks: &Asks<'_>) -> Option<Take> {
    let of = |card: usize| asks.free_slices(&machine.gpus[card], &cards[card]);
    let card = (0..cards.len()).filter(|card| of(*card).next().is_some()).min_by_key(|card| {
        let left = cards[*card].slices.iter().filter(|holders| **holders == 0).count();
        (left, *card)
    })?;
    let slice = of(card).next()?;
    Some(Take { card, slice: Some(slice), memory: machine.gpus[card].slices[slice].2, whole: false })
}

/// A part of the card where the least is lost, then of the fullest.
fn share(
    machine: &Machine,
    cards: &mut [CardBook],
    asks: &Asks<'_>,
    room: &[u64],
    mix: Option<&Mix<'_>>,
) -> Option<Take> {
    let memory = asks.need.gpu_memory;
    let mut best: Option<(f64, u64, usize)> = None;
    for card in 0..cards.len() {
        let book = &cards[card];
        let in_reserve = book.pool.is_some_and(|pool| room[pool] < memory);
        if !asks.fits_share(book) || in_reserve {
            continue;
        }
        let (free, total) = (book.free(), book.total);
        // Cards in one state are one choice.
        let seen = cards[..card].iter().any(|other| {
            other.free() == free && other.total == total && other.pool == book.pool && asks.fits_share(other)
        });
        if seen {
            continue;
        }
        let take = Take { card, slice: None, memory, whole: false };
        let lost = mix.map_or(0.0, |mix| {
            let before = mix.of_card(&machine.gpus[card], &cards[card]);
            cards[card].take(&take);
            let after = mix.of_card(&machine.gpus[card], &cards[card]);
            cards[card].give_back(&take);
            before - after
        });
        let this = (lost, free, card);
        let better = best.is_none_or(|best| this.0.total_cmp(&best.0).then(this.1.cmp(&best.1)).is_lt());
        if better {
            best = Some(this);
        }
    }
    best.map(|best| Take { card: best.2, slice: None, memory, whole: false })
}
