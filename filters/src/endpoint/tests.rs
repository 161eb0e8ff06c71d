//! Outages, labels.

use super::*;
use crate::fixture::at;

fn unreachable(stats: &EndpointStats, millis: u64) {
    stats.record(at(millis), Outcome::Unreachable, Duration::from_millis(1));
}

#[test]
fn outages_double_up_to_ten_seconds_and_an_answer_ends_the_series() {
    let stats = EndpointStats::new(at(0));
    let mut now = 0;
    for seconds in [1, 2, 4, 8, 10, 10, 10] {
        unreachable(&stats, now);
        assert!(stats.is_out(at(now)) && stats.is_out(at(now + seconds * 1000 - 1)));
        now += seconds * 1000;
        assert!(!stats.is_out(at(now)));
    }
    stats.record(at(now), Outcome::Answered(500), Duration::from_millis(1));
    unreachable(&stats, now);
    let why = "even an error shows that it can be reached";
    assert!(stats.is_out(at(now + 999)) && !stats.is_out(at(now + 1000)), "{why}");
}

#[test]
fn connects_that_fail_together_count_once() {
    let stats = EndpointStats::new(at(0));
    for millis in 0..100 {
        unreachable(&stats, millis);
    }
    assert!(stats.is_out(at(999)) && !stats.is_out(at(1000)));
}

#[test]
fn an_answer_ends_an_outage_at_once() {
    let stats = EndpointStats::new(at(0));
    unreachable(&stats, 0);
    stats.record(at(1), Outcome::Answered(200), Duration::from_millis(1));
    assert!(!stats.is_out(at(1)));
}

#[test]
fn labels_are_found_by_key() {
    let labels: Labels = [("version", "v1"), ("app", "nlp"), ("version", "v2")].into_iter().collect();
    assert_eq!((labels.get("version"), labels.get("app"), labels.get("x")), (Some("v1"), Some("nlp"), None));
    assert!(labels.contain([("app", "nlp"), ("version", "v1")]));
    assert!(!labels.contain([("app", "nlp"), ("version", "v2")]));
    assert!(labels.contain::<&str, &str>([]));
    assert_eq!(labels.iter().collect::<Vec<_>>(), [("app", "nlp"), ("version", "v1")]);
}

#[test]
fn try_enter_never_goes_over() {
    let stats = EndpointStats::new(at(0));
    assert!(stats.try_enter(2) && stats.try_enter(2) && !stats.try_enter(2));
    stats.leave();
    assert!(stats.try_enter(2));
}

#[test]
fn grpc_errors_count_as_the_statuses_that_they_stand_for() {
    for (http, grpc, counts_as) in [
        (200, Some("0"), 200),
        (200, Some("14"), 503),
        (200, Some("4"), 504),
        (200, Some("8"), 429),
        (200, Some("5"), 404),
        (200, Some("99"), 500),
        (200, Some("x"), 500),
        (404, Some("0"), 404),
        (200, None, 200),
        (503, None, 503),
    ] {
        let outcome = Outcome::of_answer(http, grpc.map(str::as_bytes));
        assert_eq!(outcome, Outcome::Answered(counts_as), "{http} {grpc:?}");
    }
}
