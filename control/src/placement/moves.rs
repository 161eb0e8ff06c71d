//! Replicas that have to go elsewhere: their machine is drained, their card failed, they are of an old generation.
//!
//! The successor starts first, so room for both is needed. Where there is none, the old one ends first, if the group's disruption
//! budget allows that; else it stays. One that does not serve ends at once: nobody misses it.

use super::books::{Books, budget};
use super::fill;
use super::filter::{Ctx, tolerates};
use super::place::{Move, MoveReason, Outcome, Stay, Stop, StopReason};
use super::search::{Search, Spot};
use super::world::MachineState;
use pilotfish_config::model::TaintEffect;

/// Why a replica has to move.
pub(super) fn why(books: &Books<'_>, index: usize) -> Option<MoveReason> {
    let (placed, held) = (&books.placed[index], books.world.held.get(index)?);
    let (site, group) = (placed.site?, &books.world.groups[placed.group?]);
    let machine = &books.world.nodes[site];
    let minded = |taint: &pilotfish_config::model::Taint| {
        taint.effect == TaintEffect::NoExecute && !tolerates(group, taint)
    };
    if placed.failed {
        Some(MoveReason::GpuFailed)
    } else if machine.state == MachineState::Draining
        || (books.sites[site].evicts && machine.taints.iter().any(minded))
    {
        Some(MoveReason::Drained)
    } else if held.generation != group.generation {
        Some(MoveReason::Changed)
    } else {
        None
    }
}

/// Moves what of a group has to move.
pub(super) fn away(books: &mut Books<'_>, group: usize, out: &mut Outcome) {
    let mut must: Vec<(MoveReason, usize)> =
        books.active(group).filter_map(|index| Some((why(books, index)?, index))).collect();
    if must.is_empty() {
        return;
    }
    must.sort_by_key(|(why, index)| (urgency(*why), *index));
    let (idle, serving): (Vec<_>, Vec<_>) = must.into_iter().partition(|one| !books.is_ready(one.1));
    for (why, index) in idle {
        make_room(books, index, why, out);
    }
    if !serving.is_empty() {
        Moving::new(books, group).all(books, serving, out);
    }
}

fn urgency(why: MoveReason) -> u8 {
    match why {
        MoveReason::GpuFailed => 0,
        MoveReason::Drained => 1,
        MoveReason::Changed | MoveReason::Rebalanced => 2,
    }
}

/// It ends before its successor starts.
fn make_room(books: &mut Books<'_>, index: usize, why: MoveReason, out: &mut Outcome) {
    books.placed[index].going = true;
    out.stops.push(Stop { replica: books.replica(index), why: StopReason::MakesRoom { why } });
}

/// The replicas of one group that serve and have to move.
struct Moving<'w> {
    ctx: Ctx<'w>,
    search: Search,
    /// On their way now, and at most.
    moving: u32,
    most: u32,
    /// How many may end before their successors start.
    spare: u32,
}

impl<'w> Moving<'w> {
    fn new(books: &mut Books<'w>, group: usize) -> Moving<'w> {
        let ctx = Ctx::new(books, group);
        let search = Search::new(books, &ctx);
        let leaving = books.members[group].iter().filter(|index| {
            let placed = &books.placed[**index];
            placed.counts && placed.leaving && !placed.going
        });
        let moving = u32::try_from(leaving.count()).unwrap_or(u32::MAX);
        Moving { moving, most: budget(ctx.group).max(1), spare: books.spare(group), ctx, search }
    }

    fn all(mut self, books: &mut Books<'_>, must: Vec<(MoveReason, usize)>, out: &mut Outcome) {
        for (why, index) in must {
            let because = if self.moving >= self.most {
                Some(format!(
                    "its turn comes later: {} of its agent are on their way, as many as its disruption budget allows",
                    self.moving
                ))
            } else if let Some(spot) = self.find(books, index, why) {
                self.go(books, index, why, spot, out);
                None
            } else {
                self.without_room(books, index, why, out)
            };
            if let Some(because) = because {
                out.stays.push(Stay { replica: books.replica(index), why, because });
            }
        }
    }

    /// A place for its successor. One that only starts anew does so where it is, if there is room.
    fn find(&mut self, books: &mut Books<'_>, index: usize, why: MoveReason) -> Option<Spot> {
        let site = books.placed[index].site?;
        self.search.changed(books, &self.ctx, site, false);
        let here = if why == MoveReason::Changed { self.search.on(books, &self.ctx, site) } else { None };
        let spot = here.or_else(|| self.search.best(books, &self.ctx));
        if spot.is_none() {
            self.search.changed(books, &self.ctx, site, true);
        }
        spot
    }

    fn go(&mut self, books: &mut Books<'_>, index: usize, why: MoveReason, spot: Spot, out: &mut Outcome) {
        books.placed[index].leaving = true;
        let place = books.add(self.ctx.index, spot.site, spot.takes);
        self.search.changed(books, &self.ctx, spot.site, true);
        self.moving += 1;
        out.moves.push(Move { replica: books.replica(index), to: fill::start(books, place), why });
    }

    /// Ends it first if that may be and helps. Else says why it stays.
    fn without_room(
        &mut self,
        books: &mut Books<'_>,
        index: usize,
        why: MoveReason,
        out: &mut Outcome,
    ) -> Option<String> {
        let site = books.placed[index].site?;
        if why == MoveReason::Changed {
            books.release(index);
            let fits = self.search.on(books, &self.ctx, site).is_some();
            books.restore(index);
            self.search.again(books, &self.ctx, site);
            if !fits {
                return Some("its successor has room nowhere, not even in its own place".to_owned());
            }
        }
        if self.spare == 0 {
            return Some(
                "no node has room for its successor beside it, and its disruption budget does not let it end first"
                    .to_owned(),
            );
        }
        self.spare -= 1;
        make_room(books, index, why, out);
        None
    }
}
