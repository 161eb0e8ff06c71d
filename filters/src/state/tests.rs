//! What outlives a plan, and what is forgotten.

use super::*;
use crate::cluster::Cluster;
use crate::fixture::{Make, at, pick};

const RING: Algorithm = Algorithm::Ring { min_size: 1024 };

fn table(cluster: &mut Make, state: &State) -> *const Ring {
    let mut pass = state.begin(at(0));
    let endpoints = cluster.endpoints(&mut pass);
    match pass.balancer(cluster.spec.algorithm, None, &endpoints) {
        Balancer::Hash { table: HashTable::Ring(ring), .. } => Arc::as_ptr(&ring),
        other => panic!("{other:?}"),
    }
}

fn first_stats(cluster: &Cluster) -> &Arc<EndpointStats> {
    &cluster.endpoints()[0].stats
}

#[test]
fn counters_outlive_a_recompilation() {
    let state = State::with_seed(1);
    let old = Make::even(Algorithm::LeastRequest, 2).build_in(&state, at(0));
    let lease = crate::fixture::lease(&old, &old.endpoints()[0], at(0));
    let new = Make::even(Algorithm::RoundRobin, 3).build_in(&state, at(5000));
    assert!(Arc::ptr_eq(first_stats(&old), first_stats(&new)));
    assert!(Arc::ptr_eq(&old.limits, &new.limits));
    assert_eq!(first_stats(&new).in_flight(), 1);
    assert_eq!(first_stats(&new).first_seen(), at(0));
    assert_eq!(
        new.endpoints()[2].stats.first_seen(),
        at(5000),
        "slow start counts from the first appearance"
    );
    drop(old);
    drop(lease);
    assert_eq!(first_stats(&new).in_flight(), 0);
}

#[test]
fn what_no_plan_uses_is_forgotten_and_what_a_call_uses_is_not() {
    let state = State::with_seed(1);
    let old = Make::even(Algorithm::LeastRequest, 2).build_in(&state, at(0));
    let lease = old.pick(&pick(at(0)), &mut fastrand::Rng::with_seed(1)).unwrap();
    drop(old);
    drop(state.begin(at(1)));
    let counters = || state.inner.lock().unwrap().clusters.values().map(|c| c.endpoints.len()).sum::<usize>();
    assert_eq!(counters(), 1, "the lease keeps its endpoint");
    drop(lease);
    drop(state.begin(at(2)));
    assert_eq!(counters(), 0);
    assert!(state.inner.lock().unwrap().clusters.is_empty());
    let again = Make::even(Algorithm::LeastRequest, 2).build_in(&state, at(3));
    assert_eq!(first_stats(&again).first_seen(), at(3));
}

#[test]
fn equal_rings_are_shared_and_different_ones_are_not() {
    let state = State::with_seed(1);
    let kept = Make::even(RING, 100).build_in(&state, at(0));
    let same = table(&mut Make::even(RING, 100), &state);
    assert_eq!(table(&mut Make::even(RING, 100), &state), same);
    assert_ne!(table(&mut Make::even(RING, 101), &state), same);
    assert_ne!(table(&mut Make::even(Algorithm::Ring { min_size: 5000 }, 100), &state), same);
    let mut weights = vec![1; 100];
    weights[7] = 2;
    assert_ne!(table(&mut Make::weighted(RING, &weights), &state), same);
    drop(kept);
    drop(state.begin(at(1)));
    assert!(state.inner.lock().unwrap().tables.is_empty(), "tables that no plan uses are dropped");
}
