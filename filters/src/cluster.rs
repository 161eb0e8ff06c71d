//! A cluster: the endpoints of one host, port and subset, with the settings of its traffic policy.
//!
//! [`Cluster::pick`] is the stage `select`: it admits the request, finds the priority level and locality, asks the
//! balancer, and gives a [`Lease`]. Nothing here locks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, Ordering::Relaxed, fence};
use std::time::Duration;

use pilotfish_config::model::HashKey;

pub(crate) mod settings;
mod table;

pub use crate::balance::Pick;
use crate::balance::slow_start::{SlowStart, Warmup};
use crate::balance::{Accept, Algorithm, Balancer, Choice, Entered, hash, locality::LevelPlan};
use crate::clock::Micros;
use crate::concurrency::Limit;
pub use crate::endpoint::Outcome;
use crate::endpoint::health::Passage;
use crate::endpoint::{Endpoint, EndpointStats, Labels};
use crate::inflight::{ClusterLimits, ConnectionPermit, PendingPermit, RequestPermit};
use crate::on_demand::OnDemandAgent;
use crate::shed::Line;
use crate::state::Pass;
use crate::verdict::{Deny, Reason};
pub use settings::{ClusterSettings, Kind, Upstream};
pub use table::{ClusterId, Clusters};

/// What a cluster is made of.
#[derive(Debug, Clone, Default)]
pub struct ClusterSpec {
    /// The host, full name.
    pub host: Box<str>,
    /// The port that callers address.
    pub port: u16,
    /// The subset.
    pub subset: Option<Box<str>>,
    /// How endpoints are found.
    pub kind: Kind,
    /// Its settings.
    pub settings: ClusterSettings,
    /// How one is chosen.
    pub algorithm: Algorithm,
    /// What is hashed, for consistent hashing.
    pub hash_key: Option<HashKey>,
    /// `pilotfish.dev/hash-balance-factor` in percent, for consistent hashing.
    pub balance_factor: Option<u32>,
    /// How a new endpoint's share grows.
    pub warmup: Option<Warmup>,
    /// The agent that is started when somebody calls and nobody is there.
    pub on_demand: Option<Arc<OnDemandAgent>>,
    /// Below this percentage of endpoints that are not out, all are used alike (`minHealthPercent`); 0: never.
    pub min_health: u8,
}

/// The endpoints of one host, port and subset.
#[derive(Debug)]
pub struct Cluster {
    /// `host:port`, or `host:port|subset`: the key of its counters and its name in metrics.
    pub name: Box<str>,
    /// The host, full name.
    pub host: Box<str>,
    /// The port that callers address.
    pub port: u16,
    /// The subset.
    pub subset: Option<Box<str>>,
    /// How endpoints are found.
    pub kind: Kind,
    /// Its settings.
    pub settings: ClusterSettings,
    /// What [`Pick::key`] is to be a hash of.
    pub hash_key: Option<HashKey>,
    /// The agent that is started when somebody calls and nobody is there.
    pub on_demand: Option<Arc<OnDemandAgent>>,
    /// Its counters, which outlive the plan.
    pub limits: Arc<ClusterLimits>,
    endpoints: Box<[Arc<Endpoint>]>,
    levels: Box<[Level]>,
    slow_start: Option<SlowStart>,
    /// Whether some endpoint is degraded.
    degraded: bool,
    /// Whether every request is counted in `limits`.
    counts: bool,
    /// Whether some endpoint takes only so many calls at a time.
    limited: bool,
    /// Below this percentage of endpoints that are not out, all are used alike (`minHealthPercent`); 0: never.
    min_health: u8,
    reckoned: Reckoned,
}

/// Endpoints of one priority: used while those of the levels before are unhealthy.
#[derive(Debug)]
struct Level {
    groups: Box<[Group]>,
    /// The sum of the groups' weights.
    weight: u32,
}

/// Endpoints among which a balancer chooses.
#[derive(Debug)]
struct Group {
    endpoints: Box<[Arc<Endpoint>]>,
    balancer: Balancer,
    weight: u32,
}

/// What follows from how many endpoints are out, reckoned at most every 20 ms and after each outage.
#[derive(Debug, Default)]
struct Reckoned {
    /// The share of traffic of each priority level.
    percent: Box<[AtomicU32]>,
    /// So few are left that all are used (Envoy's panic).
    panic: AtomicBool,
    outages: AtomicU32,
    at: AtomicU64,
}

/// How long what was reckoned is good.
const RECKONED_LIVE: Duration = Duration::from_millis(20);
/// How often another endpoint is chosen because the breaker of the chosen one let another call pass first.
const CLAIMS: usize = 8;
/// A level with at least 1 / 1.4 of its endpoints healthy takes all of its traffic (Envoy's overprovisioning factor).
const OVERPROVISIONING: u64 = 140;

impl Cluster {
    /// Makes a cluster. `levels` says which of `endpoints` are preferred (see [`crate::balance::locality`]).
    pub fn new(
        spec: ClusterSpec,
        endpoints: Vec<Arc<Endpoint>>,
        levels: &[LevelPlan],
        pass: &mut Pass<'_>,
    ) -> Cluster {
        let name = name(&spec.host, spec.port, spec.subset.as_deref());
        let limits = pass.limits(&name);
        let levels: Box<[Level]> =
            levels.iter().map(|plan| Level::new(plan, &endpoints, &spec, pass)).collect();
        let warms =
            !matches!(spec.algorithm, Algorithm::Random | Algorithm::Ring { .. } | Algorithm::Maglev { .. });
        let first_seen = endpoints.iter().map(|endpoint| endpoint.stats.first_seen());
        let slow_start = spec.warmup.filter(|_| warms).and_then(|warmup| SlowStart::new(warmup, first_seen));
        Cluster {
            name,
            limited: spec.settings.limit != Limit::None
                || endpoints.iter().any(|endpoint| endpoint.stats.limit() != u32::MAX),
            counts: spec.settings.max_requests.is_some() || spec.balance_factor.is_some(),
            host: spec.host,
            port: spec.port,
            subset: spec.subset,
            kind: spec.kind,
            settings: spec.settings,
            hash_key: spec.hash_key,
            on_demand: spec.on_demand,
            limits,
            reckoned: Reckoned {
                percent: levels.iter().map(|_| AtomicU32::new(0)).collect(),
                ..Reckoned::default()
            },
            min_health: spec.min_health,
            degraded: endpoints.iter().any(|endpoint| endpoint.degraded),
            endpoints: endpoints.into_boxed_slice(),
            levels,
            slow_start,
        }
    }

    /// All endpoints, those of every priority level.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// How one of its endpoints is chosen: the word in `/why`.
    pub fn balancing(&self) -> &'static str {
        let group = self.levels.iter().flat_map(|level| &level.groups).next();
        group.map_or("", |group| group.balancer.word())
    }

    /// Tries under way to its endpoints. Adds them up, so it is for the rare cases only.
    pub fn in_flight(&self) -> u32 {
        self.endpoints.iter().fold(0, |all: u32, endpoint| all.saturating_add(endpoint.stats.in_flight()))
    }

    /// Counts the first try of a call, if the retry budget is reckoned over an interval.
    pub fn note_try(&self, number: u32, now: Micros) {
        if let (1, Some(interval)) = (number, self.settings.retry_budget.interval) {
            self.limits.budget.note_call(now, interval);
        }
    }

    /// Chooses an endpoint and counts the request.
    ///
    /// # Errors
    /// [`Reason::Overflow`] when `max_requests` are in flight, [`Reason::NoEndpoint`] when there is no endpoint,
    /// [`Reason::BreakerOpen`] when the breakers of all of them are open.
    pub fn pick(&self, pick: &Pick<'_>, rng: &mut fastrand::Rng) -> Result<Lease, Deny> {
        let permit = self.admit()?;
        let near = (!pick.tried.is_empty() && !pick.remote && self.levels.len() > 1).then_some(None);
        let accepts = Accept::order(self.panics(pick.now)).iter().map(Some);
        for accept in near.into_iter().chain(accepts) {
            if matches!(accept, Some(Accept::Untried | Accept::Any)) && self.is_full(pick) {
                break;
            }
            for _ in 0..CLAIMS {
                let chosen = match accept {
                    None => self.choose_near(pick, rng),
                    Some(accept) => self.choose(pick, *accept, rng),
                };
                let Some(endpoint) = chosen else { break };
                if !endpoint.stats.is_within_limit() {
                    endpoint.stats.leave();
                    continue;
                }
                let alongside = endpoint.stats.in_flight();
                match endpoint.pass(pick.now, rng) {
                    Ok(passage) => {
                        return Ok(Lease { endpoint: Arc::clone(endpoint), permit, passage, alongside });
                    }
                    // Now it is out, for a while: another one.
                    Err(()) => endpoint.stats.leave(),
                }
            }
        }
        if self.is_full(pick) {
            return Err(self.full());
        }
        Err(self.nobody(pick.now))
    }

    /// Whether an endpoint that is well has as many calls as it may: then a call waits rather than that it goes to one that
    /// is not well.
    fn is_full(&self, pick: &Pick<'_>) -> bool {
        let well = |stats: &EndpointStats| !stats.is_out(pick.now) && !stats.has_room();
        self.limited && self.endpoints.iter().any(|one| well(&one.stats) && !pick.tried.contains(&one.addr))
    }

    fn full(&self) -> Deny {
        let detail = format!(
            "the endpoints of {} have as many calls as they may (max-concurrency, capacity)",
            self.name
        );
        Deny::with(Reason::Overloaded, detail).and_header("retry-after", "1")
    }

    /// Those who wait until an endpoint has room; `None`: nobody ever does.
    pub fn line(&self) -> Option<&Arc<Line<Turn>>> {
        self.limited.then_some(&self.limits.line)
    }

    /// Calls that its endpoints may have at once, all together.
    pub fn places(&self) -> u32 {
        self.endpoints.iter().fold(0, |all: u32, one| all.saturating_add(one.stats.limit()))
    }

    /// A lease on an endpoint of this cluster that was chosen otherwise (by capability).
    ///
    /// # Errors
    /// [`Reason::Overflow`] when `max_requests` are in flight, [`Reason::BreakerOpen`] when its breaker let another call
    /// pass in the meantime: choose again.
    pub fn lease(
        &self,
        endpoint: &Arc<Endpoint>,
        now: Micros,
        rng: &mut fastrand::Rng,
    ) -> Result<Lease, Deny> {
        let permit = self.admit()?;
        let passage = endpoint.pass(now, rng).map_err(|()| Deny::from(Reason::BreakerOpen))?;
        endpoint.stats.enter();
        let alongside = endpoint.stats.in_flight();
        let lease = Lease { endpoint: Arc::clone(endpoint), permit, passage, alongside };
        if lease.endpoint.stats.is_within_limit() { Ok(lease) } else { Err(self.full()) }
    }

    fn nobody(&self, now: Micros) -> Deny {
        let mut shut = self.endpoints.iter().filter(|endpoint| endpoint.stats.is_shut(now));
        let Some(first) = shut.next() else {
            return Deny::with(Reason::NoEndpoint, format!("{} has no endpoint", self.name));
        };
        let (why, count) = (first.stats.health(now), shut.count() + 1);
        let all = self.endpoints.len();
        let detail = format!("{count} of {all} endpoints of {} are shut; the first: {why}", self.name);
        Deny::with(Reason::BreakerOpen, detail)
    }

    /// A lease on an address that the request itself named ([`Kind::Original`], calls to unknown hosts).
    ///
    /// # Errors
    /// [`Reason::Overflow`] when `max_requests` are in flight.
    pub fn lease_to(&self, addr: SocketAddr, now: Micros) -> Result<Lease, Deny> {
        let endpoint = Endpoint {
            addr,
            unix: None,
            hostname: None,
            labels: Labels::default(),
            locality: Default::default(),
            weight: 1,
            agent: None,
            capabilities: Arc::default(),
            namespace: Box::default(),
            mesh: false,
            identity: None,
            id: None,
            degraded: false,
            dedup: None,
            stats: Arc::new(EndpointStats::of(now, Arc::clone(&self.limits))),
            care: None,
        };
        let permit = self.admit()?;
        endpoint.stats.enter();
        Ok(Lease { endpoint: Arc::new(endpoint), permit, passage: None, alongside: 1 })
    }

    /// Takes a place for a new connection.
    ///
    /// # Errors
    /// [`Reason::Overflow`] when `max_connections` are open.
    pub fn connection_permit(&self) -> Result<ConnectionPermit, Deny> {
        ConnectionPermit::try_acquire(&self.limits, self.settings.max_connections)
    }

    /// Takes a place for a request that has to wait for a connection.
    ///
    /// # Errors
    /// [`Reason::Overflow`] when `max_pending` wait.
    pub fn pending_permit(&self) -> Result<PendingPermit, Deny> {
        PendingPermit::try_acquire(&self.limits, self.settings.max_pending)
    }

    fn admit(&self) -> Result<Option<RequestPermit>, Deny> {
        self.counts.then(|| RequestPermit::try_acquire(&self.limits, self.settings.max_requests)).transpose()
    }

    /// An endpoint that `accept` admits, of the level whose turn it is, else of the first that has one.
    fn choose(&self, pick: &Pick<'_>, accept: Accept, rng: &mut fastrand::Rng) -> Option<Entered<'_>> {
        let preferred = if accept == Accept::Healthy { self.level(pick, rng) } else { 0 };
        let others = (0..self.levels.len()).filter(|level| *level != preferred);
        std::iter::once(preferred)
            .chain(others)
            .find_map(|level| self.choose_in(self.levels.get(level)?, pick, accept, rng))
    }

    /// For another try: a healthy endpoint of the level whose turn it is, one that was tried already rather than one of another
    /// level. `None`: the level is not well.
    fn choose_near(&self, pick: &Pick<'_>, rng: &mut fastrand::Rng) -> Option<Entered<'_>> {
        let level = self.levels.get(self.level(pick, rng))?;
        let again = Pick { tried: &[], ..*pick };
        self.choose_in(level, pick, Accept::Healthy, rng)
            .or_else(|| self.choose_in(level, &again, Accept::Healthy, rng))
    }

    fn choose_in<'a>(
        &'a self,
        level: &'a Level,
        pick: &Pick<'_>,
        accept: Accept,
        rng: &mut fastrand::Rng,
    ) -> Option<Entered<'a>> {
        let preferred = level.group(rng);
        let others = (0..level.groups.len()).filter(|group| *group != preferred);
        for index in std::iter::once(preferred).chain(others) {
            let Some(group) = level.groups.get(index) else { continue };
            if let Some(endpoint) = self.choose_of(group, pick, accept, rng) {
                return Some(endpoint);
            }
        }
        None
    }

    fn choose_of<'a>(
        &'a self,
        group: &'a Group,
        pick: &Pick<'_>,
        accept: Accept,
        rng: &mut fastrand::Rng,
    ) -> Option<Entered<'a>> {
        let choice = Choice {
            endpoints: &group.endpoints,
            limits: &self.limits,
            slow_start: self.slow_start.as_ref(),
            pick,
        };
        group.balancer.choose(&choice, accept, rng)
    }

    /// The priority level whose turn it is.
    fn level(&self, pick: &Pick<'_>, rng: &mut fastrand::Rng) -> usize {
        if self.levels.len() < 2 || !(self.degraded || self.limits.is_troubled(pick.now)) {
            return 0;
        }
        self.reckon(pick.now);
        // A conversation must not change levels from call to call.
        let mut draw = pick.key.map_or_else(|| rng.u32(..100), |key| (hash::mix(!key) % 100) as u32);
        for (level, percent) in self.reckoned.percent.iter().enumerate() {
            match draw.checked_sub(percent.load(Relaxed)) {
                Some(rest) => draw = rest,
                None => return level,
            }
        }
        0
    }

    /// Whether so few endpoints are left that all are used.
    fn panics(&self, now: Micros) -> bool {
        if self.min_health == 0 || !self.limits.is_troubled(now) {
            return false;
        }
        self.reckon(now);
        self.reckoned.panic.load(Relaxed)
    }

    fn reckon(&self, now: Micros) {
        let stale = now >= Micros(self.reckoned.at.load(Relaxed)).after(RECKONED_LIVE);
        if stale || self.reckoned.outages.load(Relaxed) != self.limits.outages() {
            self.reckoned.outages.store(self.limits.outages(), Relaxed);
            self.reckoned.at.store(now.0, Relaxed);
            self.reckon_shares(now);
            let used = self.endpoints.iter().filter(|endpoint| !endpoint.stats.is_out(now)).count();
            let panic = used * 100 < self.endpoints.len() * usize::from(self.min_health);
            self.reckoned.panic.store(panic, Relaxed);
        }
    }

    /// Envoy's rule: a level takes 1.4 x its healthy part of all traffic, up to all that the levels before it left.
    fn reckon_shares(&self, now: Micros) {
        let health = |level: &Level| {
            let all = level.groups.iter().flat_map(|group| &group.endpoints);
            let (healthy, count) = all.fold((0, 0), |(healthy, count), endpoint| {
                (healthy + u64::from(!endpoint.degraded && !endpoint.stats.is_out(now)), count + 1)
            });
            (healthy * OVERPROVISIONING / count.max(1)).min(100)
        };
        let total = self.levels.iter().map(health).sum::<u64>().min(100);
        let mut left = 100;
        for (level, percent) in self.levels.iter().zip(&self.reckoned.percent) {
            let share = (health(level) * 100).checked_div(total).unwrap_or(0).min(left);
            percent.store(share as u32, Relaxed);
            left -= share;
        }
    }
}

impl Level {
    fn new(plan: &LevelPlan, endpoints: &[Arc<Endpoint>], spec: &ClusterSpec, pass: &mut Pass<'_>) -> Level {
        let groups: Box<[Group]> = plan
            .groups
            .iter()
            .map(|group| {
                let members: Vec<Arc<Endpoint>> =
                    group.endpoints.iter().filter_map(|at| endpoints.get(*at as usize).cloned()).collect();
                let balancer = pass.balancer(spec.algorithm, spec.balance_factor, &members);
                Group { endpoints: members.into_boxed_slice(), balancer, weight: group.weight }
            })
            .collect();
        let weight = groups.iter().map(|group| group.weight).sum();
        Level { groups, weight }
    }

    /// The group whose turn it is: by chance, by weight.
    fn group(&self, rng: &mut fastrand::Rng) -> usize {
        if self.groups.len() < 2 || self.weight == 0 {
            return 0;
        }
        let mut draw = rng.u32(..self.weight);
        for (index, group) in self.groups.iter().enumerate() {
            match draw.checked_sub(group.weight) {
                Some(rest) => draw = rest,
                None => return index,
            }
        }
        0
    }
}

/// The name of a cluster: `host:port`, or `host:port|subset`.
pub fn name(host: &str, port: u16, subset: Option<&str>) -> Box<str> {
    match subset {
        None => format!("{host}:{port}").into(),
        Some(subset) => format!("{host}:{port}|{subset}").into(),
    }
}

/// Proof that an endpoint was chosen and counted; dropping it gives the place back.
#[derive(Debug)]
pub struct Lease {
    endpoint: Arc<Endpoint>,
    #[expect(dead_code, reason = "held for its Drop")]
    permit: Option<RequestPermit>,
    /// Its part in the endpoint's breaker, until the end is recorded.
    passage: Option<Passage>,
    /// Calls that the endpoint had when this one began, with it.
    alongside: u32,
}

impl Lease {
    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Says that the call has waited for its answer since `began` and was given up for another that was faster: no failure, and
    /// yet the endpoint is at least that slow.
    pub fn waited(&self, now: Micros, began: Micros) {
        self.endpoint.stats.waited(now, now.since(began));
    }

    /// Says how the call went: `latency` is the time to the answer's head, or to the failure. At most once a call. A
    /// call of which nothing is recorded says nothing about its endpoint; when it was a breaker's probe, the next probes.
    pub fn record(&mut self, now: Micros, outcome: Outcome, latency: Duration) {
        self.endpoint.learn(self.passage.take(), now, outcome, latency);
        self.endpoint.stats.follow(now, outcome, latency, self.alongside);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(passage) = &self.passage {
            self.endpoint.give_up(passage);
        }
        let stats = &self.endpoint.stats;
        stats.leave();
        if stats.limit() != u32::MAX {
            // Whoever begins to wait is counted before it looks for room once more.
            fence(Ordering::SeqCst);
            Turn::call(stats.home());
        }
    }
}

/// The word to a waiting call that an endpoint may have room. One that nobody hears is passed on.
#[derive(Debug)]
pub struct Turn(Option<Arc<ClusterLimits>>);

impl Turn {
    fn call(limits: &Arc<ClusterLimits>) {
        if !limits.line.is_empty()
            && let Err(mut nobody) = limits.line.give(Turn(Some(Arc::clone(limits))))
        {
            nobody.0 = None;
        }
    }

    /// It was heard.
    pub fn take(mut self) {
        self.0 = None;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(limits) = self.0.take() {
            Turn::call(&limits);
        }
    }
}

#[cfg(test)]
mod tests;
