//! Who calls whom: what sidecars report of their calls, added up by edge. The last five minutes are kept in slots of ten
//! seconds, the last hour in slots of a minute; the graph and the alert rules read both. Each control plane knows what
//! the sidecars that are connected to it report.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pilotfish_config::wire::{EDGE_BOUNDS, Edge};

use super::hello;

/// Buckets of a histogram: one for each bound, and one for what took longer than all.
pub const BUCKETS: usize = EDGE_BOUNDS.len() + 1;
/// Edges in one heartbeat; a sidecar with more is not believed.
pub(super) const MOST_REPORTED: usize = 1024;
/// Edges of one agent; what is more is told as calls to [`OTHERS`].
const MOST_OF_ONE: usize = 256;
/// Edges of all agents; what is more is told as calls to [`OTHERS`].
const MOST: usize = 8192;
/// The agent that stands for those there is no more room for.
pub const OTHERS: &str = "(others)";
/// The longest window, and how long an edge without calls is kept.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(3600);
/// Windows up to this are exact to ten seconds, longer ones to a minute.
const FINE: Scale = Scale { slot: 10_000, keep: 30 };
const COARSE: Scale = Scale { slot: 60_000, keep: 60 };

/// Calls added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Calls that ended.
    pub calls: u64,
    /// Those that failed.
    pub errors: u64,
    /// How long they took, summed, microseconds.
    pub sum_us: u64,
    /// How many took at most as long as each of [`EDGE_BOUNDS`], and longer; not cumulative.
    pub buckets: [u64; BUCKETS],
}

/// Calls of one agent to another within a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeTraffic {
    /// The agent that calls, `namespace/name`.
    pub from: Arc<str>,
    /// The agent that is called, `namespace/name`; else the cluster's host.
    pub to: Arc<str>,
    /// The capability that was asked for, if one was.
    pub capability: Option<Arc<str>>,
    /// What there was of it; nothing, when the last calls were before the window.
    pub traffic: Traffic,
    /// When the newest of its reports came, milliseconds since the fleet started.
    pub heard: u64,
}

/// A ring of slots.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// How long a slot is, milliseconds.
    slot: u64,
    /// Slots behind the current one.
    keep: u64,
}

/// Slots in which there was something, the oldest first.
type Slots = VecDeque<(u64, Traffic)>;

#[derive(Debug, Default)]
struct Ring {
    fine: Slots,
    coarse: Slots,
    heard: u64,
}

/// By caller, then by callee and capability.
type Table = HashMap<Arc<str>, HashMap<Callee, Ring>>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Callee {
    to: Arc<str>,
    capability: Option<Arc<str>>,
}

/// What is known of all edges.
#[derive(Debug, Default)]
pub(super) struct Edges {
    table: Mutex<(Table, usize)>,
}

impl Traffic {
    /// Adds another's calls.
    pub fn add(&mut self, other: &Traffic) {
        self.calls = self.calls.saturating_add(other.calls);
        self.errors = self.errors.saturating_add(other.errors);
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        for (own, more) in self.buckets.iter_mut().zip(other.buckets) {
            *own = own.saturating_add(more);
        }
    }

    /// The share of calls that failed, 0 to 1; none without calls.
    pub fn error_rate(&self) -> Option<f64> {
        (self.calls > 0).then(|| self.errors.min(self.calls) as f64 / self.calls as f64)
    }

    /// The time that this share of calls took at most, microseconds, within its bucket on a straight line as
    /// Prometheus' `histogram_quantile`; what is beyond the last bound is as long as that. None without calls.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let total: u64 = self.buckets.iter().sum();
        if total == 0 {
            return None;
        }
        let rank = share.clamp(0.0, 1.0) * total as f64;
        let (mut below, mut from) = (0.0, 0);
        for (count, bound) in self.buckets.iter().zip(EDGE_BOUNDS) {
            let count = *count as f64;
            if count > 0.0 && below + count >= rank {
                let part = ((rank - below) / count).clamp(0.0, 1.0);
                let within = (bound - from) as f64 * part;
                // At most the width of a bucket.
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                return Some(from + within as u64);
            }
            (below, from) = (below + count, bound);
        }
        Some(from)
    }

    fn of(edge: &Edge) -> Traffic {
        let mut traffic = Traffic {
            calls: edge.calls.into(),
            errors: edge.errors.min(edge.calls).into(),
            sum_us: edge.sum_us,
            buckets: [0; BUCKETS],
        };
        for (own, told) in traffic.buckets.iter_mut().zip(&edge.buckets) {
            *own = u64::from(*told);
        }
        traffic
    }
}

impl Edges {
    /// Takes in what a sidecar of the agent `from` (`namespace/name`) reports; `now` is milliseconds since the fleet
    /// started.
    pub(super) fn report(&self, from: &str, edges: &[Edge], now: u64) {
        if edges.is_empty() {
            return;
        }
        let mut table = self.lock();
        let (table, total) = &mut *table;
        let own = match table.get_mut(from) {
            Some(own) => own,
            None => table.entry(from.into()).or_default(),
        };
        for edge in edges.iter().take(MOST_REPORTED).filter(|edge| edge.calls > 0) {
            let mut callee = Callee {
                to: hello::text(&edge.to).into(),
                capability: edge.capability.as_deref().map(|name| hello::text(name).into()),
            };
            if !own.contains_key(&callee) && (own.len() >= MOST_OF_ONE || *total >= MOST) {
                callee = Callee { to: OTHERS.into(), capability: None };
            }
            let ring = own.entry(callee).or_insert_with(|| {
                *total += 1;
                Ring::default()
            });
            ring.take(&Traffic::of(edge), now);
        }
    }

    /// Every edge with its calls of the last `window`, at most [`LONGEST_WINDOW`].
    pub(super) fn window(&self, window: Duration, now: u64) -> Vec<EdgeTraffic> {
        let table = self.lock();
        let all =
            table.0.iter().flat_map(|(from, own)| own.iter().map(move |(callee, ring)| (from, callee, ring)));
        let row = |(from, callee, ring): (&Arc<str>, &Callee, &Ring)| EdgeTraffic {
            from: from.clone(),
            to: callee.to.clone(),
            capability: callee.capability.clone(),
            traffic: ring.sum(window, now),
            heard: ring.heard,
        };
        let mut rows: Vec<EdgeTraffic> = all.map(row).collect();
        rows.sort_unstable_by(|a, b| (&a.from, &a.to, &a.capability).cmp(&(&b.from, &b.to, &b.capability)));
        rows
    }

    /// Forgets edges without calls for as long as the longest window.
    pub(super) fn forget_old(&self, now: u64) {
        let longest = millis(LONGEST_WINDOW);
        let mut table = self.lock();
        let (table, total) = &mut *table;
        table.retain(|_, own| {
            own.retain(|_, ring| now.saturating_sub(ring.heard) <= longest);
            !own.is_empty()
        });
        *total = table.values().map(HashMap::len).sum();
    }

    fn lock(&self) -> MutexGuard<'_, (Table, usize)> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn take(&mut self, traffic: &Traffic, now: u64) {
        self.heard = self.heard.max(now);
        FINE.take(&mut self.fine, traffic, now);
        COARSE.take(&mut self.coarse, traffic, now);
    }

    fn sum(&self, window: Duration, now: u64) -> Traffic {
        let (scale, first) = Scale::of(window, now);
        let slots = if scale.slot == FINE.slot { &self.fine } else { &self.coarse };
        let current = now / scale.slot;
        let mut sum = Traffic::default();
        slots.iter().filter(|(slot, _)| *slot >= first && *slot <= current).for_each(|(_, own)| sum.add(own));
        sum
    }
}

/// How much time a window in fact covers: whole slots and what there was of the current one; nothing before the start.
pub(super) fn covered(window: Duration, now: u64) -> Duration {
    let (scale, first) = Scale::of(window, now);
    Duration::from_millis(now.saturating_sub(first * scale.slot))
}

impl Scale {
    /// The scale of a window, and its first slot. The current slot is not over yet, so that it comes on top.
    fn of(window: Duration, now: u64) -> (Scale, u64) {
        let window = millis(window.min(LONGEST_WINDOW));
        let scale = if window <= FINE.slot * FINE.keep { FINE } else { COARSE };
        (scale, (now / scale.slot).saturating_sub(window.div_ceil(scale.slot)))
    }

    fn take(self, slots: &mut Slots, traffic: &Traffic, now: u64) {
        let slot = now / self.slot;
        match slots.back_mut() {
            // Time of two reports may be read in one order and taken in another.
            Some((last, own)) if *last >= slot => own.add(traffic),
            _ => slots.push_back((slot, *traffic)),
        }
        while slots.front().is_some_and(|(first, _)| *first + self.keep < slot) {
            slots.pop_front();
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(to: &str, calls: u32, errors: u32, bucket: usize) -> Edge {
        let mut buckets = vec![0; BUCKETS];
        buckets[bucket] = calls;
        Edge { to: to.into(), capability: None, calls, errors, sum_us: u64::from(calls) * 1000, buckets }
    }

    fn sum(edges: &Edges, window: u64, now: u64) -> Traffic {
        let mut sum = Traffic::default();
        edges.window(Duration::from_secs(window), now).iter().for_each(|row| sum.add(&row.traffic));
        sum
    }

    #[test]
    fn a_window_has_what_was_reported_within_it() {
        let edges = Edges::default();
        let mut reported = Vec::new();
        let mut rng = fastrand::Rng::with_seed(7);
        let mut now = 0;
        while now < 7_200_000 {
            let calls = rng.u32(1..50);
            edges.report("default/a", &[edge("default/b", calls, calls / 2, 3)], now);
            reported.push((now, u64::from(calls)));
            now += rng.u64(1_000..200_000);
            for window in [10, 60, 300, 301, 900, 3600] {
                let (own, slot) = (window * 1000, if window <= 300 { 10_000 } else { 60_000 });
                let within = |longest: u64| -> u64 {
                    reported.iter().filter(|(at, _)| now - at <= longest).map(|(_, calls)| calls).sum()
                };
                let calls = sum(&edges, window, now).calls;
                // Exact but for the slot that is cut, at each end.
                assert!(
                    (within(own)..=within(own.next_multiple_of(slot) + slot)).contains(&calls),
                    "{window} at {now}: {calls}"
                );
            }
        }
        edges.forget_old(now);
        assert_eq!(edges.window(LONGEST_WINDOW, now).len(), 1);
        edges.forget_old(now + 3_800_000);
        assert!(edges.window(LONGEST_WINDOW, now).is_empty());
        assert_eq!(edges.lock().1, 0);
    }

    #[test]
    fn a_window_covers_what_it_sums() {
        let seconds = |window, now| covered(Duration::from_secs(window), now).as_secs_f64();
        assert_eq!((seconds(60, 4_000), seconds(60, 65_000), seconds(60, 125_000)), (4.0, 65.0, 65.0));
        assert_eq!((seconds(3600, 7_230_000), seconds(9999, 7_230_000)), (3630.0, 3630.0));
    }

    #[test]
    fn edges_and_their_slots_are_bounded() {
        let edges = Edges::default();
        for agent in 0..40 {
            for callee in 0..300 {
                edges.report(&format!("default/a{agent}"), &[edge(&format!("host-{callee}"), 1, 9, 0)], 5);
            }
        }
        let rows = edges.window(LONGEST_WINDOW, 10);
        assert!(rows.len() <= MOST + 40, "{}", rows.len());
        assert_eq!(sum(&edges, 3600, 10).calls, 40 * 300, "none is lost");
        assert_eq!(sum(&edges, 3600, 10).errors, 40 * 300, "not more errors than calls");
        assert!(rows.iter().any(|row| &*row.to == OTHERS));
        for at in 0..100_000 {
            edges.report("default/a0", &[edge("host-0", 1, 0, 0)], at * 1000);
        }
        let table = edges.lock();
        let ring = &table.0["default/a0"][&Callee { to: "host-0".into(), capability: None }];
        assert!(ring.fine.len() <= 31 && ring.coarse.len() <= 61);
    }

    #[test]
    fn quantiles_are_within_their_bucket() {
        let mut traffic = Traffic::default();
        assert_eq!((traffic.quantile(0.95), traffic.error_rate()), (None, None));
        traffic.add(&Traffic::of(&edge("b", 90, 0, 0)));
        traffic.add(&Traffic::of(&edge("b", 10, 10, 9)));
        assert_eq!(traffic.quantile(0.45), Some(2_500));
        assert_eq!(traffic.quantile(0.95), Some(875_000));
        assert_eq!(traffic.error_rate(), Some(0.1));
        traffic.add(&Traffic::of(&edge("b", 1000, 0, BUCKETS - 1)));
        assert_eq!(traffic.quantile(0.99), Some(10_000_000), "no bound says how much longer it took");
    }
}
