//! Priorities and shares by locality, as Istio defines them.

use super::*;
use crate::balance::{Algorithm, Pick};
use crate::fixture::{Make, at, counts, number, pick, put_out};

const PLACES: [&str; 6] = ["us/a/1", "us/a/2", "us/b/1", "eu/a/1", "ap/a/1", "eu/b/1"];

fn at_place(locality: &str) -> Place {
    Place { locality: Locality::parse(locality), ..Place::default() }
}

fn make(mode: LocalityMode, locality: &str) -> Make {
    Make {
        localities: PLACES.to_vec(),
        mode: Some(mode),
        place: at_place(locality),
        ..Make::even(Algorithm::RoundRobin, 6)
    }
}

/// The endpoints of each level, in order, as found by putting level after level out.
fn order(make: Make) -> Vec<Vec<u32>> {
    let cluster = make.build();
    let mut rng = fastrand::Rng::with_seed(1);
    let mut out: Vec<u32> = Vec::new();
    let mut levels = Vec::new();
    while out.len() < cluster.endpoints().len() {
        let mut level: Vec<u32> =
            (0..200).map(|_| number(&cluster.pick(&pick(at(0)), &mut rng).unwrap())).collect();
        level.sort_unstable();
        level.dedup();
        assert!(level.iter().all(|n| !out.contains(n)), "{level:?} after {out:?}");
        level.iter().for_each(|n| put_out(&cluster, *n, at(0)));
        out.extend(&level);
        levels.push(level);
    }
    levels
}

#[test]
fn nearer_localities_come_first() {
    let order = order(make(LocalityMode::Nearest, "us/a/1"));
    assert_eq!(order, [vec![0], vec![1], vec![2], vec![3, 4, 5]]);
}

#[test]
fn a_region_fails_over_to_the_configured_one_before_all_others() {
    let rule = |from: &str, to: &str| Failover { from: from.into(), to: to.into() };
    let rules = vec![rule("ap", "us"), rule("us", "eu")];
    let order = order(make(LocalityMode::Failover(rules), "us/b/9"));
    assert_eq!(order, [vec![2], vec![0, 1], vec![3, 5], vec![4]]);
}

#[test]
fn without_a_rule_for_the_own_region_all_others_are_equal() {
    let rules = vec![Failover { from: "ap".into(), to: "us".into() }];
    assert_eq!(order(make(LocalityMode::Failover(rules), "eu/b/1")), [vec![5], vec![3], vec![0, 1, 2, 4]]);
}

#[test]
fn priorities_follow_the_first_label_that_differs() {
    let labels = vec![
        FailoverLabel { key: "topology.kubernetes.io/region".into(), value: None },
        FailoverLabel { key: "version".into(), value: Some("v1".into()) },
        FailoverLabel { key: "rack".into(), value: None },
    ];
    let mut make = make(LocalityMode::FailoverPriority(labels), "us/a/1");
    make.place.labels = [("rack".to_owned(), "7".to_owned())].into();
    make.labels = vec![
        &[("rack", "7"), ("version", "v1")],
        &[("version", "v1")],
        &[("rack", "7")],
        &[("rack", "7"), ("version", "v1")],
        &[],
        &[("version", "v1")],
    ];
    assert_eq!(order(make), [vec![0], vec![1], vec![2], vec![3, 4, 5]]);
}

#[test]
fn a_caller_that_does_not_know_where_it_is_uses_all() {
    assert_eq!(order(make(LocalityMode::Nearest, "")), [vec![0, 1, 2, 3, 4, 5]]);
}

#[test]
fn traffic_returns_when_the_outage_is_over() {
    let cluster = make(LocalityMode::Nearest, "us/a/1").build();
    put_out(&cluster, 0, at(0));
    assert_eq!(counts(&cluster, 100, |_| pick(at(500)))[1], 100);
    assert_eq!(counts(&cluster, 100, |_| pick(at(1001)))[0], 100);
}

#[test]
fn a_level_with_half_its_endpoints_takes_seven_tenths() {
    let mut make = make(LocalityMode::Nearest, "eu/a/1");
    make.localities = vec!["eu/a/1", "eu/a/1", "eu/a/1", "eu/a/1", "us/a/1", "us/a/1"];
    let cluster = make.build();
    put_out(&cluster, 0, at(0));
    let one_out = counts(&cluster, 1000, |_| pick(at(0)));
    assert_eq!(one_out[4] + one_out[5], 0, "three quarters are enough for all traffic: {one_out:?}");
    put_out(&cluster, 1, at(0));
    let two_out = counts(&cluster, 10_000, |_| pick(at(0)));
    let overflow = two_out[4] + two_out[5];
    assert!((2700..3300).contains(&overflow), "{two_out:?}");
}

#[test]
fn a_key_stays_in_its_level_while_some_of_the_traffic_overflows() {
    let mut make = make(LocalityMode::Nearest, "eu/a/1");
    make.localities = vec!["eu/a/1", "eu/a/1", "us/a/1", "us/a/1", "us/a/1", "us/a/1"];
    make.spec.algorithm = Algorithm::Ring { min_size: 1024 };
    let cluster = make.build();
    put_out(&cluster, 0, at(0));
    let mut overflowed = 0;
    for key in 0..200 {
        let used = counts(&cluster, 20, |_| crate::fixture::by_key(key));
        assert_eq!(used.iter().filter(|count| **count > 0).count(), 1, "key {key}: {used:?}");
        overflowed += u32::from(used[1] == 0);
    }
    assert!((30..90).contains(&overflowed), "{overflowed} of 200 keys");
}

#[test]
fn a_retry_leaves_its_locality_only_when_that_is_allowed_or_nobody_is_well_there() {
    let cluster = make(LocalityMode::Nearest, "us/a/1").build();
    let mut rng = fastrand::Rng::with_seed(1);
    let tried = [crate::fixture::addr(0)];
    let mut again = |remote| {
        number(
            &cluster
                .pick(&Pick { key: None, now: at(0), tried: &tried, remote, compared: None }, &mut rng)
                .unwrap(),
        )
    };
    assert_eq!((again(true), again(false)), (1, 0));
    put_out(&cluster, 0, at(0));
    assert_eq!(again(false), 1);
}

fn distribution() -> LocalityMode {
    let to =
        |list: &[(&str, u32)]| list.iter().map(|(pattern, share)| ((*pattern).to_owned(), *share)).collect();
    LocalityMode::Distribute(vec![
        Distribute { from: "ap/*".into(), to: to(&[("ap/*", 100)]) },
        Distribute { from: "us/a/*".into(), to: to(&[("us/a/*", 70), ("us/b/*", 20), ("eu/*", 10)]) },
    ])
}

#[test]
fn distribute_gives_each_locality_its_share() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastRequest, Algorithm::Random] {
        let mut make = make(distribution(), "us/a/1");
        make.spec.algorithm = algorithm;
        let seen = counts(&make.build(), 20_000, |_| pick(at(0)));
        crate::fixture::assert_shares(&seen, &[350, 350, 200, 50, 0, 50], 0.12);
    }
}

#[test]
fn distribute_holds_for_consistent_hash_too_and_keys_stay() {
    for algorithm in [Algorithm::Ring { min_size: 1024 }, Algorithm::Maglev { size: 65_537 }] {
        let mut make = make(distribution(), "us/a/1");
        make.spec.algorithm = algorithm;
        let cluster = make.build();
        let seen = counts(&cluster, 20_000, |n| crate::fixture::by_key(u64::from(n)));
        crate::fixture::assert_shares(&seen, &[350, 350, 200, 50, 0, 50], 0.25);
        let same = counts(&cluster, 100, |_| crate::fixture::by_key(3));
        assert_eq!(same.iter().filter(|count| **count > 0).count(), 1);
    }
}

#[test]
fn distribute_moves_on_when_a_locality_is_out_and_others_see_no_rule() {
    let cluster = make(distribution(), "us/a/1").build();
    put_out(&cluster, 0, at(0));
    put_out(&cluster, 1, at(0));
    let seen = counts(&cluster, 1000, |_| pick(at(0)));
    assert_eq!((seen[0], seen[1], seen[4]), (0, 0, 0), "{seen:?}");
    let no_rule = counts(&make(distribution(), "eu/a/1").build(), 600, |_| pick(at(0)));
    assert_eq!(no_rule, [100; 6]);
}

#[test]
fn a_distribution_to_nowhere_falls_back_to_all() {
    let to = vec![("mars/*".to_owned(), 100)];
    let mode = LocalityMode::Distribute(vec![Distribute { from: "*".into(), to }]);
    assert_eq!(counts(&make(mode, "us/a/1").build(), 600, |_| pick(at(0))), [100; 6]);
}
