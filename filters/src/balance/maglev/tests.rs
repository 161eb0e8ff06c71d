//! The table's promises: few keys move, shares follow weights.

use super::*;
use crate::fixture::{addr, assert_shares};

fn table(numbers: std::ops::Range<u32>) -> Maglev {
    Maglev::new(&numbers.map(|n| (addr(n), 1)).collect::<Vec<_>>(), DEFAULT_SIZE)
}

fn slots(table: &Maglev, owners: usize) -> Vec<u32> {
    let mut counts = vec![0; owners];
    table.0.iter().for_each(|owner| counts[*owner as usize] += 1);
    counts
}

#[test]
fn adding_one_endpoint_to_a_hundred_moves_about_one_percent_of_keys() {
    let (before, after) = (table(0..100), table(0..101));
    let moved = (0..100_000).map(hash::mix).filter(|key| before.owner(*key) != after.owner(*key)).count();
    assert!((900..2000).contains(&moved), "{moved} of 100000 moved");
}

#[test]
fn every_slot_is_filled_and_shares_are_even_to_one_slot() {
    let table = table(0..100);
    assert_eq!(table.0.len(), 65_537);
    let counts = slots(&table, 100);
    assert!(counts.iter().all(|count| (655..=656).contains(count)), "{counts:?}");
}

#[test]
fn shares_follow_weights() {
    let weights = [1, 2, 4, 13];
    let endpoints: Vec<_> = (0..).zip(weights).map(|(n, weight)| (addr(n), weight)).collect();
    assert_shares(&slots(&Maglev::new(&endpoints, DEFAULT_SIZE), 4), &weights, 0.01);
}

#[test]
fn tables_without_endpoints_or_with_more_than_slots_do_no_harm() {
    assert_eq!(Maglev::new(&[], DEFAULT_SIZE).owner(7), 0);
    let many: Vec<_> = (0..100).map(|n| (addr(n), 1)).collect();
    assert!(Maglev::new(&many, 11).owner(u64::MAX) < 100);
}

#[test]
fn primes_are_told_from_others() {
    let primes: Vec<u32> = (0..60).filter(|n| is_prime(*n)).collect();
    assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59]);
    assert!(is_prime(DEFAULT_SIZE) && is_prime(MAX_SIZE) && !is_prime(65_535) && !is_prime(u32::MAX));
}
