//! The limiter against models of servers, with a manual clock.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::*;

/// A server of `slots` workers with a queue of its own; it is always asked for more than it can do.
struct Server {
    slots: usize,
    service: f64,
    busy: usize,
    queue: VecDeque<(Micros, u32)>,
    /// When which call ends: end, begin, calls at once when it began.
    running: BinaryHeap<Reverse<(Micros, Micros, u32)>>,
    now: Micros,
    rng: fastrand::Rng,
}

impl Server {
    fn new(slots: usize, service_ms: f64) -> Server {
        Server {
            slots,
            service: service_ms * 1e3,
            busy: 0,
            queue: VecDeque::new(),
            running: BinaryHeap::new(),
            now: Micros(1_000_000),
            rng: fastrand::Rng::with_seed(3),
        }
    }

    fn in_flight(&self) -> usize {
        self.busy + self.queue.len()
    }

    fn send(&mut self) {
        let alongside = self.in_flight() as u32 + 1;
        self.queue.push_back((self.now, alongside));
        self.work();
    }

    fn work(&mut self) {
        while self.busy < self.slots
            && let Some((began, alongside)) = self.queue.pop_front()
        {
            let takes = self.service * (0.7 + 0.6 * self.rng.f64());
            self.busy += 1;
            self.running.push(Reverse((Micros(self.now.0 + takes as u64), began, alongside)));
        }
    }

    /// Goes on to the next end of a call, and tells the limiter of it.
    fn step(&mut self, limiter: &Limiter, limit: &mut u32) {
        let Some(Reverse((end, began, alongside))) = self.running.pop() else { return };
        self.now = end;
        self.busy -= 1;
        self.work();
        if let Some(found) = limiter.sample(end, Some(end.since(began)), alongside) {
            *limit = found;
        }
    }
}

/// Runs under more load than it can serve; the limits and the calls that ended within each second.
fn run(
    server: &mut Server,
    limiter: &Limiter,
    limit: &mut u32,
    offered: usize,
    time: Duration,
) -> (Vec<u32>, usize) {
    let (end, mut limits, mut ended) = (server.now.after(time), Vec::new(), 0);
    while server.now < end {
        while server.in_flight() < (*limit as usize).min(offered) {
            server.send();
        }
        server.step(limiter, limit);
        limits.push(*limit);
        ended += 1;
    }
    (limits, ended)
}

fn adaptive(seed: u64) -> (Limiter, u32) {
    let limiter = Limiter::new(seed);
    let limit = limiter.configure(Limit::Adaptive(Bounds::default()));
    (limiter, limit)
}

#[test]
fn it_finds_the_capacity_of_small_and_large_servers_with_fast_and_slow_calls() {
    for slots in [2, 3, 8, 50, 200] {
        for service in [5.0, 200.0, 8000.0] {
            let (limiter, mut limit) = adaptive(slots as u64);
            let mut server = Server::new(slots, service);
            let calls = |rounds: f64| Duration::from_secs_f64(service * rounds / 1e3);
            run(&mut server, &limiter, &mut limit, 2000, calls(300.0).max(Duration::from_secs(10)));
            let (mut limits, ended) = run(&mut server, &limiter, &mut limit, 2000, calls(200.0));
            let capacity = 200.0 * slots as f64;
            assert!(ended as f64 >= 0.9 * capacity, "{slots} x {service} ms: {ended} of {capacity} calls");
            limits.sort_unstable();
            let usual = limits[limits.len() / 2] as f64;
            let most = 1.25 * slots as f64 + (1.25 * slots as f64).sqrt() + 2.0;
            assert!(
                usual >= 0.8 * slots as f64 && usual <= 1.3 * most,
                "{slots} x {service} ms: the limit is {usual}, expected about {most}"
            );
        }
    }
}

#[test]
fn measuring_costs_an_agent_that_serves_two_at_once_nothing() {
    let (limiter, mut limit) = adaptive(1);
    let mut server = Server::new(2, 3000.0);
    let (_, ended) = run(&mut server, &limiter, &mut limit, 40, Duration::from_secs(3600));
    // 2400 is all that it can do; the limit is never below 2.
    assert!(ended >= 2350, "{ended}");
}

#[test]
fn a_server_that_becomes_three_times_slower_is_not_throttled_for_it() {
    let (limiter, mut limit) = adaptive(5);
    let mut server = Server::new(16, 100.0);
    run(&mut server, &limiter, &mut limit, 500, Duration::from_secs(60));
    server.service *= 3.0;
    run(&mut server, &limiter, &mut limit, 500, Duration::from_secs(15));
    let (_, ended) = run(&mut server, &limiter, &mut limit, 500, Duration::from_secs(30));
    assert!(ended as f64 >= 0.9 * 30.0 * 16.0 / 0.3, "{ended}, limit {limit}");
}

#[test]
fn a_server_that_loses_half_its_slots_gets_a_lower_limit() {
    let (limiter, mut limit) = adaptive(6);
    let mut server = Server::new(32, 50.0);
    run(&mut server, &limiter, &mut limit, 500, Duration::from_secs(60));
    server.slots = 16;
    run(&mut server, &limiter, &mut limit, 500, Duration::from_secs(150));
    let (mut limits, ended) = run(&mut server, &limiter, &mut limit, 500, Duration::from_secs(30));
    limits.sort_unstable();
    assert!(limits[limits.len() / 2] <= 36, "the limit stays at {}", limits[limits.len() / 2]);
    assert!(ended as f64 >= 0.9 * 30.0 * 16.0 / 0.05, "{ended}");
}

#[test]
fn light_load_does_not_open_the_gate() {
    let (limiter, mut limit) = adaptive(7);
    let mut server = Server::new(8, 20.0);
    run(&mut server, &limiter, &mut limit, 3, Duration::from_secs(120));
    assert!(limit <= 25, "three at a time, and the limit is {limit}");
    assert!(limit >= 6, "three at a time, and the limit is {limit}");
}

#[test]
fn failures_shrink_the_limit_and_bounds_hold() {
    let limiter = Limiter::new(9);
    let bounds = Bounds { min: 4, max: 30 };
    let mut limit = limiter.configure(Limit::Adaptive(bounds));
    let mut now = Micros(1);
    let mut rng = fastrand::Rng::with_seed(9);
    for round in 0..20_000 {
        now = now.after(Duration::from_millis(rng.u64(..20)));
        let fails = round > 15_000 || rng.u8(..) < 5;
        let latency = (!fails).then(|| Duration::from_micros(rng.u64(1..5_000_000)));
        if let Some(found) = limiter.sample(now, latency, rng.u32(1..=limit)) {
            limit = found;
            assert!((bounds.min..=bounds.max).contains(&limit), "{limit}");
        }
    }
    assert_eq!(limit, bounds.min, "everything fails");
}

#[test]
fn without_adaptive_concurrency_nothing_is_found() {
    let limiter = Limiter::new(1);
    assert_eq!(limiter.configure(Limit::None), u32::MAX);
    assert_eq!(limiter.configure(Limit::Fixed(7)), 7);
    for i in 0..1000 {
        assert_eq!(limiter.sample(Micros(i * 100_000), Some(Duration::from_secs(1)), 1), None);
    }
}
