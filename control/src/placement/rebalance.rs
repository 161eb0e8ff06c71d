//! Whole cards become free: replicas move from cards that are used a little to cards that are used more.
//!
//! It never goes round in circles: the target is fuller with the replica than the source was with it, so the sum of the squares
//! of what is used grows with every move. And a move is made only as a part of emptying a whole card.

use super::books::Books;
use super::cards::Take;
use super::fill;
use super::filter::{self, Ctx};
use super::place::{Move, MoveReason, Outcome};
use super::score;

/// A card by its machine and its index there.
type At = (usize, usize);

/// Moves at most so many, those that are on their way already included.
pub(super) fn rebalance(books: &mut Books<'_>, most: u32, out: &mut Outcome) {
    let on_way = books.placed.iter().filter(|placed| placed.counts && placed.leaving).count();
    let mut left = (most as usize).saturating_sub(on_way);
    for card in light_cards(books) {
        if left == 0 {
            return;
        }
        let Some(users) = users(books, card) else { continue };
        let moves = empty(books, card, &users);
        // A card that cannot be emptied at once is emptied step by step: the others find their place then too.
        for (index, place) in moves.into_iter().take(left) {
            books.placed[index].leaving = true;
            let (replica, why) = (books.replica(index), MoveReason::Rebalanced);
            out.moves.push(Move { replica, to: fill::start(books, place), why });
            left -= 1;
        }
    }
}

/// Cards that are shared and used, the least used first.
fn light_cards(books: &Books<'_>) -> Vec<At> {
    let mut cards: Vec<(u64, At)> = Vec::new();
    for (at, site) in books.sites.iter().enumerate() {
        let shared = |card: &usize| site.cards[*card].is_shared() && site.cards[*card].used > 0;
        let used = (0..site.cards.len()).filter(shared).map(|card| (site.cards[card].used, (at, card)));
        cards.extend(used);
    }
    cards.sort_unstable();
    cards.into_iter().map(|card| card.1).collect()
}

/// Those on a card, the largest first. None: one of them may not move now.
fn users(books: &Books<'_>, (at, card): At) -> Option<Vec<usize>> {
    let on_card = |index: &usize| books.placed[*index].takes.iter().any(|take| take.card == card);
    let mut users: Vec<usize> = books.sites[at].replicas.iter().copied().filter(on_card).collect();
    let may_move = |index: &usize| {
        let placed = &books.placed[*index];
        let known = *index < books.world.held.len();
        known && !placed.going && !placed.leaving && placed.group.is_some() && books.is_ready(*index)
    };
    users.sort_unstable_by_key(|index| (std::cmp::Reverse(books.need(*index).gpu_memory), *index));
    users.iter().all(may_move).then_some(users)
}

/// New places for all of them, in the books already; none of them if one has none.
fn empty(books: &mut Books<'_>, from: At, users: &[usize]) -> Vec<(usize, usize)> {
    let mut moves: Vec<(usize, usize)> = Vec::new();
    for index in users {
        match target(books, from, *index) {
            Some((group, site, take)) => moves.push((*index, books.add(group, site, vec![take]))),
            None => {
                moves.iter().rev().for_each(|(_, place)| books.forget(*place));
                return Vec::new();
            }
        }
    }
    moves
}

/// The fullest card that takes the replica and is fuller with it than its own is.
fn target(books: &mut Books<'_>, (from, card): At, index: usize) -> Option<(usize, usize, Take)> {
    let group = books.placed[index].group?;
    let ctx = Ctx::new(books, group);
    let room = books.room(ctx.group);
    let (used, memory) = (books.sites[from].cards[card].used, ctx.group.need.gpu_memory);
    let mut best: Option<(u64, At)> = None;
    for at in 0..books.sites.len() {
        let fullest = (0..books.sites[at].cards.len()).filter(|other| (at, *other) != (from, card));
        let fullest = fullest.filter(|other| {
            let other = &books.sites[at].cards[*other];
            let in_room = other.pool.is_none_or(|pool| room[pool] >= memory);
            ctx.asks.fits_share(other)
                && in_room
                && other.used > 0
                && other.used.saturating_add(memory) > used
        });
        let Some(fullest) =
            fullest.max_by_key(|other| (books.sites[at].cards[*other].used, std::cmp::Reverse(*other)))
        else {
            continue;
        };
        let used = books.sites[at].cards[fullest].used;
        if best.is_none_or(|best| used > best.0) && may(books, &ctx, at, from, index) {
            best = Some((used, (at, fullest)));
        }
    }
    let (_, (site, card)) = best?;
    Some((group, site, Take { card, slice: None, memory, whole: false }))
}

/// Whether the replica may be on the machine, as well spread as now.
fn may(books: &mut Books<'_>, ctx: &Ctx<'_>, at: usize, from: usize, index: usize) -> bool {
    let of =
        |site: usize| books.active(ctx.index).filter(|other| books.placed[*other].site == Some(site)).count();
    let (there, here) = (of(at), of(from));
    let far = score::of_zone(books, ctx, books.sites[at].zone, 0)
        > score::of_zone(books, ctx, books.sites[from].zone, 0);
    let spread = at == from || there < here;
    let rather = books.world.nodes[at].taints.iter().any(|taint| !filter::tolerates(ctx.group, taint));
    let _ = index;
    spread
        && !far
        && !rather
        && filter::of_machine(ctx.group, &books.world.nodes[at]).is_ok()
        && filter::of_zone(books, ctx, books.sites[at].zone).is_ok()
        && filter::of_node(books, ctx, at).is_ok()
        && filter::of_room(books, ctx.group, at).is_ok()
}
