//! What ends: what is lost, what nobody wants, what is too much.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::books::Books;
use super::moves;
use super::place::{Outcome, Stop, StopReason};

/// Ends what has to end.
pub(super) fn stop(books: &mut Books<'_>, out: &mut Outcome) {
    for index in 0..books.world.held.len() {
        let placed = &books.placed[index];
        let why = match (placed.site, placed.group) {
            (None, _) => StopReason::NodeLost,
            (_, None) if !placed.going => StopReason::NotWanted,
            _ => continue,
        };
        end(books, index, why, out);
    }
    for group in 0..books.members.len() {
        of_group(books, group, out);
    }
}

/// It has what it has until it is gone.
fn end(books: &mut Books<'_>, index: usize, why: StopReason, out: &mut Outcome) {
    books.placed[index].going = true;
    out.stops.push(Stop { replica: books.replica(index), why });
}

fn of_group(books: &mut Books<'_>, group: usize, out: &mut Outcome) {
    let wanted = usize::try_from(books.world.groups[group].wanted).unwrap_or(usize::MAX);
    let active: Vec<usize> = books.active(group).collect();
    let extra = active.len().saturating_sub(wanted);
    if extra > 0 {
        for index in least_needed(books, &active, extra) {
            end(books, index, StopReason::Surplus, out);
        }
    }
    // One that is to be replaced stays for a successor that does not serve yet, while it serves itself.
    let members = books.members[group].iter().copied();
    let leaving: Vec<usize> = members.filter(|index| is_leaving(books, *index)).collect();
    if leaving.is_empty() {
        return;
    }
    let awaited = books.active(group).filter(|index| !books.is_ready(*index)).count();
    let mut spare = if extra > 0 || wanted == 0 { leaving.len().saturating_sub(awaited) } else { 0 };
    for index in leaving {
        let useless = !books.is_ready(index);
        if useless || spare > 0 {
            spare = spare.saturating_sub(1);
            end(books, index, StopReason::Surplus, out);
        }
    }
}

fn is_leaving(books: &Books<'_>, index: usize) -> bool {
    let placed = &books.placed[index];
    placed.counts && placed.leaving && !placed.going
}

/// How little a replica is needed; the greatest ends first.
type Key = (bool, bool, bool, usize, Reverse<usize>);

/// Those that do not serve, then those that would have to move anyway, those that leave a whole card free, those on the machine
/// with the most of the group.
fn least_needed(books: &Books<'_>, active: &[usize], extra: usize) -> Vec<usize> {
    let mut there = vec![0usize; books.sites.len()];
    let mut on_card: HashMap<(usize, usize), u32> = HashMap::new();
    let mut by_site: HashMap<usize, Vec<usize>> = HashMap::new();
    for index in active {
        let Some(site) = books.placed[*index].site else { continue };
        there[site] += 1;
        by_site.entry(site).or_default().push(*index);
    }
    let key = |index: usize, there: &[usize], gone: &HashMap<(usize, usize), u32>| -> Key {
        let placed = &books.placed[index];
        let site = placed.site.unwrap_or_default();
        let alone = |take: &super::cards::Take| {
            let left = gone.get(&(site, take.card)).copied().unwrap_or(0);
            books.sites[site].cards[take.card].holders.saturating_sub(left) <= 1
        };
        let frees = placed.takes.iter().any(alone);
        let must = moves::why(books, index).is_some();
        (!books.is_ready(index), must, frees, there[site], Reverse(index))
    };
    let mut heap: BinaryHeap<(Key, usize)> =
        active.iter().map(|index| (key(*index, &there, &on_card), *index)).collect();
    let mut chosen: Vec<usize> = Vec::with_capacity(extra);
    let mut is_chosen = vec![false; books.placed.len()];
    while chosen.len() < extra
        && let Some((was, index)) = heap.pop()
    {
        if is_chosen[index] {
            continue;
        }
        let now = key(index, &there, &on_card);
        if now != was {
            heap.push((now, index));
            continue;
        }
        is_chosen[index] = true;
        chosen.push(index);
        let Some(site) = books.placed[index].site else { continue };
        there[site] -= 1;
        for take in &books.placed[index].takes {
            *on_card.entry((site, take.card)).or_default() += 1;
        }
        // Its neighbours may leave a whole card free now.
        let shared = !books.placed[index].takes.is_empty();
        let near = by_site.get(&site).into_iter().flatten().filter(|other| shared && !is_chosen[**other]);
        heap.extend(near.map(|other| (key(*other, &there, &on_card), *other)));
    }
    chosen
}
