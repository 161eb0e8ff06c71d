//! Why replicas have no place: machines counted by what is wrong with them, and what would help.

use super::books::{Books, agent_of, full_name};
use super::fill::Lack;
use super::filter::{self, Ctx};
use super::place::{Limits, Obstacle, Unplaced};
use super::verdict::{self, Verdict};
use crate::cli::human;

/// Machines with one reason: how many, the greatest number that goes with it, and the first machine that has it.
struct Same {
    verdict: Verdict,
    nodes: u32,
    most: u64,
    nearest: usize,
}

/// What keeps a group from having what it lacks.
pub(super) fn unplaced(books: &mut Books<'_>, lack: &Lack, limits: &Limits) -> Unplaced {
    let ctx = Ctx::new(books, lack.group);
    let (found, busy) = count(books, &ctx);
    let hint = hint(books, &ctx, lack, limits, &found, &busy);
    let reasons =
        found.iter().map(|same| Obstacle { nodes: same.nodes, why: same.verdict.words(&ctx, same.most) });
    Unplaced { group: ctx.group.id.clone(), count: lack.count, reasons: reasons.collect(), hint }
}

/// The most frequent first; and for each machine whether only others are in the way.
fn count(books: &mut Books<'_>, ctx: &Ctx<'_>) -> (Vec<Same>, Vec<bool>) {
    let mut found: Vec<Same> = Vec::new();
    let mut busy = vec![false; books.sites.len()];
    for (at, busy) in busy.iter_mut().enumerate() {
        let (verdict, number) = verdict::of(books, ctx, at);
        *busy = verdict >= Verdict::Full;
        match found.iter_mut().find(|same| same.verdict == verdict) {
            Some(same) => {
                same.nodes += 1;
                if number > same.most {
                    (same.most, same.nearest) = (number, at);
                }
            }
            None => found.push(Same { verdict, nodes: 1, most: number, nearest: at }),
        }
    }
    found.sort_by(|a, b| b.nodes.cmp(&a.nodes).then_with(|| b.verdict.cmp(&a.verdict)));
    (found, busy)
}

/// One sentence: what is plainly wrong, else the nearest thing to a place.
fn hint(
    books: &Books<'_>,
    ctx: &Ctx<'_>,
    lack: &Lack,
    limits: &Limits,
    found: &[Same],
    busy: &[bool],
) -> Option<String> {
    let waiting = || {
        let all = if lack.waits == lack.count { "they have" } else { "some have" };
        (lack.waits > 0).then(|| format!("{all} a place as soon as replicas that end now are gone from it"))
    };
    waiting()
        .or_else(|| wrong_pool(books, ctx))
        .or_else(|| no_nodes(books, ctx))
        .or_else(|| circle(books, ctx))
        .or_else(|| near_nobody(books, ctx, found))
        .or_else(|| too_large(books, ctx, found))
        .or_else(|| gang(ctx, lack))
        .or_else(|| no_budget(books, ctx, limits, busy))
        .or_else(|| nearest(books, ctx, found))
}

fn wrong_pool(books: &Books<'_>, ctx: &Ctx<'_>) -> Option<String> {
    let name = ctx.group.pool.as_deref()?;
    let Some(pool) = filter::named_pool(books.world, ctx.group, name) else {
        let all: Vec<&str> = books.world.pools.iter().map(|pool| pool.name.as_str()).collect();
        let there =
            if all.is_empty() { "there is none".to_owned() } else { format!("there are {}", all.join(", ")) };
        return Some(format!("there is no GpuPool {name}: {there}"));
    };
    let pool = &books.world.pools[pool];
    let closed = !filter::is_allowed(pool, ctx.group);
    closed.then(|| {
        let agent = agent_of(&ctx.group.id);
        format!("GpuPool {} is for {} only: {agent} is not among them", pool.name, pool.allowed.join(", "))
    })
}

fn no_nodes(books: &Books<'_>, ctx: &Ctx<'_>) -> Option<String> {
    if books.sites.is_empty() {
        return Some("there are no nodes: start one with `pilotfish node`".to_owned());
    }
    let region = ctx.group.region.as_deref().filter(|region| !books.regions.contains(region))?;
    let mut known: Vec<&str> = books.regions.iter().copied().filter(|region| !region.is_empty()).collect();
    known.sort_unstable();
    let nodes = if known.is_empty() {
        "no node says its region (`pilotfish node --locality`)".to_owned()
    } else {
        format!("nodes are in {}", known.join(", "))
    };
    Some(format!("no node is in region {region}: {nodes}"))
}

/// Agents that each have to be near the next, round to the first, and none is there: nobody can be first.
fn circle(books: &Books<'_>, ctx: &Ctx<'_>) -> Option<String> {
    let own = agent_of(&ctx.group.id).to_owned();
    let mut way = vec![own.clone()];
    while way.len() <= books.world.groups.len() {
        let last = way.last()?;
        let group = books.world.groups.iter().find(|group| agent_of(&group.id) == last)?;
        let needed = group.affinity.iter().filter(|rule| rule.required);
        let next = needed
            .map(|rule| full_name(&rule.agent, &group.namespace))
            .find(|name| name != last && books.slot(name).is_none_or(|slot| books.anywhere(slot) == 0))?;
        let closes = next == own;
        way.push(next);
        if closes {
            let way = way.join(" near ");
            return Some(format!("{way}: none can be the first; let one of them prefer it only"));
        }
        if way[1..way.len() - 1].contains(way.last()?) {
            return None;
        }
    }
    None
}

fn near_nobody(books: &Books<'_>, ctx: &Ctx<'_>, found: &[Same]) -> Option<String> {
    found.iter().find(|same| matches!(same.verdict, Verdict::NotNear(_)))?;
    let rule = ctx.near.iter().find(|rule| rule.slot.is_none_or(|slot| books.anywhere(slot) == 0))?;
    let agent = &ctx.group.affinity[rule.index?].agent;
    Some(format!("it has to be near {agent}, and no replica of {agent} has a place"))
}

/// More than any machine has that it may be on, even if nobody else were there.
fn too_large(books: &Books<'_>, ctx: &Ctx<'_>, found: &[Same]) -> Option<String> {
    use Verdict::{FewCards, NoCards, SmallCards, SmallCpu, SmallMemory};
    let is_small =
        |same: &&Same| matches!(same.verdict, FewCards | SmallCards | SmallCpu | SmallMemory | NoCards);
    let hopeless = |same: &Same| same.verdict < Verdict::Failed;
    if !found.iter().all(hopeless) {
        return None;
    }
    let same = found.iter().filter(is_small).max_by(|a, b| a.verdict.cmp(&b.verdict))?;
    let (need, node) = (&ctx.group.need, &books.world.nodes[same.nearest].name);
    let what = match same.verdict {
        NoCards => return Some("it needs a GPU, and no node that it may be on has one".to_owned()),
        FewCards => format!(
            "{} wanted, and node {node} has the most: {}",
            human::count(need.gpus as usize, "GPU"),
            same.most
        ),
        _ => format!("{} (node {node})", same.verdict.words(ctx, same.most)),
    };
    Some(format!("more than any node has: {what}"))
}

fn gang(ctx: &Ctx<'_>, lack: &Lack) -> Option<String> {
    let fits = lack.fits;
    (ctx.group.gang && fits > 0).then(|| {
        format!("a gang starts together: {fits} of {} that are missing would have a place", lack.count)
    })
}

/// Somebody of a lower priority is in the way and may not go.
fn no_budget(books: &Books<'_>, ctx: &Ctx<'_>, limits: &Limits, busy: &[bool]) -> Option<String> {
    let lower = books.world.held.iter().zip(&books.placed).filter_map(|(_, placed)| {
        let stays = placed.counts && !placed.going && placed.site.is_some_and(|site| busy[site]);
        let group = &books.world.groups[placed.group.filter(|_| stays)?];
        (group.priority < ctx.group.priority).then_some(group)
    });
    let lowest = lower.min_by(|a, b| a.priority.cmp(&b.priority).then_with(|| a.id.cmp(&b.id)))?;
    let id = &lowest.id;
    Some(if limits.preempt {
        format!("{id} has a lower priority, but letting go what its disruption budget allows is not enough")
    } else {
        format!("{id} has a lower priority, but nobody is evicted: the duty `policy_enforcement` is off")
    })
}

fn nearest(books: &Books<'_>, ctx: &Ctx<'_>, found: &[Same]) -> Option<String> {
    let same = found.iter().max_by(|a, b| a.verdict.cmp(&b.verdict))?;
    let (need, machine) = (&ctx.group.need, &books.world.nodes[same.nearest]);
    let what = match &same.verdict {
        Verdict::BusyCards => {
            let large = books.sites[same.nearest].cards.iter().filter(|card| card.total >= need.gpu_memory);
            let of = large.count().max(need.gpus as usize);
            format!("has {} of {of} GPUs of that memory free, {} wanted", same.most, need.gpus)
        }
        Verdict::BusyShare => {
            format!("has {} free on a GPU, {} wanted", human::size(same.most), human::size(need.gpu_memory))
        }
        Verdict::Fit => return None,
        other => format!("fails on this: {}", other.words(ctx, same.most)),
    };
    Some(format!("the nearest: node {} {what}", machine.name))
}
