//! Places for the replicas that a group lacks: in free room, else in room that others give up. A gang gets all or none.

use super::books::Books;
use super::filter::Ctx;
use super::place::{Limits, Outcome, Start, Stop, StopReason};
use super::preempt::{Plan, Preempt};
use super::search::Search;

/// What a group lacks still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lack {
    /// Index of the group.
    pub group: usize,
    /// So many have no place.
    pub count: u32,
    /// So many of them have one as soon as others are gone.
    pub waits: u32,
    /// Of a gang: so many would have one.
    pub fits: u32,
}

/// What was found, before it is said.
#[derive(Default)]
struct Found {
    free: Vec<usize>,
    waiting: Vec<(usize, Plan)>,
}

/// Places what a group lacks. None: it lacks nothing any more.
pub(super) fn fill(books: &mut Books<'_>, group: usize, limits: &Limits, out: &mut Outcome) -> Option<Lack> {
    let there = u32::try_from(books.active(group).count()).unwrap_or(u32::MAX);
    let missing = books.world.groups[group].wanted.saturating_sub(there);
    if missing == 0 {
        return None;
    }
    let ctx = Ctx::new(books, group);
    let found = find(books, &ctx, missing, limits);
    let count = found.free.len() + found.waiting.len();
    let fits = u32::try_from(count).unwrap_or(u32::MAX);
    if ctx.group.gang && fits < missing {
        found.undo(books);
        return Some(Lack { group, count: missing, waits: 0, fits });
    }
    found.say(books, &ctx, missing, out)
}

fn find(books: &mut Books<'_>, ctx: &Ctx<'_>, missing: u32, limits: &Limits) -> Found {
    let mut found = Found::default();
    let mut left = missing;
    let mut search = Search::new(books, ctx);
    while left > 0
        && let Some(spot) = search.best(books, ctx)
    {
        found.free.push(books.add(ctx.index, spot.site, spot.takes));
        search.changed(books, ctx, spot.site, true);
        left -= 1;
    }
    if left == 0 {
        return found;
    }
    let mut preempt = Preempt::new(books, ctx, limits.preempt);
    while left > 0
        && let Some(plan) = preempt.take(books, ctx)
    {
        found.waiting.push(plan);
        left -= 1;
    }
    found
}

impl Found {
    /// Leaves the books as they were.
    fn undo(self, books: &mut Books<'_>) {
        for (place, plan) in self.waiting.into_iter().rev() {
            books.forget(place);
            plan.victims.iter().chain(&plan.going).for_each(|gone| books.restore(*gone));
        }
        self.free.into_iter().rev().for_each(|place| books.forget(place));
    }

    fn say(self, books: &mut Books<'_>, ctx: &Ctx<'_>, missing: u32, out: &mut Outcome) -> Option<Lack> {
        for victim in self.waiting.iter().flat_map(|(_, plan)| &plan.victims) {
            books.placed[*victim].going = true;
            let by = ctx.group.id.clone();
            out.stops.push(Stop { replica: books.replica(*victim), why: StopReason::Evicted { by } });
        }
        // A gang starts together.
        let starts = if ctx.group.gang && !self.waiting.is_empty() { &[][..] } else { &self.free[..] };
        out.starts.extend(starts.iter().map(|place| start(books, *place)));
        let started = u32::try_from(starts.len()).unwrap_or(u32::MAX);
        let waits = self.waiting.len() + self.free.len() - starts.len();
        let count = missing.saturating_sub(started);
        let waits = u32::try_from(waits).unwrap_or(u32::MAX);
        let lack = Lack { group: ctx.index, count, waits, fits: 0 };
        (lack.count > 0).then_some(lack)
    }
}

/// The order to start what is in the books.
pub(super) fn start(books: &Books<'_>, place: usize) -> Start {
    let placed = &books.placed[place];
    let group = placed.group.map(|group| books.world.groups[group].id.clone()).unwrap_or_else(|| "".into());
    let site = placed.site.unwrap_or_default();
    Start { group, node: books.world.nodes[site].name.clone(), gpus: books.shares(site, &placed.takes) }
}
