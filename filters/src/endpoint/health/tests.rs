//! All reasons together: what is out, what is shut, and what the cluster knows of it.

use super::*;
use crate::balance::Algorithm;
use crate::balance::Pick;
use crate::cluster::Cluster;
use crate::fixture::{Make, at, lease, number, pick};
use crate::state::State as Counters;
use crate::verdict::Reason;

fn guarded(state: &Counters, algorithm: Algorithm, count: u32) -> Cluster {
    let mut make = Make::even(algorithm, count);
    let breaker = Some(Arc::new(CircuitBreaker::default()));
    make.care = Some(Arc::new(Care { breaker, ..Care::default() }));
    make.build_in(state, at(0))
}

fn trip(cluster: &Cluster, n: usize, now: u64) {
    for _ in 0..7 {
        let Ok(mut lease) = cluster.lease(&cluster.endpoints()[n], at(now), &mut fastrand::Rng::with_seed(1))
        else {
            return;
        };
        lease.record(at(now), Outcome::Answered(500), Duration::from_millis(1));
    }
}

const ALGORITHMS: [Algorithm; 6] = [
    Algorithm::RoundRobin,
    Algorithm::Random,
    Algorithm::LeastRequest,
    Algorithm::PeakEwma,
    Algorithm::Ring { min_size: 64 },
    Algorithm::Maglev { size: 251 },
];

#[test]
fn open_breakers_are_passed_over_by_every_algorithm_and_refuse_when_all_are_open() {
    for algorithm in ALGORITHMS {
        let state = Counters::with_seed(1);
        let cluster = guarded(&state, algorithm, 3);
        let mut rng = fastrand::Rng::with_seed(1);
        trip(&cluster, 0, 0);
        for _ in 0..100 {
            assert_ne!(number(&cluster.pick(&pick(at(1)), &mut rng).unwrap()), 0, "{algorithm:?}");
        }
        let all: Vec<_> = cluster.endpoints().iter().map(|endpoint| endpoint.addr).collect();
        let tried = Pick { key: None, now: at(1), tried: &all[1..], remote: false, compared: None };
        for _ in 0..20 {
            assert_ne!(number(&cluster.pick(&tried, &mut rng).unwrap()), 0, "rather one that was tried");
        }
        trip(&cluster, 1, 1);
        trip(&cluster, 2, 1);
        let deny = cluster.pick(&pick(at(2)), &mut rng).unwrap_err();
        assert_eq!(deny.reason, Reason::BreakerOpen, "{algorithm:?}");
        assert!(deny.detail.unwrap().contains("breaker open, 1"), "{algorithm:?}");
        // Each is probed once at a time.
        let probes: Vec<_> = (0..3).map(|_| cluster.pick(&pick(at(1600)), &mut rng).unwrap()).collect();
        assert_eq!(cluster.pick(&pick(at(1600)), &mut rng).unwrap_err().reason, Reason::BreakerOpen);
        assert_eq!(cluster.endpoints()[0].stats.health(at(1600)).state, HealthState::Probing);
        drop(probes);
        let mut probe = cluster.pick(&pick(at(1600)), &mut rng).expect("lost probes are given back");
        probe.record(at(1600), Outcome::Answered(200), Duration::from_millis(1));
        let back = number(&probe);
        drop(probe);
        for _ in 0..50 {
            if let Ok(mut lease) = cluster.pick(&pick(at(1601)), &mut rng) {
                lease.record(at(1601), Outcome::Answered(200), Duration::from_millis(1));
            }
        }
        assert!(cluster.endpoints()[back as usize].stats.health(at(1601)).is_well());
        assert!(state.tally().breaker(Step::Opened) == 3 && state.tally().breaker(Step::Closed) >= 1);
    }
}

#[test]
fn an_open_breaker_survives_a_new_plan_and_ends_when_no_longer_configured() {
    let state = Counters::with_seed(1);
    let old = guarded(&state, Algorithm::LeastRequest, 1);
    trip(&old, 0, 0);
    let new = guarded(&state, Algorithm::LeastRequest, 1);
    assert!(new.pick(&pick(at(1)), &mut fastrand::Rng::with_seed(1)).is_err());
    let without = Make::even(Algorithm::LeastRequest, 1).build_in(&state, at(1));
    assert!(without.pick(&pick(at(1)), &mut fastrand::Rng::with_seed(1)).is_err());
    without.endpoints()[0].stats.settle(at(1), None);
    assert!(without.pick(&pick(at(1)), &mut fastrand::Rng::with_seed(1)).is_ok());
}

#[test]
fn checks_put_out_until_they_are_good_and_say_why() {
    let state = Counters::with_seed(1);
    let cluster = Make::even(Algorithm::LeastRequest, 2).build_in(&state, at(0));
    let stats = &cluster.endpoints()[0].stats;
    stats.checked(at(0), Some("connection refused"));
    assert!(stats.is_out(at(1_000_000_000)) && !stats.is_shut(at(0)));
    assert_eq!(stats.health(at(0)).reason, "health check: connection refused");
    assert!(cluster.limits.is_troubled(at(1_000_000_000)));
    let mut rng = fastrand::Rng::with_seed(1);
    assert!((0..50).all(|_| number(&cluster.pick(&pick(at(1)), &mut rng).unwrap()) == 1));
    cluster.endpoints()[1].stats.checked(at(0), Some("x"));
    assert!(cluster.pick(&pick(at(1)), &mut rng).is_ok(), "when none is well all are used");
    // An answer to a call is no good check.
    lease(&cluster, &cluster.endpoints()[0], at(2)).record(at(2), Outcome::Answered(200), Duration::ZERO);
    assert!(stats.is_out(at(2)));
    stats.checked(at(3), None);
    assert!(stats.health(at(3)).is_well() && !stats.is_out(at(3)));
    cluster.endpoints()[1].stats.unchecked();
    assert!(!cluster.limits.is_troubled(at(4)));
}

#[test]
fn reasons_hold_each_for_itself() {
    let state = Counters::with_seed(1);
    let cluster = guarded(&state, Algorithm::LeastRequest, 1);
    let stats = &cluster.endpoints()[0].stats;
    trip(&cluster, 0, 0);
    stats.fell_silent(at(1000));
    stats.checked(at(1000), Some("x"));
    assert_eq!(stats.health(at(1000)).state, HealthState::CheckFailed);
    stats.checked(at(1000), None);
    assert_eq!(stats.health(at(1000)).state, HealthState::BreakerOpen);
    assert!(stats.is_out(at(1600)), "the breaker would admit a probe, but connects failed");
    assert!(!stats.is_shut(at(1600)) && !stats.is_out(at(2000)));
    lease(&cluster, &cluster.endpoints()[0], at(2000)).record(
        at(2000),
        Outcome::Answered(200),
        Duration::ZERO,
    );
    assert!(stats.health(at(2000)).is_well());
    assert!(!cluster.limits.is_troubled(at(2001)));
}

#[test]
fn what_a_cluster_counts_ends_with_its_endpoints() {
    let state = Counters::with_seed(1);
    let cluster = guarded(&state, Algorithm::LeastRequest, 2);
    let limits = Arc::clone(&cluster.limits);
    trip(&cluster, 0, 0);
    cluster.endpoints()[1].stats.checked(at(0), Some("x"));
    assert!(limits.is_troubled(at(1_000_000)));
    drop(cluster);
    drop(state.begin(at(1)));
    assert!(!limits.is_troubled(at(1_000_000)));
}

#[test]
fn threads_that_fold_at_once_leave_the_last_word() {
    for round in 0..200 {
        let stats = EndpointStats::new(at(0));
        std::thread::scope(|scope| {
            scope.spawn(|| stats.checked(at(0), Some("x")));
            scope.spawn(|| stats.fell_silent(at(0)));
            scope.spawn(|| stats.settle(at(0), None));
        });
        let failed = stats.condition.check_failed.load(SeqCst);
        assert_eq!(stats.out_until.load(SeqCst) == NEVER, failed, "round {round}");
        assert!(stats.is_out(at(0)));
    }
}
