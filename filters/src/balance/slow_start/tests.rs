//! The ramp of new endpoints.

use super::*;
use crate::balance::Algorithm;
use crate::cluster::Cluster;
use crate::fixture::{Make, at, by_key, counts, pick};
use crate::state::State;

const WINDOW: u64 = 100_000;

fn warmup(aggression: f64) -> Option<Warmup> {
    Some(Warmup { duration: Duration::from_millis(WINDOW), minimum_percent: 10.0, aggression })
}

/// Nine endpoints that are there for long and one, number 9, that appears at 0.
fn with_new_one(algorithm: Algorithm, aggression: f64) -> Cluster {
    let state = State::with_seed(1);
    let before = Make::even(algorithm, 9).build_in(&state, Micros(0));
    let mut make = Make::even(algorithm, 10);
    make.spec.warmup = warmup(aggression);
    let cluster = make.build_in(&state, at(0));
    drop(before);
    cluster
}

/// The share of the new endpoint, relative to the mean of the others.
fn share(cluster: &Cluster, millis: u64) -> f64 {
    let counts = counts(cluster, 20_000, |_| pick(at(millis)));
    f64::from(counts[9]) * 9.0 / f64::from(counts[..9].iter().sum::<u32>())
}

#[test]
fn a_new_endpoint_gets_a_share_that_grows_over_the_window() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastRequest] {
        let cluster = with_new_one(algorithm, 1.0);
        for (millis, expected) in
            [(0, 0.1), (5_000, 0.1), (30_000, 0.3), (50_000, 0.5), (90_000, 0.9), (WINDOW, 1.0)]
        {
            let share = share(&cluster, millis);
            assert!(
                (share - expected).abs() < 0.08,
                "{algorithm:?}: {share:.2}, not {expected} after {millis} ms"
            );
        }
    }
}

#[test]
fn aggression_above_one_grows_faster_at_first() {
    let cluster = with_new_one(Algorithm::RoundRobin, 2.0);
    let share = share(&cluster, 25_000);
    assert!((share - 0.5).abs() < 0.08, "{share:.2} is not the square root of a quarter");
}

#[test]
fn random_and_consistent_hash_do_not_warm_up() {
    let cluster = with_new_one(Algorithm::Random, 1.0);
    assert!(share(&cluster, 0) > 0.9);
    let cluster = with_new_one(Algorithm::Maglev { size: 65_537 }, 1.0);
    let counts = counts(&cluster, 20_000, |n| by_key(u64::from(n)));
    assert!(counts[9] > 1800, "{counts:?}");
}

#[test]
fn a_group_in_which_all_are_new_serves_evenly() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastRequest, Algorithm::PeakEwma] {
        let mut make = Make::even(algorithm, 4);
        make.spec.warmup = warmup(1.0);
        let cluster = make.build();
        crate::fixture::assert_shares(&counts(&cluster, 8000, |_| pick(at(0))), &[1; 4], 0.1);
    }
}

#[test]
fn the_formula_is_envoys() {
    let slow_start = |aggression| SlowStart::new(warmup(aggression)?, [Micros(0)].into_iter());
    for (millis, aggression, expected) in
        [(0, 1.0, 0.1), (50_000, 1.0, 0.5), (25_000, 2.0, 0.5), (81_000, 0.5, 0.6561), (200_000, 1.0, 1.0)]
    {
        let factor = slow_start(aggression).unwrap().factor(Duration::from_millis(millis));
        assert!((factor - expected).abs() < 1e-9, "{factor} for {millis} ms, aggression {aggression}");
    }
}
