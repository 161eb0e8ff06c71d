//! Every algorithm: shares, what is passed over, bounded load.

use super::*;
use crate::fixture::{Make, addr, assert_shares, at, by_key, counts, number, pick, put_out};

const RING: Algorithm = Algorithm::Ring { min_size: 1024 };
const MAGLEV: Algorithm = Algorithm::Maglev { size: maglev::DEFAULT_SIZE };
const ALL: [Algorithm; 6] =
    [Algorithm::RoundRobin, Algorithm::Random, Algorithm::LeastRequest, Algorithm::PeakEwma, RING, MAGLEV];

/// Hashes of keys, one for each `n`.
fn key(n: u32) -> u64 {
    hash::mix(u64::from(n))
}

#[test]
fn every_algorithm_spreads_evenly_over_equal_endpoints() {
    for algorithm in ALL {
        let cluster = Make::even(algorithm, 10).build();
        assert_shares(&counts(&cluster, 20_000, |n| by_key(key(n))), &[1; 10], 0.25);
    }
}

#[test]
fn shares_of_idle_endpoints_follow_their_weights() {
    let weights = [1, 2, 3, 4, 10];
    for algorithm in [Algorithm::RoundRobin, Algorithm::Random, Algorithm::LeastRequest, RING, MAGLEV] {
        let cluster = Make::weighted(algorithm, &weights).build();
        let tolerance = if algorithm == RING { 0.2 } else { 0.06 };
        assert_shares(&counts(&cluster, 40_000, |n| by_key(key(n))), &weights, tolerance);
    }
}

#[test]
fn a_heavier_endpoint_is_cheaper_to_peak_ewma() {
    let cluster = Make::weighted(Algorithm::PeakEwma, &[1, 3]).build();
    let counts = counts(&cluster, 1000, |_| pick(at(0)));
    assert!(counts[1] > counts[0], "{counts:?}");
}

#[test]
fn round_robin_takes_equal_endpoints_strictly_in_turn() {
    let cluster = Make::even(Algorithm::RoundRobin, 5).build();
    let mut rng = fastrand::Rng::with_seed(1);
    let order: Vec<u32> = (0..50).map(|_| number(&cluster.pick(&pick(at(0)), &mut rng).unwrap())).collect();
    assert!(order.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 5), "{order:?}");
}

#[test]
fn round_robin_spreads_the_turns_of_a_heavy_endpoint() {
    let cluster = Make::weighted(Algorithm::RoundRobin, &[4, 1, 1]).build();
    let mut rng = fastrand::Rng::with_seed(1);
    let order: Vec<u32> = (0..600).map(|_| number(&cluster.pick(&pick(at(0)), &mut rng).unwrap())).collect();
    for window in order.windows(12) {
        let heavy = window.iter().filter(|n| **n == 0).count();
        assert!((6..=10).contains(&heavy), "{window:?}");
    }
    assert_eq!(order.iter().filter(|n| **n == 0).count(), 400);
}

#[test]
fn round_robin_of_several_threads_stays_even() {
    let cluster = Make::even(Algorithm::RoundRobin, 4).build();
    let mut sums = [0; 4];
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| counts(&cluster, 1000, |_| pick(at(0))))).collect();
        for thread in threads {
            for (sum, count) in sums.iter_mut().zip(thread.join().unwrap()) {
                *sum += count;
            }
        }
    });
    assert_eq!(sums, [1000; 4]);
}

#[test]
fn least_request_evens_out_what_is_in_flight() {
    let spread = |algorithm| {
        let cluster = Make::even(algorithm, 10).build();
        let mut rng = fastrand::Rng::with_seed(3);
        let mut leases: Vec<_> = (0..200).map(|_| cluster.pick(&pick(at(0)), &mut rng).unwrap()).collect();
        for _ in 0..5000 {
            leases.swap_remove(rng.usize(..leases.len()));
            leases.push(cluster.pick(&pick(at(0)), &mut rng).unwrap());
        }
        let loads: Vec<u32> = cluster.endpoints().iter().map(|endpoint| endpoint.stats.in_flight()).collect();
        assert_eq!(loads.iter().sum::<u32>(), 200);
        loads.iter().max().unwrap() - loads.iter().min().unwrap()
    };
    assert!(spread(Algorithm::LeastRequest) <= 5);
    assert!(spread(Algorithm::Random) > 5);
}

#[test]
fn least_request_holds_requests_in_flight_proportional_to_weights() {
    let weights = [1, 1, 2, 4];
    let cluster = Make::weighted(Algorithm::LeastRequest, &weights).build();
    let mut rng = fastrand::Rng::with_seed(3);
    let leases: Vec<_> = (0..800).map(|_| cluster.pick(&pick(at(0)), &mut rng).unwrap()).collect();
    let loads: Vec<u32> = cluster.endpoints().iter().map(|endpoint| endpoint.stats.in_flight()).collect();
    assert_shares(&loads, &weights, 0.1);
    drop(leases);
}

#[test]
fn a_key_stays_on_its_endpoint_and_no_key_goes_anywhere() {
    for algorithm in [RING, MAGLEV] {
        let cluster = Make::even(algorithm, 20).build();
        let same = counts(&cluster, 100, |_| by_key(42));
        assert_eq!(same.iter().filter(|count| **count > 0).count(), 1);
        let any = counts(&cluster, 1000, |_| pick(at(0)));
        assert!(any.iter().all(|count| *count > 0), "{any:?}");
    }
}

#[test]
fn an_endpoint_that_is_out_or_tried_is_passed_over_by_every_algorithm() {
    for algorithm in ALL {
        let cluster = Make::even(algorithm, 5).build();
        put_out(&cluster, 3, at(0));
        let tried = [addr(1)];
        let mut rng = fastrand::Rng::with_seed(9);
        let mut seen = [0; 5];
        for n in 0..2000 {
            let lease = cluster
                .pick(
                    &Pick { key: Some(key(n)), now: at(0), tried: &tried, remote: false, compared: None },
                    &mut rng,
                )
                .unwrap();
            seen[number(&lease) as usize] += 1;
        }
        assert_eq!((seen[3], seen[1]), (0, 0), "{algorithm:?}");
        assert!(seen.iter().filter(|count| **count > 100).count() == 3, "{algorithm:?}: {seen:?}");
    }
}

#[test]
fn keys_of_an_endpoint_that_is_out_are_all_that_move() {
    for algorithm in [RING, MAGLEV] {
        let cluster = Make::even(algorithm, 10).build();
        let mut rng = fastrand::Rng::with_seed(9);
        let mut owners = |now| -> Vec<u32> {
            let owner = |n| {
                number(
                    &cluster
                        .pick(
                            &Pick { key: Some(key(n)), now, tried: &[], remote: false, compared: None },
                            &mut rng,
                        )
                        .unwrap(),
                )
            };
            (0..2000).map(owner).collect()
        };
        let before = owners(at(0));
        put_out(&cluster, 3, at(0));
        let during = owners(at(0));
        let mut takers = std::collections::BTreeSet::new();
        for (old, new) in before.iter().zip(&during) {
            if *old == 3 {
                takers.insert(*new);
            } else {
                assert_eq!(old, new);
            }
        }
        assert!(!takers.contains(&3) && takers.len() == 9, "{algorithm:?}: {takers:?}");
        assert_eq!(owners(at(1001)), before, "all return when the outage is over");
    }
}

#[test]
fn the_only_healthy_one_of_a_thousand_is_found() {
    for algorithm in ALL {
        let cluster = Make::even(algorithm, 1000).build();
        (0..1000).filter(|n| *n != 777).for_each(|n| put_out(&cluster, n, at(0)));
        for n in 0..20 {
            let mut rng = fastrand::Rng::with_seed(u64::from(n));
            let lease = cluster.pick(&by_key(key(n)), &mut rng).unwrap();
            assert_eq!(number(&lease), 777, "{algorithm:?}");
        }
    }
}

#[test]
fn when_all_are_out_all_are_used() {
    for algorithm in ALL {
        let cluster = Make::even(algorithm, 4).build();
        (0..4).for_each(|n| put_out(&cluster, n, at(0)));
        let seen = counts(&cluster, 400, |n| by_key(key(n)));
        assert!(seen.iter().all(|count| *count > 0), "{algorithm:?}: {seen:?}");
    }
}

#[test]
fn when_all_were_tried_all_are_used() {
    for algorithm in ALL {
        let cluster = Make::even(algorithm, 2).build();
        let mut rng = fastrand::Rng::with_seed(9);
        let tried = [addr(0), addr(1)];
        assert!(
            cluster
                .pick(
                    &Pick { key: Some(1), now: at(0), tried: &tried, remote: false, compared: None },
                    &mut rng
                )
                .is_ok()
        );
    }
}

/// Picks and ends calls at random; checks the bound of each chosen endpoint at the moment of the choice.
fn check_bound(algorithm: Algorithm, weights: &[u32], factor: u32, keys: u64) {
    let mut make = Make::weighted(algorithm, weights);
    make.spec.balance_factor = Some(factor);
    let cluster = make.build();
    let sum: u32 = weights.iter().sum();
    let mut rng = fastrand::Rng::with_seed(5);
    let mut leases = Vec::new();
    for step in 0..4000 {
        if rng.u32(..3) == 0 && !leases.is_empty() {
            leases.swap_remove(rng.usize(..leases.len()));
        }
        let lease = cluster.pick(&by_key(hash::mix(rng.u64(..keys))), &mut rng).unwrap();
        leases.push(lease);
        let chosen = leases.last().unwrap().endpoint();
        let mean_share = leases.len() as f64 * f64::from(chosen.weight) / f64::from(sum);
        let most = (mean_share * f64::from(factor) / 100.0).ceil();
        let load = f64::from(chosen.stats.in_flight());
        assert!(load <= most, "step {step}: {load} in flight, at most {most} are allowed");
    }
    assert_eq!(cluster.limits.requests() as usize, leases.len());
}

#[test]
fn bounded_load_never_exceeds_its_factor() {
    for algorithm in [RING, MAGLEV] {
        check_bound(algorithm, &[1; 10], 125, 1);
        check_bound(algorithm, &[1; 10], 100, 5);
        check_bound(algorithm, &[1, 2, 3, 10], 150, 2);
        check_bound(algorithm, &[1; 3], 200, 1000);
    }
}

#[test]
fn bounded_load_moves_a_key_only_when_its_endpoint_is_full_and_always_the_same_way() {
    let mut make = Make::even(RING, 10);
    make.spec.balance_factor = Some(150);
    let cluster = make.build();
    let run = |seed| -> Vec<u32> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let leases: Vec<_> = (0..40).map(|_| cluster.pick(&by_key(9), &mut rng).unwrap()).collect();
        leases.iter().map(number).collect()
    };
    let first = run(1);
    let mut rng = fastrand::Rng::with_seed(8);
    assert_eq!(
        first[0],
        number(&cluster.pick(&by_key(9), &mut rng).unwrap()),
        "an idle endpoint keeps its key"
    );
    assert_eq!(first, run(2), "the order does not depend on chance");
    assert!(first.iter().collect::<std::collections::BTreeSet<_>>().len() > 5, "{first:?}");
}

#[test]
fn alias_tables_hold_for_extreme_weights() {
    for weights in [vec![1, 1_000_000], vec![5], vec![7, 7, 7], vec![1; 1000], (1..=100).collect()] {
        let table = Weights::new(&weights);
        let mut rng = fastrand::Rng::with_seed(2);
        let mut seen = vec![0; weights.len()];
        for _ in 0..200_000 {
            seen[table.draw(&mut rng)] += 1;
        }
        let heavy = weights.iter().position(|weight| weight == weights.iter().max().unwrap()).unwrap();
        let expected =
            200_000.0 * f64::from(weights[heavy]) / weights.iter().map(|w| f64::from(*w)).sum::<f64>();
        assert!((f64::from(seen[heavy]) - expected).abs() < 5.0 * expected.sqrt() + 1.0, "{weights:?}");
    }
}
