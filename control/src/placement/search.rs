//! The best place for one replica of a group after another, without looking at every machine each time.
//!
//! What a place costs is a part of its own, which changes only when something changes there, and a part of its zone. So each
//! zone has a heap of its machines, and the best place is the best of the zones' best.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::books::Books;
use super::cards::Take;
use super::filter::{self, Ctx};
use super::score;

/// A machine in a heap; it counts if its cost is still the machine's.
#[derive(Debug, Clone, Copy)]
struct Entry {
    cost: f64,
    site: usize,
}

impl Ord for Entry {
    /// The greatest is the cheapest, then the first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.cost.total_cmp(&self.cost).then(other.site.cmp(&self.site))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

/// A place.
#[derive(Debug)]
pub(super) struct Spot {
    pub site: usize,
    pub takes: Vec<Take>,
}

/// Machines that the group may be on, by cost.
#[derive(Debug)]
pub(super) struct Search {
    zones: Vec<BinaryHeap<Entry>>,
    /// Of each machine; none: it is not fit.
    costs: Vec<Option<f64>>,
    /// Replicas of the group on each machine, and in each zone.
    on_site: Vec<u32>,
    in_zone: Vec<u32>,
}

impl Search {
    pub fn new(books: &mut Books<'_>, ctx: &Ctx<'_>) -> Search {
        let mut search = Search {
            zones: vec![BinaryHeap::new(); books.zones.len()],
            costs: vec![None; books.sites.len()],
            on_site: vec![0; books.sites.len()],
            in_zone: vec![0; books.zones.len()],
        };
        let sites: Vec<usize> =
            books.active(ctx.index).filter_map(|replica| books.placed[replica].site).collect();
        for site in sites {
            search.count(books, site, true);
        }
        let room = books.room(ctx.group);
        for site in 0..books.sites.len() {
            if filter::of_machine(ctx.group, &books.world.nodes[site]).is_ok() {
                search.look(books, ctx, site, &room);
            }
        }
        search
    }

    fn count(&mut self, books: &Books<'_>, site: usize, comes: bool) {
        for count in [&mut self.on_site[site], &mut self.in_zone[books.sites[site].zone]] {
            *count = if comes { *count + 1 } else { count.saturating_sub(1) };
        }
    }

    /// Finds out what a machine costs now.
    fn look(&mut self, books: &mut Books<'_>, ctx: &Ctx<'_>, site: usize, room: &[u64]) -> Option<Vec<Take>> {
        let offer = score::of_node(books, ctx, site, room, self.on_site[site]);
        let cost = offer.as_ref().map(|offer| offer.cost);
        if cost != self.costs[site] {
            self.costs[site] = cost;
            if let Some(cost) = cost {
                self.zones[books.sites[site].zone].push(Entry { cost, site });
            }
        }
        offer.map(|offer| offer.takes)
    }

    /// The cheapest place. It is the caller's to take it, and then to say so with [`Search::changed`].
    pub fn best(&mut self, books: &mut Books<'_>, ctx: &Ctx<'_>) -> Option<Spot> {
        loop {
            let entry = self.cheapest(books, ctx)?;
            let room = books.room(ctx.group);
            let takes = self.look(books, ctx, entry.site, &room);
            if self.costs[entry.site] == Some(entry.cost) {
                return takes.map(|takes| Spot { site: entry.site, takes });
            }
        }
    }

    fn cheapest(&mut self, books: &Books<'_>, ctx: &Ctx<'_>) -> Option<Entry> {
        let mut best: Option<(f64, Entry)> = None;
        for (zone, heap) in self.zones.iter_mut().enumerate() {
            while heap.peek().is_some_and(|top| self.costs[top.site] != Some(top.cost)) {
                heap.pop();
            }
            let Some(top) = heap.peek().copied() else { continue };
            let Some(added) = score::of_zone(books, ctx, zone, self.in_zone[zone]) else { continue };
            let this = (top.cost + added, top);
            let better =
                |best: (f64, Entry)| this.0.total_cmp(&best.0).then(this.1.site.cmp(&best.1.site)).is_lt();
            if best.is_none_or(better) {
                best = Some(this);
            }
        }
        best.map(|best| best.1)
    }

    /// A replica of the group came to a machine, or left it.
    pub fn changed(&mut self, books: &mut Books<'_>, ctx: &Ctx<'_>, site: usize, comes: bool) {
        self.count(books, site, comes);
        self.again(books, ctx, site);
    }

    /// Something else changed on a machine.
    pub fn again(&mut self, books: &mut Books<'_>, ctx: &Ctx<'_>, site: usize) {
        if filter::of_machine(ctx.group, &books.world.nodes[site]).is_ok() {
            let room = books.room(ctx.group);
            self.look(books, ctx, site, &room);
        }
    }

    /// A place on this very machine, if there is one.
    pub fn on(&mut self, books: &mut Books<'_>, ctx: &Ctx<'_>, site: usize) -> Option<Spot> {
        filter::of_machine(ctx.group, &books.world.nodes[site]).ok()?;
        filter::of_zone(books, ctx, books.sites[site].zone).ok()?;
        let room = books.room(ctx.group);
        let takes = self.look(books, ctx, site, &room)?;
        Some(Spot { site, takes })
    }
}
