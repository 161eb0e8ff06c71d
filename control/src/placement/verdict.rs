//! What keeps a group's replica from a machine, in words. Not in anybody's way: only for those that found no place.

use pilotfish_config::model::{AgentAffinity, GpuSharing, Taint, TaintEffect};

use super::books::Books;
use super::cards::CardBook;
use super::filter::{self, Bar, Ctx};
use super::world::MachineState;
use crate::cli::human;

/// A reason; machines with the same one are counted together. The later, the nearer the machine is to being fit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// Lost, or nothing comes there now.
    State(&'static str),
    Region,
    /// By its words: the label, the taint.
    Label(String),
    Taint(String),
    NoCards,
    /// Cards are of other pools than the one that was named.
    OtherPool,
    /// Cards are of pools that are closed to the agent: their names.
    ClosedPool(String),
    /// Cards are not given out in this way.
    Sharing,
    /// No MIG instance of this profile.
    NoProfile,
    /// Cards are too small; the largest.
    SmallCards,
    /// Not so many cards; the most.
    FewCards,
    /// Too small at all; the most there.
    SmallCpu,
    SmallMemory,
    Failed,
    NotNear(String),
    TooNear(String),
    /// As many replicas as it takes.
    Full,
    /// Too little is free; the most.
    Cpu,
    Memory,
    /// Only the reserve of a pool is left: its name.
    Reserve(String),
    /// Too few cards, too little of a card, no slice is free; the most.
    BusyCards,
    BusyShare,
    BusySlices,
    /// Nothing: it was fit for one, but not for the rest of a gang.
    Fit,
}

/// The reason of a machine, with the number that goes with it.
pub(super) fn of(books: &mut Books<'_>, ctx: &Ctx<'_>, at: usize) -> (Verdict, u64) {
    let (group, machine) = (ctx.group, &books.world.nodes[at]);
    match filter::of_machine(group, machine) {
        Err(Bar::State(state)) => return (Verdict::State(state_word(state)), 0),
        Err(Bar::Label(index)) => {
            let label = group.node_selector.iter().nth(index);
            let (key, value) = label.map(|(key, value)| (key.as_str(), value.as_str())).unwrap_or_default();
            return (Verdict::Label(format!("{key}={value}")), 0);
        }
        Err(Bar::Taint(index)) => return (Verdict::Taint(taint_words(&machine.taints[index])), 0),
        Err(_) => return (Verdict::Region, 0),
        Ok(()) => {}
    }
    if let Some(never) = of_cards(books, ctx, at) {
        return never;
    }
    if machine.cpu_milli < group.need.cpu_milli {
        return (Verdict::SmallCpu, machine.cpu_milli);
    }
    if machine.memory < group.need.memory {
        return (Verdict::SmallMemory, machine.memory);
    }
    of_now(books, ctx, at)
}

/// What is in the way now, on a machine that is large enough.
fn of_now(books: &mut Books<'_>, ctx: &Ctx<'_>, at: usize) -> (Verdict, u64) {
    let zone = filter::of_zone(books, ctx, books.sites[at].zone);
    match zone.and_then(|()| filter::of_node(books, ctx, at)) {
        Err(Bar::NotNear(index)) => return (Verdict::NotNear(rule_words(ctx.group.affinity.get(index))), 0),
        Err(Bar::TooNear(index)) => {
            let rule = index.and_then(|index| ctx.group.anti_affinity.get(index));
            return (Verdict::TooNear(rule_words(rule)), 0);
        }
        _ => {}
    }
    match filter::of_room(books, ctx.group, at) {
        Err(Bar::Cpu(free)) => return (Verdict::Cpu, free),
        Err(Bar::Memory(free)) => return (Verdict::Memory, free),
        Err(_) => return (Verdict::Full, 0),
        Ok(()) => {}
    }
    busy_cards(books, ctx, at)
}

/// What about its cards never changes by itself.
fn of_cards(books: &Books<'_>, ctx: &Ctx<'_>, at: usize) -> Option<(Verdict, u64)> {
    let (need, cards, machine) = (&ctx.group.need, &books.sites[at].cards, &books.world.nodes[at]);
    if !need.gpu() {
        return None;
    }
    if cards.is_empty() {
        return Some((Verdict::NoCards, 0));
    }
    let open: Vec<usize> = (0..cards.len()).filter(|card| ctx.asks.may(cards[*card].pool)).collect();
    if open.is_empty() {
        return Some((closed(books, ctx, cards), 0));
    }
    let way: Vec<usize> = open.into_iter().filter(|card| way(ctx, &cards[*card])).collect();
    if way.is_empty() {
        return Some((Verdict::Sharing, 0));
    }
    if let Some(profile) = need.gpu_slice.as_deref().filter(|_| need.gpus == 0) {
        let mut slices = way.iter().flat_map(|card| &machine.gpus[*card].slices);
        return (!slices.any(|slice| slice.1 == profile)).then_some((Verdict::NoProfile, 0));
    }
    let large = way.iter().filter(|card| cards[**card].total >= need.gpu_memory).count();
    if large == 0 {
        return Some((Verdict::SmallCards, way.iter().map(|card| cards[*card].total).max().unwrap_or(0)));
    }
    if u32::try_from(large).is_ok_and(|large| large < need.gpus) {
        return Some((Verdict::FewCards, large as u64));
    }
    let well = way.iter().filter(|card| cards[**card].healthy && cards[**card].total >= need.gpu_memory);
    let enough = u32::try_from(well.count()).is_ok_and(|well| well >= need.gpus.max(1));
    (!enough).then_some((Verdict::Failed, 0))
}

/// Whether the card is given out in the way that is asked for, at all.
fn way(ctx: &Ctx<'_>, card: &CardBook) -> bool {
    let need = &ctx.group.need;
    if need.gpus > 0 {
        card.slices.is_empty() && card.sharing != GpuSharing::Slices
    } else if need.gpu_slice.is_some() {
        card.pool.is_none() || card.sharing == GpuSharing::Slices
    } else {
        card.slices.is_empty() && card.sharing == GpuSharing::Fractional
    }
}

fn closed(books: &Books<'_>, ctx: &Ctx<'_>, cards: &[CardBook]) -> Verdict {
    if ctx.group.pool.is_some() {
        return Verdict::OtherPool;
    }
    let mut names: Vec<&str> =
        cards.iter().filter_map(|card| Some(books.world.pools[card.pool?].name.as_str())).collect();
    names.sort_unstable();
    names.dedup();
    Verdict::ClosedPool(names.join(", "))
}

fn busy_cards(books: &mut Books<'_>, ctx: &Ctx<'_>, at: usize) -> (Verdict, u64) {
    let room = books.room(ctx.group);
    let need = &ctx.group.need;
    let cards = &books.sites[at].cards;
    let machine = &books.world.nodes[at];
    let mine = |card: &&CardBook| card.healthy && ctx.asks.may(card.pool) && way(ctx, card);
    let (verdict, number, fits) = if !need.gpu() {
        return (Verdict::Fit, 0);
    } else if need.gpus > 0 {
        let free = cards.iter().filter(|card| ctx.asks.fits_whole(card)).count() as u64;
        (Verdict::BusyCards, free, free >= u64::from(need.gpus))
    } else if need.gpu_slice.is_some() {
        let free = |(card, at)| ctx.asks.free_slices(at, card).count() as u64;
        let free: u64 = cards.iter().zip(&machine.gpus).map(free).sum();
        (Verdict::BusySlices, free, free > 0)
    } else {
        let shared = cards.iter().filter(mine).filter(|card| card.whole == 0);
        let free = shared.map(CardBook::free).max().unwrap_or(0);
        (Verdict::BusyShare, free, free >= need.gpu_memory)
    };
    if !fits {
        return (verdict, number);
    }
    let cramped = cards.iter().filter(mine).filter_map(|card| card.pool).find(|pool| room[*pool] != u64::MAX);
    match cramped {
        Some(pool) if super::preempt::find(books, ctx, at).is_none() => {
            (Verdict::Reserve(books.world.pools[pool].name.clone()), room[pool])
        }
        _ => (Verdict::Fit, 0),
    }
}

impl Verdict {
    /// In words, with the greatest number of the machines that it is about.
    pub fn words(&self, ctx: &Ctx<'_>, most: u64) -> String {
        let need = &ctx.group.need;
        let profile = need.gpu_slice.as_deref().unwrap_or_default();
        match self {
            Verdict::State(word) => (*word).to_owned(),
            Verdict::Region => {
                format!("not in region {}", ctx.group.region.as_deref().unwrap_or_default())
            }
            Verdict::Label(label) => format!("without the label {label}"),
            Verdict::Taint(taint) => format!("with the taint {taint}, which it does not tolerate"),
            Verdict::NoCards => "no GPU".to_owned(),
            Verdict::OtherPool => {
                format!("no GPU of pool {}", ctx.group.pool.as_deref().unwrap_or_default())
            }
            Verdict::ClosedPool(pools) => format!("GPUs only in pools that it may not use ({pools})"),
            Verdict::Sharing => sharing_words(ctx),
            Verdict::NoProfile => format!("no GPU slice of profile {profile}"),
            Verdict::SmallCards => {
                format!(
                    "a GPU with {} wanted, the largest has {}",
                    human::size(need.gpu_memory),
                    human::size(most)
                )
            }
            Verdict::FewCards => {
                format!(
                    "{} of that memory wanted, at most {most} there",
                    human::count(need.gpus as usize, "GPU")
                )
            }
            Verdict::SmallCpu => {
                format!("{} wanted, the largest has {}", cpus(need.cpu_milli), human::cores(most))
            }
            Verdict::SmallMemory => {
                format!(
                    "{} of memory wanted, the largest has {}",
                    human::size(need.memory),
                    human::size(most)
                )
            }
            Verdict::Failed => "its GPUs failed".to_owned(),
            Verdict::NotNear(rule) => format!("not near {rule}"),
            Verdict::TooNear(rule) => format!("too near {rule}"),
            Verdict::Full => "as many replicas as the node takes".to_owned(),
            Verdict::Cpu => format!("{} wanted, at most {} free", cpus(need.cpu_milli), human::cores(most)),
            Verdict::Memory => {
                format!("{} of memory wanted, at most {} free", human::size(need.memory), human::size(most))
            }
            Verdict::Reserve(pool) => {
                format!("only the reserve of pool {pool} is left, which is for higher priorities")
            }
            Verdict::BusyCards => {
                format!("{} wanted, at most {most} free", human::count(need.gpus as usize, "GPU"))
            }
            Verdict::BusyShare => {
                format!(
                    "{} of GPU memory wanted, at most {} free on a card",
                    human::size(need.gpu_memory),
                    human::size(most)
                )
            }
            Verdict::BusySlices => format!("all its slices of profile {profile} are in use"),
            Verdict::Fit => "room for one, but not for all of the gang".to_owned(),
        }
    }
}

fn sharing_words(ctx: &Ctx<'_>) -> String {
    let need = &ctx.group.need;
    if need.gpus > 0 {
        "GPUs that are given out in slices only".to_owned()
    } else if need.gpu_slice.is_some() {
        "GPUs that are not given out in slices (GpuPool sharing: slices)".to_owned()
    } else {
        "GPUs that are given out whole only: a part by gpuMemory takes a GpuPool with sharing: fractional"
            .to_owned()
    }
}

fn state_word(state: MachineState) -> &'static str {
    match state {
        MachineState::Open => "open",
        MachineState::Cordoned => "cordoned, or silent just now",
        MachineState::Draining => "being drained",
        MachineState::Lost => "lost",
    }
}

fn taint_words(taint: &Taint) -> String {
    let effect = match taint.effect {
        TaintEffect::NoSchedule => "NoSchedule",
        TaintEffect::PreferNoSchedule => "PreferNoSchedule",
        TaintEffect::NoExecute => "NoExecute",
    };
    let equals = if taint.value.is_empty() { "" } else { "=" };
    format!("{}{equals}{}:{effect}", taint.key, taint.value)
}

/// `indexer (same zone)`.
fn rule_words(rule: Option<&AgentAffinity>) -> String {
    match rule {
        Some(rule) => format!("{} (same {})", rule.agent, rule.topology),
        None => "an agent that keeps away from it".to_owned(),
    }
}

/// `0.5 CPU`, `2 CPUs`.
fn cpus(milli: u64) -> String {
    format!("{} CPU{}", human::cores(milli), if milli > 1000 { "s" } else { "" })
}
