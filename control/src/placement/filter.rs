//! Which machines a replica may be on: each rule once, with what is wrong where it does not hold.

use std::borrow::Cow;

use pilotfish_config::model::{AgentAffinity, Taint, TaintEffect, Toleration, Topology};

use super::books::{Books, agent_of, full_name};
use super::cards::Asks;
use super::world::{Group, Machine, MachineState, Pool, World};

/// A rule about another agent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// In [`super::books::Present`]; none: there is no such agent.
    pub slot: Option<usize>,
    pub topology: Topology,
    /// It is about the group's own agent.
    pub own: bool,
    /// Index among the group's rules, for words; none: the other agent's rule.
    pub index: Option<usize>,
}

/// A group, and what follows from the world for it.
#[derive(Debug)]
pub(super) struct Ctx<'w> {
    pub index: usize,
    pub group: &'w Group,
    pub asks: Asks<'w>,
    /// Has to be near these.
    pub near: Vec<Rule>,
    /// Must not be near these.
    pub away: Vec<Rule>,
    /// Would rather be near (above 0) or not (below).
    pub rather: Vec<(Rule, f64)>,
    /// Agents that call it or are called by it, with their share of its traffic.
    pub talks: Vec<(usize, f64)>,
}

/// What keeps a replica from a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bar {
    /// The machine takes nothing.
    State(MachineState),
    /// It is in another region.
    Region,
    /// It lacks the label, by index in the selector.
    Label(usize),
    /// A taint, by index on the machine.
    Taint(usize),
    /// Not near what it has to be near, by index among the rules.
    NotNear(usize),
    /// Near what it must not be near; none: that agent's own rule.
    TooNear(Option<usize>),
    /// It has as many replicas as it takes.
    Replicas,
    /// So many thousandths of a core are free.
    Cpu(u64),
    /// So many bytes are free.
    Memory(u64),
}

impl<'w> Ctx<'w> {
    pub fn new(books: &Books<'w>, index: usize) -> Ctx<'w> {
        let group = &books.world.groups[index];
        let own = agent_of(&group.id);
        let rule = |(index, rule): (usize, &AgentAffinity)| {
            let name = full_name(&rule.agent, &group.namespace);
            Rule { slot: books.slot(&name), topology: rule.topology, own: name == own, index: Some(index) }
        };
        let of = |rules: &[AgentAffinity], required: bool| {
            let some = rules.iter().enumerate().filter(|one| one.1.required == required);
            some.map(rule).collect::<Vec<Rule>>()
        };
        let mut away = of(&group.anti_affinity, true);
        let others = books.present.kept_away.get(own).into_iter().flatten();
        away.extend(others.map(|(slot, topology)| Rule {
            slot: Some(*slot),
            topology: *topology,
            own: false,
            index: None,
        }));
        let mut rather: Vec<(Rule, f64)> =
            of(&group.affinity, false).into_iter().map(|rule| (rule, 1.0)).collect();
        rather.extend(of(&group.anti_affinity, false).into_iter().map(|rule| (rule, -1.0)));
        Ctx {
            index,
            group,
            asks: Asks { need: Cow::Borrowed(&group.need), pools: pools_of(books.world, group) },
            near: of(&group.affinity, true),
            away,
            rather,
            talks: talks(books, own),
        }
    }
}

/// The share of an agent's traffic that each other has.
fn talks(books: &Books<'_>, own: &str) -> Vec<(usize, f64)> {
    let mut talks: Vec<(usize, f64)> = Vec::new();
    for pair in &books.world.traffic {
        let other = match (pair.from == own, pair.to == own) {
            (true, false) => &pair.to,
            (false, true) => &pair.from,
            _ => continue,
        };
        let rate = if pair.rate.is_finite() && pair.rate > 0.0 { pair.rate } else { 0.0 };
        if let Some(slot) = books.slot(other) {
            match talks.iter_mut().find(|known| known.0 == slot) {
                Some(known) => known.1 += rate,
                None => talks.push((slot, rate)),
            }
        }
    }
    let all: f64 = talks.iter().map(|talk| talk.1).sum();
    if all <= 0.0 {
        return Vec::new();
    }
    talks.into_iter().map(|(slot, rate)| (slot, rate / all)).collect()
}

/// Whether a group may use each pool; then whether it may use cards of none.
pub(super) fn pools_of(world: &World, group: &Group) -> Vec<bool> {
    let named = group.pool.as_deref().map(|name| named_pool(world, group, name));
    let may = |(index, pool): (usize, &Pool)| {
        named.is_none_or(|named| named == Some(index)) && is_allowed(pool, group)
    };
    let mut pools: Vec<bool> = world.pools.iter().enumerate().map(may).collect();
    pools.push(group.pool.is_none());
    pools
}

/// The pool that a group means: the namespace's own before others'.
pub(super) fn named_pool(world: &World, group: &Group, name: &str) -> Option<usize> {
    let own = full_name(name, &group.namespace);
    let exact = world.pools.iter().position(|pool| pool.name == own);
    let is_of = |pool: &Pool| pool.name.rsplit('/').next() == Some(name);
    exact.or_else(|| world.pools.iter().position(is_of))
}

/// Whether a pool is open to a group.
pub(super) fn is_allowed(pool: &Pool, group: &Group) -> bool {
    let opens = |entry: &String| match entry.split_once('/') {
        None => entry == "*" || *entry == group.namespace,
        Some((namespace, agent)) => {
            (namespace == "*" || namespace == group.namespace) && (agent == "*" || agent == group.agent)
        }
    };
    pool.allowed.is_empty() || pool.allowed.iter().any(opens)
}

/// What keeps the group from the machine whatever is there.
pub(super) fn of_machine(group: &Group, machine: &Machine) -> Result<(), Bar> {
    if machine.state != MachineState::Open {
        return Err(Bar::State(machine.state));
    }
    if group.region.as_ref().is_some_and(|region| *region != machine.region) {
        return Err(Bar::Region);
    }
    let has = |(key, value): (&String, &String)| machine.labels.get(key) == Some(value);
    if let Some(index) = group.node_selector.iter().position(|label| !has(label)) {
        return Err(Bar::Label(index));
    }
    let minds = |taint: &Taint| taint.effect != TaintEffect::PreferNoSchedule && !tolerates(group, taint);
    match machine.taints.iter().position(minds) {
        Some(index) => Err(Bar::Taint(index)),
        None => Ok(()),
    }
}

/// Whether a taint does not matter to a group.
pub(super) fn tolerates(group: &Group, taint: &Taint) -> bool {
    let covers = |toleration: &Toleration| {
        toleration.key.as_ref().is_none_or(|key| *key == taint.key)
            && toleration.value.as_ref().is_none_or(|value| *value == taint.value)
            && toleration.effect.is_none_or(|effect| effect == taint.effect)
    };
    group.tolerations.iter().any(covers)
}

/// Rules about other agents that hold for a whole zone.
pub(super) fn of_zone(books: &Books<'_>, ctx: &Ctx<'_>, zone: usize) -> Result<(), Bar> {
    let count = |slot: usize, topology| books.within(slot, zone, topology);
    rules(books, ctx, |topology| topology != Topology::Node, count)
}

/// Rules about other agents on the machine itself.
pub(super) fn of_node(books: &Books<'_>, ctx: &Ctx<'_>, at: usize) -> Result<(), Bar> {
    rules(
        books,
        ctx,
        |topology| topology == Topology::Node,
        |slot, topology| books.together(slot, at, topology),
    )
}

fn rules(
    books: &Books<'_>,
    ctx: &Ctx<'_>,
    which: impl Fn(Topology) -> bool,
    count: impl Fn(usize, Topology) -> u32,
) -> Result<(), Bar> {
    for rule in ctx.near.iter().filter(|rule| which(rule.topology)) {
        let near = rule.slot.is_some_and(|slot| count(slot, rule.topology) > 0);
        // The first of those that want to be together may be anywhere.
        let first = rule.own && rule.slot.is_none_or(|slot| books.anywhere(slot) == 0);
        if !near && !first {
            return Err(Bar::NotNear(rule.index.unwrap_or_default()));
        }
    }
    let too_near = |rule: &&Rule| rule.slot.is_some_and(|slot| count(slot, rule.topology) > 0);
    match ctx.away.iter().filter(|rule| which(rule.topology)).find(too_near) {
        Some(rule) => Err(Bar::TooNear(rule.index)),
        None => Ok(()),
    }
}

/// Processor, memory and number.
pub(super) fn of_room(books: &Books<'_>, group: &Group, at: usize) -> Result<(), Bar> {
    let (site, machine) = (&books.sites[at], &books.world.nodes[at]);
    if site.slots_free(machine) == 0 {
        return Err(Bar::Replicas);
    }
    let (cpu, memory) = (site.cpu_free(machine), site.memory_free(machine));
    if cpu < group.need.cpu_milli {
        return Err(Bar::Cpu(cpu));
    }
    if memory < group.need.memory {
        return Err(Bar::Memory(memory));
    }
    Ok(())
}
