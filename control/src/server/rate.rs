//! How often somebody may try a secret: joins and administrators' tokens, by address and together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::answer::Denied;
use super::places::network;

/// Wrong secrets that one address may send at once, and how often one more.
const WRONG: Pace = Pace { burst: 10.0, every: Duration::from_secs(1) };
/// Joins of one address: a machine may start hundreds of sidecars at once.
const JOINS: Pace = Pace { burst: 500.0, every: Duration::from_millis(20) };
/// Joins together: each costs a signature and a write of the store.
const ALL: Pace = Pace { burst: 5000.0, every: Duration::from_millis(2) };
/// Addresses that are remembered; with more, those that were quiet longest are forgotten.
const ADDRESSES: usize = 10_000;

/// So many at once, then one more for each `every`.
#[derive(Debug, Clone, Copy)]
struct Pace {
    burst: f64,
    every: Duration,
}

/// How much of a pace is used.
#[derive(Debug, Clone, Copy, Default)]
struct Used(f64);

impl Used {
    fn fade(&mut self, pace: Pace, since: Duration) {
        self.0 = (self.0 - since.as_secs_f64() / pace.every.as_secs_f64()).max(0.0);
    }

    /// How long until one more fits.
    fn wait(self, pace: Pace) -> Option<Duration> {
        let over = self.0 + 1.0 - pace.burst;
        (over > 0.0).then(|| pace.every.mul_f64(over))
    }
}

#[derive(Debug)]
struct Address {
    wrong: Used,
    joins: Used,
    at: Instant,
}

#[derive(Debug)]
struct Ledger {
    addresses: HashMap<IpAddr, Address>,
    all: Used,
    at: Instant,
}

/// Counts attempts.
#[derive(Debug)]
pub(super) struct Guard(Mutex<Ledger>);

impl Guard {
    pub(super) fn new() -> Guard {
        Guard(Mutex::new(Ledger { addresses: HashMap::new(), all: Used::default(), at: Instant::now() }))
    }

    /// Whether an address may try a secret: not after too many wrong ones.
    ///
    /// # Errors
    /// 429 with the time to wait.
    pub(super) fn may_try(&self, address: IpAddr) -> Result<(), Denied> {
        self.lock().wrong(network(address), Instant::now()).map_or(Ok(()), too_many)
    }

    /// It was wrong.
    pub(super) fn failed(&self, address: IpAddr) {
        self.lock().address(network(address), Instant::now()).wrong.0 += 1.0;
    }

    /// Whether an address may join now; counts the attempt.
    ///
    /// # Errors
    /// 429 with the time to wait.
    pub(super) fn may_join(&self, address: IpAddr) -> Result<(), Denied> {
        self.lock().join(network(address), Instant::now()).map_or(Ok(()), too_many)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_many(wait: Duration) -> Result<(), Denied> {
    Err(Denied::too_many(wait.as_secs_f64().ceil() as u64))
}

impl Ledger {
    fn address(&mut self, address: IpAddr, now: Instant) -> &mut Address {
        if self.addresses.len() >= ADDRESSES && !self.addresses.contains_key(&address) {
            self.forget(now);
        }
        let found = self.addresses.entry(address).or_insert_with(|| Address {
            wrong: Used::default(),
            joins: Used::default(),
            at: now,
        });
        let since = now.saturating_duration_since(found.at);
        found.wrong.fade(WRONG, since);
        found.joins.fade(JOINS, since);
        found.at = now;
        found
    }

    /// Makes room: those that have nothing to remember go, else the half that was quiet longest.
    fn forget(&mut self, now: Instant) {
        let longest = WRONG.every.mul_f64(WRONG.burst).max(JOINS.every.mul_f64(JOINS.burst));
        self.addresses.retain(|_, address| now.saturating_duration_since(address.at) < longest);
        if self.addresses.len() >= ADDRESSES {
            let mut times: Vec<Instant> = self.addresses.values().map(|address| address.at).collect();
            let (_, middle, _) = times.select_nth_unstable(ADDRESSES / 2);
            let middle = *middle;
            self.addresses.retain(|_, address| address.at > middle);
        }
    }

    fn wrong(&mut self, address: IpAddr, now: Instant) -> Option<Duration> {
        self.address(address, now).wrong.wait(WRONG)
    }

    fn join(&mut self, address: IpAddr, now: Instant) -> Option<Duration> {
        self.all.fade(ALL, now.saturating_duration_since(self.at));
        self.at = now;
        let all = self.all;
        let found = self.address(address, now);
        if let Some(wait) = found.wrong.wait(WRONG).or(found.joins.wait(JOINS)).or(all.wait(ALL)) {
            return Some(wait);
        }
        found.joins.0 += 1.0;
        self.all.0 += 1.0;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(now: Instant) -> Ledger {
        Ledger { addresses: HashMap::new(), all: Used::default(), at: now }
    }

    #[test]
    fn ten_wrong_ones_then_one_a_second() {
        let (one, other): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let now = Instant::now();
        let mut ledger = ledger(now);
        for _ in 0..10 {
            assert_eq!(ledger.wrong(one, now), None);
            ledger.address(one, now).wrong.0 += 1.0;
        }
        assert_eq!(ledger.wrong(one, now), Some(Duration::from_secs(1)));
        assert_eq!(ledger.join(one, now), Some(Duration::from_secs(1)), "a join is a try too");
        assert_eq!((ledger.wrong(other, now), ledger.join(other, now)), (None, None));
        assert_eq!(ledger.wrong(one, now + Duration::from_secs(1)), None);
    }

    #[test]
    fn joins_are_bounded_for_one_and_for_all_and_memory_with_them() {
        let now = Instant::now();
        let mut ledger = ledger(now);
        let allowed = (0..1000).filter(|_| ledger.join([192, 0, 2, 1].into(), now).is_none()).count();
        assert_eq!(allowed, 500);
        let allowed = (0..20_000u32).filter(|n| ledger.join(IpAddr::V4((*n).into()), now).is_none()).count();
        assert_eq!(allowed, 4500);
        assert!(ledger.addresses.len() <= ADDRESSES);
        assert!(ledger.join([192, 0, 2, 1].into(), now + Duration::from_secs(11)).is_none());
    }
}
