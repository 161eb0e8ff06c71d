//! What of the machines is given out: built from the [`World`], then kept while a decision is made.

use std::collections::HashMap;
use std::sync::Arc;

use pilotfish_config::model::{Disruption, TaintEffect, Topology};

use super::cards::{CardBook, Take};
use super::filter;
use super::value::Mix;
use super::world::{Card, GpuShare, Group, Machine, MachineState, Need, Pool, World};

/// A machine's books.
#[derive(Debug)]
pub(super) struct Site {
    pub cpu_used: u64,
    pub memory_used: u64,
    pub slots_used: u32,
    pub cards: Vec<CardBook>,
    /// Index in [`Books::zones`].
    pub zone: usize,
    /// What counts as there, by index in [`Books::placed`].
    pub replicas: Vec<usize>,
    /// A taint moves away what does not tolerate it.
    pub evicts: bool,
    /// What its cards are still good for; none: not known since the last change.
    pub value: Option<f64>,
}

/// A replica in the books: those of [`World::held`] by their index there, then new ones.
#[derive(Debug)]
pub(super) struct Placed {
    /// Index in [`World::groups`]; none: nobody's.
    pub group: Option<usize>,
    /// Index in [`World::nodes`].
    pub site: Option<usize>,
    pub takes: Vec<Take>,
    /// It has what it has.
    pub counts: bool,
    /// It ends, and has what it has until it is gone.
    pub going: bool,
    /// Another comes for it, and it ends when that one serves.
    pub leaving: bool,
    /// A card of it is gone or failed.
    pub failed: bool,
}

/// What of a pool is given out.
#[derive(Debug, Default)]
pub(super) struct PoolBook {
    pub total: u64,
    pub used: u64,
}

/// How many replicas of agents, those that rules or traffic name, are where.
#[derive(Debug, Default)]
pub(super) struct Present<'w> {
    slots: HashMap<&'w str, usize>,
    counts: Vec<Counts>,
    /// Agents that are kept away from the key's agent by their own rules.
    pub kept_away: HashMap<String, Vec<(usize, Topology)>>,
}

#[derive(Debug, Default, Clone)]
struct Counts {
    sites: Vec<u32>,
    zones: Vec<u32>,
    regions: Vec<u32>,
    all: u32,
}

/// Everything.
#[derive(Debug)]
pub(super) struct Books<'w> {
    pub world: &'w World,
    pub sites: Vec<Site>,
    /// Region of each zone.
    pub zones: Vec<usize>,
    pub regions: Vec<&'w str>,
    pub pools: Vec<PoolBook>,
    pub placed: Vec<Placed>,
    /// Replicas of each group, new ones and going ones too.
    pub members: Vec<Vec<usize>>,
    pub present: Present<'w>,
    /// Slot of each group's agent in `present`.
    slot_of: Vec<Option<usize>>,
    pub mix: Mix<'w>,
    /// Bytes of a middling card.
    pub card_size: f64,
}

/// `namespace/agent` of a group.
pub(super) fn agent_of(group: &str) -> &str {
    group.split('@').next().unwrap_or(group)
}

/// `namespace/agent` of an agent that a group of this namespace names.
pub(super) fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("{namespace}/{name}") }
}

impl<'w> Books<'w> {
    pub fn new(world: &'w World) -> Books<'w> {
        let mut places = Places::default();
        let sites: Vec<Site> = world.nodes.iter().map(|node| site(node, &world.pools, &mut places)).collect();
        let mut pools: Vec<PoolBook> = world.pools.iter().map(|_| PoolBook::default()).collect();
        let (mut bytes, mut count) = (0u64, 0u64);
        let there = sites.iter().zip(&world.nodes).filter(|at| at.1.state != MachineState::Lost);
        for (site, _) in there {
            for card in &site.cards {
                bytes += card.total;
                count += 1;
                if let Some(pool) = card.pool.filter(|_| card.healthy) {
                    pools[pool].total += card.total;
                }
            }
        }
        let card_size = bytes.checked_div(count).unwrap_or(1).max(1) as f64;
        let mut books = Books {
            world,
            sites,
            zones: places.zone_regions,
            regions: places.regions,
            pools,
            placed: Vec::with_capacity(world.held.len()),
            members: vec![Vec::new(); world.groups.len()],
            present: Present::new(world),
            slot_of: Vec::new(),
            mix: Mix::new(world, card_size, |group| filter::pools_of(world, &world.groups[group])),
            card_size,
        };
        let counts = Counts {
            sites: vec![0; books.sites.len()],
            zones: vec![0; books.zones.len()],
            regions: vec![0; books.regions.len()],
            all: 0,
        };
        books.present.counts = vec![counts; books.present.slots.len()];
        if !books.present.slots.is_empty() {
            let slot = |group: &Group| books.present.slots.get(agent_of(&group.id)).copied();
            books.slot_of = world.groups.iter().map(slot).collect();
        }
        books.enter_held();
        books
    }

    /// Writes down what is there.
    fn enter_held(&mut self) {
        let world = self.world;
        let sites: HashMap<&str, usize> =
            world.nodes.iter().enumerate().map(|(index, node)| (node.name.as_str(), index)).collect();
        let groups: HashMap<&str, usize> =
            world.groups.iter().enumerate().map(|(index, group)| (&*group.id, index)).collect();
        for (index, held) in world.held.iter().enumerate() {
            let site = sites.get(held.node.as_str()).copied();
            let site = site.filter(|site| world.nodes[*site].state != MachineState::Lost);
            let group = groups.get(&*held.group).copied();
            let machine = site.map(|site| &world.nodes[site]);
            let takes = held.gpus.iter().filter_map(|share| Take::of(share, &held.need, machine?));
            let takes: Vec<Take> = takes.collect();
            let failed = site.is_some_and(|site| {
                let bad = |take: &Take| !self.sites[site].cards[take.card].healthy;
                takes.len() < held.gpus.len() || takes.iter().any(bad)
            });
            let (going, leaving) = (held.stopping, held.leaving);
            self.placed.push(Placed { group, site, takes, counts: false, going, leaving, failed });
            if let Some(group) = group {
                self.members[group].push(index);
            }
            if site.is_some() {
                self.restore(index);
            }
        }
    }

    /// What the replica takes.
    pub fn need(&self, placed: usize) -> &'w Need {
        match (self.world.held.get(placed), self.placed[placed].group) {
            (Some(held), _) => &held.need,
            (None, Some(group)) => &self.world.groups[group].need,
            (None, None) => &NOTHING,
        }
    }

    /// Gives a replica a place.
    pub fn add(&mut self, group: usize, site: usize, takes: Vec<Take>) -> usize {
        let index = self.placed.len();
        let (group_of, site) = (Some(group), Some(site));
        let (counts, going, leaving, failed) = (false, false, false, false);
        self.placed.push(Placed { group: group_of, site, takes, counts, going, leaving, failed });
        self.members[group].push(index);
        self.restore(index);
        index
    }

    /// Takes back the newest [`Books::add`] of the group.
    pub fn forget(&mut self, index: usize) {
        self.release(index);
        if let Some(group) = self.placed[index].group {
            self.members[group].retain(|member| *member != index);
        }
        self.placed[index].site = None;
    }

    /// Counts a replica as gone.
    pub fn release(&mut self, index: usize) {
        self.enter(index, false);
    }

    /// Counts it as there again.
    pub fn restore(&mut self, index: usize) {
        self.enter(index, true);
    }

    fn enter(&mut self, index: usize, comes: bool) {
        let need = self.need(index);
        let placed = &mut self.placed[index];
        let Some(at) = placed.site.filter(|_| placed.counts != comes) else { return };
        placed.counts = comes;
        let site = &mut self.sites[at];
        let change = |value: &mut u64, by: u64| {
            *value = if comes { *value + by } else { value.saturating_sub(by) };
        };
        change(&mut site.cpu_used, need.cpu_milli);
        change(&mut site.memory_used, need.memory);
        site.value = None;
        for take in &placed.takes {
            let card = &mut site.cards[take.card];
            if comes {
                card.take(take)
            } else {
                card.give_back(take)
            }
            if let Some(pool) = card.pool {
                change(&mut self.pools[pool].used, take.memory);
            }
        }
        if comes {
            site.slots_used += 1;
            site.replicas.push(index);
        } else {
            site.slots_used = site.slots_used.saturating_sub(1);
            site.replicas.retain(|replica| *replica != index);
        }
        let slot = placed.group.and_then(|group| self.slot_of.get(group).copied().flatten());
        if let Some(slot) = slot {
            let zone = site.zone;
            self.present.counts[slot].change(at, zone, self.zones[zone], comes);
        }
    }

    /// Bytes that each pool may still give to a group.
    pub fn room(&self, group: &Group) -> Vec<u64> {
        let room = |(pool, book): (&Pool, &PoolBook)| match reserve(pool, book, group) {
            0 => u64::MAX,
            reserve => book.total.saturating_sub(reserve).saturating_sub(book.used),
        };
        self.world.pools.iter().zip(&self.pools).map(room).collect()
    }

    /// What the cards of a machine are still good for.
    pub fn value(&mut self, at: usize) -> f64 {
        let site = &mut self.sites[at];
        if let Some(value) = site.value {
            return value;
        }
        let machine = &self.world.nodes[at];
        let (cpu, memory) = (site.cpu_free(machine), site.memory_free(machine));
        let value = self.mix.of_site(machine, &site.cards, cpu, memory, site.slots_free(machine));
        site.value = Some(value);
        value
    }

    /// Replicas of a group that are there to stay.
    pub fn active(&self, group: usize) -> impl Iterator<Item = usize> + '_ {
        let stays = move |index: &usize| {
            let placed = &self.placed[*index];
            placed.counts && !placed.going && !placed.leaving
        };
        self.members[group].iter().copied().filter(stays)
    }

    /// How many of its replicas that serve a group can do without now.
    pub fn spare(&self, group: usize) -> u32 {
        let ready = |index: &&usize| {
            let placed = &self.placed[**index];
            placed.counts && !placed.going && self.is_ready(**index)
        };
        let serving = self.members[group].iter().filter(ready).count();
        let group = &self.world.groups[group];
        let serving = u32::try_from(serving).unwrap_or(u32::MAX);
        serving.saturating_add(budget(group)).saturating_sub(group.wanted)
    }

    /// It serves. New ones do not yet.
    pub fn is_ready(&self, index: usize) -> bool {
        self.world.held.get(index).is_some_and(|held| held.ready)
    }

    pub fn slot(&self, agent: &str) -> Option<usize> {
        self.present.slots.get(agent).copied()
    }

    /// Replicas of the agent in `slot` that are together with a machine.
    pub fn together(&self, slot: usize, at: usize, topology: Topology) -> u32 {
        match topology {
            Topology::Node => self.present.counts[slot].sites[at],
            _ => self.within(slot, self.sites[at].zone, topology),
        }
    }

    /// Replicas of the agent in `slot` in a zone, or in its region.
    pub fn within(&self, slot: usize, zone: usize, topology: Topology) -> u32 {
        let counts = &self.present.counts[slot];
        if topology == Topology::Region { counts.regions[self.zones[zone]] } else { counts.zones[zone] }
    }

    /// Replicas of the agent in `slot` anywhere.
    pub fn anywhere(&self, slot: usize) -> u32 {
        self.present.counts[slot].all
    }

    /// For records.
    pub fn shares(&self, site: usize, takes: &[Take]) -> Vec<GpuShare> {
        takes.iter().map(|take| take.share(&self.world.nodes[site])).collect()
    }

    pub fn replica(&self, index: usize) -> Arc<str> {
        self.world.held.get(index).map(|held| held.replica.clone()).unwrap_or_else(|| "".into())
    }
}

/// Of a replica that nobody knows.
static NOTHING: Need = Need { cpu_milli: 0, memory: 0, gpus: 0, gpu_memory: 0, gpu_slice: None };

impl Site {
    pub fn cpu_free(&self, machine: &Machine) -> u64 {
        machine.cpu_milli.saturating_sub(self.cpu_used)
    }

    pub fn memory_free(&self, machine: &Machine) -> u64 {
        machine.memory.saturating_sub(self.memory_used)
    }

    pub fn slots_free(&self, machine: &Machine) -> u32 {
        machine.most_replicas.saturating_sub(self.slots_used)
    }
}

impl Counts {
    fn change(&mut self, site: usize, zone: usize, region: usize, comes: bool) {
        for count in [&mut self.sites[site], &mut self.zones[zone], &mut self.regions[region], &mut self.all]
        {
            *count = if comes { *count + 1 } else { count.saturating_sub(1) };
        }
    }
}

impl<'w> Present<'w> {
    fn new(world: &'w World) -> Present<'w> {
        let mut present = Present::default();
        let mut named: Vec<String> = Vec::new();
        for group in &world.groups {
            let rules = group.affinity.iter().chain(&group.anti_affinity);
            named.extend(rules.map(|rule| full_name(&rule.agent, &group.namespace)));
            if group.anti_affinity.iter().any(|rule| rule.required) {
                named.push(agent_of(&group.id).to_owned());
            }
        }
        named.extend(world.traffic.iter().flat_map(|pair| [pair.from.clone(), pair.to.clone()]));
        if named.is_empty() {
            return present;
        }
        named.sort_unstable();
        for group in &world.groups {
            let agent = agent_of(&group.id);
            if named.binary_search_by(|name| name.as_str().cmp(agent)).is_ok() {
                let next = present.slots.len();
                present.slots.entry(agent).or_insert(next);
            }
        }
        for group in &world.groups {
            for rule in group.anti_affinity.iter().filter(|rule| rule.required) {
                let Some(slot) = present.slots.get(agent_of(&group.id)) else { continue };
                let from = present.kept_away.entry(full_name(&rule.agent, &group.namespace)).or_default();
                if !from.contains(&(*slot, rule.topology)) {
                    from.push((*slot, rule.topology));
                }
            }
        }
        present
    }
}

/// Regions and zones that machines are in.
#[derive(Default)]
struct Places<'w> {
    regions: Vec<&'w str>,
    zone_regions: Vec<usize>,
    known: HashMap<(&'w str, &'w str), usize>,
}

impl<'w> Places<'w> {
    fn zone(&mut self, machine: &'w Machine) -> usize {
        let key = (machine.region.as_str(), machine.zone.as_str());
        if let Some(zone) = self.known.get(&key) {
            return *zone;
        }
        let region = self.regions.iter().position(|region| *region == key.0);
        let region = region.unwrap_or_else(|| {
            self.regions.push(key.0);
            self.regions.len() - 1
        });
        let zone = self.zone_regions.len();
        self.zone_regions.push(region);
        self.known.insert(key, zone);
        zone
    }
}

fn site<'w>(machine: &'w Machine, pools: &[Pool], places: &mut Places<'w>) -> Site {
    let card = |card: &Card| CardBook::new(card, pool_of(machine, card, pools));
    Site {
        cpu_used: 0,
        memory_used: 0,
        slots_used: 0,
        cards: machine.gpus.iter().map(card).collect(),
        zone: places.zone(machine),
        replicas: Vec::new(),
        evicts: machine.taints.iter().any(|taint| taint.effect == TaintEffect::NoExecute),
        value: None,
    }
}

/// The first pool that selects a card, and how it shares it.
fn pool_of(
    machine: &Machine,
    card: &Card,
    pools: &[Pool],
) -> Option<(usize, pilotfish_config::model::GpuSharing)> {
    let index = pools.iter().position(|pool| selects(pool, machine, card))?;
    Some((index, pools[index].sharing))
}

/// Whether a pool selects a card.
pub fn selects(pool: &Pool, machine: &Machine, card: &Card) -> bool {
    let named = |word: &String| card.model.to_lowercase().contains(&word.to_lowercase());
    (pool.models.is_empty() || pool.models.iter().any(named))
        && card.memory >= pool.min_memory
        && pool.node_labels.iter().all(|(key, value)| machine.labels.get(key) == Some(value))
        && (pool.regions.is_empty() || pool.regions.contains(&machine.region))
}

/// Bytes of a pool that stay free of a group.
fn reserve(pool: &Pool, book: &PoolBook, group: &Group) -> u64 {
    if pool.reserved_percent == 0 || group.priority >= pool.reserve_priority {
        return 0;
    }
    let reserve = u128::from(book.total) * u128::from(pool.reserved_percent.min(100));
    u64::try_from(reserve.div_ceil(100)).unwrap_or(u64::MAX)
}

/// How many of a group may be missing by moves and evictions.
pub(super) fn budget(group: &Group) -> u32 {
    match group.disruption {
        Disruption::Count(count) => count,
        Disruption::Percent(0) => 0,
        Disruption::Percent(percent) => {
            let share = u64::from(group.wanted) * u64::from(percent) / 100;
            u32::try_from(share).unwrap_or(u32::MAX).max(1)
        }
    }
}
