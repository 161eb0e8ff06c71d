//! A budget is never exceeded: random calls with a manual clock, and several threads at once.

use std::sync::atomic::AtomicU32;

use super::*;
use crate::fixture::at;

#[test]
fn the_default_budget_is_envoys() {
    let budget = BudgetPolicy::default();
    assert_eq!((budget.percent, budget.min, budget.interval, budget.max), (20.0, 3, None, None));
}

#[test]
fn a_budget_allows_its_share_of_what_is_active_and_never_less_than_its_minimum() {
    let limits = Arc::new(ClusterLimits::default());
    let acquire = |policy: &BudgetPolicy, active: u32| {
        let mut held = Vec::new();
        while let Some(permit) =
            RetryPermit::try_acquire(&limits, policy, at(0), || active + held.len() as u32)
        {
            held.push(permit);
        }
        held.len()
    };
    let policy = BudgetPolicy::default();
    for (active, allowed) in [(0, 3), (1, 3), (15, 3), (19, 3), (20, 4), (100, 20), (1004, 200)] {
        assert_eq!(acquire(&policy, active), allowed, "{active}");
    }
    assert_eq!(acquire(&BudgetPolicy { percent: 0.0, min: 0, ..policy }, 1000), 0);
    assert_eq!(acquire(&BudgetPolicy { percent: 100.0, ..policy }, 1000), 1000);
    assert_eq!(acquire(&BudgetPolicy { max: Some(2), ..policy }, 1000), 2, "maxRetries is a limit, too");
    assert_eq!(acquire(&BudgetPolicy { max: Some(0), ..policy }, 1000), 0);
    assert_eq!(limits.budget().active(), 0);
}

#[test]
fn random_calls_never_exceed_the_budget() {
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let policy = BudgetPolicy {
            percent: [0.0, 10.0, 20.0, 50.0][rng.usize(..4)],
            min: rng.u32(..5),
            interval: None,
            max: rng.bool().then(|| rng.u32(..10)),
        };
        let limits = Arc::new(ClusterLimits::default());
        let (mut active, mut held) = (0_u32, Vec::new());
        for _ in 0..500 {
            match rng.u32(..4) {
                0 => active += rng.u32(..10),
                1 => active -= rng.u32(..=active.min(10)),
                2 if !held.is_empty() => drop(held.swap_remove(rng.usize(..held.len()))),
                _ => {
                    let in_flight = active + held.len() as u32;
                    if let Some(permit) = RetryPermit::try_acquire(&limits, &policy, at(0), || in_flight) {
                        held.push(permit);
                        let share = (f64::from(in_flight) * policy.percent / 100.0) as usize;
                        let allowed = share.max(policy.min as usize);
                        assert!(held.len() <= allowed, "seed {seed}: {} of {allowed}", held.len());
                        assert!(
                            policy.max.is_none_or(|max| held.len() <= max as usize),
                            "seed {seed}: maxRetries"
                        );
                    }
                }
            }
            assert_eq!(limits.budget().active() as usize, held.len());
        }
    }
}

#[test]
fn a_budget_with_an_interval_counts_the_calls_of_the_interval() {
    for seed in 0..100 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let interval = Duration::from_secs(10);
        let policy = BudgetPolicy { percent: 20.0, min: 0, interval: Some(interval), max: None };
        let limits = Arc::new(ClusterLimits::default());
        let (mut calls, mut retries) = (Vec::new(), Vec::new());
        let mut now = 0;
        for _ in 0..2000 {
            now += rng.u64(..50);
            if rng.u32(..3) > 0 {
                limits.budget().note_call(at(now), interval);
                calls.push(now);
            } else if RetryPermit::try_acquire(&limits, &policy, at(now), || 0).is_some() {
                retries.push(now);
                // The window is exact to a tenth: 9 to 10 s of calls count.
                let since =
                    |times: &[u64], millis: u64| times.iter().filter(|time| **time + millis > now).count();
                let (of, most) = (since(&retries, 9_000), since(&calls, 10_000) / 5);
                assert!(of <= most, "seed {seed} at {now}: {of} retries of {most}");
            }
        }
        assert!(retries.len() > 50, "seed {seed}: {} retries for {} calls", retries.len(), calls.len());
    }
}

#[test]
fn a_budget_holds_under_four_threads() {
    let limits = Arc::new(ClusterLimits::default());
    let policy = BudgetPolicy::default();
    let (held, most) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    if let Some(permit) = RetryPermit::try_acquire(&limits, &policy, at(0), || 40) {
                        most.fetch_max(held.fetch_add(1, Relaxed) + 1, Relaxed);
                        held.fetch_sub(1, Relaxed);
                        drop(permit);
                    }
                }
            });
        }
    });
    assert!(most.load(Relaxed) <= 8, "{most:?}");
    assert_eq!(limits.budget().active(), 0);
}

#[test]
fn a_budget_with_an_interval_holds_under_four_threads() {
    for _ in 0..200 {
        let interval = Duration::from_secs(10);
        let limits = Arc::new(ClusterLimits::default());
        let policy = BudgetPolicy { percent: 20.0, min: 0, interval: Some(interval), max: None };
        (0..100).for_each(|_| limits.budget().note_call(at(0), interval));
        let entered = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let permit = RetryPermit::try_acquire(&limits, &policy, at(1), || 0);
                        entered.fetch_add(u32::from(permit.is_some()), Relaxed);
                    }
                });
            }
        });
        assert!((1..=20).contains(&entered.load(Relaxed)), "{entered:?} of 20");
    }
}
