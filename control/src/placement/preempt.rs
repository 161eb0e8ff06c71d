//! Room that others give up: those that end anyway, then those of lower priority, the fewest and the lowest of them, within
//! their disruption budgets.

use std::collections::{BTreeSet, HashMap};

use super::books::Books;
use super::cards::{self, Take};
use super::filter::{self, Ctx};

/// What a place costs others: the highest priority of those that have to go, their number, that of those that end anyway.
/// Compared in this order; nobody evicted is the least.
type Cost = (Option<i32>, usize, usize);

/// A place that is free once others are gone.
#[derive(Debug)]
pub(super) struct Plan {
    takes: Vec<Take>,
    /// Those that are told to go.
    pub victims: Vec<usize>,
    /// Those that end anyway.
    pub going: Vec<usize>,
    cost: Cost,
}

/// Machines where others could make room for a group, by cost.
#[derive(Debug)]
pub(super) struct Preempt {
    evict: bool,
    queue: BTreeSet<(Cost, usize)>,
    /// How many each group can do without still.
    spare: HashMap<usize, u32>,
}

impl Preempt {
    /// `evict`: not only those that end anyway.
    pub fn new(books: &mut Books<'_>, ctx: &Ctx<'_>, evict: bool) -> Preempt {
        let mut preempt = Preempt { evict, queue: BTreeSet::new(), spare: HashMap::new() };
        for site in 0..books.sites.len() {
            preempt.look(books, ctx, site);
        }
        preempt
    }

    fn look(&mut self, books: &mut Books<'_>, ctx: &Ctx<'_>, site: usize) {
        if filter::of_machine(ctx.group, &books.world.nodes[site]).is_ok()
            && let Some(plan) = self.plan(books, ctx, site)
        {
            self.queue.insert((plan.cost, site));
        }
    }

    /// The place that costs others the least, taken: those that have to go count as gone, and one of the group as there.
    pub fn take(&mut self, books: &mut Books<'_>, ctx: &Ctx<'_>) -> Option<(usize, Plan)> {
        loop {
            let (cost, site) = self.queue.pop_first()?;
            let Some(plan) = self.plan(books, ctx, site) else { continue };
            if plan.cost > cost {
                self.queue.insert((plan.cost, site));
                continue;
            }
            for victim in &plan.victims {
                let ready = books.is_ready(*victim);
                if let Some(spare) = books.placed[*victim].group.and_then(|of| self.spare.get_mut(&of)) {
                    *spare = spare.saturating_sub(u32::from(ready));
                }
            }
            for gone in plan.victims.iter().chain(&plan.going) {
                books.release(*gone);
            }
            let comes = books.add(ctx.index, site, plan.takes.clone());
            self.look(books, ctx, site);
            return Some((comes, plan));
        }
    }

    /// Who would have to go from a machine for one of the group.
    fn plan(&mut self, books: &mut Books<'_>, ctx: &Ctx<'_>, site: usize) -> Option<Plan> {
        let candidates = self.candidates(books, ctx, site);
        if candidates.is_empty() || !could(books, ctx, site, &candidates) {
            return None;
        }
        let mut gone: Vec<usize> = Vec::new();
        let mut fits = false;
        for candidate in candidates {
            books.release(candidate);
            gone.push(candidate);
            fits = find(books, ctx, site).is_some();
            if fits {
                break;
            }
        }
        // Those that went for nothing stay, the highest first.
        let mut stay: Vec<usize> = Vec::new();
        for candidate in gone.iter().rev().filter(|_| fits) {
            books.restore(*candidate);
            if find(books, ctx, site).is_some() {
                stay.push(*candidate);
            } else {
                books.release(*candidate);
            }
        }
        let takes = if fits { find(books, ctx, site) } else { None };
        gone.retain(|candidate| !stay.contains(candidate));
        gone.iter().for_each(|candidate| books.restore(*candidate));
        let (going, victims): (Vec<usize>, Vec<usize>) =
            gone.into_iter().partition(|candidate| books.placed[*candidate].going);
        let highest = victims.iter().filter_map(|victim| priority(books, *victim)).max();
        let cost = (highest, victims.len(), going.len());
        Some(Plan { takes: takes?, victims, going, cost })
    }

    /// Those that may go: those that end anyway, then the lowest, those that do not serve before those that do.
    fn candidates(&mut self, books: &Books<'_>, ctx: &Ctx<'_>, site: usize) -> Vec<usize> {
        let lower = |index: &usize| {
            let known = *index < books.world.held.len();
            let lower = priority(books, *index).is_some_and(|theirs| theirs < ctx.group.priority);
            books.placed[*index].going || (self.evict && known && lower)
        };
        let mut candidates: Vec<usize> = books.sites[site].replicas.iter().copied().filter(lower).collect();
        let key = |index: &usize| {
            let going = books.placed[*index].going;
            (!going, priority(books, *index), books.is_ready(*index), *index)
        };
        candidates.sort_unstable_by_key(key);
        let mut used: HashMap<usize, u32> = HashMap::new();
        candidates.retain(|index| {
            let placed = &books.placed[*index];
            let Some(of) = placed.group.filter(|_| !placed.going && books.is_ready(*index)) else {
                return true;
            };
            let spare = *self.spare.entry(of).or_insert_with(|| books.spare(of));
            let used = used.entry(of).or_default();
            *used += 1;
            *used <= spare
        });
        candidates
    }
}

fn priority(books: &Books<'_>, index: usize) -> Option<i32> {
    books.placed[index].group.map(|group| books.world.groups[group].priority)
}

/// Whether processor and memory would do with all of them gone: a cheap look before the exact one.
fn could(books: &Books<'_>, ctx: &Ctx<'_>, site: usize, candidates: &[usize]) -> bool {
    let (machine, book) = (&books.world.nodes[site], &books.sites[site]);
    let sum = |of: fn(&super::world::Need) -> u64| {
        candidates.iter().map(|index| of(books.need(*index))).fold(0u64, u64::saturating_add)
    };
    book.cpu_free(machine).saturating_add(sum(|need| need.cpu_milli)) >= ctx.group.need.cpu_milli
        && book.memory_free(machine).saturating_add(sum(|need| need.memory)) >= ctx.group.need.memory
}

/// A place on the machine as its books are now.
pub(super) fn find(books: &mut Books<'_>, ctx: &Ctx<'_>, site: usize) -> Option<Vec<Take>> {
    filter::of_zone(books, ctx, books.sites[site].zone).ok()?;
    filter::of_node(books, ctx, site).ok()?;
    filter::of_room(books, ctx.group, site).ok()?;
    let room = books.room(ctx.group);
    cards::choose(&books.world.nodes[site], &mut books.sites[site].cards, &ctx.asks, &room, None)
}
