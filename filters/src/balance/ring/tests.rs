//! The ring's promises: few keys move, shares follow weights, look-ups are right.

use super::*;
use crate::fixture::{addr, assert_shares};

fn ring(numbers: std::ops::Range<u32>) -> Ring {
    Ring::new(&numbers.map(|n| (addr(n), 1)).collect::<Vec<_>>(), 1024)
}

fn keys() -> impl Iterator<Item = u64> {
    (0..100_000).map(hash::mix)
}

#[test]
fn adding_one_endpoint_to_a_hundred_moves_about_one_percent_of_keys_and_only_to_it() {
    let (before, after) = (ring(0..100), ring(0..101));
    let moved: Vec<usize> =
        keys().filter(|key| before.owner(*key) != after.owner(*key)).map(|key| after.owner(key)).collect();
    assert!(moved.iter().all(|owner| *owner == 100), "keys moved between endpoints that were there before");
    assert!((600..1500).contains(&moved.len()), "{} of 100000 moved", moved.len());
}

#[test]
fn removing_one_endpoint_moves_only_its_keys() {
    let (before, after) = (ring(0..100), ring(0..99));
    for key in keys() {
        if before.owner(key) != 99 {
            assert_eq!(before.owner(key), after.owner(key));
        }
    }
}

#[test]
fn shares_are_even() {
    let ring = ring(0..100);
    let mut counts = vec![0; 100];
    keys().for_each(|key| counts[ring.owner(key)] += 1);
    assert_shares(&counts, &[1; 100], 0.35);
}

#[test]
fn a_look_up_finds_what_a_search_of_all_points_finds() {
    for count in [1, 2, 3, 50] {
        let ring = ring(0..count);
        for key in keys().take(2000).chain([0, 1, u64::MAX]) {
            let first = ring.points.iter().find(|point| **point >= key).or(ring.points.first()).unwrap();
            assert_eq!(ring.owner(key), (first & 0xffff_ffff) as usize);
        }
    }
}

#[test]
fn later_owners_follow_the_circle_round_its_end() {
    let ring = ring(0..5);
    assert_eq!(ring.later_owner(u64::MAX, 0), ring.owner(0));
    let last = ring.points.last().unwrap();
    assert_eq!(ring.later_owner(*last, 1), ring.owner(0));
}

#[test]
fn the_configured_minimum_and_the_maximum_hold() {
    assert!(Ring::new(&[(addr(1), 1), (addr(2), 1)], 100_000).points.len() >= 100_000);
    assert!(ring(0..2).points.len() >= 1024);
    let many: Vec<_> = (0..5000).map(|n| (addr(n), 1)).collect();
    assert!(Ring::new(&many, 1024).points.len() < 300_000);
    assert!(Ring::new(&[(addr(1), 1)], u64::MAX).points.len() as u64 <= MAX_SIZE);
    assert_eq!(Ring::new(&[], 1024).owner(7), 0);
}
