//! What a machine is still good for: how much GPU memory the kinds of replicas that are wanted could use there.
//!
//! After "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent" (USENIX ATC '23): free
//! memory on a card counts for a kind of replica if one of that kind would still fit, weighed by how often the kind is wanted; a
//! place is good when taking it loses little of that. Unlike there, memory counts only as far as the machine's processor and
//! memory last for replicas of the kind.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::cards::{Asks, CardBook};
use super::world::{Card, Machine, Need, World};

/// Kinds that are looked at; the most wanted ones.
const MOST_KINDS: usize = 48;
/// How much one more whole card counts besides: whole cards stay free although nobody asks for one now.
const WHOLE_CARD: f64 = 0.1;

/// One kind of replica, and how often it is wanted.
#[derive(Debug, Clone)]
struct Kind<'w> {
    asks: Asks<'w>,
    weight: f64,
}

/// What is wanted, as shares of a whole.
#[derive(Debug, Clone, Default)]
pub(super) struct Mix<'w> {
    kinds: Vec<Kind<'w>>,
}

/// A whole card for anybody.
static ONE_CARD: Need = Need { cpu_milli: 0, memory: 0, gpus: 1, gpu_memory: 0, gpu_slice: None };

/// What makes replicas one kind: about as much of everything.
type Alike<'w> = (u32, u64, Option<&'w str>, u64, Vec<bool>);

/// Groups of one kind: how many replicas, and what they need together.
#[derive(Default)]
struct Sum {
    count: u64,
    cpu_milli: u128,
    memory: u128,
    gpu_memory: u128,
}

impl<'w> Mix<'w> {
    /// Of all groups; `pools` are what each may use.
    /// `card_size` is that of a middling card.
    pub fn new(world: &'w World, card_size: f64, mut pools: impl FnMut(usize) -> Vec<bool>) -> Mix<'w> {
        let mut found: BTreeMap<Alike<'w>, Sum> = BTreeMap::new();
        for (index, group) in world.groups.iter().enumerate().filter(|group| group.1.need.gpu()) {
            let need = &group.need;
            let slice = need.gpu_slice.as_deref();
            let key = (need.gpus, about(need.gpu_memory, 3), slice, about(need.cpu_milli, 1), pools(index));
            found.entry(key).or_default().add(need, group.wanted.max(1));
        }
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_by(|a, b| b.1.count.cmp(&a.1.count).then_with(|| b.0.cmp(&a.0)));
        found.truncate(MOST_KINDS);
        let all: f64 = found.iter().map(|(key, sum)| sum.weight(key.0, card_size)).sum();
        let kind = |(key, sum): (Alike<'w>, Sum)| Kind {
            weight: (1.0 - WHOLE_CARD) * sum.weight(key.0, card_size) / all,
            asks: Asks { need: Cow::Owned(sum.average(key.0, key.2)), pools: key.4 },
        };
        let mut kinds: Vec<Kind<'w>> = found.into_iter().map(kind).collect();
        let everywhere = vec![true; world.pools.len() + 1];
        kinds.push(Kind {
            asks: Asks { need: Cow::Borrowed(&ONE_CARD), pools: everywhere },
            weight: WHOLE_CARD,
        });
        Mix { kinds }
    }

    /// Bytes of its cards that could still be used.
    pub fn of_site(&self, machine: &Machine, cards: &[CardBook], cpu: u64, memory: u64, slots: u32) -> f64 {
        if cards.is_empty() || slots == 0 {
            return 0.0;
        }
        let states = states(cards);
        let of_kind = |kind: &Kind<'_>| {
            let need = &kind.asks.need;
            let each = |free: u64, each: u64| free.checked_div(each).unwrap_or(u64::MAX);
            let most = each(cpu, need.cpu_milli).min(each(memory, need.memory)).min(slots.into());
            if most == 0 { 0.0 } else { kind.weight * kind.of_cards(machine, cards, &states, most) }
        };
        self.kinds.iter().map(of_kind).sum()
    }

    /// The same of one card, whatever else the machine has.
    pub fn of_card(&self, at: &Card, card: &CardBook) -> f64 {
        self.kinds.iter().map(|kind| kind.weight * kind.of_card(at, card) as f64).sum()
    }
}

/// Cards that are in different states, by the first of each, and how many are.
fn states(cards: &[CardBook]) -> Vec<(usize, u64)> {
    let mut states: Vec<(usize, u64)> = Vec::with_capacity(8);
    for (index, card) in cards.iter().enumerate() {
        match states.iter_mut().find(|state| cards[state.0] == *card && card.slices.is_empty()) {
            Some(state) => state.1 += 1,
            None => states.push((index, 1)),
        }
    }
    states
}

/// The number to its first `bits` binary digits after the leading one.
fn about(number: u64, bits: u32) -> u64 {
    let drop = (u64::BITS - number.leading_zeros()).saturating_sub(bits + 1);
    number >> drop << drop
}

impl Sum {
    fn add(&mut self, need: &Need, count: u32) {
        let times = |each: u64| u128::from(each) * u128::from(count);
        self.count += u64::from(count);
        self.cpu_milli += times(need.cpu_milli);
        self.memory += times(need.memory);
        self.gpu_memory += times(need.gpu_memory);
    }

    /// Large ones come seldom and are the first to find no place: they count for more than their number, for less than their size.
    fn weight(&self, gpus: u32, card_size: f64) -> f64 {
        let shares = self.gpu_memory as f64 / self.count.max(1) as f64 / card_size;
        let size = if gpus > 0 { f64::from(gpus) } else { shares.clamp(0.05, 1.0) };
        self.count as f64 * size.sqrt()
    }

    fn average(&self, gpus: u32, slice: Option<&str>) -> Need {
        let each = |sum: u128| u64::try_from(sum / u128::from(self.count.max(1))).unwrap_or(u64::MAX);
        Need {
            cpu_milli: each(self.cpu_milli),
            memory: each(self.memory),
            gpus,
            gpu_memory: each(self.gpu_memory),
            gpu_slice: slice.map(str::to_owned),
        }
    }
}

impl Kind<'_> {
    /// Bytes of cards that at most so many of the kind could use.
    fn of_cards(&self, machine: &Machine, cards: &[CardBook], states: &[(usize, u64)], most: u64) -> f64 {
        let need = &self.asks.need;
        let (mut bytes, mut count) = (0, 0);
        for (card, times) in states {
            let usable = self.of_card(&machine.gpus[*card], &cards[*card]);
            if usable > 0 {
                bytes += usable * times;
                count += times;
            }
        }
        if count == 0 || count < u64::from(need.gpus) {
            return 0.0;
        }
        let each = match need.gpus {
            0 if need.gpu_slice.is_none() => need.gpu_memory,
            gpus => bytes / count * u64::from(gpus.max(1)),
        };
        (bytes as f64).min(each as f64 * most as f64)
    }

    fn of_card(&self, at: &Card, card: &CardBook) -> u64 {
        let need = &self.asks.need;
        if need.gpus > 0 {
            return if self.asks.fits_whole(card) { card.total } else { 0 };
        }
        if need.gpu_slice.is_some() {
            return self.asks.free_slices(at, card).map(|slice| at.slices[slice].2).sum();
        }
        if self.asks.fits_share(card) { card.free() } else { 0 }
    }
}
