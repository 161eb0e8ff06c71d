//! Which endpoint of a cluster: one file per algorithm, all without locks.
//!
//! An algorithm works on one *group* of endpoints (a locality, or all); which group comes from [`locality`].
//! Endpoints that are out (see [`crate::endpoint::health`]), and those that this request tried already, are passed over
//! while there are others.

pub mod compared;
pub mod hash;
pub mod least_request;
pub mod locality;
pub mod maglev;
pub mod peak_ewma;
pub mod ring;
pub mod round_robin;
pub mod slow_start;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::clock::Micros;
use crate::endpoint::Endpoint;
use crate::inflight::ClusterLimits;
use compared::Compared;
use slow_start::SlowStart;

/// What a choice depends on.
#[derive(Debug, Clone, Copy)]
pub struct Pick<'a> {
    /// The hash of the affinity key, for consistent hashing; `None` chooses at random.
    pub key: Option<u64>,
    /// Now.
    pub now: Micros,
    /// Endpoints that this request tried already: taken again only when there is no other.
    pub tried: &'a [SocketAddr],
    /// Whether endpoints of other priorities come before those that were tried (`retryRemoteLocalities`).
    pub remote: bool,
    /// Where what is weighed is noted, if anybody wants to know.
    pub compared: Option<&'a Compared>,
}

/// The algorithm that a configuration asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// Each in turn, by weight.
    RoundRobin,
    /// By chance, by weight.
    Random,
    /// The one with fewer requests in flight of two by chance (Istio's default).
    #[default]
    LeastRequest,
    /// The cheaper one of two by chance (`pilotfish.dev/load-balancer: peak-ewma`).
    PeakEwma,
    /// Consistent hash: a ring with at least that many points.
    Ring {
        /// Envoy's default is 1024.
        min_size: u64,
    },
    /// Consistent hash: a Maglev table of that size.
    Maglev {
        /// A prime; Envoy's default is 65537.
        size: u32,
    },
}

/// An algorithm, ready to choose among the endpoints of one group.
#[derive(Debug)]
pub(crate) enum Balancer {
    RoundRobin(round_robin::RoundRobin),
    Random(Weights),
    LeastRequest(Weights),
    PeakEwma(Weights),
    Hash { table: HashTable, bound: Option<Bound> },
}

/// A table that maps hashes to endpoints; immutable, shared by clusters and plans with equal endpoints.
#[derive(Debug, Clone)]
pub(crate) enum HashTable {
    Ring(Arc<ring::Ring>),
    Maglev(Arc<maglev::Maglev>),
}

/// How far an endpoint's load may exceed the mean (`pilotfish.dev/hash-balance-factor`, Envoy's `hash_balance_factor`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    /// Percent of the mean, at least 100.
    pub(crate) factor: u32,
    /// The sum of all weights.
    pub(crate) weight: u64,
}

/// Which endpoints are good enough, in the order in which that is tried. None is good enough whose breaker is shut, nor
/// one that has as many calls as it may: such a one is the last resort of who chooses without a cluster, and refused then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accept {
    /// Not out, not tried, not degraded.
    Healthy,
    /// Not out, not tried.
    Reachable,
    /// Not tried: when all are out, all are used; when more than `minHealthPercent` allows, too (Envoy's panic).
    Untried,
    Any,
}

impl Accept {
    pub(crate) const ORDER: [Accept; 4] = [Accept::Healthy, Accept::Reachable, Accept::Untried, Accept::Any];

    /// The order, from where it begins in a panic or not.
    pub(crate) fn order(panic: bool) -> &'static [Accept] {
        if panic { &[Accept::Untried, Accept::Any] } else { &Accept::ORDER }
    }

    pub(crate) fn admits(self, endpoint: &Endpoint, pick: &Pick<'_>) -> bool {
        let stats = &endpoint.stats;
        if self != Accept::Any && !stats.has_room() {
            return false;
        }
        match self {
            Accept::Healthy => !endpoint.degraded && Accept::Reachable.admits(endpoint, pick),
            Accept::Reachable => !stats.is_out(pick.now) && !pick.tried.contains(&endpoint.addr),
            Accept::Untried => !stats.is_shut(pick.now) && !pick.tried.contains(&endpoint.addr),
            Accept::Any => !stats.is_shut(pick.now),
        }
    }
}

/// One choice under way: the endpoints and what it depends on.
pub(crate) struct Choice<'a, 'p> {
    pub(crate) endpoints: &'a [Arc<Endpoint>],
    pub(crate) limits: &'a ClusterLimits,
    pub(crate) slow_start: Option<&'a SlowStart>,
    pub(crate) pick: &'p Pick<'p>,
}

/// A chosen endpoint, already counted as in flight.
pub(crate) type Entered<'a> = &'a Arc<Endpoint>;

impl Balancer {
    /// Its name for people.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Balancer::RoundRobin(_) => "round-robin",
            Balancer::Random(_) => "random",
            Balancer::LeastRequest(_) => "least-request",
            Balancer::PeakEwma(_) => "peak-ewma",
            Balancer::Hash { table: HashTable::Ring(_), .. } => "ring",
            Balancer::Hash { table: HashTable::Maglev(_), .. } => "maglev",
        }
    }

    /// Chooses one and counts it as in flight.
    pub(crate) fn choose<'a>(
        &self,
        choice: &Choice<'a, '_>,
        accept: Accept,
        rng: &mut fastrand::Rng,
    ) -> Option<Entered<'a>> {
        let at = match self {
            Balancer::RoundRobin(schedule) => schedule.choose(choice, accept, rng),
            Balancer::Random(weights) => choice.by_chance(weights, accept, rng),
            Balancer::LeastRequest(weights) => least_request::choose(choice, weights, accept, rng),
            Balancer::PeakEwma(weights) => peak_ewma::choose(choice, weights, accept, rng),
            Balancer::Hash { table, bound } => {
                let key = hash::mix(choice.pick.key.unwrap_or_else(|| rng.u64(..)));
                return choice.by_hash(table, *bound, accept, key);
            }
        };
        let endpoint = choice.endpoints.get(at?)?;
        endpoint.stats.enter();
        Some(endpoint)
    }
}

/// How many random draws are made before the endpoints are gone through one by one.
const DRAWS: usize = 8;
/// How many steps a hash takes along its table before the endpoints are gone through in an order of its own.
const STEPS: u32 = 24;

impl<'a> Choice<'a, '_> {
    fn usable(&self, at: usize, accept: Accept) -> bool {
        self.endpoints.get(at).is_some_and(|e| accept.admits(e, self.pick))
    }

    /// Draws one by weight; one that is still starting is passed over with the probability that its ramp gives.
    fn draw(&self, weights: &Weights, rng: &mut fastrand::Rng) -> usize {
        let mut at = weights.draw(rng);
        if let Some(slow_start) = self.slow_start.filter(|s| s.is_running(self.pick.now)) {
            for _ in 0..DRAWS {
                let passes =
                    self.endpoints.get(at).is_none_or(|e| slow_start.passes(&e.stats, self.pick.now, rng));
                if passes {
                    break;
                }
                at = weights.draw(rng);
            }
        }
        at
    }

    fn by_chance(&self, weights: &Weights, accept: Accept, rng: &mut fastrand::Rng) -> Option<usize> {
        (0..DRAWS)
            .map(|_| self.draw(weights, rng))
            .find(|at| self.usable(*at, accept))
            .or_else(|| self.scan(accept, rng))
    }

    /// The first usable one from a random place on.
    fn scan(&self, accept: Accept, rng: &mut fastrand::Rng) -> Option<usize> {
        scan(self.endpoints.len(), rng, |at| self.usable(at, accept))
    }

    /// Draws two different ones and keeps the first if `first_wins`.
    fn better_of_two(
        &self,
        weights: &Weights,
        accept: Accept,
        rng: &mut fastrand::Rng,
        first_wins: impl Fn(&Endpoint, &Endpoint) -> bool,
    ) -> Option<usize> {
        two_of(
            self.endpoints.len(),
            rng,
            |rng| self.draw(weights, rng),
            |at| self.usable(at, accept),
            |a, b| self.endpoints.get(a).zip(self.endpoints.get(b)).is_some_and(|(a, b)| first_wins(a, b)),
        )
    }

    fn by_hash(
        &self,
        table: &HashTable,
        bound: Option<Bound>,
        accept: Accept,
        key: u64,
    ) -> Option<Entered<'a>> {
        let mut at = table.first(key);
        for step in 0..STEPS {
            if self.usable(at, accept) {
                let endpoint = self.endpoints.get(at)?;
                match bound {
                    None => endpoint.stats.enter(),
                    Some(bound) if endpoint.stats.try_enter(bound.slots(endpoint, self.limits)) => {}
                    // The table's neighbours would all fall to the same endpoint.
                    Some(bound) => return self.overflow(bound, accept, key),
                }
                return Some(endpoint);
            }
            at = table.next(key, step);
        }
        match bound {
            Some(bound) => self.overflow(bound, accept, key),
            None => {
                let at = hash::order(key, self.endpoints.len()).find(|at| self.usable(*at, accept))?;
                let endpoint = self.endpoints.get(at)?;
                endpoint.stats.enter();
                Some(endpoint)
            }
        }
    }

    /// Goes through the endpoints in an order that depends on the key alone, to the first with room; to the one with
    /// the most room when races leave none.
    fn overflow(&self, bound: Bound, accept: Accept, key: u64) -> Option<Entered<'a>> {
        let mut roomiest: Option<(f32, Entered<'a>)> = None;
        for at in hash::order(key, self.endpoints.len()) {
            let Some(endpoint) = self.endpoints.get(at).filter(|_| self.usable(at, accept)) else { continue };
            if endpoint.stats.try_enter(bound.slots(endpoint, self.limits)) {
                return Some(endpoint);
            }
            let load = endpoint.stats.in_flight() as f32 / endpoint.weight as f32;
            if roomiest.is_none_or(|(least, _)| load < least) {
                roomiest = Some((load, endpoint));
            }
        }
        let (_, endpoint) = roomiest?;
        endpoint.stats.enter();
        Some(endpoint)
    }
}

impl Bound {
    /// How many requests `endpoint` may have, out of those counted in `limits` (the one under way included).
    fn slots(self, endpoint: &Endpoint, limits: &ClusterLimits) -> u32 {
        let share = u64::from(limits.requests()) * u64::from(self.factor) * u64::from(endpoint.weight);
        let slots = share.div_ceil((100 * self.weight).max(1));
        u32::try_from(slots).unwrap_or(u32::MAX).max(1)
    }
}

impl HashTable {
    fn first(&self, key: u64) -> usize {
        match self {
            HashTable::Ring(ring) => ring.owner(key),
            HashTable::Maglev(table) => table.owner(key),
        }
    }

    /// The endpoint after `step` + 1 others were passed over.
    fn next(&self, key: u64, step: u32) -> usize {
        match self {
            HashTable::Ring(ring) => ring.later_owner(key, step + 1),
            HashTable::Maglev(table) => table.owner(hash::mix(key ^ (u64::from(step) + 1))),
        }
    }
}

/// The better of two different usable positions below `len`, drawn by `draw`; the only one if there is no other.
fn two_of(
    len: usize,
    rng: &mut fastrand::Rng,
    draw: impl Fn(&mut fastrand::Rng) -> usize,
    usable: impl Fn(usize) -> bool,
    first_wins: impl Fn(usize, usize) -> bool,
) -> Option<usize> {
    let find = |rng: &mut fastrand::Rng, except: Option<usize>| {
        let good = |at: &usize| Some(*at) != except && usable(*at);
        (0..DRAWS).map(|_| draw(rng)).find(good).or_else(|| scan(len, rng, |at| good(&at)))
    };
    let first = find(rng, None)?;
    match find(rng, Some(first)) {
        Some(second) if !first_wins(first, second) => Some(second),
        _ => Some(first),
    }
}

/// The first usable position from a random one on, round `len` positions.
fn scan(len: usize, rng: &mut fastrand::Rng, usable: impl Fn(usize) -> bool) -> Option<usize> {
    if len == 0 {
        return None;
    }
    let start = rng.usize(..len);
    (start..len).chain(0..start).find(|at| usable(*at))
}

/// Draws positions with a probability proportional to weights, in constant time (Walker's alias method).
#[derive(Debug)]
pub(crate) enum Weights {
    Equal(usize),
    /// For each position: keep it with probability `keep` / 2^32, else take `other`.
    Alias(Box<[(u32, u32)]>),
}

impl Weights {
    pub(crate) fn new(weights: &[u32]) -> Weights {
        if weights.windows(2).all(|pair| pair.first() == pair.get(1)) {
            return Weights::Equal(weights.len());
        }
        let sum: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        let mut share: Vec<f64> =
            weights.iter().map(|w| f64::from(*w) * weights.len() as f64 / sum).collect();
        let mut table: Vec<(u32, u32)> = (0..weights.len()).map(|at| (u32::MAX, at as u32)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|at| share.get(*at) < Some(&1.0));
        while let (Some(low), Some(high)) = (small.pop(), large.last().copied()) {
            let kept = share[low];
            table[low] = ((kept * f64::from(u32::MAX)) as u32, high as u32);
            share[high] -= 1.0 - kept;
            if share[high] < 1.0 {
                large.pop();
                small.push(high);
            }
        }
        Weights::Alias(table.into_boxed_slice())
    }

    fn draw(&self, rng: &mut fastrand::Rng) -> usize {
        match self {
            Weights::Equal(0) => 0,
            Weights::Equal(len) => rng.usize(..*len),
            Weights::Alias(table) => {
                let at = rng.usize(..table.len());
                let (keep, other) = table.get(at).copied().unwrap_or((u32::MAX, 0));
                if rng.u32(..) <= keep { at } else { other as usize }
            }
        }
    }
}

#[cfg(test)]
mod tests;
