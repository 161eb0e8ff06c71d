//! A short run of the simulation; `make sim SEEDS=N` is a long one.

use pilotfish_sim::{Options, simulate, sweep};

/// Seeds of the short run.
const SEEDS: u64 = 100;

#[test]
fn calls_are_executed_once_and_answered_whatever_fails_and_each_seed_replays() {
    let done = sweep(1, SEEDS, Options::default(), |_| {});
    assert!(done.failed.is_none(), "{}", done.failed.unwrap().1);
    assert_eq!(done.seeds, SEEDS);
    // Nothing is proved by meshes that do nothing, nor by calls that all come through.
    assert!(done.executed > 5 * SEEDS as usize && done.executed < done.calls, "{done:?}");
}

#[test]
fn a_post_that_is_repeated_after_a_reset_is_found_and_replays() {
    let bug = Options { bug: true };
    let (seed, report) = sweep(1, 1000, bug, |_| {}).failed.expect("the planted bug was not found");
    assert!(report.contains("times to") && report.contains("(POST"), "something else was found: {report}");
    assert!(!report.contains("differs"), "{report}");
    let (one, other) = (simulate(seed, bug), simulate(seed, bug));
    assert_eq!((one.hash, &one.wrong), (other.hash, &other.wrong));
    assert!(simulate(seed, Options::default()).wrong.is_empty(), "seed {seed} fails without the bug too");
}
