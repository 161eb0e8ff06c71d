//! The estimates, and a simulation of a fleet in which one agent is slow.

use std::collections::BinaryHeap;

use super::*;
use crate::balance::Algorithm;
use crate::cluster::{Cluster, Lease, Outcome};
use crate::endpoint::EndpointStats;
use crate::fixture::{Make, at, number, pick};

const MS: f32 = 1000.0;

fn close(value: f32, expected: f32) -> bool {
    (value - expected).abs() <= expected * 0.02
}

#[test]
fn an_estimate_jumps_up_at_once_and_fades() {
    let ewma = PeakEwma::new(at(0));
    assert!(close(ewma.get(at(0)), 30.0 * MS));
    ewma.sample(at(0), 200.0 * MS);
    assert!(close(ewma.get(at(0)), 200.0 * MS));
    ewma.sample(at(1), 10.0 * MS);
    assert!(close(ewma.get(at(1)), 200.0 * MS), "a faster sample does not lower it by itself");
    assert!(close(ewma.get(at(2500)), 200.0 * MS / std::f32::consts::E));
    ewma.sample(at(20_000), 10.0 * MS);
    assert!(close(ewma.get(at(20_000)), 10.0 * MS));
}

#[test]
fn long_calls_are_remembered_longer() {
    let ewma = PeakEwma::new(at(0));
    ewma.sample(at(0), 20_000.0 * MS);
    assert!(close(ewma.get(at(10_000)), 20_000.0 * MS / std::f32::consts::E));
}

#[test]
fn a_clock_that_goes_back_a_little_changes_nothing() {
    let ewma = PeakEwma::new(at(100));
    assert!(close(ewma.get(at(90)), 30.0 * MS));
}

#[test]
fn success_falls_with_failures_and_is_forgiven_with_time() {
    let success = SuccessRate::new(at(0));
    success.sample(at(0), true);
    assert_eq!(success.get(at(0)), 1.0);
    for _ in 0..10 {
        success.sample(at(0), false);
    }
    let low = success.get(at(0));
    assert!(close(low, 0.9_f32.powi(10)), "{low}");
    assert!(close(success.get(at(10_000)), 1.0 - (1.0 - low) / std::f32::consts::E));
    for _ in 0..100 {
        success.sample(at(10_000), true);
    }
    assert_eq!(success.get(at(10_000)), 1.0);
}

#[test]
fn a_report_counts_as_ten_samples_and_halves_every_ten_seconds() {
    let stats = EndpointStats::new(at(0));
    for _ in 0..10 {
        stats.record(at(0), Outcome::Answered(200), Duration::from_millis(100));
    }
    stats.merge_report(at(0), Duration::from_millis(300), 0.5);
    assert!(close(stats.latency(at(0)).as_secs_f32(), 0.2), "half own, half reported");
    assert!(close(stats.success(at(0)), 0.75));
    let own = 0.1 * (-4.0_f32).exp();
    let expected = own + (0.3 - own) * 5.0 / 15.0;
    assert!(close(stats.latency(at(10_000)).as_secs_f32(), expected), "it weighs 5 samples by then");
    assert_eq!(stats.success(at(120_000)), 1.0, "it is forgotten in the end");
}

#[test]
fn cost_grows_with_load_and_failures() {
    let cluster = Make::even(Algorithm::PeakEwma, 1).build();
    let endpoint = &cluster.endpoints()[0];
    assert_eq!(endpoint.stats.cost(at(0)), 0.0, "a new endpoint is measured as soon as it is drawn");
    let idle = endpoint.stats.latency(at(0)).as_secs_f32() * 1e6;
    let lease = crate::fixture::lease(&cluster, endpoint, at(0));
    assert!(close(endpoint.stats.cost(at(0)), 2.0 * idle));
    drop(lease);
    for _ in 0..100 {
        endpoint.stats.record(at(0), Outcome::Answered(500), Duration::from_millis(1));
    }
    assert!(close(endpoint.stats.cost(at(0)), idle / (0.05 * 0.05)), "a quick failure is not a low latency");
}

#[test]
fn candidates_by_capability_are_drawn_without_replacement() {
    let cluster = Make::even(Algorithm::PeakEwma, 4).build();
    let slow = &cluster.endpoints()[2];
    slow.stats.record(at(0), Outcome::Answered(200), Duration::from_secs(1));
    let candidates = [1_usize, 2];
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..100 {
        let chosen = choose_among(2, |n| &cluster.endpoints()[candidates[n]], &pick(at(0)), &mut rng);
        assert_eq!(chosen, Some(0), "of two, the dearer is never drawn twice");
    }
    assert_eq!(choose_among(0, |_| &cluster.endpoints()[0], &pick(at(0)), &mut rng), None);
    let tried = [crate::fixture::addr(1)];
    let again = Pick { tried: &tried, ..pick(at(0)) };
    assert_eq!(choose_among(2, |n| &cluster.endpoints()[candidates[n]], &again, &mut rng), Some(1));
}

/// Calls under way, soonest end first.
struct Call {
    ends: u64,
    started: u64,
    lease: Lease,
}

impl Ord for Call {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.ends.cmp(&self.ends)
    }
}
impl PartialOrd for Call {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Call {
    fn eq(&self, other: &Self) -> bool {
        self.ends == other.ends
    }
}
impl Eq for Call {}

/// A fleet under an open load: endpoint 0 is slow in the milliseconds `slow`.
struct Fleet {
    cluster: Cluster,
    rng: fastrand::Rng,
    per_second: u64,
    normal_ms: f64,
    times_slower: f64,
    slow: std::ops::Range<u64>,
}

impl Fleet {
    fn new(per_second: u64, normal_ms: f64, slow: std::ops::Range<u64>) -> Fleet {
        let cluster = Make::even(Algorithm::PeakEwma, 10).build();
        Fleet { cluster, rng: fastrand::Rng::with_seed(42), per_second, normal_ms, times_slower: 20.0, slow }
    }

    /// When each call to the slow endpoint started, and how many calls there were in each second.
    fn run(&mut self, seconds: u64) -> Vec<u64> {
        let mut under_way: BinaryHeap<Call> = BinaryHeap::new();
        let mut to_slow = Vec::new();
        let gap = 1_000_000.0 / self.per_second as f64;
        for n in 0..seconds * self.per_second {
            let now = (n as f64 * gap) as u64;
            while under_way.peek().is_some_and(|call| call.ends <= now) {
                let Some(mut call) = under_way.pop() else { break };
                let latency = Duration::from_micros(call.ends - call.started);
                call.lease.record(
                    at(0).after(Duration::from_micros(call.ends)),
                    Outcome::Answered(200),
                    latency,
                );
            }
            let lease =
                self.cluster.pick(&pick(at(0).after(Duration::from_micros(now))), &mut self.rng).unwrap();
            let is_slow = number(&lease) == 0 && self.slow.contains(&(now / 1000));
            if number(&lease) == 0 {
                to_slow.push(now / 1000);
            }
            // Latency of a real agent varies: half to one and a half times its mean.
            let varied = self.normal_ms * (0.5 + self.rng.f64());
            let latency = varied * if is_slow { self.times_slower } else { 1.0 };
            under_way.push(Call { ends: now + (latency * 1000.0) as u64, started: now, lease });
        }
        to_slow
    }
}

fn within(calls: &[u64], millis: std::ops::Range<u64>) -> f64 {
    calls.iter().filter(|at| millis.contains(at)).count() as f64
}

#[test]
fn of_ten_endpoints_one_twenty_times_slower_gets_under_two_percent_after_five_seconds_and_recovers_within_fifteen()
 {
    for (per_second, normal_ms) in
        [(20, 10.0), (50, 50.0), (100, 5.0), (200, 30.0), (500, 10.0), (1000, 2.0), (2000, 10.0)]
    {
        let rate = per_second as f64;
        let calls = Fleet::new(per_second, normal_ms, 0..60_000).run(90);
        let share = within(&calls, 5_000..60_000) / (rate * 55.0);
        assert!(share < 0.02, "{:.2} % at {per_second}/s of {normal_ms} ms", share * 100.0);
        let tries = within(&calls, 5_000..60_000);
        assert!(tries >= 4.0, "it is not given up: {tries} tries in 55 s");
        let recovered = within(&calls, 75_000..90_000) / (rate * 15.0);
        assert!(
            recovered > 0.06,
            "{:.1} % of calls after its recovery, at {per_second}/s of {normal_ms} ms",
            recovered * 100.0
        );
    }
}

#[test]
fn an_endpoint_that_becomes_slow_under_way_is_left_within_a_second() {
    let calls = Fleet::new(200, 10.0, 20_000..60_000).run(60);
    let before = within(&calls, 5_000..20_000) / (200.0 * 15.0);
    let after = within(&calls, 21_000..60_000) / (200.0 * 39.0);
    assert!(before > 0.06 && after < 0.02, "{before} {after}");
}
