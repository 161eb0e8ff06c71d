//! What sidecars measured of endpoints, taken together; and which of that is news.
//!
//! A report's weight is its calls; older calls count half as much every 10 s, as at the receivers. What a sidecar gets
//! back includes its own reports (frames are shared by all sidecars of a class, and its own measurements outweigh
//! them anyway), except when it is the only reporter of everything in a frame: then that frame is not sent to it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pilotfish_config::wire::{EndpointHealth, Rank, Report};
use tokio::time::{Duration, Instant};

/// At most this many reporters of one endpoint are remembered: those with the most calls.
const MOST_REPORTERS: usize = 64;
/// The time in which a report's weight halves (`filters` uses the same).
const HALF_LIFE: Duration = Duration::from_secs(10);
/// Calls in flight of a reporter that says nothing more count for this long.
const IN_FLIGHT_FOR: Duration = Duration::from_secs(10);
/// What a sidecar said against an endpoint counts for this long; it is told again every 5 s.
const OUT_FOR: Duration = Duration::from_secs(15);
/// A longer reason is cut.
const LONGEST_REASON: usize = 200;
/// At most this many ranks become news at once; others wait for the next second.
const MOST_NEWS: usize = 1000;
/// A latency beyond this is garbage: an hour.
const LONGEST_LATENCY: u64 = 3_600_000_000;
/// The table is kept in this many parts, so that heartbeats do not wait for each other.
const PARTS: usize = 16;

/// What one sidecar said.
#[derive(Debug, Clone)]
struct Part {
    reporter: Arc<str>,
    latency: f64,
    success: f64,
    weight: f64,
    in_flight: u32,
    at: Instant,
    /// Why it sends no calls there, and when it said so.
    out: Option<(EndpointHealth, Instant)>,
}

/// What all say of one endpoint.
#[derive(Debug, Default)]
struct Aggregate {
    parts: Vec<Part>,
    /// Calls that were ever reported (saturating).
    calls: u32,
}

/// What all say, as it is pushed.
#[derive(Debug, Clone)]
pub(super) struct Ranked {
    pub(super) rank: Rank,
    /// Calls that it stands on, older ones counted less.
    pub(super) weight: f64,
    /// Calls that were ever reported (saturating).
    pub(super) calls: u32,
    /// The reporter, when there is one only.
    pub(super) sole: Option<Arc<str>>,
    news: u64,
}

#[derive(Debug, Default)]
struct Table {
    /// Counts up with every second that had news.
    news: u64,
    ranked: HashMap<Arc<str>, Ranked>,
    by_news: BTreeSet<(u64, Arc<str>)>,
}

/// What is known of all endpoints.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    parts: [Mutex<HashMap<Arc<str>, Aggregate>>; PARTS],
    /// Endpoints that were reported since the last look.
    reported: Mutex<HashSet<Arc<str>>>,
    table: Mutex<Table>,
}

impl Ranks {
    /// Takes in what `reporter` measured of the endpoint `id`; nonsense is dropped.
    pub(super) fn report(&self, id: &Arc<str>, reporter: &Arc<str>, report: &Report, now: Instant) {
        let sane = report.success.is_finite() && report.latency_us <= LONGEST_LATENCY;
        if !sane {
            return;
        }
        let mut part = lock(self.part(id));
        part.entry(id.clone()).or_default().take(reporter, report, now);
        drop(part);
        lock(&self.reported).insert(id.clone());
    }

    /// Replaces what `reporter` says by a report of this weight: another control plane's aggregate.
    pub(super) fn replace(&self, id: &Arc<str>, reporter: &Arc<str>, report: &Report, now: Instant) {
        let mut part = lock(self.part(id));
        if let Some(aggregate) = part.get_mut(id) {
            aggregate.parts.retain(|own| own.reporter != *reporter);
        }
        drop(part);
        self.report(id, reporter, report, now);
    }

    /// Forgets an endpoint.
    pub(super) fn forget(&self, id: &str) {
        lock(self.part(id)).remove(id);
        let mut table = lock(&self.table);
        if let Some(ranked) = table.ranked.remove(id) {
            table.by_news.remove(&(ranked.news, id.into()));
        }
    }

    /// Looks for news among what was reported; gives the number of the newest.
    pub(super) fn look(&self, now: Instant) -> u64 {
        let taken: Vec<Arc<str>> = {
            let mut reported = lock(&self.reported);
            let taken: Vec<Arc<str>> = reported.iter().take(MOST_NEWS).cloned().collect();
            taken.iter().for_each(|id| {
                reported.remove(id);
            });
            taken
        };
        let mut fresh = Vec::new();
        for id in taken {
            let aggregate = lock(self.part(&id)).get(&id).and_then(|aggregate| aggregate.ranked(&id, now));
            let Some(ranked) = aggregate else { continue };
            if ranked.rank.in_flight > 0 {
                // Looked at again, so that calls of a reporter that went away do not stay.
                lock(&self.reported).insert(id.clone());
            }
            fresh.push((id, ranked));
        }
        let mut table = lock(&self.table);
        let news = table.news + 1;
        for (id, mut ranked) in fresh {
            let known = table.ranked.get(&id);
            if known.is_some_and(|known| !differs(&known.rank, &ranked.rank)) {
                continue;
            }
            if let Some(known) = known.map(|known| known.news) {
                table.by_news.remove(&(known, id.clone()));
            }
            ranked.news = news;
            table.by_news.insert((news, id.clone()));
            table.ranked.insert(id, ranked);
            table.news = news;
        }
        table.news
    }

    /// The number of the newest news.
    pub(super) fn newest(&self) -> u64 {
        lock(&self.table).news
    }

    /// What was news after `from`.
    pub(super) fn since(&self, from: u64) -> Vec<Ranked> {
        let table = lock(&self.table);
        let ids = table.by_news.range((from + 1, Arc::from(""))..);
        ids.filter_map(|(_, id)| table.ranked.get(id)).cloned().collect()
    }

    /// What all say of an endpoint now.
    pub(super) fn of(&self, id: &str, now: Instant) -> Option<Ranked> {
        lock(self.part(id)).get(id)?.ranked(id, now)
    }

    /// How the endpoint is to sidecars that send it no calls, and to how many: the newest reason.
    pub(super) fn out(&self, id: &str, now: Instant) -> Option<(EndpointHealth, usize)> {
        let part = lock(self.part(id));
        let fresh = |at: Instant| now.saturating_duration_since(at) < OUT_FOR;
        let all = part.get(id)?.parts.iter().filter_map(|part| part.out.as_ref());
        let said: Vec<_> = all.filter(|(_, at)| fresh(*at)).collect();
        let (newest, _) = said.iter().max_by_key(|(_, at)| *at)?;
        Some((newest.clone(), said.len()))
    }

    /// What sidecars that report here say, without other control planes' aggregates.
    pub(super) fn own(&self, id: &str, foreign: &str, now: Instant) -> Option<Ranked> {
        let part = lock(self.part(id));
        let Aggregate { parts, calls } = part.get(id)?;
        let parts = parts.iter().filter(|part| !part.reporter.starts_with(foreign)).cloned().collect();
        Aggregate { parts, calls: *calls }.ranked(id, now)
    }

    fn part(&self, id: &str) -> &Mutex<HashMap<Arc<str>, Aggregate>> {
        let hash = id.bytes().fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        &self.parts[hash % PARTS]
    }
}

impl Part {
    fn weight(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at).as_secs_f64();
        self.weight * (-age / HALF_LIFE.as_secs_f64()).exp2()
    }
}

impl Aggregate {
    fn take(&mut self, reporter: &Arc<str>, report: &Report, now: Instant) {
        self.calls = self.calls.saturating_add(report.calls);
        let calls = f64::from(report.calls);
        let (latency, success) = (report.latency_us as f64, f64::from(report.success.clamp(0.0, 1.0)));
        if let Some(part) = self.parts.iter_mut().find(|part| part.reporter == *reporter) {
            part.weight = part.weight(now) + calls;
            if report.calls > 0 {
                (part.latency, part.success) = (latency, success);
            }
            (part.in_flight, part.at) = (report.in_flight, now);
            part.out = out(report, now);
            return;
        }
        if self.parts.len() >= MOST_REPORTERS {
            let weight = |at: &usize| self.parts.get(*at).map_or(0.0, |part| part.weight(now));
            let least = (0..self.parts.len()).min_by(|a, b| weight(a).total_cmp(&weight(b)));
            match least {
                Some(at) if weight(&at) <= calls => drop(self.parts.swap_remove(at)),
                _ => return,
            }
        }
        let in_flight = report.in_flight;
        self.parts.push(Part {
            reporter: reporter.clone(),
            latency,
            success,
            weight: calls,
            in_flight,
            at: now,
            out: out(report, now),
        });
    }

    /// `None` before the first call.
    fn ranked(&self, id: &str, now: Instant) -> Option<Ranked> {
        let weight: f64 = self.parts.iter().map(|part| part.weight(now)).sum();
        if weight <= 0.0 {
            return None;
        }
        let mean = |of: fn(&Part) -> f64| {
            self.parts.iter().map(|part| of(part) * part.weight(now)).sum::<f64>() / weight
        };
        let fresh = self.parts.iter().filter(|part| now.saturating_duration_since(part.at) < IN_FLIGHT_FOR);
        let in_flight = fresh.fold(0_u32, |sum, part| sum.saturating_add(part.in_flight));
        let rank = Rank {
            endpoint: id.to_owned(),
            latency_us: mean(|part| part.latency) as u64,
            success: mean(|part| part.success) as f32,
            in_flight,
        };
        let sole = match self.parts.as_slice() {
            [only] => Some(only.reporter.clone()),
            _ => None,
        };
        Some(Ranked { rank, weight, calls: self.calls, sole, news: 0 })
    }
}

/// Whether a rank is news to somebody who knows `old`: latency by over 25 %, success by over 0.05, calls in flight by
/// over 25 % and over 2.
fn differs(old: &Rank, new: &Rank) -> bool {
    let apart = |old: f64, new: f64, least: f64| (old - new).abs() > (old * 0.25).max(least);
    apart(old.latency_us as f64, new.latency_us as f64, 0.0)
        || (old.success - new.success).abs() > 0.05
        || apart(old.in_flight.into(), new.in_flight.into(), 2.0)
}

/// What a report says against an endpoint, of bounded length.
fn out(report: &Report, now: Instant) -> Option<(EndpointHealth, Instant)> {
    let cut = |text: &str| text.chars().filter(|c| !c.is_control()).take(LONGEST_REASON).collect::<String>();
    let told = report.health.as_ref()?;
    Some((EndpointHealth { state: cut(&told.state), reason: cut(&told.reason) }, now))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
