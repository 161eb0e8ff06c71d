//! How good a place is: what it costs, lower is better. One unit is about "a card's memory as large as the replica's is lost to
//! others".

use pilotfish_config::model::{TaintEffect, Topology};

use super::books::Books;
use super::cards::{self, Take};
use super::filter::{self, Ctx, tolerates};

/// Costs of all replicas of a group on one machine; they grow with its share.
const SPREAD_NODE: f64 = 6.0;
/// The same for a zone.
const SPREAD_ZONE: f64 = 3.0;
/// A preferred affinity that does not hold, or an anti-affinity.
const RATHER: f64 = 4.0;
/// A taint `PreferNoSchedule`.
const RATHER_NOT: f64 = 8.0;
/// All callers in another region.
const FAR: f64 = 2.0;
/// Of that, for callers in another zone of the region.
const ZONE_PART: f64 = 0.4;
/// How full the machine is afterwards: without cards the emptier one is better, with cards the fuller one.
const BALANCE: f64 = 0.2;
const FILL: f64 = 0.1;

/// A place with its cost, without what its zone adds.
pub(super) struct Offer {
    pub cost: f64,
    pub takes: Vec<Take>,
}

/// What one more replica of the group on the machine costs, beside `there` others of the group. None: it cannot be there (what
/// of the machine alone and what of its zone is for others to look at).
pub(super) fn of_node(
    books: &mut Books<'_>,
    ctx: &Ctx<'_>,
    at: usize,
    room: &[u64],
    there: u32,
) -> Option<Offer> {
    filter::of_room(books, ctx.group, at).ok()?;
    filter::of_node(books, ctx, at).ok()?;
    let machine = &books.world.nodes[at];
    let takes = cards::choose(machine, &mut books.sites[at].cards, &ctx.asks, room, Some(&books.mix))?;
    let wanted = f64::from(ctx.group.wanted.max(1));
    let mut cost = lost(books, ctx, at, &takes) + SPREAD_NODE * f64::from(there) / wanted;
    for taint in &machine.taints {
        if taint.effect == TaintEffect::PreferNoSchedule && !tolerates(ctx.group, taint) {
            cost += RATHER_NOT;
        }
    }
    for (rule, sign) in ctx.rather.iter().filter(|rather| rather.0.topology == Topology::Node) {
        let near = rule.slot.is_some_and(|slot| books.together(slot, at, Topology::Node) > 0);
        cost -= if near { RATHER * sign } else { 0.0 };
    }
    let full = fullness(books, ctx, at);
    cost += if ctx.group.need.gpu() { -FILL * full } else { BALANCE * full };
    Some(Offer { cost, takes })
}

/// What could be placed on the machine's cards before and cannot any more, as a share of what the replica takes of them.
fn lost(books: &mut Books<'_>, ctx: &Ctx<'_>, at: usize, takes: &[Take]) -> f64 {
    if books.sites[at].cards.is_empty() {
        return 0.0;
    }
    let before = books.value(at);
    if before == 0.0 {
        return 0.0;
    }
    let (need, machine) = (&ctx.group.need, &books.world.nodes[at]);
    let site = &mut books.sites[at];
    takes.iter().for_each(|take| site.cards[take.card].take(take));
    let cpu = site.cpu_free(machine).saturating_sub(need.cpu_milli);
    let memory = site.memory_free(machine).saturating_sub(need.memory);
    let slots = site.slots_free(machine).saturating_sub(1);
    let after = books.mix.of_site(machine, &site.cards, cpu, memory, slots);
    takes.iter().for_each(|take| site.cards[take.card].give_back(take));
    let taken: u64 = takes.iter().map(|take| take.memory).sum();
    let unit = if taken == 0 { books.card_size } else { taken as f64 };
    (before - after) / unit
}

/// The larger share of processor and memory that is given out with the replica there.
fn fullness(books: &Books<'_>, ctx: &Ctx<'_>, at: usize) -> f64 {
    let (site, machine, need) = (&books.sites[at], &books.world.nodes[at], &ctx.group.need);
    let share = |used: u64, more: u64, all: u64| match all {
        0 => 0.0,
        all => used.saturating_add(more) as f64 / all as f64,
    };
    let cpu = share(site.cpu_used, need.cpu_milli, machine.cpu_milli);
    cpu.max(share(site.memory_used, need.memory, machine.memory))
}

/// What a place costs for the zone that it is in, beside `there` replicas of the group. None: none may be there.
pub(super) fn of_zone(books: &Books<'_>, ctx: &Ctx<'_>, zone: usize, there: u32) -> Option<f64> {
    filter::of_zone(books, ctx, zone).ok()?;
    let mut cost = SPREAD_ZONE * f64::from(there) / f64::from(ctx.group.wanted.max(1));
    for (rule, sign) in ctx.rather.iter().filter(|rather| rather.0.topology != Topology::Node) {
        let near = rule.slot.is_some_and(|slot| books.within(slot, zone, rule.topology) > 0);
        cost -= if near { RATHER * sign } else { 0.0 };
    }
    for (slot, share) in &ctx.talks {
        let all = f64::from(books.anywhere(*slot));
        if all > 0.0 {
            let part = |topology| f64::from(books.within(*slot, zone, topology)) / all;
            let near = ZONE_PART * part(Topology::Zone) + (1.0 - ZONE_PART) * part(Topology::Region);
            cost -= FAR * share * near;
        }
    }
    Some(cost)
}
