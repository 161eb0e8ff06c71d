//! What outlives a plan: counters of endpoints and clusters, and hash tables, which are reused by the next plan.
//!
//! Only compiling touches it, hence a lock is fine here; the request path holds the counters themselves.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pilotfish_config::model::LimitAmount;

use crate::balance::maglev::Maglev;
use crate::balance::ring::Ring;
use crate::balance::round_robin::RoundRobin;
use crate::balance::{Algorithm, Balancer, Bound, HashTable, Weights};
use crate::clock::Micros;
use crate::endpoint::health::Tally;
use crate::endpoint::{Endpoint, EndpointStats};
use crate::inflight::ClusterLimits;
use crate::rate_limit::LimitState;
use crate::shed::Gate;

/// Counters and tables by what they belong to. One for the process.
#[derive(Debug, Default)]
pub struct State {
    inner: Mutex<Inner>,
    tally: Arc<Tally>,
}

#[derive(Debug, Default)]
struct Inner {
    clusters: HashMap<Box<str>, Counters>,
    tables: HashMap<TableKey, HashTable>,
    /// By the name of the document.
    rate_limits: HashMap<Box<str>, Arc<LimitState>>,
    /// The places for calls to the local agent.
    inbound: Option<Arc<Gate>>,
    /// For where round robins start; reproducible when the state was made from a seed.
    rng: fastrand::Rng,
}

#[derive(Debug, Default)]
struct Counters {
    limits: Arc<ClusterLimits>,
    endpoints: HashMap<SocketAddr, Arc<EndpointStats>>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TableKey {
    algorithm: Algorithm,
    endpoints: Box<[(SocketAddr, u32)]>,
}

impl State {
    /// A state whose random choices are reproducible.
    pub fn with_seed(seed: u64) -> State {
        let inner = Inner { rng: fastrand::Rng::with_seed(seed), ..Inner::default() };
        State { inner: Mutex::new(inner), ..State::default() }
    }

    /// What happened to endpoints, over all clusters that ever were.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Begins one compilation. What no plan uses any more is forgotten first.
    pub fn begin(&self, now: Micros) -> Pass<'_> {
        // What a panicking thread left is whole: entries are only added and removed.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.forget_unused();
        Pass { inner, tally: &self.tally, now }
    }
}

impl Inner {
    fn forget_unused(&mut self) {
        self.clusters.retain(|_, counters| {
            counters.endpoints.retain(|_, stats| Arc::strong_count(stats) > 1);
            Arc::strong_count(&counters.limits) > 1 || !counters.endpoints.is_empty()
        });
        self.rate_limits.retain(|_, limit| Arc::strong_count(limit) > 1);
        self.tables.retain(|_, table| match table {
            HashTable::Ring(ring) => Arc::strong_count(ring) > 1,
            HashTable::Maglev(table) => Arc::strong_count(table) > 1,
        });
    }
}

/// One compilation's access to the state.
#[derive(Debug)]
pub struct Pass<'a> {
    inner: MutexGuard<'a, Inner>,
    tally: &'a Arc<Tally>,
    /// When the compilation began: endpoints that are new first appeared then.
    pub now: Micros,
}

impl Pass<'_> {
    /// The counters of the cluster of that name.
    pub fn limits(&mut self, cluster: &str) -> Arc<ClusterLimits> {
        Arc::clone(&self.counters(cluster).limits)
    }

    /// The counters of an endpoint of that cluster.
    pub fn stats(&mut self, cluster: &str, addr: SocketAddr) -> Arc<EndpointStats> {
        let now = self.now;
        let counters = self.counters(cluster);
        let home = &counters.limits;
        let known = counters.endpoints.entry(addr);
        Arc::clone(known.or_insert_with(|| Arc::new(EndpointStats::of(now, Arc::clone(home)))))
    }

    /// For choices by chance of what it makes.
    pub(crate) fn seed(&mut self) -> u64 {
        self.inner.rng.u64(..)
    }

    /// The places for calls to the local agent; kept for ever once asked for, there is one.
    pub(crate) fn inbound_gate(&mut self) -> Arc<Gate> {
        let Inner { inbound, rng, .. } = &mut *self.inner;
        Arc::clone(inbound.get_or_insert_with(|| Gate::new(rng.u64(..))))
    }

    fn counters(&mut self, cluster: &str) -> &mut Counters {
        if !self.inner.clusters.contains_key(cluster) {
            let limits = Arc::new(ClusterLimits::counted_in(Arc::clone(self.tally)));
            self.inner.clusters.insert(cluster.into(), Counters { limits, ..Counters::default() });
        }
        self.inner.clusters.entry(cluster.into()).or_default()
    }

    /// What was spent of the rate limit of that name. One that is new has full buckets of this amount; that of one that is
    /// known changes when the plan begins to serve ([`crate::plan::Plan::settle_limits`]).
    pub(crate) fn rate_limit(
        &mut self,
        name: &str,
        amount: LimitAmount,
        fleet: bool,
        share: u32,
    ) -> Arc<LimitState> {
        let (now, inner) = (self.now, &mut *self.inner);
        if let Some(known) = inner.rate_limits.get(name) {
            return known.clone();
        }
        let new = Arc::new(LimitState::new(now, amount, fleet, share, inner.rng.u64(..)));
        inner.rate_limits.insert(name.into(), new.clone());
        new
    }

    /// A balancer for these endpoints.
    pub(crate) fn balancer(
        &mut self,
        algorithm: Algorithm,
        factor: Option<u32>,
        endpoints: &[Arc<Endpoint>],
    ) -> Balancer {
        let weights: Vec<u32> = endpoints.iter().map(|endpoint| endpoint.weight).collect();
        match algorithm {
            Algorithm::RoundRobin => Balancer::RoundRobin(RoundRobin::new(&weights, self.inner.rng.u32(..))),
            Algorithm::Random => Balancer::Random(Weights::new(&weights)),
            Algorithm::LeastRequest => Balancer::LeastRequest(Weights::new(&weights)),
            Algorithm::PeakEwma => Balancer::PeakEwma(Weights::new(&weights)),
            Algorithm::Ring { .. } | Algorithm::Maglev { .. } => {
                let weight = weights.iter().map(|weight| u64::from(*weight)).sum();
                let bound = factor.map(|factor| Bound { factor: factor.max(100), weight });
                let endpoints = endpoints.iter().map(|endpoint| (endpoint.addr, endpoint.weight)).collect();
                Balancer::Hash { table: self.table(TableKey { algorithm, endpoints }), bound }
            }
        }
    }

    fn table(&mut self, key: TableKey) -> HashTable {
        if let Some(known) = self.inner.tables.get(&key) {
            return known.clone();
        }
        let table = match key.algorithm {
            Algorithm::Maglev { size } => HashTable::Maglev(Arc::new(Maglev::new(&key.endpoints, size))),
            Algorithm::Ring { min_size } => HashTable::Ring(Arc::new(Ring::new(&key.endpoints, min_size))),
            _ => HashTable::Ring(Arc::new(Ring::new(&key.endpoints, 0))),
        };
        self.inner.tables.insert(key, table.clone());
        table
    }
}

#[cfg(test)]
mod tests;
