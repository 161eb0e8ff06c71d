//! What a machine is still good for: how much GPU memory the kinds of replicas that are wanted could use there.
//!
//! After "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent" (USENIX ATC '23): free
//! memory on a card counts for a kind of replica if one of that kind would still fit, weighed by how often the kind is wanted. A
//! place is good when taking it loses little of that.

use std::collections::HashMap;

use super::cards::{Asks, CardBook};
use super::world::{Card, Machine, Need, World};

/// Kinds that are looked at; the most wanted ones.
const MOST_KINDS: usize = 16;
/// How much one more whole card counts besides: whole cards stay free although nobody asks for one now.
const WHOLE_CARD: f64 = 0.2;

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

impl<'w> Mix<'w> {
    /// Of all groups; `pools` are what each may use.
    pub fn new(world: &'w World, mut pools: impl FnMut(usize) -> Vec<bool>) -> Mix<'w> {
        let mut found: HashMap<(&Need, Vec<bool>), u64> = HashMap::new();
        for (index, group) in world.groups.iter().enumerate().filter(|group| group.1.need.gpu()) {
            *found.entry((&group.need, pools(index))).or_default() += u64::from(group.wanted.max(1));
        }
        let mut found: Vec<_> = found.into_iter().collect();
        // The largest first, then by what they are: the order of the map is by chance.
        let size = |need: &Need| (u64::from(need.gpus) << 40) + need.gpu_memory;
        found.sort_by(|a, b| b.1.cmp(&a.1).then(size(b.0.0).cmp(&size(a.0.0))).then(a.0.cmp(&b.0)));
        found.truncate(MOST_KINDS);
        let all: u64 = found.iter().map(|kind| kind.1).sum();
        let kind = |((need, pools), count): ((&'w Need, Vec<bool>), u64)| Kind {
            asks: Asks { need, pools },
            weight: (1.0 - WHOLE_CARD) * count as f64 / all as f64,
        };
        let mut kinds: Vec<Kind<'w>> = found.into_iter().map(kind).collect();
        let everywhere = vec![true; world.pools.len() + 1];
        kinds.push(Kind { asks: Asks { need: &ONE_CARD, pools: everywhere }, weight: WHOLE_CARD });
        Mix { kinds }
    }

    /// Bytes of its cards that could still be used.
    pub fn of_site(&self, machine: &Machine, cards: &[CardBook], cpu: u64, memory: u64, slots: u32) -> f64 {
        if cards.is_empty() || slots == 0 {
            return 0.0;
        }
        let fits = |kind: &&Kind<'_>| kind.asks.need.cpu_milli <= cpu && kind.asks.need.memory <= memory;
        self.kinds.iter().filter(fits).map(|kind| kind.weight * kind.of_cards(machine, cards)).sum()
    }

    /// The same of one card, whatever else the machine has.
    pub fn of_card(&self, at: &Card, card: &CardBook) -> f64 {
        self.kinds.iter().map(|kind| kind.weight * kind.of_card(at, card) as f64).sum()
    }
}

impl Kind<'_> {
    fn of_cards(&self, machine: &Machine, cards: &[CardBook]) -> f64 {
        let each = cards.iter().zip(&machine.gpus).map(|(card, at)| self.of_card(at, card));
        let (mut bytes, mut count) = (0, 0);
        for usable in each.filter(|usable| *usable > 0) {
            bytes += usable;
            count += 1;
        }
        if count < self.asks.need.gpus { 0.0 } else { bytes as f64 }
    }

    fn of_card(&self, at: &Card, card: &CardBook) -> u64 {
        let need = self.asks.need;
        if need.gpus > 0 {
            return if self.asks.fits_whole(card) { card.total } else { 0 };
        }
        if need.gpu_slice.is_some() {
            return self.asks.free_slices(at, card).map(|slice| at.slices[slice].2).sum();
        }
        if self.asks.fits_share(card) { card.free() } else { 0 }
    }
}
