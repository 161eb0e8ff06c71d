//! What ejects an endpoint, for how long, and how many at a time.

use std::sync::Arc;

use super::*;
use crate::balance::Algorithm;
use crate::cluster::Cluster;
use crate::endpoint::Care;
use crate::endpoint::health::{HealthState, OutlierCare};
use crate::fixture::{Make, addr, at, lease, number, pick};
use crate::state::State;

fn policy() -> OutlierDetection {
    OutlierDetection {
        split_external_local_origin_errors: false,
        consecutive_local_origin_failures: Some(5),
        consecutive_gateway_errors: None,
        consecutive_5xx_errors: Some(5),
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_percent: 10,
        min_health_percent: 0,
        http_errors: Vec::new(),
    }
}

/// A cluster of that many endpoints; each call makes a new plan over the same state.
fn cluster(state: &State, count: u32, policy: &OutlierDetection) -> Cluster {
    let mut make = Make::even(Algorithm::LeastRequest, count);
    make.spec.min_health = policy.min_health_percent;
    let bare = Make::even(Algorithm::LeastRequest, count);
    let peers = bare.endpoints(&mut state.begin(at(0))).iter().map(|e| Arc::clone(&e.stats)).collect();
    let outlier = Some(Arc::new(OutlierCare { policy: policy.clone(), peers }));
    make.care = Some(Arc::new(Care { outlier, ..Care::default() }));
    make.build_in(state, at(0))
}

fn end(cluster: &Cluster, n: u32, now: u64, outcome: Outcome) {
    let endpoint = cluster.endpoints().iter().find(|endpoint| endpoint.addr == addr(n)).unwrap();
    lease(cluster, endpoint, at(now)).record(at(now), outcome, Duration::from_millis(1));
}

fn fail(cluster: &Cluster, n: u32, now: u64) {
    (0..5).for_each(|_| end(cluster, n, now, Outcome::Answered(500)));
}

fn out(cluster: &Cluster, now: u64) -> Vec<u32> {
    let out = |n: &u32| cluster.endpoints()[*n as usize].stats.is_out(at(now));
    (0..cluster.endpoints().len() as u32).filter(out).collect()
}

#[test]
fn outlier_streaks_count_what_envoy_counts() {
    use Outcome::{Answered, Reset, TimedOut, Unreachable};
    let reached = |policy: &OutlierDetection, outcomes: &[Outcome]| {
        let own = Outlier::default();
        outcomes.iter().map(|outcome| own.record(policy, *outcome)).last().flatten().map(|(cause, _)| cause)
    };
    let bad = Answered(500);
    let plain = policy();
    assert_eq!(reached(&plain, &[bad; 5]), Some(Cause::Errors));
    assert_eq!(reached(&plain, &[bad; 4]), None);
    assert_eq!(reached(&plain, &[bad, bad, Answered(404), bad, bad, bad]), None, "an answer breaks the row");
    let mixed = [Unreachable, Reset, TimedOut, bad, Answered(502)];
    assert_eq!(reached(&plain, &mixed), Some(Cause::Errors), "local failures count as 503 and 504");
    let gateway = OutlierDetection { consecutive_gateway_errors: Some(3), ..policy() };
    assert_eq!(reached(&gateway, &[Answered(502), Answered(503), Answered(504)]), Some(Cause::GatewayErrors));
    assert_eq!(reached(&gateway, &[Answered(502), Answered(503), bad, Answered(504)]), None);
    let only_gateway = OutlierDetection { consecutive_5xx_errors: None, ..gateway };
    assert_eq!(reached(&only_gateway, &[bad; 100]), None);
    assert_eq!(reached(&only_gateway, &[Unreachable; 3]), Some(Cause::GatewayErrors));
    let split = OutlierDetection { split_external_local_origin_errors: true, ..policy() };
    assert_eq!(reached(&split, &[Unreachable, Reset, TimedOut, Reset, Reset]), Some(Cause::LocalFailures));
    assert_eq!(reached(&split, &[bad, bad, bad, bad, Reset]), None, "they are counted apart");
    assert_eq!(reached(&split, &[Reset, Reset, Reset, Reset, bad, Reset]), None, "an error was answered");
    assert_eq!(reached(&split, &[bad, bad, bad, bad, Reset, bad]), Some(Cause::Errors));
    let codes = OutlierDetection { http_errors: vec![404], ..policy() };
    assert_eq!(reached(&codes, &[Answered(404), bad, Answered(404), bad, bad]), Some(Cause::Errors));
    assert_eq!(reached(&codes, &[Outcome::of_grpc(14); 5]), Some(Cause::Errors));
    assert_eq!(reached(&codes, &[Outcome::of_grpc(5), Outcome::of_grpc(3), bad, bad, bad]), None);
}

#[test]
fn outlier_ejections_grow_to_300_s_end_at_a_sweep_and_are_forgiven_sweep_by_sweep() {
    let own = Outlier::default();
    let policy = OutlierDetection { interval: Duration::from_secs(10), ..policy() };
    let mut now = Micros(5_000_000);
    let mut lengths = Vec::new();
    for _ in 0..12 {
        assert!(own.eject(&policy, now, Cause::Errors, 5) && !own.eject(&policy, now, Cause::Errors, 5));
        let until = own.ejected(now).unwrap().until;
        assert_eq!(until.0 % 10_000_000, 0, "at a sweep");
        lengths.push(until.since(now).as_secs());
        assert!(!own.take_back(Micros(until.0 - 1000), false) && own.take_back(until, false));
        now = Micros(until.0);
    }
    assert_eq!(lengths, [35, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]);
    // Envoy goes one further than 300 s / 30 s: 11 ejections, then 9 sweeps in use.
    now = now.after(Duration::from_secs(90));
    assert!(own.eject(&policy, now, Cause::Errors, 5));
    assert_eq!(own.ejected(now).unwrap().until.since(now).as_secs(), 90, "two left, and this one");
    let later = now.after(Duration::from_secs(100_000));
    assert!(own.take_back(later, false) && own.eject(&policy, later, Cause::Errors, 5));
    let again = own.ejected(later).unwrap().until.since(later).as_secs();
    assert!((30..=40).contains(&again), "{again}");
}

#[test]
fn outlier_ejection_ends_by_time_alone_and_says_why() {
    let state = State::with_seed(1);
    let cluster = cluster(&state, 10, &policy());
    fail(&cluster, 3, 0);
    assert_eq!(out(&cluster, 0), [3]);
    let stats = &cluster.endpoints()[3].stats;
    let health = stats.health(at(0));
    assert_eq!(health.state, HealthState::Ejected);
    assert_eq!(health.to_string(), "ejected: 5 consecutive 5xx, 30 s left");
    let mut rng = fastrand::Rng::with_seed(1);
    let chosen: Vec<u32> = (0..500).map(|_| number(&cluster.pick(&pick(at(1)), &mut rng).unwrap())).collect();
    assert!(!chosen.contains(&3));
    assert_eq!(out(&cluster, 30_000), [0; 0]);
    assert!(stats.health(at(30_000)).is_well());
    assert_eq!(cluster.limits.ejected(), 1, "nobody looked yet");
    stats.settle(at(30_000), cluster.endpoints()[3].care.as_deref());
    assert_eq!(cluster.limits.ejected(), 0);
    assert_eq!(state.tally().ejections(Cause::Errors), 1);
}

#[test]
fn outlier_ejections_never_exceed_the_percentage_but_one_is_always_allowed() {
    for (count, percent, most) in
        [(10, 10, 1), (10, 0, 1), (10, 35, 3), (3, 10, 1), (10, 100, 10), (1, 10, 1)]
    {
        let policy = OutlierDetection { max_ejection_percent: percent, ..policy() };
        let state = State::with_seed(1);
        let cluster = cluster(&state, count, &policy);
        (0..count).for_each(|n| fail(&cluster, n, 0));
        assert_eq!(out(&cluster, 0).len(), most, "{percent} % of {count}");
        assert_eq!(state.tally().ejections_forbidden(), u64::from(count) - most as u64);
        // Those whose time is over make room, though nobody called them.
        fail(&cluster, count - 1, 60_000);
        assert!(out(&cluster, 60_000).contains(&(count - 1)), "{percent} % of {count}");
        let all = cluster.pick(&pick(at(0)), &mut fastrand::Rng::with_seed(1));
        assert!(all.is_ok(), "when all are ejected, all are used");
    }
}

#[test]
fn outlier_percentage_holds_in_any_order_of_events_and_with_threads() {
    for seed in 0..50 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let count = rng.u32(1..30);
        let policy = OutlierDetection { max_ejection_percent: rng.u8(..=100), ..policy() };
        let most = allowed(&policy, count as usize) as usize;
        let state = State::with_seed(seed);
        let mut cluster = cluster(&state, count, &policy);
        let mut now = 0;
        for _ in 0..300 {
            now += rng.u64(..3000);
            let n = rng.u32(..count);
            match rng.u8(..10) {
                0 => cluster.endpoints()[n as usize].stats.checked(at(now), None),
                1 => cluster = super::tests::cluster(&state, count, &policy),
                2 => cluster.endpoints()[n as usize]
                    .stats
                    .settle(at(now), cluster.endpoints()[0].care.as_deref()),
                3..6 => end(&cluster, n, now, Outcome::Answered(200)),
                _ => fail(&cluster, n, now),
            }
            let found = out(&cluster, now).len();
            assert!(
                found <= most && found <= cluster.limits.ejected() as usize,
                "seed {seed}: {found} of {count}"
            );
        }
    }
    let policy = OutlierDetection { max_ejection_percent: 30, ..policy() };
    let state = State::with_seed(1);
    let cluster = cluster(&state, 20, &policy);
    let clock = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (cluster, clock) = (&cluster, &clock);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed);
                for _ in 0..5000 {
                    let now = clock.fetch_add(7, Relaxed);
                    end(cluster, rng.u32(..20), now, Outcome::Reset);
                    assert!(cluster.limits.ejected() <= 6);
                }
            });
        }
    });
    let end = clock.load(Relaxed) + 1_000_000;
    cluster.endpoints().iter().for_each(|e| e.stats.settle(at(end), e.care.as_deref()));
    assert_eq!(cluster.limits.ejected(), 0, "every reservation was given back");
}

#[test]
fn outlier_ejection_survives_a_new_plan_and_is_forgotten_with_its_endpoint() {
    let state = State::with_seed(1);
    let old = cluster(&state, 10, &policy());
    fail(&old, 9, 0);
    let new = cluster(&state, 10, &policy());
    drop(old);
    assert_eq!(out(&new, 1), [9]);
    let shrunk = cluster(&state, 9, &policy());
    drop(new);
    drop(state.begin(at(2)));
    assert_eq!(shrunk.limits.ejected(), 0);
    fail(&shrunk, 0, 3);
    assert_eq!(out(&shrunk, 3), [0]);
}

#[test]
fn below_min_health_percent_all_are_used_alike() {
    let policy = OutlierDetection { max_ejection_percent: 100, min_health_percent: 50, ..policy() };
    let cluster = cluster(&State::with_seed(1), 4, &policy);
    let used = |now: u64| {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut used: Vec<u32> =
            (0..200).map(|_| number(&cluster.pick(&pick(at(now)), &mut rng).unwrap())).collect();
        used.sort_unstable();
        used.dedup();
        used
    };
    fail(&cluster, 0, 0);
    fail(&cluster, 1, 0);
    assert_eq!(used(1), [2, 3], "half of them are enough");
    fail(&cluster, 2, 1);
    assert_eq!(used(1), [0, 1, 2, 3]);
    assert_eq!(used(40_000), [0, 1, 2, 3]);
    fail(&cluster, 0, 40_000);
    assert_eq!(used(40_001), [1, 2, 3]);
}
